//! Reads the program and writes its patched form: never half a file, never over the program itself.
//!
//! Input: paths and bytes. Output: [`Input`]; or a file at OUT with mode, owner and extended attributes of IN, and a
//! list of what could not be kept. OUT appears by rename(2), so that whoever looks sees the old file or all of the new
//! one; until then everything is in a file without a name, or where the file system has none such, in a temporary file
//! beside it, which goes away with any failure.

use std::fs::{File, Metadata};
use std::io::{self, Write};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileExt as _, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use chestnut_analyzer::limits::{Excess, LimitName, Limits};
use chestnut_analyzer::policy::{Policy, hexadecimal};
use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, Uid, XattrFlags};

use crate::record::sha256;

const SETUID: u32 = 0o4000;
const SETGID: u32 = 0o2000;
const PERMISSIONS: u32 = 0o7777;

/// Attributes that hold a signature of the contents: it would be wrong for the new ones.
const SIGNATURES: [&str; 2] = ["security.ima", "security.evm"];

/// Why a program was not read, or its new form not written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// It cannot be read.
    #[error("{}: cannot be read", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A folder, a device, a pipe.
    #[error("{}: not a regular file", path.display())]
    NotRegular {
        /// Which file.
        path: PathBuf,
    },
    /// It is larger than a file may be.
    #[error("{}: cannot be read", path.display())]
    TooLarge {
        /// Which file.
        path: PathBuf,
        /// How much larger.
        source: Excess,
    },
    /// It cannot be written.
    #[error("{}: cannot be written", path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Somebody wrote to it between the two times that it was read.
    #[error("{}: changed while it was read: patch it again", path.display())]
    Changed {
        /// Which file.
        path: PathBuf,
    },
    /// The new form would replace what it was made of.
    #[error("{}: the same file as {}: write to another one", output.display(), input.display())]
    SameFile {
        /// The program.
        input: PathBuf,
        /// Where the new form was to go.
        output: PathBuf,
    },
}

/// A program that was read.
#[derive(Debug)]
pub struct Input {
    /// Its contents.
    pub bytes: Vec<u8>,
    file: File,
    metadata: Metadata,
}

/// Reads a program.
///
/// # Errors
///
/// It is not there, not readable, too large, or not a regular file.
pub fn read(path: &Path, limits: &Limits) -> Result<Input, FileError> {
    let unreadable = |source| FileError::Read { path: path.to_owned(), source };
    // Before it is opened: opening a pipe waits for somebody to write to it.
    if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(FileError::NotRegular { path: path.to_owned() });
    }
    let file = File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    let too_large = |source| FileError::TooLarge { path: path.to_owned(), source };
    limits.check(LimitName::FileSize, "bytes of the file", metadata.len()).map_err(too_large)?;
    let bytes = contents(&file, &metadata).map_err(unreadable)?;
    Ok(Input { bytes, file, metadata })
}

/// All that a file had when it was opened: what is behind that is found by [`is_of_bytes`].
fn contents(file: &File, metadata: &Metadata) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(metadata.len()).unwrap_or(0)];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

impl Input {
    /// The mark that gives other rights to whoever starts the file.
    #[must_use]
    pub fn privilege(&self) -> Option<&'static str> {
        match (self.metadata.mode() & SETUID, self.metadata.mode() & SETGID) {
            (0, 0) => None,
            (0, _) => Some("setgid"),
            _ => Some("setuid"),
        }
    }

    /// The policy of these very bytes, which `analyze` computes: of the file at `path`, or of what it is given, since the
    /// bytes are not those of the file if they are `restored`.
    ///
    /// # Errors
    ///
    /// Those of `analyze`, or the file has changed or cannot be read any more.
    pub fn policy<E: From<FileError>>(
        &mut self,
        path: &Path,
        restored: bool,
        analyze: impl FnOnce(Option<&[u8]>) -> Result<Policy, E>,
    ) -> Result<Policy, E> {
        let policy = if restored { analyze(Some(&self.bytes))? } else { self.set_aside(path, || analyze(None))? };
        is_of_bytes(&policy, path, &self.bytes)?;
        Ok(policy)
    }

    /// Does what takes memory of its own without these bytes, and reads them again afterwards. They may be others then:
    /// [`is_of_bytes`]. After an error there are none.
    ///
    /// # Errors
    ///
    /// Those of `work`, or the file has become shorter or cannot be read any more.
    pub fn set_aside<T, E: From<FileError>>(
        &mut self,
        path: &Path,
        work: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        self.bytes = Vec::new();
        let done = work()?;
        self.bytes = contents(&self.file, &self.metadata).map_err(|source| match source.kind() {
            io::ErrorKind::UnexpectedEof => FileError::Changed { path: path.to_owned() },
            _ => FileError::Read { path: path.to_owned(), source },
        })?;
        Ok(done)
    }
}

/// Makes sure that a policy is one of these very bytes. Who analyses a file by its path reads it again, and it may be
/// another one by then.
///
/// # Errors
///
/// It is not.
pub fn is_of_bytes(policy: &Policy, path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    if policy.program.sha256 == hexadecimal(&sha256(bytes)) {
        Ok(())
    } else {
        Err(FileError::Changed { path: path.to_owned() })
    }
}

/// Whether two paths lead to the same file.
#[must_use]
pub fn is_same_file(one: &Path, other: &Path) -> bool {
    let place = |path: &Path| std::fs::metadata(path).ok().map(|file| (file.dev(), file.ino()));
    place(one).is_some_and(|one| Some(one) == place(other))
}

/// Where OUT really is, having made sure that it may be written.
///
/// # Errors
///
/// It is the program itself, not a regular file, or its folder is not there.
pub fn place(input: &Input, input_path: &Path, path: &Path) -> Result<PathBuf, FileError> {
    let unwritable = |source| FileError::Write { path: path.to_owned(), source };
    let existing = match std::fs::metadata(path) {
        Ok(existing) => existing,
        // A link that leads nowhere is not written through, nor taken away.
        Err(error) if error.kind() == io::ErrorKind::NotFound && std::fs::symlink_metadata(path).is_err() => {
            let folder = folder_of(path);
            let there = std::fs::metadata(folder).map_err(unwritable)?;
            return if there.is_dir() {
                Ok(path.to_owned())
            } else {
                Err(unwritable(io::ErrorKind::NotADirectory.into()))
            };
        }
        Err(error) => return Err(unwritable(error)),
    };
    if (existing.dev(), existing.ino()) == (input.metadata.dev(), input.metadata.ino()) {
        return Err(FileError::SameFile { input: input_path.to_owned(), output: path.to_owned() });
    }
    if !existing.is_file() {
        return Err(FileError::NotRegular { path: path.to_owned() });
    }
    std::fs::canonicalize(path).map_err(unwritable)
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Writes OUT. Returns what of IN could not be kept.
///
/// # Errors
///
/// Whatever the system says; OUT is as it was then.
pub fn write(input: &Input, path: &Path, bytes: &[u8]) -> Result<Vec<String>, FileError> {
    write_file(input, path, bytes).map_err(|source| FileError::Write { path: path.to_owned(), source })
}

/// Writes a file that is no program: whole, or the old one stays. Into a device or a pipe it is written as it comes.
///
/// # Errors
///
/// Whatever the system says.
pub fn write_text(path: &Path, text: &[u8]) -> io::Result<()> {
    // A name of what is open already (`/dev/stdout`): whoever opened it goes on to write there.
    let is_open = ["/dev", "/proc"].iter().any(|folder| path.starts_with(folder));
    let (path, mode) = match std::fs::metadata(path) {
        Ok(there) if !there.is_file() || is_open => return std::fs::write(path, text),
        Ok(there) => (std::fs::canonicalize(path)?, Some(there.mode() & PERMISSIONS)),
        // A link that leads nowhere is made to lead somewhere, as by any other program.
        Err(_) if std::fs::symlink_metadata(path).is_ok() => return std::fs::write(path, text),
        Err(_) => (path.to_owned(), None),
    };
    let mut builder = tempfile::Builder::new();
    // What the umask leaves of it.
    builder.prefix(".chestnut-").permissions(PermissionsExt::from_mode(0o666));
    let mut temporary = match builder.tempfile_in(folder_of(&path)) {
        // Who may write to the file may not do so to its folder.
        Err(_) if mode.is_some() => return std::fs::write(path, text),
        temporary => temporary?,
    };
    temporary.write_all(text)?;
    if let Some(mode) = mode {
        temporary.as_file().set_permissions(PermissionsExt::from_mode(mode))?;
    }
    temporary.persist(&path).map_err(|error| error.error)?;
    Ok(())
}

fn write_file(input: &Input, path: &Path, bytes: &[u8]) -> io::Result<Vec<String>> {
    let builder = || {
        let mut builder = tempfile::Builder::new();
        builder.prefix(".chestnut-patch-");
        builder
    };
    if let Some(file) = nameless(folder_of(path)) {
        let lost = fill(input, &file, bytes)?;
        // Only now, for the moment until it gets its own, has it a name that somebody could find.
        let own = format!("/proc/self/fd/{}", file.as_raw_fd());
        let link = |name: &Path| Ok(rustix::fs::linkat(CWD, &own, CWD, name, AtFlags::SYMLINK_FOLLOW)?);
        // Without /proc it stays without.
        if let Ok(named) = builder().make_in(folder_of(path), link) {
            return put(path, named).map(|()| lost);
        }
    }
    let temporary = builder().tempfile_in(folder_of(path))?;
    let lost = fill(input, temporary.as_file(), bytes)?;
    put(path, temporary).map(|()| lost)
}

/// A file that goes away with its process, however that ends; `None` where the file system has no such files.
fn nameless(folder: &Path) -> Option<File> {
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    rustix::fs::open(folder, flags, Mode::RUSR | Mode::WUSR).ok().map(File::from)
}

/// Gives OUT its new contents.
fn put<F>(path: &Path, temporary: tempfile::NamedTempFile<F>) -> io::Result<()> {
    temporary.persist(path).map_err(|error| error.error)?;
    // Not every file system can sync a folder; the file itself is safe.
    let _ = File::open(folder_of(path)).and_then(|folder| folder.sync_all());
    Ok(())
}

/// Writes the file, with mode, owner and attributes of IN. Returns what could not be kept.
fn fill(input: &Input, mut file: &File, bytes: &[u8]) -> io::Result<Vec<String>> {
    file.write_all(bytes)?;
    let mut lost = Vec::new();
    // The owner first: changing it clears capabilities and the setuid bit.
    let mut mode = input.metadata.mode() & PERMISSIONS;
    if let Some(loss) = keep_owner(input, file)? {
        if mode & (SETUID | SETGID) != 0 {
            mode &= !(SETUID | SETGID);
            lost.push("setuid and setgid bits (the owner is another)".to_owned());
        }
        lost.push(loss);
    }
    lost.extend(keep_attributes(&input.file, file)?);
    file.set_permissions(PermissionsExt::from_mode(mode))?;
    file.sync_all()?;
    Ok(lost)
}

/// Gives the file the owner of IN, or says that it could not.
fn keep_owner(input: &Input, file: &File) -> io::Result<Option<String>> {
    let (old, new) = (&input.metadata, file.metadata()?);
    let owner = |different: bool, owner: u32| different.then_some(owner);
    let user = owner(old.uid() != new.uid(), old.uid()).map(Uid::from_raw);
    let group = owner(old.gid() != new.gid(), old.gid()).map(Gid::from_raw);
    if user.is_none() && group.is_none() || rustix::fs::fchown(file, user, group).is_ok() {
        return Ok(None);
    }
    Ok(Some(format!("owner {}:{}", old.uid(), old.gid())))
}

/// Copies extended attributes: file capabilities, access control lists, labels. Returns those that were lost.
fn keep_attributes(from: &File, to: &File) -> io::Result<Vec<String>> {
    let mut lost = Vec::new();
    for name in attribute_names(from)? {
        let copied = if SIGNATURES.contains(&name.as_str()) {
            Err("a signature of the old contents".to_owned())
        } else {
            copy_attribute(from, to, &name).map_err(|error| error.to_string())
        };
        if let Err(reason) = copied {
            lost.push(format!("{name} ({reason})"));
        }
    }
    Ok(lost)
}

fn attribute_names(file: &File) -> io::Result<Vec<String>> {
    // XATTR_LIST_MAX.
    let mut buffer = vec![0_u8; 1 << 16];
    let length = match rustix::fs::flistxattr(file, &mut buffer) {
        Ok(length) => length,
        // A file system without extended attributes.
        Err(rustix::io::Errno::OPNOTSUPP) => 0,
        Err(error) => return Err(error.into()),
    };
    buffer.truncate(length);
    let names = buffer.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    Ok(names.map(|name| String::from_utf8_lossy(name).into_owned()).collect())
}

fn copy_attribute(from: &File, to: &File, name: &str) -> rustix::io::Result<()> {
    // XATTR_SIZE_MAX.
    let mut value = vec![0_u8; 1 << 16];
    let length = rustix::fs::fgetxattr(from, name, &mut value)?;
    value.truncate(length);
    rustix::fs::fsetxattr(to, name, &value, XattrFlags::empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a file has after the work is what counts, and a file that became shorter is one that changed.
    #[test]
    fn bytes_that_were_set_aside_are_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("program");
        std::fs::write(&path, "before").unwrap();
        let mut input = read(&path, &Limits::default()).unwrap();
        let write =
            |text: &str| std::fs::write(&path, text).map_err(|source| FileError::Read { path: path.clone(), source });
        input.set_aside(&path, || write("behind, and more")).unwrap();
        assert_eq!(input.bytes, b"behind");
        let shorter = input.set_aside(&path, || write("less"));
        assert!(matches!(shorter, Err(FileError::Changed { .. })), "{shorter:?}");
        let failed = input.set_aside(&path, || Err::<(), _>(FileError::Changed { path: "work".into() }));
        assert_eq!(failed.unwrap_err().to_string(), FileError::Changed { path: "work".into() }.to_string());
    }
}
