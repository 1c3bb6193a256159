//! One loaded file: its bytes, and what the search for its libraries needs of it.
//!
//! Input: a [`Place`]. Output: [`LoadedFile`], whose outline is valid. What identifies the file (SHA-256, build-id) is
//! computed when it is first asked for, since hashing costs more than all other reading.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::error::LoadError;
use super::root::{Place, Root};
use crate::elf::Outline;
use crate::limits::{LimitName, Limits};
use crate::mapping::Mapping;
use crate::policy::{FileIdentity, hexadecimal};

/// Two changes of a file within less may leave it with the same time (Linux: `CONFIG_HZ`; ext3: a second; FAT: two).
const COARSEST_CLOCK: Duration = Duration::from_secs(3);

/// Index of a file in its [`super::LoadedSet`]; stays valid when more are loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileIndex(pub usize);

/// A file that the program is made of.
#[derive(Clone, Debug)]
pub struct LoadedFile {
    pub(super) place: Place,
    pub(super) host_path: PathBuf,
    pub(super) contents: Contents,
    /// When it was opened.
    opened: SystemTime,
    pub(super) data: Mapping,
    pub(super) needs: Needs,
    pub(super) is_interpreter: bool,
    pub(super) loaded_by: Option<FileIndex>,
    pub(super) alternative_of: Option<FileIndex>,
    pub(super) dependencies: Vec<FileIndex>,
    pub(super) filtees: Vec<FileIndex>,
    identity: OnceLock<FileIdentity>,
}

/// Device and inode: the same file under two names is loaded once, as by ld.so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct FileId {
    device: u64,
    inode: u64,
}

/// What tells the bytes of a file from all others that were read: the file, and when it was changed last (`st_ctime`), which
/// nobody can set on a file system of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Contents {
    id: FileId,
    /// Seconds and nanoseconds; `None` for bytes that do not stand in the file.
    changed: Option<(i64, i64)>,
    length: u64,
}

impl Contents {
    /// Those of a file, as it is now.
    fn of(metadata: &std::fs::Metadata) -> Self {
        let id = FileId { device: metadata.dev(), inode: metadata.ino() };
        Self { id, changed: Some((metadata.ctime(), metadata.ctime_nsec())), length: metadata.len() }
    }

    /// Whether they stand in a file, so that they can be found again.
    #[must_use]
    pub const fn are_in_a_file(self) -> bool {
        self.changed.is_some()
    }

    /// Whether they were the same at some time before.
    #[must_use]
    pub fn changed_before(self, time: SystemTime) -> bool {
        let since = time.duration_since(UNIX_EPOCH).ok().and_then(|since| i64::try_from(since.as_secs()).ok());
        self.changed.zip(since).is_some_and(|((seconds, _), since)| seconds < since)
    }

    /// Bytes.
    #[must_use]
    pub const fn length(self) -> u64 {
        self.length
    }
}

/// Copied out of the dynamic section, so that no borrow of the bytes stays.
#[derive(Clone, Debug, Default)]
pub(super) struct Needs {
    pub(super) interpreter: Option<PathBuf>,
    pub(super) needed: Vec<Vec<u8>>,
    pub(super) filters: Vec<Vec<u8>>,
    pub(super) soname: Option<Vec<u8>>,
    pub(super) rpath: Option<Vec<u8>>,
    pub(super) runpath: Option<Vec<u8>>,
    pub(super) flags_1: u64,
}

impl LoadedFile {
    /// Opens and checks the file at `place`.
    pub(super) fn open(root: &Root, place: Place, limits: &Limits) -> Result<Self, LoadError> {
        Self::open_as(root, place, None, limits)
    }

    /// Opens and checks the file at `place`, with other bytes than its own if some are given.
    pub(super) fn open_as(
        root: &Root,
        place: Place,
        bytes: Option<Mapping>,
        limits: &Limits,
    ) -> Result<Self, LoadError> {
        let unreadable = |source| LoadError::Read { path: place.path.clone(), source };
        let host_path = root.host_path(&place).map_err(unreadable)?;
        let unreadable = |source| LoadError::Read { path: host_path.clone(), source };
        // Opening a pipe would wait for its writer.
        let kind = std::fs::metadata(&host_path).map_err(unreadable)?;
        if !kind.is_file() {
            let kind = if kind.is_dir() { "a directory" } else { "a device, pipe or socket" };
            return Err(LoadError::NotRegular { path: host_path, kind });
        }
        let opened = SystemTime::now();
        let file = File::open(&host_path).map_err(unreadable)?;
        let metadata = file.metadata().map_err(unreadable)?;
        if metadata.len() == 0 {
            return Err(LoadError::Empty { path: host_path });
        }
        limits
            .check(LimitName::FileSize, "bytes of the file", metadata.len())
            .map_err(|source| LoadError::Limit { path: host_path.clone(), source })?;
        let own = Contents::of(&metadata);
        let (data, contents) = match bytes {
            Some(data) => {
                let length = u64::try_from(data.len()).unwrap_or(u64::MAX);
                (data, Contents { changed: None, length, ..own })
            }
            None => (Mapping::new(&file).map_err(unreadable)?, own),
        };
        let needs = Needs::read(&data, &host_path)?;
        Ok(Self {
            place,
            host_path,
            contents,
            opened,
            data,
            needs,
            is_interpreter: false,
            loaded_by: None,
            alternative_of: None,
            dependencies: Vec::new(),
            filtees: Vec::new(),
            identity: OnceLock::new(),
        })
    }

    /// Its path, without the root's prefix.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.place.path
    }

    /// Its path on this machine.
    #[must_use]
    pub fn host_path(&self) -> &Path {
        &self.host_path
    }

    /// What tells it from all other files of this machine.
    #[must_use]
    pub const fn id(&self) -> FileId {
        self.contents.id
    }

    /// Whether the bytes that were read are still those of the file, as far as its times tell.
    #[must_use]
    pub fn is_as_read(&self) -> bool {
        let now = || std::fs::metadata(&self.host_path).map(|metadata| Contents::of(&metadata));
        !self.contents.are_in_a_file() || now().is_ok_and(|now| now == self.contents)
    }

    /// Whether what tells its bytes from all others tells them from those that it may get, too: it did not change in the
    /// moment before it was opened, in which another change may leave it with the same time.
    #[must_use]
    pub(crate) fn is_settled(&self) -> bool {
        let since = self.opened.checked_sub(COARSEST_CLOCK);
        self.contents.are_in_a_file() && since.is_some_and(|since| self.contents.changed_before(since))
    }

    /// Whether the bytes that were read are those that were there all the time, so that what is found in them can be kept.
    #[must_use]
    pub(crate) fn is_sure(&self) -> bool {
        !self.contents.are_in_a_file() || self.is_settled() && self.is_as_read()
    }

    /// What tells its bytes from all others.
    #[must_use]
    pub const fn contents(&self) -> Contents {
        self.contents
    }

    /// Its bytes; a clone keeps them mapped.
    #[must_use]
    pub const fn data(&self) -> &Mapping {
        &self.data
    }

    /// `DT_SONAME`.
    #[must_use]
    pub fn soname(&self) -> Option<&[u8]> {
        self.needs.soname.as_deref()
    }

    /// Whether it is the program's `PT_INTERP`. With musl this is the C library too.
    #[must_use]
    pub const fn is_interpreter(&self) -> bool {
        self.is_interpreter
    }

    /// The first file that asked for it; `None` for the program and its interpreter.
    #[must_use]
    pub const fn loaded_by(&self) -> Option<FileIndex> {
        self.loaded_by
    }

    /// The file that this one replaces on processors with more features (`glibc-hwcaps`): one of the two is loaded, and
    /// which one is not known before the program runs, so that whatever binds to the one may bind to the other.
    #[must_use]
    pub const fn alternative_of(&self) -> Option<FileIndex> {
        self.alternative_of
    }

    /// Its `DT_NEEDED`, in order, as loaded.
    #[must_use]
    pub fn dependencies(&self) -> &[FileIndex] {
        &self.dependencies
    }

    /// What a policy records of it. Computed once.
    pub fn identity(&self) -> &FileIdentity {
        self.identity_by(|| identity(&self.place.path, &self.data))
    }

    /// The same, computed by `compute` unless it is known.
    pub(crate) fn identity_by(&self, compute: impl FnOnce() -> FileIdentity) -> &FileIdentity {
        self.identity.get_or_init(compute)
    }
}

/// What a policy records of a file with these contents.
#[must_use]
pub fn identity(path: &Path, data: &[u8]) -> FileIdentity {
    let build_id = Outline::parse(data).ok().and_then(|outline| outline.build_id().map(hexadecimal));
    FileIdentity { path: path.to_owned(), build_id, sha256: hexadecimal(&Sha256::digest(data)) }
}

impl Needs {
    fn read(data: &[u8], path: &Path) -> Result<Self, LoadError> {
        if let Some(line) = data.strip_prefix(b"#!") {
            let end = line.iter().take(255).position(|byte| *byte == b'\n').unwrap_or(line.len().min(255));
            let interpreter = String::from_utf8_lossy(line.get(..end).unwrap_or_default()).trim().to_owned();
            return Err(LoadError::Script { path: path.to_path_buf(), interpreter });
        }
        let outline = Outline::parse(data).map_err(|source| LoadError::Image { path: path.to_path_buf(), source })?;
        let interpreter = outline.interpreter().map(Path::to_path_buf);
        let Some(dynamic) = outline.dynamic() else { return Ok(Self { interpreter, ..Self::default() }) };
        Ok(Self {
            interpreter,
            needed: dynamic.needed.iter().map(|name| name.to_vec()).collect(),
            filters: dynamic.filters.iter().map(|name| name.to_vec()).collect(),
            soname: dynamic.soname.map(<[u8]>::to_vec),
            rpath: dynamic.rpath.map(<[u8]>::to_vec),
            runpath: dynamic.runpath.map(<[u8]>::to_vec),
            flags_1: dynamic.flags_1,
        })
    }
}

/// Whether an error means that ld.so would go on searching: nothing is there.
pub(super) fn is_absent(error: &LoadError) -> bool {
    match error {
        LoadError::Read { source, .. } => {
            matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
        }
        LoadError::NotRegular { .. } => true,
        _ => false,
    }
}
