//! One ELF file, validated.
//!
//! Input: the bytes of a file. Output: [`Image`] (everything), or [`Outline`] (what a loader needs). Program headers
//! and the dynamic section rule, since the kernel and ld.so read nothing else; section headers are hints. Absent is
//! `None`, malformed is an [`ImageError`]. Nothing here reads a file, and no count of a file is believed before the
//! bytes that it counts are there. Spec: gABI chapters 4 and 5, psABI x86-64, LSB core (GNU extensions).

mod dynamic;
mod dynamic_tags;
mod error;
mod frame;
mod go_table;
mod go_type;
mod header;
mod hint;
mod image;
mod landing_pad;
mod note;
mod outline;
mod region;
mod relocation;
mod relr;
mod section;
mod segment;
mod static_relocation;
mod string_table;
mod symbol;
mod symbol_count;
mod tls;
mod version;

#[cfg(test)]
mod tests;

pub use dynamic::Dynamic;
pub use error::{HeaderField, ImageError};
pub use frame::{FrameDescription, FrameError};
pub use go_table::{GoFunction, GoTable};
pub use go_type::GoMethods;
pub use hint::{FunctionHint, ObjectHint};
pub use image::Image;
pub use landing_pad::{LandingPad, LandingPadError};
pub use outline::Outline;
pub use relocation::{Relocation, RelocationTarget, SymbolRelocationKind};
pub use segment::Segment;
pub use symbol::{Symbol, SymbolBinding, SymbolKind, SymbolVisibility};
pub use tls::TlsImage;
pub use version::SymbolVersion;
