//! Input files in memory, without copying them.
//!
//! Input: an open file. Output: [`Mapping`], its bytes. This is the one module of the crate with unsafe code.
//!
//! # Safety
//!
//! A mapping shows the file, not a copy. If another process writes to the file meanwhile, the bytes change under a
//! `&[u8]`; if it makes the file shorter, touching the lost part raises `SIGBUS`. Libraries in use are replaced by
//! renaming (dpkg, rpm, install(1)), which leaves a mapping as it is, and ld.so rests on the same. Every consumer
//! checks bounds against the length that was mapped and re-reads no value that it has checked, so that a file which is
//! changed in place can give a wrong analysis and end the process, but no access outside the mapping.

#![allow(unsafe_code, reason = "mapping a file is unsafe; the module's documentation says on what it rests")]

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::sync::Arc;

use memmap2::{Mmap, UncheckedAdvice};

/// The bytes of a file. Clones share them.
#[derive(Clone, Debug)]
pub struct Mapping(Bytes);

#[derive(Clone, Debug)]
enum Bytes {
    Mapped(Arc<Mmap>),
    /// What stood in a file before it was changed.
    Owned(Arc<[u8]>),
}

impl Mapping {
    /// Maps the whole file, read-only.
    ///
    /// # Errors
    ///
    /// What `mmap(2)` says.
    pub fn new(file: &File) -> io::Result<Self> {
        // SAFETY: the mapping is read-only, and stays valid as long as the `Arc` lives. That nobody changes
        // the file in place is the assumption that the module's documentation states.
        let map = unsafe { Mmap::map(file) }?;
        Ok(Self(Bytes::Mapped(Arc::new(map))))
    }

    /// Gives the pages of a large file back to the system, after all of it was read once: they come again when they are
    /// touched, and most are not. What the system does not do costs memory only.
    pub fn release(&self) {
        /// Bytes; to take the pages of smaller files back takes longer than they are worth.
        const LARGE: usize = 4 << 20;
        if let Bytes::Mapped(map) = &self.0
            && map.len() >= LARGE
        {
            // SAFETY: nobody writes to the mapping, so that a page that comes again has what stands in the file, as one that
            // was never touched (madvise(2), MADV_DONTNEED).
            let _ = unsafe { map.unchecked_advise(UncheckedAdvice::DontNeed) };
        }
    }
}

impl From<Vec<u8>> for Mapping {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Bytes::Owned(bytes.into()))
    }
}

impl Deref for Mapping {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Bytes::Mapped(map) => map,
            Bytes::Owned(bytes) => bytes,
        }
    }
}
