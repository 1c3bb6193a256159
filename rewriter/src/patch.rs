//! From a layout to bytes.
//!
//! Input: the old file, [`Layout`] and the payload. Output: [`Patch`]es on the old file and the bytes behind it;
//! together the new file. The list of patches is all that changes in the old file, and so all that must be recorded to
//! get it back.

use object::elf::SymbolSection;
use object::pod::bytes_of;
use object::{LittleEndian as LE, U16, U64};

use crate::elf::{SECTION_LENGTH, Section, Segment, slice};
use crate::error::Error;
use crate::executable::{Executable, length_of};
use crate::layout::Layout;
use crate::table::TablePlan;

/// Other bytes in the place of old ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Patch {
    pub(crate) offset: u64,
    pub(crate) old: Vec<u8>,
    pub(crate) new: Vec<u8>,
}

/// A stretch of the old file: offset and length.
pub(crate) type Stretch = (u64, u64);

/// The stretches that a plan will overwrite, before the payload is known: file header, program headers, a few section
/// headers.
pub(crate) fn overwritten(executable: &Executable<'_>, plan: &TablePlan) -> Vec<Stretch> {
    let mut stretches = vec![(0, crate::elf::FILE_HEADER_LENGTH)];
    let table = plan.offset.map(|offset| (offset, plan.length()));
    stretches.extend(table);
    stretches.extend(plan.moved.iter().flat_map(|moved| &moved.symbols).map(|offset| (*offset, ADDRESS_LENGTH)));
    if let (Some(sections), Some((start, end))) = (&executable.sections, executable.section_table())
        && end == length_of(executable.bytes)
    {
        let moved = plan.moved.iter().flat_map(|moved| moved.sections.iter().copied());
        let indices = moved.chain(std::iter::once(sections.names_index));
        stretches.extend(indices.filter_map(|index| Some((section_place(start, index)?, SECTION_LENGTH))));
    }
    stretches
}

/// Size of an address.
const ADDRESS_LENGTH: u64 = 8;

/// File offset of a section header.
fn section_place(table: u64, index: usize) -> Option<u64> {
    table.checked_add(u64::try_from(index).ok()?.checked_mul(SECTION_LENGTH)?)
}

/// The patches that a layout asks for.
pub(crate) fn patches(executable: &Executable<'_>, layout: &Layout) -> Result<Vec<Patch>, Error> {
    let mut new = vec![(0, bytes_of(&file_header(executable, layout)?).to_vec())];
    if layout.table_offset < layout.old_length {
        new.push((layout.table_offset, Segment::encode_table(&layout.segments)));
    }
    if let (Some(sections), Some(old)) = (&layout.sections, &executable.sections) {
        for (index, (header, old)) in sections.headers.iter().zip(&old.headers).enumerate().take(sections.in_place) {
            let offset = section_place(sections.offset, index).filter(|_| header != old);
            new.extend(offset.map(|offset| (offset, header.encode())));
        }
    }
    if let Some((start, _, to)) = layout.moved {
        let distance = to.wrapping_add(layout.added.bias()).wrapping_sub(start.wrapping_add(first_bias(executable)));
        for offset in &layout.moved_symbols {
            let value = slice(executable.bytes, *offset, ADDRESS_LENGTH).and_then(<[u8]>::first_chunk);
            let value = value.map(|value| u64::from_le_bytes(*value).wrapping_add(distance));
            new.extend(value.map(|value| (*offset, value.to_le_bytes().to_vec())));
        }
    }
    let patch = |(offset, new): (u64, Vec<u8>)| {
        let old = slice(executable.bytes, offset, length_of(&new)).map(<[u8]>::to_vec);
        old.map(|old| Patch { offset, old, new }).ok_or_else(|| wrong("a patch outside of the file"))
    };
    new.into_iter().map(patch).collect()
}

/// Distance between address and offset of the segment that holds the program header table, and what stands behind it.
fn first_bias(executable: &Executable<'_>) -> u64 {
    executable.loads().next().map_or(0, Segment::bias)
}

fn wrong(what: &str) -> Error {
    Error::Verification { what: what.to_owned() }
}

fn file_header(executable: &Executable<'_>, layout: &Layout) -> Result<crate::elf::FileHeader, Error> {
    let too_many = |_| wrong("too many headers");
    let mut header = executable.header;
    header.e_entry = U64::new(LE, layout.stub_address());
    header.e_phoff = U64::new(LE, layout.table_offset);
    header.e_phnum = U16::new(LE, u16::try_from(layout.segments.len()).map_err(too_many)?);
    if let Some(sections) = &layout.sections {
        let count = u16::try_from(sections.headers.len()).ok().filter(|count| *count < 0xff00);
        let count = count.ok_or_else(|| Error::Damaged {
            what: "e_shnum".to_owned(),
            found: executable.header.e_shnum.get(LE).to_string(),
            expected: "room for four more sections".to_owned(),
        })?;
        header.e_shoff = U64::new(LE, sections.offset);
        header.e_shnum = U16::new(LE, count);
        let names = u16::try_from(sections.names_index).map_err(too_many)?;
        header.e_shstrndx = U16::new(LE, SymbolSection(names));
    }
    Ok(header)
}

/// The new file.
pub(crate) fn apply(
    executable: &Executable<'_>,
    layout: &Layout,
    patches: &[Patch],
    payload: &[u8],
) -> Result<Vec<u8>, Error> {
    let length = usize::try_from(layout.length).map_err(|_| wrong("too long"))?;
    let mut bytes = Vec::with_capacity(length);
    bytes.extend(executable.bytes);
    overwrite(&mut bytes, patches.iter().map(|patch| (patch.offset, patch.new.as_slice())))?;
    if let Some(sections) = &layout.sections {
        let start = usize::try_from(sections.offset).map_err(|_| wrong("too long"))?;
        if sections.in_place == 0 {
            bytes.resize(start, 0);
        }
        bytes.extend(sections.headers.iter().skip(sections.in_place).flat_map(Section::encode));
        bytes.extend(&sections.names);
    }
    bytes.resize(usize::try_from(layout.added.p_offset).map_err(|_| wrong("too long"))?, 0);
    bytes.extend(payload);
    let behind = if layout.table_offset >= layout.old_length {
        Some((layout.table_offset, Segment::encode_table(&layout.segments)))
    } else if let Some((start, end, to)) = layout.moved {
        let pieces = slice(executable.bytes, start, end.saturating_sub(start));
        Some((to, pieces.ok_or_else(|| wrong("pieces outside of the file"))?.to_vec()))
    } else {
        None
    };
    if let Some((place, behind)) = behind {
        bytes.resize(usize::try_from(place).map_err(|_| wrong("too long"))?, 0);
        bytes.extend(behind);
    }
    Ok(bytes)
}

/// Writes pieces over the bytes at their offsets.
pub(crate) fn overwrite<'new>(
    bytes: &mut [u8],
    pieces: impl IntoIterator<Item = (u64, &'new [u8])>,
) -> Result<(), Error> {
    for (offset, new) in pieces {
        let place = usize::try_from(offset).ok().and_then(|start| bytes.get_mut(start..)?.get_mut(..new.len()));
        place.ok_or_else(|| wrong("a patch outside of the file"))?.copy_from_slice(new);
    }
    Ok(())
}
