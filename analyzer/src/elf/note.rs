//! The build-id: `NT_GNU_BUILD_ID` in a `PT_NOTE` segment.
//!
//! Input: the bytes of one PT_NOTE segment. Output: the identifier. A note that is damaged ends the search and is no
//! error: old linkers wrote PT_NOTE headers that cover other data, and nothing but a name depends on the build-id.
//! Spec: gABI chapter 5 "Note Section"; alignment 4 or 8 by `p_align`, as the kernel and elfutils read it.

use object::elf;

/// Notes of a program are some hundred bytes; a thousand segments may claim the whole file for theirs.
const MOST_BYTES: usize = 1 << 16;

/// The build-id among the notes of `bytes`.
pub(super) fn build_id(bytes: &[u8], p_align: u64) -> Option<&[u8]> {
    let align = if p_align == 8 { 8 } else { 4 };
    let mut rest = bytes.get(..MOST_BYTES).unwrap_or(bytes);
    loop {
        let (header, _) = rest.as_chunks::<4>();
        let [name_size, descriptor_size, kind] = header.first_chunk()?.map(u32::from_le_bytes);
        let name_size = usize::try_from(name_size).ok()?;
        let descriptor_size = usize::try_from(descriptor_size).ok()?;
        let descriptor_at = 12_usize.checked_add(name_size)?.checked_next_multiple_of(align)?;
        let end = descriptor_at.checked_add(descriptor_size)?;
        let name = rest.get(12..)?.get(..name_size)?;
        let descriptor = rest.get(descriptor_at..end)?;
        if kind == elf::NT_GNU_BUILD_ID.0 && name == b"GNU\0" && !descriptor.is_empty() {
            return Some(descriptor);
        }
        rest = rest.get(end.checked_next_multiple_of(align)?..)?;
    }
}
