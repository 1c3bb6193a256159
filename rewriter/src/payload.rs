//! The payload: stub, header, filter and note as bytes, and back.
//!
//! Input: the parts; or a patched executable. Output: bytes of the added segment; or [`Found`], the parts again. The
//! layout is the contract in `chestnut_stub::payload`.

use chestnut_stub::payload::{
    HEADER_ALIGNMENT, HEADER_LENGTH, LEAVE_LENGTH, LEAVE_OPCODE, MAGIC, PayloadHeader, VERSION,
};

use crate::elf::{align_up, slice};
use crate::error::Error;
use crate::executable::Executable;
use crate::stub_image;

/// Where the parts lie, counted from the stub's first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Parts {
    pub(crate) stub_length: u64,
    pub(crate) header: u64,
    pub(crate) filter: u64,
    pub(crate) note: u64,
    pub(crate) end: u64,
}

impl Parts {
    /// The places for parts of these lengths; `None` on overflow.
    pub(crate) fn new(stub_length: u64, filter_bytes: u64, note_bytes: u64) -> Option<Self> {
        let header = align_up(stub_length, u64::try_from(HEADER_ALIGNMENT).ok()?)?;
        let filter = header.checked_add(u64::try_from(HEADER_LENGTH).ok()?)?;
        let note = filter.checked_add(filter_bytes)?;
        Some(Self { stub_length, header, filter, note, end: note.checked_add(note_bytes)? })
    }

    fn of(header: &PayloadHeader) -> Option<Self> {
        let filter_bytes = u64::from(header.filter_length).checked_mul(8)?;
        Self::new(u64::from(header.stub_length), filter_bytes, u64::from(header.note_length))
    }
}

/// Puts the parts together.
pub(crate) fn encode(stub: &[u8], stub_address: u64, entry: u64, filter: &[u8], note: &[u8]) -> Result<Vec<u8>, Error> {
    let too_far = || Error::TooFar { entry, end: stub_address };
    let entry_offset =
        i64::try_from(i128::from(entry).wrapping_sub(i128::from(stub_address))).map_err(|_| too_far())?;
    // The jump counts from its own end, which is the stub's.
    let behind = i64::try_from(stub.len()).ok().and_then(|length| entry_offset.checked_sub(length));
    let displacement = behind.and_then(|distance| i32::try_from(distance).ok()).ok_or_else(too_far)?;
    let long = |_| Error::Verification { what: "a payload part is too long".to_owned() };
    let header = PayloadHeader {
        magic: MAGIC,
        version: VERSION,
        filter_length: u16::try_from(filter.len() / 8).map_err(long)?,
        stub_length: u32::try_from(stub.len()).map_err(long)?,
        entry_offset,
        note_length: u32::try_from(note.len()).map_err(long)?,
        reserved: 0,
    };
    let (body, _) = stub.split_last_chunk::<LEAVE_LENGTH>().unwrap_or((stub, &[0; LEAVE_LENGTH]));
    let mut bytes = body.to_vec();
    bytes.push(LEAVE_OPCODE);
    bytes.extend(displacement.to_le_bytes());
    bytes.resize(bytes.len().next_multiple_of(HEADER_ALIGNMENT), 0);
    bytes.extend(header.encode());
    bytes.extend(filter);
    bytes.extend(note);
    Ok(bytes)
}

/// The payload of a patched file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found<'data> {
    /// Address of the stub.
    pub(crate) address: u64,
    pub(crate) header: PayloadHeader,
    pub(crate) stub: &'data [u8],
    pub(crate) filter: &'data [u8],
    pub(crate) note: &'data [u8],
}

impl Found<'_> {
    /// The old entry point.
    pub(crate) fn entry(&self) -> u64 {
        self.address.wrapping_add_signed(self.header.entry_offset)
    }
}

/// Looks for a payload at the entry point. Works without section headers.
pub(crate) fn find<'data>(executable: &Executable<'data>) -> Option<Found<'data>> {
    let address = executable.entry();
    let (skipped, load) = executable.loads().find_map(|load| {
        let skipped = address.checked_sub(load.p_vaddr)?;
        (skipped < load.p_filesz).then_some((skipped, load))
    })?;
    let bytes = slice(executable.bytes, load.p_offset.checked_add(skipped)?, load.p_filesz.checked_sub(skipped)?)?;
    let places = (0..=stub_image::LONGEST).step_by(HEADER_ALIGNMENT);
    places.filter_map(|at| PayloadHeader::decode(bytes.get(at..)?).map(|header| (at, header))).find_map(
        |(at, header)| {
            let parts = Parts::of(&header)?;
            let part = |start: u64, end: u64| slice(bytes, start, end.checked_sub(start)?);
            (parts.header == u64::try_from(at).ok()?).then_some(Found {
                address,
                header,
                stub: part(0, parts.stub_length)?,
                filter: part(parts.filter, parts.note)?,
                note: part(parts.note, parts.end)?,
            })
        },
    )
}
