//! Section headers, as far as they are there: names and bounds, never facts that the analysis rests on.
//!
//! Input: the fields of the file header. Output: [`Section`]s; none if the table is absent or damaged, since a file
//! runs without it. Spec: gABI chapter 4 "Sections".

use std::ops::Range;

use object::LittleEndian as LE;
use object::elf;

use super::header::{SectionHeaderFields, table};
use super::string_table::StringTable;
use crate::address::{FileOffset, Vaddr};

/// One section header that makes sense.
#[derive(Clone, Copy, Debug)]
pub(super) struct Section<'data> {
    pub(super) name: &'data [u8],
    pub(super) header: &'data elf::SectionHeader64<LE>,
}

impl<'data> Section<'data> {
    /// Its addresses, if it is loaded.
    pub(super) fn addresses(&self) -> Option<Range<Vaddr>> {
        if self.header.sh_flags.get(LE).0 & elf::SHF_ALLOC.0 == 0 {
            return None;
        }
        let start = Vaddr(self.header.sh_addr.get(LE));
        Some(start..start.checked_add(self.header.sh_size.get(LE))?)
    }

    /// Its bytes in the file.
    pub(super) fn bytes(&self, data: &'data [u8]) -> Option<&'data [u8]> {
        if self.header.sh_type.get(LE) == elf::SHT_NOBITS {
            return None;
        }
        let size = usize::try_from(self.header.sh_size.get(LE)).ok()?;
        table(data, "section", FileOffset(self.header.sh_offset.get(LE)), size).ok()
    }
}

/// All sections, in table order.
pub(super) fn sections<'data>(data: &'data [u8], fields: SectionHeaderFields) -> Vec<Section<'data>> {
    headers(data, fields).unwrap_or_default()
}

/// Where executable sections stand, sorted; those that touch or overlap are one.
pub(super) fn code(sections: &[Section<'_>]) -> Vec<Range<Vaddr>> {
    let is_code = |section: &&Section<'_>| section.header.sh_flags.get(LE).0 & elf::SHF_EXECINSTR.0 != 0;
    let mut all: Vec<_> = sections.iter().filter(is_code).filter_map(Section::addresses).collect();
    all.sort_unstable_by_key(|range| (range.start, range.end));
    let mut joined: Vec<Range<Vaddr>> = Vec::new();
    for range in all {
        match joined.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => joined.push(range),
        }
    }
    joined
}

fn headers<'data>(data: &'data [u8], fields: SectionHeaderFields) -> Option<Vec<Section<'data>>> {
    if fields.e_shoff == 0 || usize::from(fields.e_shentsize) != size_of::<elf::SectionHeader64<LE>>() {
        return None;
    }
    let offset = FileOffset(fields.e_shoff);
    let first: &[elf::SectionHeader64<LE>] = table(data, "section header 0", offset, 1).ok()?;
    let first = first.first()?;
    // Extended numbering: too large for the file header's 16 bits, they stand in section header 0.
    let count = match fields.e_shnum {
        0 => usize::try_from(first.sh_size.get(LE)).ok()?,
        count => usize::from(count),
    };
    let names_index = match elf::SymbolSection(fields.e_shstrndx) {
        elf::SHN_XINDEX => usize::try_from(first.sh_link.get(LE)).ok()?,
        index => usize::from(index.0),
    };
    let headers: &[elf::SectionHeader64<LE>] = table(data, "section headers", offset, count).ok()?;
    let names = headers.get(names_index).and_then(|header| Section { name: b"", header }.bytes(data));
    let names = StringTable::new(names.unwrap_or_default());
    let name = |header: &elf::SectionHeader64<LE>| names.hint(u64::from(header.sh_name.get(LE))).unwrap_or_default();
    Some(headers.iter().map(|header| Section { name: name(header), header }).collect())
}
