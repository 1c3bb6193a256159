//! Packed relative relocations (`DT_RELR`).
//!
//! Input: the table's words. Output: one relative relocation per slot, its value read from the slot itself. Spec: gABI
//! chapter 4 "Relative Relocation Table": an even word is the address of a slot; an odd one is a bitmap over the 63
//! words that follow the last slot or bitmap.

use object::LittleEndian as LE;
use object::U64;

use super::error::ImageError;
use super::relocation::{Relocation, RelocationTarget};
use super::segment::AddressSpace;
use crate::address::Vaddr;

/// Slots that one bitmap covers.
const BITMAP_SLOTS: u64 = 63;

/// Decodes the table at `start`.
pub(super) fn add(
    space: &AddressSpace<'_>,
    (start, size): (Vaddr, u64),
    found: &mut Vec<Relocation>,
) -> Result<(), ImageError> {
    if !size.is_multiple_of(8) {
        return Err(ImageError::DynamicValue { tag: "DT_RELRSZ", found: size, expected: "a multiple of 8" });
    }
    let words: &[U64<LE>] = space.table("DT_RELR", start, size)?;
    // Linkers sort the table within a section but not always across (mold does not), so order is no rule. That every
    // slot has its own bytes in the file is one, and bounds what a file can make us allocate.
    let limit = found.len().saturating_add(space.file_words());
    // Where the next bitmap starts.
    let mut next: Option<Vaddr> = None;
    for (index, word) in words.iter().enumerate() {
        let word = word.get(LE);
        let problem = |problem| ImageError::Relr { index, word, problem };
        if word & 1 == 0 {
            let slot = Vaddr(word);
            add_slot(space, index, slot, found)?;
            next = Some(slot.checked_add(8).ok_or_else(|| problem("is the end of the address space"))?);
        } else {
            let base = next.ok_or_else(|| problem("is a bitmap before any address"))?;
            for bit in (0..BITMAP_SLOTS).filter(|bit| (word >> 1) >> bit & 1 == 1) {
                let slot =
                    base.checked_add(bit.saturating_mul(8)).ok_or_else(|| problem("leaves the address space"))?;
                add_slot(space, index, slot, found)?;
            }
            let end = base.checked_add(BITMAP_SLOTS.saturating_mul(8));
            next = Some(end.ok_or_else(|| problem("leaves the address space"))?);
        }
        if found.len() > limit {
            return Err(problem("is one of more slots than the file has words"));
        }
    }
    Ok(())
}

/// One slot: it holds the address itself, so it must have bytes in the file.
fn add_slot(
    space: &AddressSpace<'_>,
    index: usize,
    slot: Vaddr,
    found: &mut Vec<Relocation>,
) -> Result<(), ImageError> {
    let value = space.array(slot).map(u64::from_le_bytes);
    let value = value.ok_or(ImageError::RelocationSlot { table: "DT_RELR", index, slot })?;
    found.push(Relocation { slot, target: RelocationTarget::Relative(Vaddr(value)) });
    Ok(())
}
