//! What identifies files, computed once for each.
//!
//! Input: files. Output: their [`FileIdentity`]s. To hash all libraries of a program takes longer than all else that a run
//! does in which everything is known. So the digest of a file is remembered, in the cache too, under what tells its bytes
//! from all others without a look at them: [`Contents`] and the build-id.
//!
//! May miss: a file whose bytes change while neither `st_ctime`, which nobody can set, nor length nor build-id do (by a
//! second store to a shared mapping, before the first one is written back). Where times are of a server's or a user's
//! making nothing is remembered; on images that are built reproducibly the linker's build-id tells contents apart, so that
//! files without one are always hashed; and so are files that changed right before they were opened.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;
use rustc_hash::FxHashMap;

use crate::cache::{Cache, Key};
use crate::elf::Outline;
use crate::loader::{Contents, LoadedFile, identity};
use crate::policy::{FileIdentity, hexadecimal};

/// File systems whose `st_ctime` the kernel sets at each change (`linux/magic.h`; ZFS: its own `sys/fs/zfs.h`), and images
/// that never change.
const TRUSTED: [u64; 10] = [
    0xef53,      // ext2, ext3, ext4
    0x5846_5342, // XFS
    0x9123_683e, // Btrfs
    0xf2f5_2010, // F2FS
    0xca45_1a4e, // bcachefs
    0x2fc1_2fc1, // ZFS
    0x0102_1994, // tmpfs
    0x794c_7630, // overlay
    0x7371_7368, // SquashFS
    0xe0f5_e1e2, // EROFS
];

/// By contents; the paths are those by which they were seen first.
#[derive(Debug, Default)]
pub(crate) struct Identities {
    known: Mutex<FxHashMap<Contents, FileIdentity>>,
}

impl Identities {
    /// Sees to it that the files know their identities, and others of the same contents find them here.
    pub(crate) fn identify(&self, files: &[&LoadedFile], cache: Option<&Cache>) {
        files.par_iter().with_max_len(1).for_each(|file| {
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
    let key = || Key::new(&("digest", file.contents(), build_id.as_ref()?));
    let cache = cache.filter(|_| file.is_settled() && has_times(file.host_path()));
    let place = cache.and_then(|cache| Some((cache, key()?)));
    let Some((cache, key)) = place else { return hashed(file) };
    if let Some(sha256) = cache.get_short::<String>(key) {
        return FileIdentity { path: file.path().to_owned(), build_id, sha256 };
    }
    let new = hashed(file);
    if file.is_sure() {
        cache.put_short(key, &new.sha256);
    }
    new
}

/// The identity of a file, which touches all of its pages.
fn hashed(file: &LoadedFile) -> FileIdentity {
    let new = identity(file.path(), file.data());
    file.data().release();
    new
}

/// Whether a file lies where times say when something changed.
fn has_times(path: &Path) -> bool {
    let kind = rustix::fs::statfs(path).ok().and_then(|found| u64::try_from(found.f_type).ok());
    kind.is_some_and(|kind| TRUSTED.contains(&kind))
}
