//! What a patch leaves as it was: all that is loaded, but for the headers that it has to change.
//!
//! Input: [`Executable`] (the old file), new bytes, [`Layout`]. Output: nothing, or nothing at all if something is lost.
//! The layout is what the headers of the new file say; `verify.rs` has compared the two.

use object::elf::{PT_LOAD, PT_NOTE, PT_NULL, PT_PHDR};

use crate::elf::{FILE_HEADER_LENGTH, Segment, slice};
use crate::executable::{Executable, length_of};
use crate::layout::Layout;

/// File offset and end.
type Range = (u64, u64);

/// Each old segment is there, with its address, its rights and its bytes, outside of the file header and the program
/// header table; the table lies over nothing that was in use.
pub(crate) fn is_preserved(old: &Executable<'_>, new: &[u8], layout: &Layout) -> Option<()> {
    let table_length = length_of(&Segment::encode_table(&layout.segments));
    let table = (layout.table_offset, layout.table_offset.checked_add(table_length)?);
    let replaced = [(0, FILE_HEADER_LENGTH), table];
    for segment in &old.segments {
        layout.segments.iter().any(|new| continues(segment, new, layout)).then_some(())?;
        for (start, end) in outside((segment.p_offset, segment.file_end()?), replaced) {
            let length = end.saturating_sub(start);
            (segment.p_type != PT_LOAD || slice(old.bytes, start, length)? == slice(new, start, length)?)
                .then_some(())?;
        }
    }
    if let Some((start, end, to)) = layout.moved {
        let length = end.checked_sub(start)?;
        (slice(old.bytes, start, length)? == slice(new, to, length)?).then_some(())?;
    }
    table_has_room(old, table, layout)
}

/// Whether a new segment is what an old one was.
fn continues(old: &Segment, new: &Segment, layout: &Layout) -> bool {
    let moved = layout.moved.filter(|(start, end, _)| old.p_offset >= *start && old.file_end() <= Some(*end));
    let p_offset = match moved {
        Some((start, _, to)) if old.p_type != PT_LOAD => old.p_offset.wrapping_sub(start).wrapping_add(to),
        _ => old.p_offset,
    };
    let distance = p_offset.wrapping_sub(old.p_offset);
    let bias = if distance == 0 { old.bias() } else { layout.added.bias() };
    let fields = |segment: &Segment| (segment.p_type, segment.p_flags);
    let at_same_place = fields(old) == fields(new) && (p_offset, bias) == (new.p_offset, new.bias());
    let as_long = (old.p_filesz, old.p_memsz, old.p_align) == (new.p_filesz, new.p_memsz, new.p_align);
    match old.p_type {
        // An unused entry may be used, and a program can do without PT_PHDR where `table.rs` says so.
        PT_NULL | PT_PHDR => true,
        // Two can have become one.
        PT_NOTE => {
            let end = p_offset.checked_add(old.p_filesz);
            let around = new.p_offset <= p_offset && new.file_end() >= end && new.bias() == bias;
            fields(old) == fields(new) && around
        }
        // One can have become longer, as far as its last page goes, for the table.
        PT_LOAD => {
            at_same_place && new.p_filesz >= old.p_filesz && new.p_memsz >= old.p_memsz && new.p_align == old.p_align
        }
        _ => at_same_place && as_long,
    }
}

/// What of a range is in neither of two others.
fn outside((start, end): Range, mut others: [Range; 2]) -> impl Iterator<Item = Range> {
    others.sort_unstable();
    let [(first_start, first_end), (second_start, second_end)] = others;
    let gaps = [(0, first_start), (first_end, second_start), (first_end.max(second_end), u64::MAX)];
    gaps.into_iter().map(move |(from, to)| (from.max(start), to.min(end))).filter(|(from, to)| from < to)
}

/// The new table lies over the old one, zeros, an old section header table, what was moved; or behind the old file.
fn table_has_room(old: &Executable<'_>, table: Range, layout: &Layout) -> Option<()> {
    let moved = layout.moved.map(|(start, end, _)| (start, end));
    let free = [Some(old.segment_table()), old.section_table(), moved];
    let is_free = |at: u64| free.iter().flatten().any(|(start, end)| (*start..*end).contains(&at));
    let taken = (table.0..table.1)
        .zip(slice(old.bytes, table.0, length_of(old.bytes).saturating_sub(table.0)).unwrap_or_default());
    taken.filter(|(_, byte)| **byte != 0).all(|(at, _)| is_free(at)).then_some(())
}
