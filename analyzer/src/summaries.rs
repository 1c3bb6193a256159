//! Summaries of files that several processes load, each made once.
//!
//! Input: an [`Image`] and the identity of its bytes. Output: its [`ModuleSummary`], shared. Nothing in a summary
//! depends on who loads the file ([`crate::summary`]).

use std::sync::{Arc, Mutex, PoisonError};

use rayon::prelude::*;
use rustc_hash::FxHashMap;

use crate::cache::{Cache, Key};
use crate::elf::Image;
use crate::limits::{LimitName, Limits};
use crate::loader::{Contents, LoadedFile};
use crate::summary::ModuleSummary;

/// Summaries by file.
#[derive(Debug, Default)]
pub(crate) struct Summaries {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    summaries: FxHashMap<Contents, Entry>,
    /// Counts requests.
    clock: u64,
}

#[derive(Debug)]
struct Entry {
    summary: Arc<ModuleSummary>,
    used: u64,
}

impl Summaries {
    /// The summary of a file, computed unless it is known.
    ///
    /// Nobody waits for another one who computes the same: rayon runs other tasks on a thread that waits, which might
    /// ask for the same summary. [`Self::prepare`] computes each one once beforehand.
    #[must_use]
    pub(crate) fn of(&self, file: &LoadedFile, image: &Image<'_>, cache: Option<&Cache>) -> Arc<ModuleSummary> {
        let contents = file.contents();
        if let Some(known) = self.get(contents) {
            known.tell(image);
            return known;
        }
        let summary = Arc::new(make(file, image, cache));
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let used = known.clock;
        Arc::clone(&known.summaries.entry(contents).or_insert(Entry { summary, used }).summary)
    }

    /// Summarises those files that are not known yet, each once. One that is damaged is left to whoever loads it.
    pub(crate) fn prepare<'f>(
        &self,
        files: impl Iterator<Item = &'f LoadedFile>,
        limits: &Limits,
        cache: Option<&Cache>,
    ) {
        let files: FxHashMap<Contents, &LoadedFile> = files.map(|file| (file.contents(), file)).collect();
        let mut new: Vec<_> = files.into_iter().filter(|(contents, _)| self.get(*contents).is_none()).collect();
        new.sort_unstable_by_key(|(contents, _)| *contents);
        // A large one must not wait behind another one while a processor has nothing to do.
        new.into_par_iter().with_max_len(1).for_each(|(_, file)| {
            if let Ok(image) = Image::parse(file.data()).map(|image| image.limited(*limits)) {
                let _ = self.of(file, &image, cache);
            }
        });
    }

    /// Forgets what has not been asked for longest, until what is left is of files of at most so many bytes together;
    /// and bytes that no file holds.
    pub(crate) fn shrink(&self, bytes: u64) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.summaries.retain(|contents, _| contents.are_in_a_file());
        let mut by_age: Vec<_> = known.summaries.iter().map(|(contents, entry)| (entry.used, *contents)).collect();
        by_age.sort_unstable_by(|one, other| other.cmp(one));
        let mut kept = 0_u64;
        for (_, contents) in by_age {
            kept = kept.saturating_add(contents.length());
            if kept > bytes {
                known.summaries.remove(&contents);
            }
        }
    }

    fn get(&self, contents: Contents) -> Option<Arc<ModuleSummary>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.clock += 1;
        let now = known.clock;
        known.summaries.get_mut(&contents).map(|entry| {
            entry.used = now;
            Arc::clone(&entry.summary)
        })
    }
}

/// Takes what an earlier run has found in a library, or finds it.
///
/// Of programs nothing is kept: hardly two have one in common, and what a process of theirs can do is kept as a whole
/// ([`crate::round`]).
fn make(file: &LoadedFile, image: &Image<'_>, cache: Option<&Cache>) -> ModuleSummary {
    let cache = cache.filter(|_| file.is_interpreter() || file.loaded_by().is_some());
    let key = || Key::new(&("summary", &file.identity().sha256, image.limits().get(LimitName::Work)));
    let Some((cache, key)) = cache.and_then(|cache| Some((cache, key()?))) else { return ModuleSummary::new(image) };
    if let Some(known) = cache.get_short::<ModuleSummary>(key) {
        return known.recalled(image);
    }
    let new = ModuleSummary::new(image);
    if file.is_interpreter() && new.excess().is_none() {
        // Asked for in each run in which it is one.
        new.loader_state(image);
    }
    // What changed since its digest was computed may have been looked at in part.
    if new.excess().is_none() && file.is_sure() {
        cache.put_short(key, &new);
    }
    new
}
