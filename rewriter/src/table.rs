//! Where one more program header goes.
//!
//! Input: [`Executable`]. Output: [`TablePlan`]: the new program header table, but for the added segment itself, and
//! its place. The ways, best first:
//!
//! 1. **A spare entry**: PT_NULL, or one of two PT_NOTE that lie side by side and become one. The table stays where it
//!    is, as long as it was: nothing that reads AT_PHDR or e_phoff can tell, and `strip` finds the room that it needs
//!    (GNU strip writes the table behind the file header whatever e_phoff says). 93 % of Debian's programs.
//! 2. **Grown in place**, where nothing that is used stands behind the table. Go's linker puts the section header table
//!    there, which a patched file has elsewhere.
//! 3. **The entry of PT_PHDR**, in a position-dependent file, where it tells the loader only what it knows: that the
//!    file has not been moved.
//! 4. **Over its neighbours**: interpreter and notes, if they stand right behind the table, are copied to the added
//!    segment, and the table grows over their old place. Only program headers lead to them; no code does.
//! 5. **The entry of PT_PHDR** of a static position-independent program, whose start-up code finds itself by its own
//!    address, or by PT_DYNAMIC.
//! 6. **In the padding behind a segment** that has the first one's distance between address and offset. That segment
//!    becomes longer; all its pages were mapped before.
//! 7. **In the added segment**, at that same distance, if the hole that this makes in the file is not too long.
//!
//! The first five keep the table where it was, and `strip` works afterwards. GNU strip cannot handle the last two: it
//! moves the table and what lies there.
//!
//! The distance matters because kernels before 5.18 compute AT_PHDR as the load address plus e_phoff (BZ 197921), and
//! some loaders (qemu-user) still do.

use object::LittleEndian as LE;
use object::elf::{
    PF_W, PT_DYNAMIC, PT_GNU_PROPERTY, PT_INTERP, PT_LOAD, PT_NOTE, PT_NULL, PT_PHDR, ProgramFlags, SHT_SYMTAB, Sym64,
};
use object::pod::slice_from_bytes;

use crate::elf::{PAGE, SEGMENT_LENGTH, Section, Segment, align_up, page_floor, slice};
use crate::executable::{Executable, length_of};

/// Which way was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum TablePlacement {
    /// An unused entry was used.
    SpareEntry,
    /// Two adjacent PT_NOTE became one.
    MergedNotes,
    /// The table grew where it was.
    Grown,
    /// PT_PHDR gave its entry.
    ReplacedPhdr,
    /// The table grew over interpreter and notes, which are now in the added segment.
    MovedNeighbours,
    /// The table moved into the padding behind a segment.
    Padding,
    /// The table moved into the added segment.
    AddedSegment,
}

impl TablePlacement {
    /// Whether GNU strip and objcopy can work on the file afterwards: they write the table behind the file header, and
    /// need the room there.
    #[must_use]
    pub fn survives_gnu_strip(self) -> bool {
        !matches!(self, Self::Padding | Self::AddedSegment)
    }

    /// Whether the table is where it was, and as long.
    pub(crate) fn keeps_place(self) -> bool {
        matches!(self, Self::SpareEntry | Self::MergedNotes | Self::ReplacedPhdr)
    }
}

/// The new table and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TablePlan {
    pub(crate) placement: TablePlacement,
    /// All entries but the added one, which goes behind the last PT_LOAD.
    pub(crate) segments: Vec<Segment>,
    /// File offset of the table; `None`: in the added segment.
    pub(crate) offset: Option<u64>,
    /// What goes to the added segment to make room.
    pub(crate) moved: Option<Moved>,
}

/// A stretch of the old file that is copied to the front of the added segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Moved {
    /// Old file offset.
    pub(crate) start: u64,
    /// Its end.
    pub(crate) end: u64,
    /// Indices of the segments in it, in [`TablePlan::segments`].
    pub(crate) segments: Vec<usize>,
    /// Indices of the sections in it.
    pub(crate) sections: Vec<usize>,
    /// File offsets of the values of symbols in these sections.
    pub(crate) symbols: Vec<u64>,
}

impl TablePlan {
    /// Takes the first way that there is.
    pub(crate) fn choose(executable: &Executable<'_>) -> Self {
        let (offset, _) = executable.segment_table();
        let in_place = |(placement, segments)| Self { placement, segments, offset: Some(offset), moved: None };
        let fixed = executable.is_position_dependent();
        spare_entry(executable)
            .or_else(|| grown(executable))
            .or_else(|| replaced_phdr(executable).filter(|_| fixed))
            .map(in_place)
            .or_else(|| moved_neighbours(executable))
            .or_else(|| replaced_phdr(executable).filter(|_| is_static_pie(executable)).map(in_place))
            .or_else(|| padding(executable))
            .unwrap_or_else(|| Self {
                placement: TablePlacement::AddedSegment,
                segments: executable.segments.clone(),
                offset: None,
                moved: None,
            })
    }

    /// Size of the table with the added entry.
    pub(crate) fn length(&self) -> u64 {
        length(self.segments.len().saturating_add(1))
    }
}

fn length(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX).saturating_mul(SEGMENT_LENGTH)
}

/// The segments without one of them.
fn without(segments: &[Segment], index: usize) -> Vec<Segment> {
    let mut rest = segments.to_vec();
    rest.remove(index);
    rest
}

fn spare_entry(executable: &Executable<'_>) -> Option<(TablePlacement, Vec<Segment>)> {
    let segments = &executable.segments;
    if let Some(index) = segments.iter().position(|segment| segment.p_type == PT_NULL) {
        return Some((TablePlacement::SpareEntry, without(segments, index)));
    }
    let notes = || segments.iter().enumerate().filter(|(_, segment)| segment.p_type == PT_NOTE);
    notes().find_map(|(first_index, first)| {
        notes().find_map(|(second_index, second)| {
            let merged = merge(executable, first, second)?;
            let mut segments = segments.clone();
            *segments.get_mut(first_index)? = merged;
            segments.remove(second_index);
            Some((TablePlacement::MergedNotes, segments))
        })
    })
}

/// One PT_NOTE that holds the notes of two. GNU ld makes two because `.note.gnu.property` is aligned to 8 and the
/// others to 4; read with 4, all of them lie where they should, since the sizes in them are multiples of 8 where it
/// matters.
fn merge(executable: &Executable<'_>, first: &Segment, second: &Segment) -> Option<Segment> {
    let gap = second.p_offset.checked_sub(first.file_end()?)?;
    let whole = |note: &Segment| note.p_filesz == note.p_memsz && note.p_filesz > 0;
    // Without PT_GNU_PROPERTY, ld.so looks for the property in a PT_NOTE, and only in one that is aligned to 8.
    let property = executable.has_segment(PT_GNU_PROPERTY) || (first.p_align <= 4 && second.p_align <= 4);
    if gap >= 8 || first.bias() != second.bias() || !whole(first) || !whole(second) || !property {
        return None;
    }
    let length = second.file_end()?.checked_sub(first.p_offset)?;
    let merged = Segment { p_filesz: length, p_memsz: length, p_align: 4, ..*first };
    let read = |note: &Segment| notes(slice(executable.bytes, note.p_offset, note.p_filesz)?, note.p_align);
    let both = read(first)?.into_iter().chain(read(second)?);
    let same = first.p_flags == second.p_flags && read(&merged)? == both.collect::<Vec<_>>();
    same.then_some(merged)
}

/// The notes in these bytes, each with name and descriptor; `None` if they are not just notes. gABI, "Note Section".
fn notes(bytes: &[u8], alignment: u64) -> Option<Vec<&[u8]>> {
    let alignment = if alignment == 8 { 8 } else { 4 };
    let mut found = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let (name_length, after) = rest.split_first_chunk::<4>()?;
        let (descriptor_length, _) = after.split_first_chunk::<4>()?;
        let lengths = [u32::from_le_bytes(*name_length), u32::from_le_bytes(*descriptor_length)];
        let [name, descriptor] = lengths.map(u64::from);
        let end = align_up(name.checked_add(12)?, alignment)?.checked_add(descriptor)?;
        found.push(slice(rest, 0, end)?);
        let next = usize::try_from(align_up(end, alignment)?).ok()?;
        rest = rest.get(next..).unwrap_or_default();
    }
    Some(found)
}

/// The same segments with PT_PHDR for a table at this place.
fn with_phdr(segments: &[Segment], offset: u64, bias: u64, length: u64) -> Vec<Segment> {
    let mut segments = segments.to_vec();
    for segment in segments.iter_mut().filter(|segment| segment.p_type == PT_PHDR) {
        let address = offset.wrapping_add(bias);
        let moved = Segment { p_offset: offset, p_vaddr: address, p_paddr: address, ..*segment };
        *segment = Segment { p_filesz: length, p_memsz: length, ..moved };
    }
    segments
}

fn grown(executable: &Executable<'_>) -> Option<(TablePlacement, Vec<Segment>)> {
    let (start, end) = executable.segment_table();
    let new_end = end.checked_add(SEGMENT_LENGTH)?;
    let load = executable.loads().find(|load| load.p_offset <= start && load.file_end() >= Some(new_end))?;
    // Without section headers nobody knows what the bytes behind the table are.
    let (old_start, old_end) = executable.section_table()?;
    let overlaps = |(from, to): (u64, u64)| from < new_end && to > end;
    let used = executable.named_ranges().any(|range| {
        let around = Some(range.1) == load.file_end() && range.0 == load.p_offset;
        let frame = range == (old_start, old_end) || around;
        overlaps(range) && !frame
    });
    let zero = |from: u64, to: u64| {
        slice(executable.bytes, from, to.saturating_sub(from)).is_some_and(|rest| rest.iter().all(|byte| *byte == 0))
    };
    let free = zero(end, new_end.min(old_start.max(end))) && zero(old_end.clamp(end, new_end), new_end);
    let length = length(executable.segments.len().checked_add(1)?);
    let segments = with_phdr(&executable.segments, start, load.bias(), length);
    let mut others = executable.loads().filter(|other| *other != load);
    let shared = others.any(|other| other.file_end().is_some_and(|to| overlaps((other.p_offset, to))));
    (!used && free && !shared).then_some((TablePlacement::Grown, segments))
}

fn replaced_phdr(executable: &Executable<'_>) -> Option<(TablePlacement, Vec<Segment>)> {
    let index = executable.segments.iter().position(|segment| segment.p_type == PT_PHDR)?;
    Some((TablePlacement::ReplacedPhdr, without(&executable.segments, index)))
}

fn is_static_pie(executable: &Executable<'_>) -> bool {
    executable.has_segment(PT_DYNAMIC) && !executable.has_segment(PT_INTERP)
}

/// Whether a segment can stand elsewhere: only program headers lead to it.
pub(crate) fn is_neighbour(segment: &Segment) -> bool {
    [PT_INTERP, PT_NOTE, PT_GNU_PROPERTY].contains(&segment.p_type)
}

fn moved_neighbours(executable: &Executable<'_>) -> Option<TablePlan> {
    /// Zeros between two sections: alignment.
    const LONGEST_GAP: u64 = 16;
    let (start, table_end) = executable.segment_table();
    let new_end = table_end.checked_add(SEGMENT_LENGTH)?;
    let load = executable.loads().find(|load| load.p_offset <= start && load.file_end() >= Some(new_end))?;
    let mut neighbours: Vec<_> = executable.segments.iter().filter(|segment| is_neighbour(segment)).collect();
    neighbours.retain(|segment| segment.p_offset >= table_end && segment.bias() == load.bias());
    neighbours.sort_by_key(|segment| segment.p_offset);
    let mut end = table_end;
    for segment in neighbours {
        if end >= new_end && segment.p_offset >= end {
            break;
        }
        let gap = segment.p_offset.saturating_sub(end);
        let zero = slice(executable.bytes, end, gap)?.iter().all(|byte| *byte == 0);
        if gap >= LONGEST_GAP || !zero {
            return None;
        }
        end = end.max(segment.file_end()?);
    }
    let inside = |(from, to): (u64, u64)| from >= table_end && to <= end && from < to;
    let segments = executable.segments.iter().enumerate();
    let segments = segments.filter(|(_, segment)| {
        is_neighbour(segment) && segment.file_end().is_some_and(|to| inside((segment.p_offset, to)))
    });
    let headers = executable.sections.as_ref().map_or(&[][..], |sections| &sections.headers);
    // The names of sections get a new place in any case.
    let names_index = executable.sections.as_ref().map(|sections| sections.names_index);
    let mut sections = sections_inside(headers, inside);
    sections.retain(|index| Some(*index) != names_index);
    let moved = Moved {
        start: table_end,
        end,
        segments: segments.map(|(index, _)| index).collect(),
        symbols: symbol_values(executable, headers, &sections),
        sections,
    };
    (end >= new_end && holds_nothing_else(executable, load, &moved)).then(|| {
        let length = length(executable.segments.len().saturating_add(1));
        let segments = with_phdr(&executable.segments, start, load.bias(), length);
        TablePlan { placement: TablePlacement::MovedNeighbours, segments, offset: Some(start), moved: Some(moved) }
    })
}

fn sections_inside(headers: &[Section], inside: impl Fn((u64, u64)) -> bool) -> Vec<usize> {
    let headers = headers.iter().enumerate();
    headers.filter_map(|(index, section)| inside(section.file_range()?).then_some(index)).collect()
}

/// The file offsets of `st_value` of all symbols of these sections: of `__abi_tag`, for one. Nothing at run time reads
/// them, but debuggers do. A table that a header puts where something is loaded, or over headers, is none of theirs.
fn symbol_values(executable: &Executable<'_>, headers: &[Section], sections: &[usize]) -> Vec<u64> {
    const SYMBOL_LENGTH: u64 = 24;
    const VALUE_PLACE: u64 = 8;
    let mut places = Vec::new();
    for table in headers.iter().filter(|header| header.sh_type == SHT_SYMTAB && is_aside(executable, header)) {
        let bytes = slice(executable.bytes, table.sh_offset, table.sh_size).unwrap_or_default();
        let count = bytes.len() / size_of::<Sym64<LE>>();
        let symbols = slice_from_bytes::<Sym64<LE>>(bytes, count).map_or(&[][..], |(symbols, _)| symbols);
        let starts = (table.sh_offset..).step_by(usize::try_from(SYMBOL_LENGTH).unwrap_or(24));
        let inside = |symbol: &Sym64<LE>| sections.contains(&usize::from(symbol.st_shndx.get(LE).0));
        let found = symbols.iter().zip(starts).filter(|(symbol, _)| inside(symbol));
        places.extend(found.filter_map(|(_, start)| start.checked_add(VALUE_PLACE)));
    }
    places
}

/// Whether a section lies where nothing is loaded from, and no header stands.
fn is_aside(executable: &Executable<'_>, section: &Section) -> bool {
    let table = executable.section_table();
    let over_table = |(from, to)| table.is_some_and(|(start, end)| from < end && start < to);
    section.file_range().is_some_and(|range| executable.is_aside(range) && !over_table(range))
}

/// Whether nothing that is known to be used lies where the moved pieces lie, but these and the segment around them.
fn holds_nothing_else(executable: &Executable<'_>, around: &Segment, moved: &Moved) -> bool {
    let pieces = moved.segments.iter().filter_map(|index| executable.segments.get(*index));
    let pieces: Vec<_> = pieces.filter_map(|segment| Some((segment.p_offset, segment.file_end()?))).collect();
    let others = executable.segments.iter().filter(|segment| !is_neighbour(segment) && *segment != around);
    let mut others = others.filter_map(|segment| Some((segment.p_offset, segment.file_end()?)));
    let in_piece = |(from, to): (u64, u64)| pieces.iter().any(|(start, end)| from >= *start && to <= *end);
    let is_around = |range| (around.p_offset, around.file_end().unwrap_or(0)) == range;
    let overlaps = |(from, to): (u64, u64)| from < to && from < moved.end && to > moved.start;
    executable.named_ranges().filter(|range| overlaps(*range)).all(|range| in_piece(range) || is_around(range))
        && !others.any(overlaps)
}

fn padding(executable: &Executable<'_>) -> Option<TablePlan> {
    let needed = length(executable.segments.len().checked_add(1)?);
    let bias = executable.loads().next()?.bias();
    let ranges: Vec<_> = executable.named_ranges().collect();
    executable.segments.iter().enumerate().find_map(|(index, load)| {
        let writable = load.p_flags & PF_W != ProgramFlags(0);
        if load.p_type != PT_LOAD || load.bias() != bias || load.p_filesz != load.p_memsz || writable {
            return None;
        }
        let end = load.file_end()?;
        let start = align_up(end, 8)?;
        let table_end = start.checked_add(needed)?;
        // Up to the end of its last page a segment can grow without a new mapping; the next one begins behind that.
        let mapped = align_up(load.memory_end()?, PAGE)?;
        let next = executable.loads().map(|load| page_floor(load.p_vaddr)).find(|page| *page >= mapped);
        let room = table_end.wrapping_add(bias) <= next.unwrap_or(mapped);
        let used = ranges.iter().any(|(from, to)| *from < table_end && *to > end);
        let zero = slice(executable.bytes, end, table_end.checked_sub(end)?)?.iter().all(|byte| *byte == 0);
        if !room || used || !zero || table_end > length_of(executable.bytes) {
            return None;
        }
        let mut segments = with_phdr(&executable.segments, start, bias, needed);
        let longer = table_end.checked_sub(load.p_offset)?;
        let grown = segments.get_mut(index)?;
        *grown = Segment { p_filesz: longer, p_memsz: longer, ..*grown };
        Some(TablePlan { placement: TablePlacement::Padding, segments, offset: Some(start), moved: None })
    })
}
