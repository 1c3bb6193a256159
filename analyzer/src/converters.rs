//! Character set converters that the C library may load: a folder of some hundred small libraries.
//!
//! Input: the folder. Output: the names of the functions that they import. They are all alike (a table and two loops
//! around it), so instead of a full analysis it is checked that none holds a system call of its own; then everything
//! that one of them can do goes through what it imports.
//!
//! Over-approximates: every import of every converter counts as called.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind, Read as _};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::elf::Image;
use crate::limits::Limits;
use crate::mapping::Mapping;
use crate::regular_file;

/// What a folder of converters brings.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Converters {
    /// Names of imported functions.
    pub imports: BTreeSet<Vec<u8>>,
    /// Files that need a full analysis: bytes that may be a system call.
    pub conspicuous: BTreeSet<String>,
}

/// Files that changed so lately may change again without a later time of change.
const SETTLED: Duration = Duration::from_secs(2);

/// What tells a folder and all files in it from all others without reading them: their names, device and inode numbers,
/// lengths and times of change, which nobody can set (`st_ctime`).
#[derive(Debug, Serialize)]
pub(crate) struct Stamp {
    files: BTreeMap<PathBuf, (u64, u64, u64, i64, i64)>,
}

impl Stamp {
    /// That of a folder of this machine; `None` if it cannot be read, or changed just now.
    pub(crate) fn of(folder: &Path) -> Option<Self> {
        let settled = SystemTime::now().checked_sub(SETTLED)?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        let mut files = BTreeMap::new();
        for entry in std::fs::read_dir(folder).ok()? {
            let path = entry.ok()?.path();
            let file = std::fs::metadata(&path).ok()?;
            if u64::try_from(file.ctime()).ok()? > settled.as_secs() {
                return None;
            }
            files.insert(path, (file.dev(), file.ino(), file.len(), file.ctime(), file.ctime_nsec()));
        }
        Some(Self { files })
    }
}

/// Reads all converters in `folder`, a path of this machine. One that is there and cannot be read, or is larger than a file
/// may be, is left to whoever loads it, as a conspicuous one.
#[must_use]
pub fn read(folder: &Path, limits: &Limits) -> Converters {
    let Ok(entries) = std::fs::read_dir(folder) else { return Converters::default() };
    let files: Vec<_> = entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
    let libraries = files.into_par_iter().filter(|path| path.extension().is_some_and(|e| e == "so"));
    let found = libraries.map_init(Vec::new, |buffer, path| {
        let mut found = Converters::default();
        let is_conspicuous = match with_bytes(&path, buffer, limits, |data| found.add(data)) {
            Ok(is_conspicuous) => is_conspicuous,
            Err(error) => !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidInput),
        };
        if is_conspicuous {
            found.conspicuous.extend(path.file_name().map(|name| name.to_string_lossy().into_owned()));
        }
        found
    });
    found.reduce(Converters::default, |mut all, one| {
        all.imports.extend(one.imports);
        all.conspicuous.extend(one.conspicuous);
        all
    })
}

impl Converters {
    /// Takes in what one converter imports; whether it holds more than that. What is no library is none that can be loaded.
    fn add(&mut self, data: &[u8]) -> bool {
        let Ok(image) = Image::parse(data) else { return false };
        let undefined = image.symbols().iter().filter(|symbol| !symbol.is_defined);
        self.imports.extend(undefined.map(|symbol| symbol.name.to_vec()));
        enters_kernel(&image)
    }
}

/// Longer files are mapped.
const LONGEST_COPY: u64 = 4 << 20;

/// Calls `work` with the bytes of a regular file; they are copied to a buffer, since to map and unmap hundreds of small
/// files takes longer, the more so on several processors.
fn with_bytes<T>(path: &Path, buffer: &mut Vec<u8>, limits: &Limits, work: impl FnOnce(&[u8]) -> T) -> io::Result<T> {
    let (mut file, length) = regular_file::open_within(path, limits)?;
    if length > LONGEST_COPY {
        return Ok(work(&Mapping::new(&file)?));
    }
    buffer.resize(usize::try_from(length).unwrap_or(usize::MAX), 0);
    file.read_exact(buffer)?;
    Ok(work(buffer))
}

/// Whether executable bytes contain `syscall`, `sysenter` or `int $0x80`, at any offset.
fn enters_kernel(image: &Image<'_>) -> bool {
    image.executable_ranges().into_iter().any(|range| {
        let length = range.end.checked_offset_from(range.start).unwrap_or(0);
        let code = image.bytes(range.start, length).unwrap_or(&[]);
        code.windows(2).any(|pair| matches!(pair, [0x0f, 0x05 | 0x34] | [0xcd, 0x80]))
    })
}

#[cfg(test)]
mod tests {
    use std::fs::{File, FileTimes};

    use super::*;

    /// A converter that is too large to be read, or cannot be, is not passed over.
    #[test]
    fn unread_converters_are_conspicuous() {
        let folder = tempfile::tempdir().unwrap();
        let converter = std::fs::read("/usr/lib/x86_64-linux-gnu/gconv/UTF-16.so").unwrap();
        std::fs::write(folder.path().join("UTF-16.so"), &converter).unwrap();
        std::fs::write(folder.path().join("text.so"), "no library").unwrap();
        std::fs::create_dir(folder.path().join("folder.so")).unwrap();
        let read_within = |limit: &str| {
            let mut limits = Limits::default();
            limits.set(limit.parse().unwrap());
            read(folder.path(), &limits)
        };
        let whole = read_within(&format!("file-size={}", converter.len()));
        assert!(whole.conspicuous.is_empty() && !whole.imports.is_empty(), "{whole:?}");
        let found = read_within(&format!("file-size={}", converter.len() - 1));
        assert!(found.conspicuous.iter().eq(["UTF-16.so"]) && found.imports.is_empty(), "{found:?}");
    }

    /// A folder tells itself from what it was before, and what changed just now is not trusted to stay.
    #[test]
    fn stamps_differ() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("one.so");
        std::fs::write(&file, "one").unwrap();
        assert!(Stamp::of(folder.path()).is_none(), "the file is too new");
        // The time of modification can be set, that of change cannot.
        let old = FileTimes::new().set_modified(SystemTime::UNIX_EPOCH);
        File::options().append(true).open(&file).unwrap().set_times(old).unwrap();
        assert!(Stamp::of(folder.path()).is_none(), "the file is too new");
        assert!(Stamp::of(Path::new("/nowhere")).is_none());
        assert!(Stamp::of(Path::new("/bin")).is_some());
    }
}
