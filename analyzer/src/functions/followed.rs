//! Functions whose bounds are nowhere written down: code is followed from what refers to it.
//!
//! Input: an [`Image`], its [`Gaps`], the functions that are known, pointers in data. Output: one [`Function`] for each
//! start that something refers to.
//!
//! Starts are followed in batches, all of one at the same time. What jumps lead to is a part of the function, unless another
//! one is known to start there; a function with a jump to a start that was found later is followed once more.
//!
//! Over-approximates: whatever data or code names in a gap is taken for a start, be it by its distance. May miss: code
//! that nothing names, and functions that tail calls enter by a table of distances.

use std::collections::{BTreeMap, BTreeSet};

use iced_x86::{Code, Instruction, Mnemonic, Register};
use rayon::prelude::*;
use rustc_hash::FxHashSet;

use super::gaps::Gaps;
use super::switch_table::SwitchTable;
use super::{Function, StartEvidence, decode, stops};
use crate::address::Vaddr;
use crate::elf::Image;
use crate::instruction::{Reference, ReferenceKind, Role, role};
use crate::limits::{Budget, Tally};
use crate::never_return;
use crate::syscall::SyscallNr;

/// Longer tables of distances are not read.
const MOST_DISTANCES: usize = 1024;

/// Bytes of `endbr64; hlt` or `endbr64; ud2`.
const LONGEST_TRAP: u64 = 6;

/// So many starts are followed at the same time: enough for all processors, and not so many that few others are known yet.
const BATCH: usize = 1024;

/// Follows code through the gaps, from one start to the next that it refers to.
pub(super) struct Followed<'a, 'data> {
    image: &'a Image<'data>,
    gaps: &'a Gaps,
    budget: &'a Budget,
    starts: FxHashSet<Vaddr>,
    /// Behind a call to one of these another function begins.
    never_return: FxHashSet<Vaddr>,
}

impl<'a, 'data> Followed<'a, 'data> {
    pub(super) fn new(
        image: &'a Image<'data>,
        gaps: &'a Gaps,
        described: &[Function],
        pointers: &[Vaddr],
        budget: &'a Budget,
    ) -> Self {
        let dynamic = image.dynamic();
        let symbols = image.function_hints().iter().map(|hint| hint.address);
        let named = image.entry().into_iter().chain(dynamic.and_then(|d| d.init)).chain(dynamic.and_then(|d| d.fini));
        let certain = named.chain(referenced_code(described.iter()));
        let taken = described.iter().flat_map(|function| taken_by(function, image));
        let likely = symbols.chain(taken).chain(pointers.iter().copied());
        let all = certain.chain(likely.filter(|&at| image.is_in_code_section(at)));
        let starts = all.filter(|&at| gaps.end_of(at).is_some()).collect();
        Self { image, gaps, budget, starts, never_return: never_return::starts(image) }
    }

    pub(super) fn run(mut self) -> Vec<Function> {
        let mut found: Vec<(Function, Vec<Vaddr>)> = Vec::new();
        let mut work: BTreeSet<Vaddr> = self.starts.iter().copied().collect();
        while !work.is_empty() && self.budget.excess().is_none() {
            self.follow_all(work, &mut found);
            // Starts that were found later end what jumps to them have led into; and what such a function names then may
            // be what it did not name before.
            let has_other = |entered: &[Vaddr]| entered.iter().any(|at| self.starts.contains(at));
            let again = found.par_iter_mut().filter(|(_, entered)| has_other(entered));
            let named = again.flat_map_iter(|follow| {
                *follow = self.follow(follow.0.start);
                self.named_by(&follow.0).collect::<Vec<_>>()
            });
            work = named.collect::<Vec<Vaddr>>().into_iter().collect();
            self.starts.extend(&work);
        }
        found.into_iter().map(|(function, _)| function).collect()
    }

    /// Follows starts, and those that are named by what is found.
    fn follow_all(&mut self, mut work: BTreeSet<Vaddr>, found: &mut Vec<(Function, Vec<Vaddr>)>) {
        while !work.is_empty() && self.budget.excess().is_none() {
            let batch: Vec<Vaddr> = std::iter::from_fn(|| work.pop_first()).take(BATCH).collect();
            let mut new: Vec<_> = batch.par_iter().map(|start| self.follow(*start)).collect();
            let named: Vec<Vaddr> = new.par_iter().flat_map_iter(|(function, _)| self.named_by(function)).collect();
            self.starts.extend(&named);
            work.extend(named);
            found.append(&mut new);
        }
    }

    /// Starts in the gaps that nothing has named so far.
    fn named_by<'f>(&'f self, function: &'f Function) -> impl Iterator<Item = Vaddr> + use<'f, 'a, 'data> {
        let likely = taken_by(function, self.image).filter(|&at| self.image.is_in_code_section(at));
        let named = referenced_code(std::iter::once(function)).chain(likely);
        named.filter(|at| !self.starts.contains(at) && self.gaps.end_of(*at).is_some())
    }

    /// Decodes every path from `start` that stays in the gaps; and what jumps in it lead to that nobody else is known to
    /// start with.
    fn follow(&self, start: Vaddr) -> (Function, Vec<Vaddr>) {
        let function = Function::new(start, StartEvidence::Reference, !self.image.is_position_independent());
        let mut body = Body::new(function, Tally::new(self.budget));
        while let Some(path) = body.paths.pop() {
            self.follow_path(&mut body, path);
        }
        body.finish()
    }

    fn follow_path(&self, body: &mut Body<'_>, path: Vaddr) {
        body.paths.extend(body.ends.remove(&path));
        let amid = || body.fallen.contains(&path).then(|| self.end_of_description_around(path)).flatten();
        let Some(end) = self.gaps.end_of(path).or_else(amid) else {
            // The path runs on into a described function.
            body.function.references.push(Reference { target: path, kind: ReferenceKind::Jump, from: 0 });
            return;
        };
        let mut falls_through = true;
        let mut ends_thread = false;
        let mut behind = end;
        let mut table = SwitchTable::default();
        let undecodable = decode(self.image, path, end, |instruction| {
            let (at, next) = (Vaddr(instruction.ip()), Vaddr(instruction.next_ip()));
            let is_new = body.steps.step() && body.seen.insert(at);
            if !is_new || instruction.code() == Code::INVALID {
                falls_through = false;
                return false;
            }
            body.instructions.push((at, next));
            body.function.note(instruction, self.image);
            table.see(instruction);
            if role(instruction) == Role::IndirectJump {
                body.paths.extend(table.targets(self.image).filter(|at| self.gaps.end_of(*at).is_some()));
            }
            if let Some(target) = crate::cfg::direct_jump_target(instruction)
                && self.gaps.end_of(target).is_some()
                && !self.starts.contains(&target)
            {
                body.paths.push(target);
                body.entered.push(target);
            }
            let is_last = instruction.is_call_near() && self.never_returns(Vaddr(instruction.near_branch_target()));
            let is_end = ends_thread && role(instruction) == Role::Syscall && !body.ends.contains_key(&at);
            if is_end {
                body.ends.insert(at, next);
            }
            ends_thread = sets_number_of_exit(instruction);
            behind = behind.max(next);
            falls_through = !stops(instruction) && !is_last && !is_end;
            falls_through
        });
        body.function.undecodable = body.function.undecodable.or(undecodable);
        if falls_through {
            body.fallen.insert(behind);
            body.paths.push(behind);
        }
    }

    /// The end of a frame description that begins amid code which runs on into it: what it says of its start is wrong,
    /// and perhaps no instruction begins there.
    fn end_of_description_around(&self, at: Vaddr) -> Option<Vaddr> {
        let frame = self.image.frame_before(at)?;
        (frame.start < at && at < frame.end).then_some(frame.end)
    }

    /// Whether a call does not come back, by the name or the first instruction of what it enters.
    fn never_returns(&self, at: Vaddr) -> bool {
        let mut traps = false;
        let end = at.checked_add(LONGEST_TRAP).unwrap_or(at);
        decode(self.image, at, end, |first| {
            traps = matches!(first.mnemonic(), Mnemonic::Hlt | Mnemonic::Ud2);
            first.mnemonic() == Mnemonic::Endbr64
        });
        traps || self.never_return.contains(&at)
    }
}

/// A function while its paths are followed.
struct Body<'b> {
    function: Function,
    paths: Vec<Vaddr>,
    seen: FxHashSet<Vaddr>,
    /// Where each begins and ends.
    instructions: Vec<(Vaddr, Vaddr)>,
    /// What jumps have led to.
    entered: Vec<Vaddr>,
    /// System calls that end a thread, where the number is set right before: nothing comes behind them.
    ends: BTreeMap<Vaddr, Vaddr>,
    /// Where one instruction came behind another.
    fallen: FxHashSet<Vaddr>,
    steps: Tally<'b>,
}

impl<'b> Body<'b> {
    fn new(function: Function, steps: Tally<'b>) -> Self {
        Self {
            paths: vec![function.start],
            function,
            seen: FxHashSet::default(),
            instructions: Vec::new(),
            entered: Vec::new(),
            ends: BTreeMap::new(),
            fallen: FxHashSet::default(),
            steps,
        }
    }

    fn finish(mut self) -> (Function, Vec<Vaddr>) {
        self.function.extents = merge(self.instructions);
        self.function.finish(&mut Vec::new());
        self.entered.sort_unstable();
        self.entered.dedup();
        self.entered.shrink_to_fit();
        (self.function, self.entered)
    }
}

/// Whether an instruction is `mov $60, %eax` or `mov $231, %eax`: `exit`, `exit_group`.
fn sets_number_of_exit(instruction: &Instruction) -> bool {
    let is_move = instruction.code() == Code::Mov_r32_imm32 && instruction.op0_register() == Register::EAX;
    is_move && matches!(SyscallNr(instruction.immediate32()), SyscallNr::EXIT | SyscallNr::EXIT_GROUP)
}

/// Addresses that functions jump to or call.
fn referenced_code<'f>(functions: impl Iterator<Item = &'f Function>) -> impl Iterator<Item = Vaddr> {
    let goes = |kind| {
        matches!(kind, ReferenceKind::Call | ReferenceKind::Jump | ReferenceKind::JumpTable | ReferenceKind::LandingPad)
    };
    functions.flat_map(|f| &f.references).filter(move |r| goes(r.kind)).map(|r| r.target)
}

/// Addresses that a function takes, and what tables of distances lead to of which it takes the address to call by them.
/// The tables of one that jumps are taken for those of its switches: what these lead to is a part of it.
fn taken_by<'f>(function: &'f Function, image: &'f Image<'_>) -> impl Iterator<Item = Vaddr> + 'f {
    let taken = function.references.iter().filter(|r| r.kind == ReferenceKind::Address).map(|r| r.target);
    let calls = function.has_indirect_call && !function.has_indirect_jump;
    taken.flat_map(move |at| {
        let table = calls.then(|| distances(image, at));
        std::iter::once(at).chain(table.into_iter().flatten())
    })
}

/// What the table at `table` leads to, if it is one of 32-bit distances from itself to code: LLVM makes them of tables
/// of pointers (`RelLookupTableConverter.cpp`). Other constants hardly ever lead to code so.
fn distances<'i>(image: &'i Image<'_>, table: Vaddr) -> impl Iterator<Item = Vaddr> + 'i {
    let entries = std::iter::successors(Some(table), |at| at.checked_add(4)).take(MOST_DISTANCES);
    let entries = entries.take_while(move |at| image.is_constant(*at) && !image.is_code(table));
    entries.map_while(move |at| {
        let target = table.0.checked_add_signed(image.read_i32(at)?.into()).map(Vaddr)?;
        image.is_code(target).then_some(target)
    })
}

/// Joins instructions that touch into ranges.
fn merge(mut instructions: Vec<(Vaddr, Vaddr)>) -> Vec<(Vaddr, Vaddr)> {
    instructions.sort_unstable();
    let mut ranges: Vec<(Vaddr, Vaddr)> = Vec::new();
    for (start, end) in instructions {
        match ranges.last_mut() {
            Some((_, last)) if *last >= start => *last = (*last).max(end),
            _ => ranges.push((start, end)),
        }
    }
    ranges
}
