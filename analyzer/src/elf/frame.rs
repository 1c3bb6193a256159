//! Frame descriptions (`.eh_frame`): the ranges of functions and of their outlined parts.
//!
//! Input: the address space, `PT_GNU_EH_FRAME`, and the `.eh_frame` section header as a second way. Output:
//! [`FrameTable`]. Spec: LSB core 10.6 "Exception Frames"; DWARF 5 section 6.4; the parsing is gimli's.
//!
//! Compilers describe every function, also in C and in stripped files, so this is the best evidence of function starts
//! that there is. Where it is damaged, the descriptions read so far are kept and [`FrameTable::error`] says what is
//! wrong: evidence that is missing must be known to be missing.
//!
//! The section's size is not known without section headers; the list ends at a zero length, or (where a linker left
//! none) when as many descriptions were read as the header's search table has.
//!
//! May miss: pointers that the loader must relocate first (`DW_EH_PE_absptr` in a position-independent file); no
//! compiler writes them there, since the section would have to be writable.

use gimli::{
    BaseAddresses, CieOrFde, CommonInformationEntry, EhFrame, EhFrameHdr, EndianSlice, LittleEndian, Pointer,
    UnwindSection,
};
use rustc_hash::FxHashMap;

use super::segment::AddressSpace;
use crate::address::Vaddr;

type Slice<'data> = EndianSlice<'data, LittleEndian>;

/// One frame description entry (FDE).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FrameDescription {
    /// First address; not always that of an instruction (glibc's `__restore_rt` starts one byte early).
    pub start: Vaddr,
    /// The address behind the last byte.
    pub end: Vaddr,
    /// Its language-specific data area: where exceptions are caught.
    pub lsda: Option<Vaddr>,
    /// Whether it describes a signal trampoline.
    pub is_signal_frame: bool,
}

/// What is wrong with the frame descriptions.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// `PT_GNU_EH_FRAME` cannot be read.
    #[error("the header of the frame descriptions at {at} is damaged")]
    Header {
        /// Where it is.
        at: Vaddr,
        /// What gimli says.
        #[source]
        source: gimli::Error,
    },
    /// The header, or the list that it points to, lies outside the file.
    #[error("{what} at {at} does not lie in the file part of a PT_LOAD")]
    Unbacked {
        /// Header or list.
        what: &'static str,
        /// Where it should be.
        at: Vaddr,
    },
    /// One entry is damaged; those behind it are lost.
    #[error("the frame description at {at} is damaged")]
    Entry {
        /// Where it is (the start of the list, if its length is what cannot be read).
        at: Vaddr,
        /// What gimli says.
        #[source]
        source: gimli::Error,
    },
    /// An entry describes addresses beyond the address space.
    #[error("the frame description at {at} covers {size:#x} bytes from {start}, beyond the address space")]
    Range {
        /// Where it is.
        at: Vaddr,
        /// First address described.
        start: Vaddr,
        /// Bytes described.
        size: u64,
    },
    /// The list ends before it has as many entries as the header's search table.
    #[error("the frame descriptions end after {found} entries, but their search table has {expected}")]
    Count {
        /// Entries read.
        found: u64,
        /// Entries of the table.
        expected: u64,
    },
}

/// All frame descriptions of a file.
#[derive(Debug, Default)]
pub(super) struct FrameTable {
    /// Sorted by start; only those that describe code.
    pub(super) descriptions: Vec<FrameDescription>,
    /// Why there may be more than these.
    pub(super) error: Option<FrameError>,
}

/// Where the list is.
struct Location<'data> {
    start: Vaddr,
    bytes: &'data [u8],
    /// Entries in the search table, if there is one.
    expected: Option<u64>,
}

impl FrameTable {
    /// Reads the list that `header_at` (`PT_GNU_EH_FRAME`) leads to, or else `section` (`.eh_frame`).
    pub(super) fn parse(space: &AddressSpace<'_>, header_at: Option<Vaddr>, section: Option<(Vaddr, u64)>) -> Self {
        let location = match header_at {
            Some(at) => from_header(space, at),
            None => from_section(space, section),
        };
        let mut table = Self::default();
        match location {
            Ok(Some(location)) => table.error = table.read(space, &location).err(),
            Ok(None) => {}
            Err(error) => table.error = Some(error),
        }
        table.descriptions.sort_unstable();
        table.descriptions.dedup();
        table
    }

    fn read(&mut self, space: &AddressSpace<'_>, location: &Location<'_>) -> Result<(), FrameError> {
        let at = |offset: usize| {
            let offset = u64::try_from(offset).unwrap_or(u64::MAX);
            location.start.checked_add(offset).unwrap_or(location.start)
        };
        let frames = EhFrame::new(location.bytes, LittleEndian);
        let bases = BaseAddresses::default().set_eh_frame(location.start.0);
        let mut entries = frames.entries(&bases);
        // Many descriptions share one CIE; parsing it again for each would cost half of the time.
        let mut cies: FxHashMap<usize, CommonInformationEntry<Slice<'_>>> = FxHashMap::default();
        let mut found = 0_u64;
        // What follows a complete list without terminator is another section.
        while location.expected.is_none_or(|expected| found < expected) {
            let next = entries.next().map_err(|source| FrameError::Entry { at: location.start, source })?;
            let partial = match next {
                None => break,
                Some(CieOrFde::Cie(_)) => continue,
                Some(CieOrFde::Fde(partial)) => partial,
            };
            let entry_at = at(partial.offset());
            let fde = partial.parse(|frames, bases, offset| {
                if let Some(known) = cies.get(&offset.0) {
                    return Ok(known.clone());
                }
                let cie = frames.cie_from_offset(bases, offset)?;
                cies.insert(offset.0, cie.clone());
                Ok(cie)
            });
            let fde = fde.map_err(|source| FrameError::Entry { at: entry_at, source })?;
            found = found.saturating_add(1);
            let start = Vaddr(fde.initial_address());
            let end = start.checked_add(fde.len());
            let end = end.ok_or(FrameError::Range { at: entry_at, start, size: fde.len() })?;
            // A linker that discards a function may leave its description with address zero or size zero.
            if end == start || !space.segment_at(start).is_some_and(|segment| segment.is_executable()) {
                continue;
            }
            let entry_end = at(partial.offset().saturating_add(partial.entry_len()).saturating_add(12));
            let lsda = fde.lsda().and_then(|pointer| lsda(space, pointer, entry_at, entry_end));
            let is_signal_frame = fde.is_signal_trampoline();
            self.descriptions.push(FrameDescription { start, end, lsda, is_signal_frame });
        }
        match location.expected {
            Some(expected) if found < expected => Err(FrameError::Count { found, expected }),
            _ => Ok(()),
        }
    }
}

/// The address of an LSDA. A stored zero means none; relative to its own place it becomes an address within the entry,
/// where no LSDA can be.
fn lsda(space: &AddressSpace<'_>, pointer: Pointer, entry_at: Vaddr, entry_end: Vaddr) -> Option<Vaddr> {
    let address = match pointer {
        Pointer::Direct(address) => Vaddr(address),
        Pointer::Indirect(slot) => Vaddr(u64::from_le_bytes(space.array(Vaddr(slot))?)),
    };
    let is_none = address == Vaddr(0) || (entry_at..entry_end).contains(&address);
    (!is_none).then_some(address)
}

/// The list that `PT_GNU_EH_FRAME` points to, up to the end of its segment.
fn from_header<'data>(space: &AddressSpace<'data>, at: Vaddr) -> Result<Option<Location<'data>>, FrameError> {
    let damaged = |source| FrameError::Header { at, source };
    let what = "the header of the frame descriptions";
    let bytes = space.bytes_from(at).ok_or(FrameError::Unbacked { what, at })?;
    let bases = BaseAddresses::default().set_eh_frame_hdr(at.0);
    let header = EhFrameHdr::new(bytes, LittleEndian).parse(&bases, 8).map_err(damaged)?;
    let start = match header.eh_frame_ptr() {
        Pointer::Direct(start) => Vaddr(start),
        Pointer::Indirect(_) => {
            return Err(damaged(gimli::Error::UnsupportedPointerEncoding(gimli::DW_EH_PE_indirect)));
        }
    };
    let what = "the list of frame descriptions";
    let list = space.bytes_from(start).ok_or(FrameError::Unbacked { what, at: start })?;
    let count = header.table().and_then(|table| table.iter(&bases).size_hint().1);
    let expected = count.and_then(|count| u64::try_from(count).ok());
    Ok(Some(Location { start, bytes: list, expected }))
}

/// The list that a section header names.
fn from_section<'data>(
    space: &AddressSpace<'data>,
    section: Option<(Vaddr, u64)>,
) -> Result<Option<Location<'data>>, FrameError> {
    let Some((start, size)) = section.filter(|(_, size)| *size > 0) else { return Ok(None) };
    let what = "the section .eh_frame";
    let bytes = space.bytes(start, size).ok_or(FrameError::Unbacked { what, at: start })?;
    Ok(Some(Location { start, bytes, expected: None }))
}
