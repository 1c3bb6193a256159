//! The LOAD segments: which bytes of the file stand at which address.
//!
//! Input: a validated [`Header`]. Output: [`AddressSpace`], the only way from a [`Vaddr`] to bytes of the file. LOADs
//! are ascending and disjoint, each lies in the file, and each can be mapped. Spec: gABI chapter 5 "Program Header"
//! and "Program Loading"; page size 4096 (psABI x86-64, 3.3.3, and the kernel's `elf_map`).

use object::LittleEndian as LE;
use object::elf;
use object::pod::{self, Pod};

use super::error::ImageError;
use super::header::{Header, truncated};
use crate::address::{FileOffset, Vaddr};

/// The page size of x86-64, in bytes.
const PAGE_SIZE: u64 = 4096;

/// One `PT_LOAD` segment. Invariant: `p_filesz <= p_memsz`, and neither of its ranges overflows or leaves the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// First address.
    pub p_vaddr: Vaddr,
    /// Bytes in memory; those behind `p_filesz` are zero.
    pub p_memsz: u64,
    /// Where its bytes are in the file.
    pub p_offset: FileOffset,
    /// Bytes in the file.
    pub p_filesz: u64,
    /// `PF_R`, `PF_W`, `PF_X`.
    pub p_flags: u32,
}

impl Segment {
    /// Whether code in it can run.
    #[must_use]
    pub const fn is_executable(&self) -> bool {
        self.p_flags & elf::PF_X.0 != 0
    }

    /// Whether the program may write to it (perhaps only until `PT_GNU_RELRO` takes effect).
    #[must_use]
    pub const fn is_writable(&self) -> bool {
        self.p_flags & elf::PF_W.0 != 0
    }

    /// The address behind its last byte in memory.
    #[must_use]
    pub const fn memory_end(&self) -> Vaddr {
        // Cannot overflow: checked when the segment was made.
        Vaddr(self.p_vaddr.0.saturating_add(self.p_memsz))
    }

    /// Whether `at` is one of its bytes in memory.
    #[must_use]
    pub fn contains(&self, at: Vaddr) -> bool {
        at.checked_offset_from(self.p_vaddr).is_some_and(|offset| offset < self.p_memsz)
    }
}

/// The LOADs of a file, and its bytes by address.
#[derive(Clone, Debug)]
pub(super) struct AddressSpace<'data> {
    data: &'data [u8],
    segments: Vec<Segment>,
}

impl<'data> AddressSpace<'data> {
    /// Checks every LOAD of the program header table.
    pub(super) fn parse(data: &'data [u8], header: &Header<'data>) -> Result<Self, ImageError> {
        let mut segments: Vec<Segment> = Vec::new();
        let loads = header.program_headers.iter().enumerate().filter(|(_, entry)| entry.p_type.get(LE) == elf::PT_LOAD);
        for (index, entry) in loads {
            let segment = check(data, index, entry)?;
            // The kernel and ld.so compute the span of the image from the first and the last LOAD.
            let previous_end = segments.last().map_or(Vaddr(0), Segment::memory_end);
            if segment.p_vaddr < previous_end {
                return Err(ImageError::SegmentOrder { index, p_vaddr: segment.p_vaddr, previous_end });
            }
            // An empty LOAD maps nothing; it must not stand between two others in the search below.
            if segment.p_memsz > 0 {
                segments.push(segment);
            }
        }
        if segments.is_empty() {
            let count = u64::try_from(header.program_headers.len()).unwrap_or(u64::MAX);
            return Err(ImageError::NothingLoaded { offset: header.program_headers_at, count });
        }
        Ok(Self { data, segments })
    }

    /// How many words of 8 bytes the file has.
    pub(super) const fn file_words(&self) -> usize {
        self.data.len() / 8
    }

    pub(super) fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The segment with `at` in its memory range.
    pub(super) fn segment_at(&self, at: Vaddr) -> Option<&Segment> {
        let behind = self.segments.partition_point(|segment| segment.p_vaddr <= at);
        let candidate = self.segments.get(behind.checked_sub(1)?)?;
        candidate.contains(at).then_some(candidate)
    }

    /// Bytes of the file from `at` to the end of its segment's file part; at least one.
    pub(super) fn bytes_from(&self, at: Vaddr) -> Option<&'data [u8]> {
        let segment = self.segment_at(at)?;
        let skipped = at.checked_offset_from(segment.p_vaddr)?;
        let length = segment.p_filesz.checked_sub(skipped).filter(|length| *length > 0)?;
        let start = segment.p_offset.checked_add(skipped)?;
        let end = start.checked_add(length)?;
        self.data.get(usize::try_from(start.0).ok()?..usize::try_from(end.0).ok()?)
    }

    /// `length` bytes at `at`, all in the file.
    pub(super) fn bytes(&self, at: Vaddr, length: u64) -> Option<&'data [u8]> {
        self.bytes_from(at)?.get(..usize::try_from(length).ok()?)
    }

    /// The `N` bytes at `at`.
    pub(super) fn array<const N: usize>(&self, at: Vaddr) -> Option<[u8; N]> {
        self.bytes_from(at)?.first_chunk().copied()
    }

    /// `size` bytes at `at`, as a table of structures; a size of zero needs no place.
    pub(super) fn table<T: Pod>(&self, what: &'static str, at: Vaddr, size: u64) -> Result<&'data [T], ImageError> {
        if size == 0 {
            return Ok(&[]);
        }
        let unbacked = ImageError::Unbacked { what, start: at, size };
        let Some(bytes) = self.bytes(at, size) else { return Err(unbacked) };
        let count = bytes.len().checked_div(size_of::<T>()).unwrap_or(0);
        pod::slice_from_bytes(bytes, count).map(|(structures, _)| structures).map_err(|()| unbacked)
    }

    /// One structure at `at`.
    pub(super) fn structure<T: Pod>(&self, at: Vaddr) -> Option<&'data T> {
        pod::from_bytes(self.bytes_from(at)?).ok().map(|(structure, _)| structure)
    }
}

/// The rules for one LOAD.
fn check(data: &[u8], index: usize, entry: &elf::ProgramHeader64<LE>) -> Result<Segment, ImageError> {
    let segment = Segment {
        p_vaddr: Vaddr(entry.p_vaddr.get(LE)),
        p_memsz: entry.p_memsz.get(LE),
        p_offset: FileOffset(entry.p_offset.get(LE)),
        p_filesz: entry.p_filesz.get(LE),
        p_flags: entry.p_flags.get(LE).0,
    };
    let Segment { p_vaddr, p_memsz, p_offset, p_filesz, .. } = segment;
    if p_filesz > p_memsz {
        return Err(ImageError::SegmentSize { index, p_filesz, p_memsz });
    }
    if p_vaddr.checked_add(p_memsz).is_none() {
        return Err(ImageError::AddressOverflow { what: "PT_LOAD", start: p_vaddr, size: p_memsz });
    }
    let file_size = u64::try_from(data.len()).unwrap_or(u64::MAX);
    let in_file = p_offset.checked_add(p_filesz).is_some_and(|end| end.0 <= file_size);
    // A segment of zeros only has no bytes in the file, and its offset means nothing.
    if p_filesz > 0 && !in_file {
        return Err(truncated(data, "PT_LOAD", p_offset, p_filesz));
    }
    if p_filesz > 0 && p_vaddr.0 % PAGE_SIZE != p_offset.0 % PAGE_SIZE {
        return Err(ImageError::SegmentCongruence { index, p_vaddr, p_offset });
    }
    Ok(segment)
}
