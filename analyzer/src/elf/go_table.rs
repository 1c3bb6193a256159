//! Go's function table (`.gopclntab`): where each function of a Go program starts and ends.
//!
//! Input: the address space and the relocations. Output: [`GoTable`]. Go's linker writes no `.eh_frame`, but its
//! runtime cannot unwind a stack without this table, so every Go program has it, stripped or not, with or without
//! section headers. It is found by the magic number it begins with, and believed if the runtime's description of the
//! module (`moduledata`) points to it and agrees with it. Sources: Go's `runtime/symtab.go` (`moduledata`, `pcHeader`,
//! `moduledataverify1`) and `runtime/runtime2.go` (`_func`), of Go 1.2, 1.16, 1.18, 1.20 and 1.26.
//!
//! Over-approximates: a function's range reaches up to the next one, padding included. May miss: modules of plugins,
//! which are files of their own.

use std::ops::Range;

use rustc_hash::FxHashMap;

use super::relocation::{Relocation, RelocationTarget};
use super::segment::AddressSpace;
use crate::address::Vaddr;

/// One function of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GoFunction<'data> {
    /// First instruction.
    pub start: Vaddr,
    /// Where the next one starts.
    pub end: Vaddr,
    /// How many bytes above the stack pointer at its call belong to it: arguments, results and room to keep register
    /// arguments. `None` in assembly without a prototype.
    pub argument_bytes: Option<u32>,
    /// Whether Go's compiler or assembler wrote it; the linker lists functions of C objects too.
    pub is_go: bool,
    /// Whether Go's compiler is known to have written it, and what it promises holds: zero in `xmm15` (Go's
    /// `abi-internal.md`), labels in jump tables only. Assembly does what it likes.
    pub is_compiled: bool,
    /// Package path and name; empty if it cannot be read.
    pub name: &'data [u8],
}

/// The table of a file.
#[derive(Debug, PartialEq, Eq)]
pub struct GoTable<'data> {
    /// Ascending and disjoint, at least one.
    pub functions: Vec<GoFunction<'data>>,
    /// What offsets in type descriptions count from.
    pub text: Vaddr,
    /// Where the table itself stands. It holds addresses that nothing jumps to.
    pub place: Range<Vaddr>,
}

/// How the parts of a table are laid out.
#[derive(Clone, Copy)]
struct Layout {
    /// Offsets in `moduledata` of the slices that begin where names count from, of `pclntable` and of `ftab`.
    names_at: u64,
    functions_at: u64,
    index_at: u64,
    /// Offset in `moduledata` of `minpc`, `maxpc`, `text`, `etext`.
    bounds_at: u64,
    /// Bytes of a number in `ftab`.
    width: u64,
    /// Offset of `args` in `_func`; the name's offset stands before it, `deferreturn` and `pcsp` behind.
    arguments_at: u64,
    /// Offset from `args` to `flag`, where that tells assembly from the compiler's code.
    flag_at: Option<u64>,
}

/// Go 1.2 to 1.15: `moduledata` begins with the table itself.
const FIRST: Layout =
    Layout { names_at: 0, functions_at: 0, index_at: 24, bounds_at: 80, width: 8, arguments_at: 12, flag_at: None };
/// Go 1.16 and 1.17: parts of the table have slices of their own.
const SPLIT: Layout =
    Layout { names_at: 8, functions_at: 104, index_at: 128, bounds_at: 160, width: 8, arguments_at: 12, flag_at: None };
/// Go 1.18 and 1.19: numbers in it are offsets from the text.
const OFFSETS: Layout = Layout { width: 4, arguments_at: 8, flag_at: Some(29), ..SPLIT };
/// Go 1.20 and later: `_func` has `startLine` before `funcID` and `flag`.
const LINES: Layout = Layout { flag_at: Some(33), ..OFFSETS };

/// The first 8 bytes as a number: magic, two zeros, the size of an instruction quantum (1), the size of a pointer (8).
const fn layout(head: u64) -> Option<Layout> {
    match head {
        0x0801_0000_ffff_fffb => Some(FIRST),
        0x0801_0000_ffff_fffa => Some(SPLIT),
        0x0801_0000_ffff_fff0 => Some(OFFSETS),
        0x0801_0000_ffff_fff1 => Some(LINES),
        _ => None,
    }
}

/// In `_func.flag`: the function is assembly (`funcFlag_ASM`, now `abi.FuncFlagAsm`).
const ASSEMBLY: u8 = 4;

/// `_func.args` where it is not known (`abi.ArgsSizeUnknown`), and implausibly large ones.
const LARGEST_ARGUMENTS: u32 = 1 << 20;

impl<'data> GoTable<'data> {
    /// Finds the table; `None` in a file that has none, or one that does not agree with itself.
    pub(super) fn find(space: &AddressSpace<'data>, relocations: &[Relocation]) -> Option<Self> {
        let finder = Finder { space, relocations };
        let candidates = finder.candidates();
        if candidates.is_empty() {
            return None;
        }
        // Descriptions of a module that share one long table could have it read again and again.
        let mut left = u64::try_from(space.file_words()).map_or(u64::MAX, |words| words.saturating_mul(4));
        finder.modules(&candidates).into_iter().find_map(|(module, layout)| finder.read(module, layout, &mut left))
    }

    /// The function that holds `at`.
    #[must_use]
    pub fn function_at(&self, at: Vaddr) -> Option<&GoFunction<'data>> {
        let index = self.functions.partition_point(|function| function.start <= at).checked_sub(1)?;
        self.functions.get(index).filter(|function| at < function.end)
    }
}

/// Longer names are not read.
const LONGEST_NAME: usize = 4096;

/// How many words are looked at at once.
const RUN: usize = 512;

/// The upper half of what every table begins with ([`layout`]).
const HEAD: u64 = 0x0801_0000;

fn words_of(start: Vaddr, words: &[[u8; 8]]) -> impl Iterator<Item = (Vaddr, u64)> {
    let values = words.iter().map(|word| u64::from_le_bytes(*word));
    values.zip((start.0..).step_by(8)).map(|(value, at)| (Vaddr(at), value))
}

struct Finder<'f, 'data> {
    space: &'f AddressSpace<'data>,
    relocations: &'f [Relocation],
}

impl<'data> Finder<'_, 'data> {
    /// Words of the file, in runs of which each begins at an address. Where read-only data stands in one LOAD with the code
    /// (`-z noseparate-code`, gold), so does the table.
    fn runs(&self) -> impl Iterator<Item = (Vaddr, &'data [[u8; 8]])> + '_ {
        self.space.segments().iter().flat_map(|segment| {
            let padding = segment.p_vaddr.0.wrapping_neg() % 8;
            let start = segment.p_vaddr.0.saturating_add(padding);
            let bytes = self.space.bytes(segment.p_vaddr, segment.p_filesz).unwrap_or(&[]);
            let aligned = usize::try_from(padding).ok().and_then(|padding| bytes.get(padding..)).unwrap_or(&[]);
            let (words, _) = aligned.as_chunks::<8>();
            // The last place has none behind it: words are asked for first.
            words.chunks(RUN).zip((start..).step_by(8 * RUN)).map(|(words, start)| (Vaddr(start), words))
        })
    }

    fn words(&self) -> impl Iterator<Item = (Vaddr, u64)> + '_ {
        self.runs().flat_map(|(start, words)| words_of(start, words))
    }

    /// Places that begin like a table. Nearly every run of a file has none, which is seen without looking at its words one
    /// by one.
    fn candidates(&self) -> Vec<(Vaddr, Layout)> {
        let is_head = |word: &[u8; 8]| u64::from_le_bytes(*word) >> 32 == HEAD;
        let runs = self.runs().filter(|(_, words)| words.iter().fold(false, |found, word| found | is_head(word)));
        runs.flat_map(|(start, words)| words_of(start, words))
            .filter_map(|(at, word)| Some((at, layout(word)?)))
            .collect()
    }

    /// Places that point to one of them.
    fn modules(&self, candidates: &[(Vaddr, Layout)]) -> Vec<(Vaddr, Layout)> {
        let candidates: FxHashMap<u64, Layout> = candidates.iter().map(|(at, layout)| (at.0, *layout)).collect();
        let pointed = |target: u64| candidates.get(&target).copied();
        let relocated = self.relocations.iter().filter_map(|relocation| match relocation.target {
            RelocationTarget::Relative(target) => Some((relocation.slot, pointed(target.0)?)),
            _ => None,
        });
        self.words().filter_map(|(at, word)| Some((at, pointed(word)?))).chain(relocated).collect()
    }

    /// The pointer or number at an address, as the loader leaves it.
    fn word(&self, at: Vaddr) -> Option<u64> {
        let index = self.relocations.partition_point(|relocation| relocation.slot < at);
        match self.relocations.get(index).filter(|relocation| relocation.slot == at).map(|r| r.target) {
            Some(RelocationTarget::Relative(target)) => Some(target.0),
            Some(_) => None,
            None => self.space.array(at).map(u64::from_le_bytes),
        }
    }

    fn number(&self, at: Vaddr, width: u64) -> Option<u64> {
        match width {
            4 => self.space.array(at).map(|bytes| u64::from(u32::from_le_bytes(bytes))),
            _ => self.word(at),
        }
    }

    /// Reads the table that the description at `module` belongs to; `None` if anything does not fit.
    fn read(&self, module: Vaddr, layout: Layout, left: &mut u64) -> Option<GoTable<'data>> {
        let field = |offset: u64| module.checked_add(offset).and_then(|at| self.word(at));
        let start = Vaddr(field(0)?);
        let functions = Vaddr(field(layout.functions_at)?);
        let end = functions.checked_add(field(layout.functions_at.checked_add(8)?)?)?;
        let index = Vaddr(field(layout.index_at)?);
        let count = field(layout.index_at.checked_add(8)?)?;
        let bound = |number: u64| field(layout.bounds_at.checked_add(number.checked_mul(8)?)?).map(Vaddr);
        let (lowest, highest, text, text_end) = (bound(0)?, bound(1)?, bound(2)?, bound(3)?);
        let is_ordered = start <= functions && functions <= index && index < end;
        let is_code = self.space.segment_at(lowest).is_some_and(|s| s.is_executable() && highest <= s.memory_end());
        // No count is believed before the bytes that it counts are there.
        let entry = layout.width.checked_mul(2)?;
        let size = count.checked_mul(entry)?.checked_sub(layout.width)?;
        let is_there = self.space.bytes(index, size).is_some() && index.checked_add(size)? <= end;
        if !is_ordered || !is_code || !is_there || text > lowest || highest > text_end {
            return None;
        }
        *left = left.checked_sub(count)?;
        let base = if layout.width == 4 { text } else { Vaddr(0) };
        let starts = self.starts(index, count, base, layout.width)?;
        if starts.first().map(|(at, _)| *at) != Some(lowest) || starts.last().map(|(at, _)| *at) != Some(highest) {
            return None;
        }
        let names = Vaddr(field(layout.names_at)?);
        let pairs = starts.iter().zip(starts.iter().skip(1)).filter(|((start, _), (end, _))| start < end);
        let described = pairs.map(|(&(start, at), &(end, _))| {
            let description = self.number(at, layout.width).and_then(|offset| functions.checked_add(offset));
            let args = description.and_then(|at| at.checked_add(layout.arguments_at));
            let argument_bytes = args.and_then(|at| self.arguments(at));
            let name = args.and_then(|at| self.name(names, at));
            // What Go makes has a table of the stack's depth.
            let depth = args.and_then(|at| self.space.array(at.checked_add(8)?)).map_or(1, u32::from_le_bytes);
            let flag = args.and_then(|at| self.space.array(at.checked_add(layout.flag_at?)?)).map(u8::from_le_bytes);
            let (is_go, name) = (depth != 0, name.unwrap_or_default());
            let is_compiled = is_go && flag.is_some_and(|flag| flag & ASSEMBLY == 0);
            GoFunction { start, end, argument_bytes, is_go, is_compiled, name }
        });
        Some(GoTable { functions: described.collect(), text, place: start..end })
    }

    /// Where functions start, ascending, each with where the offset of its description stands.
    fn starts(&self, index: Vaddr, count: u64, base: Vaddr, width: u64) -> Option<Vec<(Vaddr, Vaddr)>> {
        let mut starts: Vec<(Vaddr, Vaddr)> = Vec::new();
        for number in 0..count {
            let at = index.checked_add(number.checked_mul(width.checked_mul(2)?)?)?;
            let start = base.checked_add(self.number(at, width)?)?;
            if starts.last().is_some_and(|(before, _)| *before > start) {
                return None;
            }
            starts.push((start, at.checked_add(width)?));
        }
        Some(starts)
    }

    fn arguments(&self, at: Vaddr) -> Option<u32> {
        self.space.array(at).map(u32::from_le_bytes).filter(|bytes| *bytes <= LARGEST_ARGUMENTS)
    }

    /// The name whose offset from `names` stands in the 4 bytes before `behind`.
    fn name(&self, names: Vaddr, behind: Vaddr) -> Option<&'data [u8]> {
        let offset = u32::from_le_bytes(self.space.array(Vaddr(behind.0.checked_sub(4)?))?);
        let bytes = self.space.bytes_from(names.checked_add(u64::from(offset))?)?;
        let bytes = bytes.get(..LONGEST_NAME.min(bytes.len()))?;
        std::ffi::CStr::from_bytes_until_nul(bytes).ok().map(std::ffi::CStr::to_bytes)
    }
}
