//! Why an analysis could not be made.
//!
//! One enum for the whole crate; each stage has its own error, which stands in here as the source or, where it says all
//! by itself, in place.

use std::path::PathBuf;

use crate::elf::ImageError;
use crate::limits::Excess;
use crate::loader::LoadError;

/// A refused analysis.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The program or one of its libraries could not be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A file whose outline is valid breaks a rule of the format in its symbols or relocations.
    #[error("{} cannot be analysed", path.display())]
    Image {
        /// The file, without the root's prefix.
        path: PathBuf,
        /// Which rule.
        #[source]
        source: ImageError,
    },
    /// A file goes beyond a limit.
    #[error("{} cannot be analysed", path.display())]
    Limit {
        /// The file, without the root's prefix.
        path: PathBuf,
        /// Which limit.
        #[source]
        source: Excess,
    },
    /// A program that an option names as one that is executed cannot be analysed.
    #[error("--exec-target {target}")]
    ExecTarget {
        /// As the option names it.
        target: String,
        /// Why not.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A pattern for libraries to load is none.
    #[error("{pattern:?} is no pattern of paths: *, ? and [...] stand for characters of names")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        #[source]
        source: glob::PatternError,
    },
}
