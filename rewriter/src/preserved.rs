//! What a patch leaves as it was: all that is loaded, but for the headers that it has to change.
//!
//! Input: [`Executable`] (the old file), new bytes, [`Layout`]. Output: `None` if something is lost. The layout is what the
//! headers of the new file say; `verify.rs` has compared the two.

use object::elf::{PT_INTERP, PT_LOAD, PT_NOTE, PT_NULL, PT_PHDR};

use crate::elf::{FILE_HEADER_LENGTH, Segment, slice};
use crate::executable::{Executable, length_of};
use crate::layout::Layout;
use crate::table::{TablePlacement, is_neighbour};

/// File offset and end.
type Range = (u64, u64);

/// Each old segment is there, with its address, its rights and its bytes, outside of the file header and the program
/// header table; the table lies over nothing that was in use.
pub(crate) fn is_preserved(old: &Executable<'_>, new: &[u8], layout: &Layout) -> Option<()> {
    let table_length = length_of(&Segment::encode_table(&layout.segments));
    let table = (layout.table_offset, layout.table_offset.checked_add(table_length)?);
    for segment in &old.segments {
        let place = place_of(segment, layout);
        layout.segments.iter().any(|new| continues(segment, place, new, table, layout)).then_some(())?;
        if matches!(segment.p_type, PT_LOAD | PT_INTERP) {
            has_its_bytes(old, new, segment, table)?;
        }
    }
    if let Some((start, end, to)) = layout.moved {
        let length = end.checked_sub(start)?;
        (slice(old.bytes, start, length)? == slice(new, to, length)?).then_some(())?;
    }
    table_has_room(old, table, layout)
}

/// The bytes stand where they stood. A table that is longer or elsewhere is so for the segment around it alone; what of an
/// interpreter's name it lies over is what was moved.
fn has_its_bytes(old: &Executable<'_>, new: &[u8], segment: &Segment, table: Range) -> Option<()> {
    let range = (segment.p_offset, segment.file_end()?);
    let around = range.0 <= table.0 && range.1 >= table.1;
    let headers = if around || segment.p_type == PT_INTERP { table } else { old.segment_table() };
    for (start, end) in outside(range, [(0, FILE_HEADER_LENGTH), headers]) {
        let length = end.saturating_sub(start);
        (slice(old.bytes, start, length)? == slice(new, start, length)?).then_some(())?;
    }
    Some(())
}

/// Where a segment is to be in the new file: its offset, and its address less that.
fn place_of(old: &Segment, layout: &Layout) -> (u64, u64) {
    match layout.moved {
        Some((start, end, to))
            if is_neighbour(old) && old.p_filesz > 0 && old.p_offset >= start && old.file_end() <= Some(end) =>
        {
            (old.p_offset.wrapping_sub(start).wrapping_add(to), layout.added.bias())
        }
        _ => (old.p_offset, old.bias()),
    }
}

/// Whether a new segment is what an old one was.
fn continues(old: &Segment, (p_offset, bias): (u64, u64), new: &Segment, table: Range, layout: &Layout) -> bool {
    let fields = |segment: &Segment| (segment.p_type, segment.p_flags);
    let sizes = |segment: &Segment| (segment.p_filesz, segment.p_memsz, segment.p_align);
    let is_same = fields(old) == fields(new) && (p_offset, bias) == (new.p_offset, new.bias());
    match old.p_type {
        // An unused entry may be used.
        PT_NULL => true,
        // Its place is checked with the table's; a program can do without it where `table.rs` says so.
        PT_PHDR => new.p_type == PT_PHDR || layout.placement == TablePlacement::ReplacedPhdr,
        // Two can have become one.
        PT_NOTE => {
            let end = p_offset.checked_add(old.p_filesz);
            let around = new.p_offset <= p_offset && new.file_end() >= end && new.bias() == bias;
            fields(old) == fields(new) && around
        }
        // One can have become longer, up to the end of the table in its padding.
        PT_LOAD if layout.placement == TablePlacement::Padding && new.file_end() == Some(table.1) => {
            let longer = new.p_filesz >= old.p_filesz && new.p_memsz >= old.p_memsz;
            is_same && longer && new.p_align == old.p_align
        }
        _ => is_same && sizes(old) == sizes(new),
    }
}

/// What of a range is in neither of two others.
fn outside((start, end): Range, mut others: [Range; 2]) -> impl Iterator<Item = Range> {
    others.sort_unstable();
    let [(first_start, first_end), (second_start, second_end)] = others;
    let gaps = [(0, first_start), (first_end, second_start), (first_end.max(second_end), u64::MAX)];
    gaps.into_iter().map(move |(from, to)| (from.max(start), to.min(end))).filter(|(from, to)| from < to)
}

/// The new table lies over the old one, zeros, what was moved, or behind the old file; and over an old section header
/// table, which Go's linker puts there and nobody reads in memory.
fn table_has_room(old: &Executable<'_>, table: Range, layout: &Layout) -> Option<()> {
    let moved = layout.moved.map(|(start, end, _)| (start, end));
    let free = [Some(old.segment_table()), old.section_table(), moved];
    let is_free = |at: u64| free.iter().flatten().any(|(start, end)| (*start..*end).contains(&at));
    let behind = length_of(old.bytes).saturating_sub(table.0);
    let taken = (table.0..table.1).zip(slice(old.bytes, table.0, behind).unwrap_or_default());
    taken.filter(|(_, byte)| **byte != 0).all(|(at, _)| is_free(at)).then_some(())
}
