//! Files that other files name, or that just stand there: read without waiting, and not without end.
//!
//! Input: a path, and how much may be read. Output: an open file, or its bytes. A pipe would be waited for until somebody
//! writes to it, and a device may never end; a tree that somebody unpacked (`--root`) can have either wherever a
//! configuration file or a library is looked for.

use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::fs::OFlags;

use crate::limits::{LimitName, Limits};

/// Opens a regular file.
///
/// # Errors
///
/// It is something else, or what the system says.
pub fn open(path: &Path) -> io::Result<File> {
    open_known(path).map(|(file, _)| file)
}

/// The same, with what the system says of the file.
fn open_known(path: &Path) -> io::Result<(File, Metadata)> {
    let refused = || io::Error::new(io::ErrorKind::InvalidInput, "not a regular file");
    // Before it is opened, since opening some devices does something.
    if !std::fs::metadata(path)?.is_file() {
        return Err(refused());
    }
    // It may be another one by now.
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    let known = file.metadata()?;
    if known.is_file() { Ok((file, known)) } else { Err(refused()) }
}

/// Opens a regular file that is not larger than one may be; with its length in bytes.
///
/// # Errors
///
/// As [`open`], or it is too large.
pub fn open_within(path: &Path, limits: &Limits) -> io::Result<(File, u64)> {
    let (file, known) = open_known(path)?;
    let length = known.len();
    limits.check(LimitName::FileSize, "bytes of the file", length).map_err(io::Error::other)?;
    Ok((file, length))
}

/// The bytes of a regular file, if they are not more than one may have.
///
/// # Errors
///
/// It is something else, or too large, or what the system says.
pub fn read(path: &Path, limits: &Limits) -> io::Result<Vec<u8>> {
    let (file, length) = open_within(path, limits)?;
    read_all(file, length, LimitName::FileSize, "bytes of the file", limits)
}

/// The bytes of something that is read to its end, whose length may not be known before. `expected` is how many there may
/// well be.
///
/// # Errors
///
/// They are more than the limit, or what the system says.
pub fn read_all(
    from: impl io::Read,
    expected: u64,
    name: LimitName,
    what: &'static str,
    limits: &Limits,
) -> io::Result<Vec<u8>> {
    let most = limits.get(name).saturating_add(1);
    let mut bytes = Vec::with_capacity(usize::try_from(expected.min(most)).unwrap_or(0));
    from.take(most).read_to_end(&mut bytes)?;
    let found = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    limits.check(name, what, found).map_err(io::Error::other)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::{read, read_all};
    use crate::limits::{LimitName, Limits};
    use std::path::Path;

    fn limits(set: &str) -> Limits {
        let mut limits = Limits::default();
        limits.set(set.parse().unwrap());
        limits
    }

    #[test]
    fn what_is_no_file_is_neither_waited_for_nor_read() {
        let folder = tempfile::TempDir::new().unwrap();
        let pipe = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        for path in [pipe.as_path(), folder.path(), Path::new("/dev/zero"), Path::new("/dev/null")] {
            let error = read(path, &Limits::default()).unwrap_err();
            assert_eq!(error.to_string(), "not a regular file", "{}", path.display());
        }
    }

    #[test]
    fn no_more_is_read_than_may_be() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, [7; 100]).unwrap();
        assert_eq!(read(&path, &limits("file-size=100")).unwrap(), [7; 100]);
        let error = read(&path, &limits("file-size=99")).unwrap_err();
        assert_eq!(error.to_string(), "bytes of the file: 100, over the limit of 99; --limit file-size=N raises it");
        let most = limits("policy-size=99");
        let error = read_all(std::io::repeat(7), 0, LimitName::PolicySize, "bytes of the list", &most).unwrap_err();
        assert!(error.to_string().starts_with("bytes of the list: 100, over the limit of 99;"), "{error}");
        // Not even one of no length, as files of /proc have.
        assert!(!read(Path::new("/proc/self/status"), &Limits::default()).unwrap().is_empty());
    }
}
