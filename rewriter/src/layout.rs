//! Where everything goes: arithmetic only.
//!
//! Input: [`Executable`], the plan for its program header table and the lengths of the payload's parts. Output:
//! [`Layout`]: every header of the new file, and every place. Nothing of the old file moves. What is new stands behind
//! it:
//!
//! ```text
//! old file           with other bytes in the file header, the program header table, perhaps one section header
//! section headers    the three new ones if the old table ends the file, else the whole table again
//! section names      the old ones and three more
//! (zeros)            to the next page
//! added segment      stub, header, filter, note [program header table, or what made room for it]
//! ```
//! Follows gABI chapters 4 and 5 and the kernel's `fs/binfmt_elf.c`: PT_LOADs ascend and share no page; the added one
//! is the highest, right behind the last, so that the heap begins where it did, but for these few pages.

use object::elf::{
    PF_R, PF_X, PT_LOAD, SHF_ALLOC, SHF_EXECINSTR, SHT_NOTE, SHT_PROGBITS, SHT_STRTAB, SectionFlags, SectionType,
};

use crate::elf::{PAGE, SECTION_LENGTH, Section, Segment, align_up};
use crate::error::Error;
use crate::executable::{Executable, Sections, length_of};
use crate::payload::Parts;
use crate::table::{Moved, TablePlacement, TablePlan};

/// Names of the added sections.
pub const SECTION_NAMES: [&str; 3] = [".chestnut.stub", ".chestnut.filter", ".note.chestnut"];

/// Longest hole that a file may get when the table goes into the added segment. A hole takes no place on disk.
const LONGEST_HOLE: u64 = 16 << 20;

/// Alignment of what stands behind the payload.
const PIECE_ALIGNMENT: u64 = 16;

/// Every place in the new file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// How the program header table got its entry.
    pub placement: TablePlacement,
    /// The program header table.
    pub segments: Vec<Segment>,
    /// Its file offset.
    pub table_offset: u64,
    /// The added segment.
    pub added: Segment,
    /// Stretch of the old file (offset and end) that is copied, and the file offset of the copy.
    pub moved: Option<(u64, u64, u64)>,
    /// File offsets of symbol values that change with it.
    pub moved_symbols: Vec<u64>,
    /// The section header table, if the old file has one.
    pub sections: Option<SectionLayout>,
    /// Length of the old file.
    pub old_length: u64,
    /// Length of the new file.
    pub length: u64,
}

/// The section header table of the new file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SectionLayout {
    /// All headers.
    pub headers: Vec<Section>,
    /// File offset of the table.
    pub offset: u64,
    /// How many of the headers stand in the old file: all of its own, or none.
    pub in_place: usize,
    /// Index of the table of names.
    pub names_index: usize,
    /// File offset of the names.
    pub names_offset: u64,
    /// The names.
    pub names: Vec<u8>,
}

impl Layout {
    /// Address of the stub, which is the new entry point.
    #[must_use]
    pub fn stub_address(&self) -> u64 {
        self.added.p_vaddr
    }

    /// How many bytes are added, but for those that fill up to the page of the new segment.
    #[must_use]
    pub fn content(&self) -> u64 {
        let behind_names =
            self.sections.as_ref().and_then(|sections| sections.names_offset.checked_add(length_of(&sections.names)));
        let front = behind_names.map_or(0, |end| end.saturating_sub(self.old_length));
        front.saturating_add(self.added.p_filesz)
    }

    /// Computes all places.
    ///
    /// # Errors
    ///
    /// If there is none for the program header table.
    pub(crate) fn new(executable: &Executable<'_>, plan: &TablePlan, parts: &Parts) -> Result<Self, Error> {
        let old_length = length_of(executable.bytes);
        let mut sections = executable.sections.as_ref().map(|sections| place_sections(executable, plan, sections));
        let front_end = match &sections {
            Some(Some(sections)) => sections.names_offset.checked_add(length_of(&sections.names)),
            _ => Some(old_length),
        };
        let front_end = front_end.ok_or_else(overflow)?;
        let added = place_segment(executable, plan, parts, front_end)?;
        let behind = behind_payload(plan, parts).ok_or_else(overflow)?;
        let behind = added.p_offset.checked_add(behind).ok_or_else(overflow)?;
        let mut segments = plan.segments.clone();
        if let Some(moved) = &plan.moved {
            let headers = sections.as_mut().and_then(Option::as_mut).map(|sections| &mut sections.headers);
            move_headers(moved, behind, added.bias(), &mut segments, headers).ok_or_else(overflow)?;
        }
        if let Some(sections) = sections.as_mut().and_then(Option::as_mut) {
            name_payload(&mut sections.headers, parts, &added);
        }
        Ok(Self {
            placement: plan.placement,
            segments: with_added(plan, segments, added, behind),
            moved: plan.moved.as_ref().map(|moved| (moved.start, moved.end, behind)),
            moved_symbols: plan.moved.as_ref().map_or_else(Vec::new, |moved| moved.symbols.clone()),
            table_offset: plan.offset.unwrap_or(behind),
            added,
            sections: match sections {
                Some(None) => return Err(overflow()),
                Some(Some(sections)) => Some(sections),
                None => None,
            },
            old_length,
            length: added.file_end().ok_or_else(overflow)?,
        })
    }
}

fn overflow() -> Error {
    Error::Damaged { what: "the layout".to_owned(), found: "an overflow".to_owned(), expected: "64 bits".to_owned() }
}

/// The plan's segments, and the added one behind the last PT_LOAD.
fn with_added(plan: &TablePlan, mut segments: Vec<Segment>, added: Segment, table: u64) -> Vec<Segment> {
    let behind =
        segments.iter().rposition(|segment| segment.p_type == PT_LOAD).map_or(0, |last| last.saturating_add(1));
    segments.insert(behind, added);
    if plan.offset.is_none() {
        let length = plan.length();
        for phdr in segments.iter_mut().filter(|segment| segment.p_type == object::elf::PT_PHDR) {
            let address = table.wrapping_add(added.bias());
            let moved = Segment { p_offset: table, p_vaddr: address, p_paddr: address, ..*phdr };
            *phdr = Segment { p_filesz: length, p_memsz: length, ..moved };
        }
    }
    segments
}

fn place_segment(
    executable: &Executable<'_>,
    plan: &TablePlan,
    parts: &Parts,
    front_end: u64,
) -> Result<Segment, Error> {
    let loads = || plan.segments.iter().filter(|segment| segment.p_type == PT_LOAD);
    let memory_end = loads().filter_map(Segment::memory_end).max().unwrap_or(0);
    let mut address = align_up(memory_end, PAGE).ok_or_else(overflow)?;
    let mut offset = align_up(front_end, PAGE).ok_or_else(overflow)?;
    let length = added_length(plan, parts).ok_or_else(overflow)?;
    if plan.offset.is_none() {
        // The distance of the first segment, by moving on in the file, or in memory where the file is the longer one.
        let bias = loads().next().map_or(0, Segment::bias);
        let at_address = address.checked_sub(bias).ok_or_else(overflow)?;
        let hole = at_address.saturating_sub(offset);
        if hole > LONGEST_HOLE {
            let count = executable.segments.len();
            return Err(Error::NoPlaceForTable { count, needed: plan.length(), hole });
        }
        offset = offset.max(at_address);
        address = offset.checked_add(bias).ok_or_else(overflow)?;
    }
    Ok(Segment {
        p_type: PT_LOAD,
        p_flags: PF_R | PF_X,
        p_offset: offset,
        p_vaddr: address,
        p_paddr: address,
        p_filesz: length,
        p_memsz: length,
        p_align: PAGE,
    })
}

/// Where in the added segment the table, or what made room for it, begins: behind the payload. In front it would share
/// its offset with the segment, and llvm-strip would take PT_PHDR or PT_INTERP for the one that holds the other. Moved
/// pieces are as far from a multiple of 16 as they were, for their alignment.
fn behind_payload(plan: &TablePlan, parts: &Parts) -> Option<u64> {
    let shift = plan.moved.as_ref().map_or(0, |moved| moved.start % PIECE_ALIGNMENT);
    align_up(parts.end, PIECE_ALIGNMENT)?.checked_add(shift)
}

/// Length of the added segment.
fn added_length(plan: &TablePlan, parts: &Parts) -> Option<u64> {
    let behind = behind_payload(plan, parts)?;
    match (&plan.moved, plan.offset) {
        (Some(moved), _) => behind.checked_add(moved.end.checked_sub(moved.start)?),
        (None, None) => behind.checked_add(plan.length()),
        (None, Some(_)) => Some(parts.end),
    }
}

/// Gives the headers of moved pieces their new places.
fn move_headers(
    moved: &Moved,
    to: u64,
    bias: u64,
    segments: &mut [Segment],
    sections: Option<&mut Vec<Section>>,
) -> Option<()> {
    let place = |old: u64| to.checked_add(old.checked_sub(moved.start)?);
    for index in &moved.segments {
        let segment = segments.get_mut(*index)?;
        let p_offset = place(segment.p_offset)?;
        let p_vaddr = p_offset.wrapping_add(bias);
        *segment = Segment { p_offset, p_vaddr, p_paddr: p_vaddr, ..*segment };
    }
    let Some(sections) = sections else {
        return Some(());
    };
    for index in &moved.sections {
        let section = sections.get_mut(*index)?;
        let sh_offset = place(section.sh_offset)?;
        *section = Section { sh_offset, sh_addr: sh_offset.wrapping_add(bias), ..*section };
    }
    Some(())
}

/// Places table and names; the payload's own headers get their addresses later.
fn place_sections(executable: &Executable<'_>, plan: &TablePlan, sections: &Sections<'_>) -> Option<SectionLayout> {
    let old_length = length_of(executable.bytes);
    let (start, end) = executable.section_table()?;
    // The table may lie where the program headers have grown to, and names may share a table with symbols.
    let overwritten = plan
        .offset
        .is_some_and(|table| table < end && table.checked_add(plan.length()).is_none_or(|table_end| table_end > start));
    let shared = is_shared(sections);
    let mut headers = sections.headers.clone();
    let mut names_index = sections.names_index;
    let mut names = sections.names.to_vec();
    if shared {
        names = vec![0];
        for header in &mut headers {
            let name = name_of(sections, header.sh_name).to_vec();
            header.sh_name = append_name(&mut names, &name)?;
        }
        names_index = headers.len();
        let sh_name = append_name(&mut names, b".shstrtab")?;
        headers.push(Section { sh_name, sh_type: SHT_STRTAB, sh_addralign: 1, ..Section::default() });
    }
    for (name, (sh_type, sh_flags, sh_addralign)) in SECTION_NAMES.iter().zip(SECTION_KINDS) {
        let sh_name = append_name(&mut names, name.as_bytes())?;
        headers.push(Section { sh_name, sh_type, sh_flags, sh_addralign, ..Section::default() });
    }
    let stays = end == old_length && !overwritten && !shared && executable.is_aside((start, end));
    let in_place = if stays { sections.headers.len() } else { 0 };
    let offset = if in_place > 0 { start } else { align_up(old_length, 8)? };
    let names_offset = offset.checked_add(u64::try_from(headers.len()).ok()?.checked_mul(SECTION_LENGTH)?)?;
    let table_of_names = headers.get_mut(names_index)?;
    table_of_names.sh_offset = names_offset;
    table_of_names.sh_size = length_of(&names);
    Some(SectionLayout { headers, offset, in_place, names_index, names_offset, names })
}

const SECTION_KINDS: [(SectionType, SectionFlags, u64); 3] = [
    (SHT_PROGBITS, SectionFlags(SHF_ALLOC.0 | SHF_EXECINSTR.0), 16),
    (SHT_PROGBITS, SHF_ALLOC, 8),
    (SHT_NOTE, SHF_ALLOC, 4),
];

/// Whether the table of section names holds other names too, or is part of a segment: then it stays.
fn is_shared(sections: &Sections<'_>) -> bool {
    let index = u32::try_from(sections.names_index).unwrap_or(u32::MAX);
    let linked = sections.headers.iter().any(|header| header.sh_link == index);
    let loaded =
        sections.headers.get(sections.names_index).is_some_and(|header| header.sh_flags & SHF_ALLOC == SHF_ALLOC);
    linked || loaded
}

fn name_of<'data>(sections: &Sections<'data>, at: u32) -> &'data [u8] {
    let rest = usize::try_from(at).ok().and_then(|at| sections.names.get(at..)).unwrap_or_default();
    rest.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Adds a name to a string table and returns its place.
fn append_name(names: &mut Vec<u8>, name: &[u8]) -> Option<u32> {
    let at = u32::try_from(names.len()).ok()?;
    names.extend(name);
    names.push(0);
    Some(at)
}

fn name_payload(headers: &mut [Section], parts: &Parts, added: &Segment) {
    let ranges = [(0, parts.stub_length), (parts.header, parts.note), (parts.note, parts.end)];
    let Some(own) = headers.len().checked_sub(ranges.len()).and_then(|first| headers.get_mut(first..)) else {
        return;
    };
    for (header, (start, end)) in own.iter_mut().zip(ranges) {
        header.sh_offset = added.p_offset.saturating_add(start);
        header.sh_addr = added.p_vaddr.saturating_add(start);
        header.sh_size = end.saturating_sub(start);
    }
}

impl Default for Section {
    fn default() -> Self {
        Self {
            sh_name: 0,
            sh_type: object::elf::SHT_NULL,
            sh_flags: SectionFlags(0),
            sh_addr: 0,
            sh_offset: 0,
            sh_size: 0,
            sh_link: 0,
            sh_info: 0,
            sh_addralign: 0,
            sh_entsize: 0,
        }
    }
}
