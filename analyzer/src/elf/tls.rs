//! The initial image of thread-local storage (`PT_TLS`).
//!
//! Input: the program headers. Output: its place, checked to lie in a LOAD. Spec: gABI chapter 5 "Program Header",
//! "ELF Handling For Thread-Local Storage" section 3.

use object::LittleEndian as LE;
use object::elf;

use super::error::ImageError;
use super::header::Header;
use super::segment::AddressSpace;
use crate::address::Vaddr;

/// The TLS image: every thread gets a copy of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlsImage {
    /// First address of the image.
    pub p_vaddr: Vaddr,
    /// Bytes in the file.
    pub p_filesz: u64,
    /// Bytes in memory; those behind `p_filesz` are zero.
    pub p_memsz: u64,
}

/// The file's TLS image; `None` if it has none.
pub(super) fn parse(space: &AddressSpace<'_>, header: &Header<'_>) -> Result<Option<TlsImage>, ImageError> {
    let mut headers = header.program_headers.iter().enumerate();
    let Some((index, entry)) = headers.find(|(_, entry)| entry.p_type.get(LE) == elf::PT_TLS) else { return Ok(None) };
    let (p_vaddr, p_filesz, p_memsz) = (Vaddr(entry.p_vaddr.get(LE)), entry.p_filesz.get(LE), entry.p_memsz.get(LE));
    if p_filesz > p_memsz {
        return Err(ImageError::SegmentSize { index, p_filesz, p_memsz });
    }
    if p_vaddr.checked_add(p_memsz).is_none() {
        return Err(ImageError::AddressOverflow { what: "PT_TLS", start: p_vaddr, size: p_memsz });
    }
    // The zeros behind the image take no place in a LOAD: `.tbss` overlaps what follows it.
    if p_filesz > 0 && space.bytes(p_vaddr, p_filesz).is_none() {
        return Err(ImageError::Unbacked { what: "PT_TLS", start: p_vaddr, size: p_filesz });
    }
    Ok(Some(TlsImage { p_vaddr, p_filesz, p_memsz }))
}
