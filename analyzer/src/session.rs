//! What analyses of several programs share: what is known of the files that more than one of them loads.
//!
//! Input: files. Output: their summaries and identities, each made once, and results of earlier runs.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustc_hash::FxHashMap;

use crate::analysis::{self, Options};
use crate::cache::{Cache, Key};
use crate::converters::{self, Converters, Stamp};
use crate::error::Error;
use crate::explanation::{Explanation, Question};
use crate::identities::Identities;
use crate::limits::{LimitName, Limits};
use crate::loader::{LoadedFile, Seen};
use crate::policy::Policy;
use crate::summaries::Summaries;

/// What a session remembers between analyses: of files of so many bytes together. A summary, with all that is asked about
/// its file, takes some times its bytes.
const REMEMBERED: u64 = 128 << 20;

/// Analyses of several programs. Some may be under way at the same time.
#[derive(Debug, Default)]
pub struct Session {
    summaries: Summaries,
    identities: Identities,
    /// Of folders.
    converters: Mutex<FxHashMap<PathBuf, Arc<Converters>>>,
    seen: Seen,
    cache: Option<Cache>,
}

impl Session {
    /// A session that keeps what it finds for the next one, and takes what an earlier one has found.
    #[must_use]
    pub fn with_cache(cache: Option<Cache>) -> Self {
        Self { cache, ..Self::default() }
    }

    /// Computes the policy of `program`.
    ///
    /// # Errors
    ///
    /// As [`crate::analyze`].
    pub fn analyze(&self, program: &Path, options: &Options) -> Result<Policy, Error> {
        let policy = analysis::analyze_in(self, program, options);
        // Now, not before the next program: whoever patches this one needs the memory.
        self.summaries.shrink(REMEMBERED);
        policy
    }

    /// The same, with the answer to a question about the program's own process.
    ///
    /// # Errors
    ///
    /// As [`crate::analyze`].
    pub fn explain(
        &self,
        program: &Path,
        options: &Options,
        question: &Question,
    ) -> Result<(Policy, Explanation), Error> {
        let answer = analysis::answer_in(self, program, options, Some(question));
        self.summaries.shrink(REMEMBERED);
        answer
    }

    pub(crate) const fn summaries(&self) -> &Summaries {
        &self.summaries
    }

    pub(crate) const fn cache(&self) -> Option<&Cache> {
        self.cache.as_ref()
    }

    pub(crate) const fn seen(&self) -> &Seen {
        &self.seen
    }

    /// What a folder of character set converters brings; `folder` is a path of this machine.
    pub(crate) fn converters(&self, folder: &Path, limits: &Limits) -> Arc<Converters> {
        let known = || self.converters.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = known().get(folder) {
            return Arc::clone(found);
        }
        let new = Arc::new(self.read_converters(folder, limits));
        known().insert(folder.to_owned(), Arc::clone(&new));
        new
    }

    fn read_converters(&self, folder: &Path, limits: &Limits) -> Converters {
        let place = self
            .cache()
            .and_then(|cache| Some((cache, Key::new(&(Stamp::of(folder)?, limits.get(LimitName::FileSize)))?)));
        let Some((cache, key)) = place else { return converters::read(folder, limits) };
        cache.get(key).unwrap_or_else(|| {
            let new = converters::read(folder, limits);
            cache.put(key, &new);
            new
        })
    }

    /// Sees to it that the files know their identities.
    pub(crate) fn identify(&self, files: &[&LoadedFile]) {
        self.identities.identify(files, self.cache());
    }
}
