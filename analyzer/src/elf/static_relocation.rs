//! IRELATIVE relocations of static executables that have no dynamic section.
//!
//! Input: the segments. Output: the records that the program's own start-up applies (`apply_irel` in glibc's csu,
//! between `__rela_iplt_start` and `__rela_iplt_end`). Those two symbols are gone in a stripped file and section
//! headers may be, so the records are found by what they look like: 24 bytes, aligned to 8, whose `r_info` is
//! `R_X86_64_IRELATIVE` without a symbol, whose slot lies in a writable LOAD and whose resolver lies in an executable
//! one. The linker puts them into a LOAD that is not writable.
//!
//! Over-approximates: any data of that form counts, and only makes one more function reached. May miss: nothing that
//! a linker writes (psABI x86-64 4.4 fixes size and alignment of the record).

use object::LittleEndian as LE;
use object::elf;
use object::pod;

use super::relocation::{self, Relocation, RelocationTarget};
use super::segment::AddressSpace;
use crate::address::Vaddr;

/// All such records, sorted by slot.
pub(super) fn find(space: &AddressSpace<'_>) -> Vec<Relocation> {
    let mut found = Vec::new();
    for segment in space.segments().iter().filter(|segment| !segment.is_writable()) {
        let Some(bytes) = space.bytes_from(segment.p_vaddr) else { continue };
        // Records are aligned in memory; a LOAD need not start at a multiple of 8.
        let padding = usize::try_from(segment.p_vaddr.0.wrapping_neg() % 8).unwrap_or(0);
        let aligned = bytes.get(padding..).unwrap_or_default();
        let (words, _) = aligned.as_chunks::<8>();
        // `r_info` is the second word of three.
        for window in words.windows(3) {
            if let [_, info, _] = window
                && u64::from_le_bytes(*info) == u64::from(elf::R_X86_64_IRELATIVE.0)
                && let Some(record) = record(space, window)
            {
                found.push(record);
            }
        }
    }
    relocation::sort(&mut found);
    found
}

/// The record, if its slot and its resolver lie where they must.
fn record(space: &AddressSpace<'_>, words: &[[u8; 8]]) -> Option<Relocation> {
    let (record, _) = pod::from_bytes::<elf::Rela64<LE>>(words.as_flattened()).ok()?;
    let slot = Vaddr(record.r_offset.get(LE));
    let target = relocation::target(record)?;
    let RelocationTarget::Irelative(resolver) = target else { return None };
    let writes = space.segment_at(slot).is_some_and(|segment| segment.is_writable());
    let resolves = space.segment_at(resolver).is_some_and(|segment| segment.is_executable());
    (writes && resolves).then_some(Relocation { slot, target })
}
