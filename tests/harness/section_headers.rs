//! Takes the section header table off an ELF64 file, as `sstrip` does: the kernel and the loader never read it.

use std::ops::Range;

const E_PHOFF: Range<usize> = 0x20..0x28;
const E_SHOFF: Range<usize> = 0x28..0x30;
const E_PHNUM: Range<usize> = 0x38..0x3a;
const E_SHENTSIZE_TO_E_SHSTRNDX: Range<usize> = 0x3a..0x40;
const PROGRAM_HEADER_SIZE: usize = 56;

/// The file without section headers and without everything behind the last byte that a segment holds.
pub(crate) fn remove(file: &[u8]) -> Vec<u8> {
    let number = |range: Range<usize>| {
        let bytes = &file[range];
        bytes.iter().rev().fold(0_u64, |value, byte| value << 8 | u64::from(*byte))
    };
    let at = |range: Range<usize>| usize::try_from(number(range)).expect("offsets fit the address space");
    let table = at(E_PHOFF);
    let count = at(E_PHNUM);
    let mut end = table + count * PROGRAM_HEADER_SIZE;
    for header in (0..count).map(|index| table + index * PROGRAM_HEADER_SIZE) {
        end = end.max(at(header + 8..header + 16) + at(header + 32..header + 40));
    }
    let mut out = file[..end].to_vec();
    out[E_SHOFF].fill(0);
    out[E_SHENTSIZE_TO_E_SHSTRNDX].fill(0);
    out
}
