//! The dynamic string table (`DT_STRTAB`, `DT_STRSZ`).
//!
//! Input: the table's bytes. Output: names as byte slices of the file, without their NUL. Spec: gABI chapter 4
//! "String Table".

use std::ffi::CStr;

use super::error::ImageError;

/// Longer names are none: C++ and Rust have some of a few thousand bytes.
const LONGEST_NAME: usize = 1 << 16;

/// Names by offset.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct StringTable<'data>(&'data [u8]);

impl<'data> StringTable<'data> {
    pub(super) const fn new(bytes: &'data [u8]) -> Self {
        Self(bytes)
    }

    /// The name at `offset`; `what` says whose name it is.
    pub(super) fn name(&self, what: &'static str, offset: u64) -> Result<&'data [u8], ImageError> {
        self.hint(offset).ok_or_else(|| ImageError::String {
            what,
            offset,
            size: u64::try_from(self.0.len()).unwrap_or(u64::MAX),
        })
    }

    /// The name at `offset`, if there is one: for tables that are hints only.
    pub(super) fn hint(&self, offset: u64) -> Option<&'data [u8]> {
        let tail = self.0.get(usize::try_from(offset).ok()?..)?;
        let tail = tail.get(..LONGEST_NAME).unwrap_or(tail);
        CStr::from_bytes_until_nul(tail).ok().map(CStr::to_bytes)
    }
}
