//! What identifies files, computed once for each.
//!
//! Input: files. Output: their [`FileIdentity`]s. To hash all libraries of a program takes longer than all else that a run
//! does in which everything is known. So the digest of a file is remembered, in the cache too, under what tells its bytes
//! from all others without a look at them: [`Contents`] and the build-id.
//!
//! May miss: a file whose bytes change while neither `st_ctime`, which nobody can set, nor length nor build-id do. Where
//! file systems have times of their own making (images that are built reproducibly), a linker's build-id tells contents
//! apart, so that files without one are always hashed; so are files that changed a moment ago, since clocks of file systems
//! are coarse.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rayon::prelude::*;
use rustc_hash::FxHashMap;

use crate::cache::{Cache, Key};
use crate::elf::Outline;
use crate::loader::{Contents, LoadedFile, identity};
use crate::policy::{FileIdentity, hexadecimal};

/// Two changes of a file within less may leave it with the same time (Linux: `CONFIG_HZ`; FAT: two seconds).
const COARSEST_CLOCK: Duration = Duration::from_secs(3);

/// By contents; the paths are those by which they were seen first.
#[derive(Debug, Default)]
pub(crate) struct Identities {
    known: Mutex<FxHashMap<Contents, FileIdentity>>,
}

impl Identities {
    /// Sees to it that the files know their identities.
    pub(crate) fn identify(&self, files: &[LoadedFile], cache: Option<&Cache>) {
        files.par_iter().for_each(|file| {
            file.identity_by(|| self.of(file, cache));
        });
    }

    fn of(&self, file: &LoadedFile, cache: Option<&Cache>) -> FileIdentity {
        let contents = file.contents();
        if !contents.are_in_a_file() {
            return identity(file.path(), file.data());
        }
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(identity) = known().get(&contents) {
            return FileIdentity { path: file.path().to_owned(), ..identity.clone() };
        }
        let new = remembered(file, cache);
        known().insert(contents, new.clone());
        new
    }
}

/// The identity of a file, with the digest that an earlier run has computed if there is one.
fn remembered(file: &LoadedFile, cache: Option<&Cache>) -> FileIdentity {
    let build_id = Outline::parse(file.data()).ok().and_then(|outline| outline.build_id().map(hexadecimal));
    let is_settled =
        file.contents().changed_before(SystemTime::now().checked_sub(COARSEST_CLOCK).unwrap_or(UNIX_EPOCH));
    let key = || Key::new(&("digest", file.contents(), build_id.as_ref()?));
    let place = cache.filter(|_| is_settled).and_then(|cache| Some((cache, key()?)));
    let Some((cache, key)) = place else { return identity(file.path(), file.data()) };
    if let Some(sha256) = cache.get_short::<String>(key) {
        return FileIdentity { path: file.path().to_owned(), build_id, sha256 };
    }
    let new = identity(file.path(), file.data());
    if file.is_as_read() {
        cache.put_short(key, &new.sha256);
    }
    new
}
