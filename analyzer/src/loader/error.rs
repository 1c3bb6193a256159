//! Why a program and its libraries could not be loaded.
//!
//! Every variant names the file and, where there is one, the flag that helps.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::elf::ImageError;
use crate::limits::Excess;

/// A file that could not be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// It cannot be opened or mapped.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file, as this machine names it.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// It is a directory, a pipe, a device.
    #[error("{} is {kind}, expected a regular file", path.display())]
    NotRegular {
        /// The file, as this machine names it.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// It has no bytes.
    #[error("{} is empty, expected an ELF file", path.display())]
    Empty {
        /// The file, as this machine names it.
        path: PathBuf,
    },
    /// It is text for an interpreter.
    #[error("{} is a script for {interpreter:?}: a filter can be put into that interpreter, not into the script", path.display())]
    Script {
        /// The file, as this machine names it.
        path: PathBuf,
        /// What stands behind `#!`.
        interpreter: String,
    },
    /// Its bytes break a rule of the format.
    #[error("{} cannot be analysed", path.display())]
    Image {
        /// The file, as this machine names it.
        path: PathBuf,
        /// Which rule.
        #[source]
        source: ImageError,
    },
    /// A file is too large, or there are too many.
    #[error("{} cannot be analysed", path.display())]
    Limit {
        /// The file, as this machine names it; the last one, if there are too many.
        path: PathBuf,
        /// Which limit.
        #[source]
        source: Excess,
    },
    /// The program names an interpreter that cannot be loaded.
    #[error(
        "the interpreter {} of {} cannot be loaded; --root DIR says below which folder the program's system is",
        interpreter.display(), program.display()
    )]
    Interpreter {
        /// `PT_INTERP`.
        interpreter: PathBuf,
        /// The program.
        program: PathBuf,
        /// Why not.
        #[source]
        source: Box<LoadError>,
    },
    /// A library is nowhere where ld.so would look for it.
    #[error(
        "the library {name} that {} needs was not found in {}{}; --lib FILE names it, --root DIR says below which folder \
         the program's system is",
        needed_by.display(), Folders(searched), Foreign(foreign)
    )]
    MissingLibrary {
        /// As `DT_NEEDED` or `dlopen` name it.
        name: String,
        /// Who needs it.
        needed_by: PathBuf,
        /// The folders searched, in order.
        searched: Vec<PathBuf>,
        /// Files of that name for another machine, which were skipped.
        foreign: Vec<PathBuf>,
    },
}

/// Folders, for a sentence.
struct Folders<'a>(&'a [PathBuf]);

impl fmt::Display for Folders<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("any folder (none applies)");
        }
        for (index, folder) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}{}", folder.display())?;
        }
        Ok(())
    }
}

/// Skipped files, for a sentence.
struct Foreign<'a>(&'a [PathBuf]);

impl fmt::Display for Foreign<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|path| write!(f, " ({} is for another machine)", path.display()))
    }
}
