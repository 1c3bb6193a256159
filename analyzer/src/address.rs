//! Address spaces of one ELF file, kept apart by type.
//!
//! Input and output: `u64` values out of a file become [`Vaddr`] or [`FileOffset`] once they are known to be one,
//! and never turn into each other but through a segment ([`crate::elf::Image`]). Arithmetic is checked: a value
//! that a hostile file makes overflow is `None`, not a wrapped address. Terms: gABI chapter 5, "Program Loading".

use std::fmt;

macro_rules! address {
    ($name:ident, $doc:literal) => {
        #[doc = $doc]
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// The address `bytes` further on; `None` on overflow.
            #[must_use]
            pub const fn checked_add(self, bytes: u64) -> Option<Self> {
                match self.0.checked_add(bytes) {
                    Some(sum) => Some(Self(sum)),
                    None => None,
                }
            }

            /// The number of bytes from `start` up to this address; `None` if it lies before `start`.
            #[must_use]
            pub const fn checked_offset_from(self, start: Self) -> Option<u64> {
                self.0.checked_sub(start.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }
    };
}

address!(Vaddr, "A virtual address as the file's `p_vaddr` count them (before relocation of the whole image).");
address!(FileOffset, "An offset in bytes from the start of the file.");
