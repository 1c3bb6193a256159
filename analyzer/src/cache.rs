//! A folder that keeps results between runs.
//!
//! Input: a `Key`, the digest of everything that a result depends on, the version of the analysis among it. Output:
//! the result, as it was computed for the same key before; or nothing, and then it is computed again. So an entry never
//! becomes wrong, only useless; but for the digests of files, which are as right as the files' times
//! (`identities.rs`). One that is damaged is removed.
//!
//! Whoever can write to the folder decides what programs may call: it must belong to the user who asks, and nobody else
//! may write to it. Several processes can use it at a time: an entry gets its name by rename(2) when it is complete.
//! Whatever goes wrong with an entry costs time and nothing else.

use std::fs::{self, DirBuilder, File, FileTimes};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use crate::policy::hexadecimal;

/// What an entry begins with; then come the digest of the rest, and the rest.
const MAGIC: [u8; 8] = *b"CHSTNUT1";
const DIGEST: usize = 32;

/// Entries of so many bytes together are kept, those that were used last.
const LARGEST: u64 = 512 << 20;

/// Of so many new entries one is the occasion to look how large the folder has become.
const LOOKED_AT_ONE_IN: u8 = 32;

/// When an entry was used is only written down if it was used longer ago before.
const USED_AGAIN: Duration = Duration::from_secs(24 * 60 * 60);

/// Temporary files that are older belong to nobody any more.
const ABANDONED: Duration = Duration::from_secs(60 * 60);

const TEMPORARY: &str = ".new-";

/// Mode bits by which a group or others may write.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// Why a folder is not used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CacheError {
    /// It cannot be made or looked at.
    #[error("{}: the cache cannot be used", folder.display())]
    Folder {
        /// Which folder.
        folder: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Others could decide what programs may call.
    #[error(
        "{}: the cache is not used, since others can write to it: it belongs to user {owner}, mode {mode:o}; expected user \
         {user}, mode 700",
        folder.display()
    )]
    Untrusted {
        /// Which folder.
        folder: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who asks.
        user: u32,
        /// Its mode bits.
        mode: u32,
    },
}

/// A folder of results.
#[derive(Clone, Debug)]
pub struct Cache {
    folder: PathBuf,
}

/// What a result depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key([u8; DIGEST]);

impl Key {
    /// The digest of a description; `None` of one that has no unambiguous form (paths that are not UTF-8).
    pub(crate) fn new(description: &impl Serialize) -> Option<Self> {
        let mut bytes = Vec::new();
        ciborium::into_writer(&(env!("CHESTNUT_ANALYSIS"), description), &mut bytes).ok()?;
        Some(Self(Sha256::digest(&bytes).into()))
    }
}

impl Cache {
    /// The cache in a folder, which is made if it is not there.
    ///
    /// # Errors
    ///
    /// It cannot be made, or others can write to it.
    pub fn open(folder: &Path) -> Result<Self, CacheError> {
        let wrong = |source| CacheError::Folder { folder: folder.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(wrong)?;
        let metadata = fs::metadata(folder).map_err(wrong)?;
        let (owner, user, mode) = (metadata.uid(), rustix::process::geteuid().as_raw(), metadata.mode() & 0o7777);
        if owner != user || mode & WRITABLE_BY_OTHERS != 0 {
            return Err(CacheError::Untrusted { folder: folder.to_owned(), owner, user, mode });
        }
        Ok(Self { folder: folder.to_owned() })
    }

    /// The user's own, in `$XDG_CACHE_HOME` or `$HOME/.cache` (XDG Base Directory Specification); `None` if there is no
    /// such folder that can be used.
    #[must_use]
    pub fn of_user() -> Option<Self> {
        let folder = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let base = folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")))?;
        Self::open(&base.join("chestnut")).ok()
    }

    /// Whether there is an entry.
    pub(crate) fn has(&self, key: Key) -> bool {
        self.place(key).exists()
    }

    /// What was kept.
    pub(crate) fn get<T: DeserializeOwned>(&self, key: Key) -> Option<T> {
        self.read(key, |contents| ciborium::from_reader(contents).ok())
    }

    /// What was kept in short.
    pub(crate) fn get_short<T: DeserializeOwned>(&self, key: Key) -> Option<T> {
        self.read(key, |contents| postcard::from_bytes(contents).ok())
    }

    fn read<T>(&self, key: Key, decode: impl FnOnce(&[u8]) -> Option<T>) -> Option<T> {
        let place = self.place(key);
        let bytes = fs::read(&place).ok()?;
        let found = contents(&bytes).and_then(decode);
        if found.is_none() {
            let _ = fs::remove_file(&place);
        } else {
            let _ = note_use(&place);
        }
        found
    }

    /// Keeps a result. It is no error if that cannot be done.
    pub(crate) fn put(&self, key: Key, result: &impl Serialize) {
        let mut contents = Vec::new();
        if ciborium::into_writer(result, &mut contents).is_ok() {
            self.keep(key, &contents);
        }
    }

    /// The same in a form that does not describe itself, for results of millions of parts that are the same type.
    pub(crate) fn put_short(&self, key: Key, result: &impl Serialize) {
        if let Ok(contents) = postcard::to_allocvec(result) {
            self.keep(key, &contents);
        }
    }

    fn keep(&self, key: Key, contents: &[u8]) {
        let _ = self.write(key, contents);
        if key.0.last().is_some_and(|byte| byte % LOOKED_AT_ONE_IN == 0) {
            let _ = self.shrink(LARGEST);
        }
    }

    /// An entry has a folder of those whose digests begin with the same byte.
    fn place(&self, key: Key) -> PathBuf {
        let name = hexadecimal(&key.0);
        let (folder, file) = name.split_at(2);
        self.folder.join(folder).join(file)
    }

    fn write(&self, key: Key, contents: &[u8]) -> io::Result<()> {
        let place = self.place(key);
        let folder = place.parent().unwrap_or(&self.folder);
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let mut new = tempfile::Builder::new().prefix(TEMPORARY).tempfile_in(folder)?;
        new.write_all(&MAGIC)?;
        new.write_all(&Sha256::digest(contents))?;
        new.write_all(contents)?;
        // It is not synced: what a crash leaves of it is damaged, and noticed.
        new.persist(&place)?;
        Ok(())
    }

    /// Removes what was used longest ago, until what is left has at most so many bytes.
    fn shrink(&self, bytes: u64) -> io::Result<()> {
        let mut entries = Vec::new();
        for folder in fs::read_dir(&self.folder)? {
            for entry in fs::read_dir(folder?.path()).into_iter().flatten() {
                let entry = entry?;
                // Another process may have removed it.
                let Ok(metadata) = entry.metadata() else { continue };
                let used = metadata.modified()?;
                let is_temporary = entry.file_name().as_encoded_bytes().starts_with(TEMPORARY.as_bytes());
                if !is_temporary {
                    entries.push((used, metadata.len(), entry.path()));
                } else if is_older(used, ABANDONED) {
                    let _ = fs::remove_file(entry.path());
                }
            }
        }
        entries.sort_unstable_by(|one, other| other.cmp(one));
        let mut kept = 0_u64;
        for (_, length, path) in entries {
            kept = kept.saturating_add(length);
            if kept > bytes {
                let _ = fs::remove_file(path);
            }
        }
        Ok(())
    }
}

/// What stands in a file, if it is whole.
fn contents(bytes: &[u8]) -> Option<&[u8]> {
    let (digest, contents) = bytes.strip_prefix(&MAGIC)?.split_at_checked(DIGEST)?;
    (Sha256::digest(contents).as_slice() == digest).then_some(contents)
}

fn note_use(place: &Path) -> io::Result<()> {
    if is_older(fs::metadata(place)?.modified()?, USED_AGAIN) {
        File::options().append(true).open(place)?.set_times(FileTimes::new().set_modified(SystemTime::now()))?;
    }
    Ok(())
}

fn is_older(then: SystemTime, age: Duration) -> bool {
    SystemTime::now().duration_since(then).is_ok_and(|found| found > age)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn cache() -> (tempfile::TempDir, Cache) {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(&folder.path().join("cache")).unwrap();
        (folder, cache)
    }

    fn files(folder: &Path) -> Vec<PathBuf> {
        let entries =
            |folder: &Path| fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
        entries(folder).iter().flat_map(|folder| entries(folder)).collect()
    }

    #[test]
    fn keeps_what_it_is_given() {
        let (_folder, cache) = cache();
        let key = Key::new(&"one").unwrap();
        assert_eq!(cache.get::<String>(key), None);
        cache.put(key, &"result");
        assert_eq!(cache.get::<String>(key).as_deref(), Some("result"));
        assert_eq!(cache.get::<String>(Key::new(&"two").unwrap()), None);
    }

    /// Each byte of an entry, changed; and each length that a crash may leave.
    #[test]
    fn removes_what_is_damaged() {
        let (_folder, cache) = cache();
        let key = Key::new(&"one").unwrap();
        cache.put(key, &"result");
        let whole = fs::read(cache.place(key)).unwrap();
        let flipped = (0..whole.len()).map(|at| {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            bytes
        });
        let cut = (0..whole.len()).map(|length| whole[..length].to_vec());
        for bytes in flipped.chain(cut) {
            fs::write(cache.place(key), bytes).unwrap();
            assert_eq!(cache.get::<String>(key), None);
            assert!(!cache.place(key).exists());
        }
    }

    #[test]
    fn is_not_used_if_others_can_write_to_it() {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o770)).unwrap();
        assert!(matches!(Cache::open(folder.path()), Err(CacheError::Untrusted { mode: 0o770, .. })));
        fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o700)).unwrap();
        assert!(Cache::open(folder.path()).is_ok());
    }

    #[test]
    fn forgets_what_was_used_longest_ago() {
        let (_folder, cache) = cache();
        for number in 0..4_u64 {
            let key = Key::new(&number).unwrap();
            cache.put(key, &vec![0_u8; 1000]);
            let age = Duration::from_secs(1000 - number);
            let times = FileTimes::new().set_modified(SystemTime::now() - age);
            File::options().append(true).open(cache.place(key)).unwrap().set_times(times).unwrap();
        }
        let length = fs::metadata(cache.place(Key::new(&0_u64).unwrap())).unwrap().len();
        cache.shrink(2 * length).unwrap();
        let kept: Vec<_> = (0..4_u64).filter(|number| cache.has(Key::new(number).unwrap())).collect();
        assert_eq!(kept, [2, 3]);
        assert_eq!(files(&cache.folder).len(), 2);
    }
}
