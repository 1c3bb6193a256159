//! Function bodies of one file: where each starts and ends, and what it refers to.
//!
//! Input: an [`Image`]. Output: [`Functions`], sorted by start address. Bounds come from the frame descriptions of
//! `.eh_frame` (every compiler for x86-64 emits them, psABI 4.2.4) and, for Go, from its own table; their bodies are
//! decoded from end to end. Code that neither covers (assembly, PLT stubs, C libraries built without unwind tables) is
//! found from what refers to it: entry point, symbols, pointers in data, calls, jumps and addresses in code; from there
//! every path is followed.
//!
//! Over-approximates: a body counts as a whole. May miss: code outside frame descriptions that nothing refers to.

mod described;
mod followed;
mod gaps;
mod switch_table;

use std::cmp::Reverse;
use std::collections::BTreeSet;

use iced_x86::{Code, Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, Register};
use rayon::prelude::*;
use serde::{Deserialize, Serialize, Serializer};

use crate::address::Vaddr;
use crate::by_address::ByAddress;
use crate::elf::Image;
use crate::instruction::{Reference, ReferenceKind, Role, references, role};
use crate::jump_table::JumpTables;
use crate::limits::{Budget, Excess};
use described::{described_function, is_described, is_linkage_table, listed_function, next_start, reach};
use followed::Followed;
use gaps::Gaps;

/// Index of a function in its module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FunctionId(pub u32);

/// How the start of a function is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StartEvidence {
    /// A frame description in `.eh_frame`.
    FrameDescription,
    /// An entry of Go's function table.
    GoTable,
    /// Something refers to the address, and no frame description covers it.
    Reference,
}

/// One function and what its body says.
#[derive(Debug, Serialize, Deserialize)]
pub struct Function {
    /// First byte.
    pub start: Vaddr,
    /// How we know.
    pub evidence: StartEvidence,
    /// Byte ranges of its code: one for a frame description, several where paths were followed.
    pub extents: Vec<(Vaddr, Vaddr)>,
    /// What it refers to, each target and kind once, sorted.
    pub references: Vec<Reference>,
    /// Its `syscall` instructions.
    pub syscalls: Vec<Vaddr>,
    /// Its `int $0x80` and `sysenter` instructions.
    pub foreign_syscalls: Vec<Vaddr>,
    /// Whether it calls through registers or memory.
    pub has_indirect_call: bool,
    /// Whether it jumps through registers or memory.
    pub has_indirect_jump: bool,
    /// The first bytes that are no instruction.
    pub undecodable: Option<Vaddr>,
    /// Whether numbers in its instructions can be addresses.
    has_absolute: bool,
}

impl Function {
    fn new(start: Vaddr, evidence: StartEvidence, has_absolute: bool) -> Self {
        Self {
            start,
            evidence,
            extents: Vec::new(),
            references: Vec::new(),
            syscalls: Vec::new(),
            foreign_syscalls: Vec::new(),
            has_indirect_call: false,
            has_indirect_jump: false,
            undecodable: None,
            has_absolute,
        }
    }

    /// Whether `at` lies in the body.
    #[must_use]
    pub fn contains(&self, at: Vaddr) -> bool {
        // They are sorted, and no two overlap.
        let behind = self.extents.partition_point(|&(start, _)| start <= at);
        behind.checked_sub(1).and_then(|index| self.extents.get(index)).is_some_and(|&(_, end)| at < end)
    }

    /// Decodes the body again, in address order.
    #[must_use]
    pub fn instructions(&self, image: &Image<'_>) -> Vec<Instruction> {
        let mut all = Vec::new();
        for &(start, end) in &self.extents {
            decode(image, start, end, |instruction| {
                all.push(*instruction);
                true
            });
        }
        all
    }

    /// Takes in what one instruction of the body says.
    fn note(&mut self, instruction: &Instruction, image: &Image<'_>) {
        if !self.has_absolute && is_plain(instruction) {
            return;
        }
        let at = Vaddr(instruction.ip());
        match role(instruction) {
            Role::Syscall => self.syscalls.push(at),
            Role::ForeignSyscall => self.foreign_syscalls.push(at),
            Role::IndirectCall => self.has_indirect_call = true,
            Role::IndirectJump => self.has_indirect_jump = true,
            Role::Plain => {}
        }
        let from = at.checked_offset_from(self.start).and_then(|offset| u32::try_from(offset).ok()).unwrap_or(u32::MAX);
        let found = &mut self.references;
        references(instruction, image, self.has_absolute, |target, kind| found.push(Reference { target, kind, from }));
    }

    /// Whether all of its code was found by following paths from its start, so that what none leads to is dead.
    #[must_use]
    pub fn is_followed(&self) -> bool {
        self.evidence == StartEvidence::Reference && !self.has_indirect_jump
    }

    /// Whether exceptions may go on in it or in a part of it.
    #[must_use]
    pub fn has_landing_pads(&self) -> bool {
        self.references.iter().any(|r| r.kind == ReferenceKind::LandingPad)
    }

    /// Drops jumps inside the body and repeated references; what they were collected in goes to `buffer`.
    fn finish(&mut self, buffer: &mut Vec<Reference>) {
        let mut found = std::mem::take(&mut self.references);
        found.retain(|r| r.kind != ReferenceKind::Jump || !self.contains(r.target));
        found.sort_unstable();
        found.dedup_by_key(|r| (r.target, r.kind));
        // A copy has no room to spare.
        self.references = found.clone();
        found.clear();
        *buffer = found;
    }
}

/// Whether an instruction of position-independent code says nothing to [`Function::note`], as most do: it goes on to the
/// next one, and what it refers to in memory depends on a register other than `rip`.
fn is_plain(instruction: &Instruction) -> bool {
    let is_fixed = || matches!(instruction.memory_base(), Register::None | Register::RIP | Register::EIP);
    instruction.flow_control() == FlowControl::Next && (instruction.memory_displ_size() == 0 || !is_fixed())
}

/// Descriptions that one processor looks at before another one can take over what is left.
const BATCH: usize = 128;

/// The longest instruction (SDM volume 2, 2.3.11).
const LONGEST_INSTRUCTION: usize = 15;

/// The bytes of all instructions that begin from `start` on and before `end`, as far as the file has them: the last one may
/// reach beyond the end.
pub(crate) fn code_bytes<'data>(image: &Image<'data>, start: Vaddr, end: Vaddr) -> Option<&'data [u8]> {
    let len = end.checked_offset_from(start)?;
    let available = image.bytes_from(start).unwrap_or(&[]);
    let longest = usize::try_from(len).ok().and_then(|len| len.checked_add(LONGEST_INSTRUCTION));
    Some(longest.and_then(|longest| available.get(..longest)).unwrap_or(available))
}

/// Decodes from `start` while `visit` returns true: each instruction that begins before `end`, as the processor would run
/// it, wherever it ends. The address of the first undecodable byte, if any.
fn decode(image: &Image<'_>, start: Vaddr, end: Vaddr, mut visit: impl FnMut(&Instruction) -> bool) -> Option<Vaddr> {
    let mut decoder = Decoder::with_ip(64, code_bytes(image, start, end)?, start.0, DecoderOptions::NONE);
    let mut instruction = Instruction::default();
    let mut undecodable = None;
    while decoder.can_decode() && decoder.ip() < end.0 {
        decoder.decode_out(&mut instruction);
        if instruction.code() == Code::INVALID {
            undecodable = undecodable.or(Some(Vaddr(instruction.ip())));
        }
        if !visit(&instruction) {
            break;
        }
    }
    undecodable
}

/// All functions of a file.
#[derive(Debug, Deserialize)]
#[serde(from = "Vec<Function>")]
pub struct Functions {
    functions: Vec<Function>,
    /// Where each starts: what look-ups go through.
    starts: ByAddress<Vaddr>,
    /// Whose body holds what: where a piece starts, and the function with the highest start among those that hold it.
    pieces: ByAddress<(Vaddr, Option<FunctionId>)>,
    excess: Option<Excess>,
}

impl Functions {
    /// Finds and decodes every function. `pointers` are addresses that data holds (relocated pointers, or in
    /// position-dependent files words that look like one).
    #[must_use]
    pub fn discover(image: &Image<'_>, pointers: &[Vaddr]) -> Self {
        let code = image.executable_ranges().into_iter().map(|range| range.end.0.saturating_sub(range.start.0));
        let code = code.fold(0, u64::saturating_add);
        let bodies = Budget::new("bytes of code in frame descriptions, which overlap", code, image.limits());
        let pads =
            Budget::new("bytes of exception tables, which several functions share", image.size(), image.limits());
        let frames = image.frame_descriptions();
        let mut described: Vec<Function> = frames
            .par_iter()
            .with_max_len(BATCH)
            .filter(|frame| !is_linkage_table(image, frame))
            .filter(|frame| bodies.take(reach(image, frame, next_start(frames, frame))))
            .filter(|frame| frame.lsda.is_none_or(|lsda| pads.take(image.landing_pad_bytes(lsda))))
            .map_init(Vec::new, |buffer, frame| described_function(image, frame, next_start(frames, frame), buffer))
            .collect();
        let table = image.go_table().map_or(&[][..], |table| &table.functions);
        let undescribed = table.par_iter().filter(|function| !is_described(image, function.start));
        described
            .par_extend(undescribed.map_init(Vec::new, |buffer, function| listed_function(image, function, buffer)));
        let gaps = Gaps::new(image, &described);
        // An instruction has about four bytes.
        let paths =
            Budget::new("instructions on paths through code without frame descriptions", code / 4, image.limits());
        let followed = Followed::new(image, &gaps, &described, pointers, &paths).run();
        let mut functions: Vec<Function> = described.into_iter().chain(followed).collect();
        // Of descriptions that begin at one place the longest counts.
        let end = |f: &Function| Reverse(f.extents.first().map(|(_, end)| *end));
        functions.sort_by_key(|f| (f.start, f.evidence == StartEvidence::Reference, end(f)));
        functions.dedup_by_key(|f| f.start);
        let excess = bodies.excess().or(pads.excess()).or(paths.excess());
        let mut found = Self::from(functions);
        let entries =
            Budget::new("entries of jump tables, which several functions share", image.size() / 8, image.limits());
        found.resolve_jump_tables(image, &entries);
        found.excess = excess.or(entries.excess());
        found
    }

    /// The limit that the code goes beyond: these are not all functions then.
    #[must_use]
    pub const fn excess(&self) -> Option<Excess> {
        self.excess
    }

    /// The functions, sorted by start.
    #[must_use]
    pub fn all(&self) -> &[Function] {
        &self.functions
    }

    /// One function; `None` for an id of another module.
    #[must_use]
    pub fn function(&self, id: FunctionId) -> Option<&Function> {
        usize::try_from(id.0).ok().and_then(|index| self.functions.get(index))
    }

    /// The function that starts at `at`, else one whose body holds it.
    #[must_use]
    pub fn at(&self, at: Vaddr) -> Option<FunctionId> {
        if let Some(index) = self.starts.position(at) {
            return u32::try_from(index).ok().map(FunctionId);
        }
        self.pieces.last_up_to(at).and_then(|(_, id)| *id)
    }

    /// Whether a function starts exactly at `at`.
    #[must_use]
    pub fn starts_at(&self, at: Vaddr) -> bool {
        self.starts.position(at).is_some()
    }

    fn resolve_jump_tables(&mut self, image: &Image<'_>, budget: &Budget) {
        let tables = JumpTables::new(image, self);
        let found: Vec<Vec<Reference>> = self
            .functions
            .par_iter()
            .map(|f| if f.has_indirect_jump { tables.targets(f, self, budget) } else { Vec::new() })
            .collect();
        for (function, mut targets) in self.functions.iter_mut().zip(found) {
            if !targets.is_empty() {
                function.references.append(&mut targets);
                function.references.sort_unstable();
                // Which table names a target tells which jumps go there.
                let table = |r: &Reference| (r.kind == ReferenceKind::JumpTable).then_some(r.from);
                function.references.dedup_by_key(|r| (r.target, r.kind, table(r)));
            }
        }
    }
}

/// All that is not said by the functions themselves is computed from them.
impl Serialize for Functions {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.functions.serialize(serializer)
    }
}

impl From<Vec<Function>> for Functions {
    /// `functions` are sorted by their starts, and within every limit.
    fn from(functions: Vec<Function>) -> Self {
        let pieces = ByAddress::new(pieces(&functions));
        let starts = ByAddress::new(functions.iter().map(|f| f.start).collect());
        Self { functions, starts, pieces, excess: None }
    }
}

/// Cuts the address space where bodies start and end.
fn pieces(functions: &[Function]) -> Vec<(Vaddr, Option<FunctionId>)> {
    // At each address, the bodies that end there and those that start.
    let mut changes: Vec<(Vaddr, bool, u32)> = Vec::new();
    for (id, function) in (0_u32..).zip(functions) {
        for &(start, end) in function.extents.iter().filter(|(start, end)| start < end) {
            changes.push((start, true, id));
            changes.push((end, false, id));
        }
    }
    changes.sort_unstable();
    let mut held: BTreeSet<u32> = BTreeSet::new();
    let mut pieces: Vec<(Vaddr, Option<FunctionId>)> = Vec::new();
    for (at, starts, id) in changes {
        if starts {
            held.insert(id);
        } else {
            held.remove(&id);
        }
        let holder = held.last().copied().map(FunctionId);
        match pieces.last_mut() {
            Some(last) if last.0 == at => last.1 = holder,
            Some(last) if last.1 == holder => {}
            _ => pieces.push((at, holder)),
        }
    }
    pieces
}

/// Whether the instruction behind this one is not run next. A program must not halt the processor: it gets SIGSEGV at
/// `hlt` (SDM volume 2; musl's `a_crash`).
fn stops(instruction: &Instruction) -> bool {
    use FlowControl::{Exception, IndirectBranch, Return, UnconditionalBranch};
    let halts = instruction.mnemonic() == Mnemonic::Hlt;
    halts || matches!(instruction.flow_control(), UnconditionalBranch | IndirectBranch | Return | Exception)
}

/// Whether control goes on behind an instruction that is the last one of a function: into the next one. A call or a system
/// call there may well be one that does not return.
pub(crate) fn runs_off(last: &Instruction) -> bool {
    let goes_on = matches!(last.flow_control(), FlowControl::Next | FlowControl::ConditionalBranch);
    goes_on && last.mnemonic() != Mnemonic::Hlt
}
