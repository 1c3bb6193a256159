//! The code of one file, ready for data flow: control-flow graphs, and which calls come back.
//!
//! Input: what [`crate::functions`] and [`crate::data`] found. Output: [`Code`], which builds the [`Cfg`] of any
//! function. A call that never returns must not have an edge to the instruction behind it: compilers put unrelated code
//! there, and what the callee leaves in registers would be taken to flow into it.
//!
//! Over-approximates: where code of elsewhere enters a function, nothing is known of registers. May miss: what
//! `code/returns.rs` names.

mod returns;

use std::sync::Arc;

use iced_x86::{FlowControl, Instruction, InstructionInfoFactory, OpAccess, Register};

use crate::address::Vaddr;
use crate::answers::Answers;
use crate::arguments::{Callee, Sites, call_sites, callee};
use crate::cfg::{Cfg, Labels};
use crate::data::Data;
use crate::dataflow;
use crate::elf::{GoFunction, Image, LandingPad};
use crate::functions::{Function, FunctionId, Functions, StartEvidence};
use crate::instruction::{Reference, ReferenceKind};
use crate::memory::Memory;
use crate::registers::{ARGUMENTS, CallEffect, GO_ARGUMENTS, State, bit, bits, caller_saved};
use crate::table_jumps::{self, TableJumps};

/// How many levels of callees are looked at to tell what a call changes.
const MAX_CALLEES: usize = 4;

/// Code of one file.
#[derive(Debug)]
pub struct Code<'a, 'data> {
    /// The file.
    pub image: &'a Image<'data>,
    /// Its functions.
    pub functions: &'a Functions,
    data: &'a Data,
    /// Addresses inside function bodies that pointers in data name, sorted: labels of a computed `goto`.
    interior: &'a [Vaddr],
    answers: &'a Answers,
}

impl<'a, 'data> Code<'a, 'data> {
    /// `interior` are the addresses inside function bodies that pointers in data name, sorted.
    #[must_use]
    pub const fn new(
        image: &'a Image<'data>,
        functions: &'a Functions,
        data: &'a Data,
        interior: &'a [Vaddr],
        answers: &'a Answers,
    ) -> Self {
        Self { image, functions, data, interior, answers }
    }

    /// The memory that it reads.
    #[must_use]
    pub const fn memory(&self) -> Memory<'_, 'data> {
        Memory { image: self.image, data: self.data, code: self }
    }

    /// Decodes a function and builds its control-flow graph.
    #[must_use]
    pub fn control_flow(&self, function: &Function) -> (Vec<Instruction>, Cfg) {
        let instructions = function.instructions(self.image);
        let jumps = self.table_jumps(function, &instructions);
        let cfg = self.graph(function, &instructions, &jumps, 0);
        (instructions, cfg)
    }

    /// The same without looking for the table of each indirect jump: all tables serve all of them.
    #[must_use]
    pub fn coarse_control_flow(&self, function: &Function) -> (Vec<Instruction>, Cfg) {
        let instructions = function.instructions(self.image);
        let cfg = self.graph(function, &instructions, &TableJumps::default(), 0);
        (instructions, cfg)
    }

    /// Follows the data of a function, and calls `tell` for the instructions that `wanted` picks ([`dataflow::observe`]).
    pub fn observe(
        &self,
        function: &Function,
        wanted: impl Fn(&Instruction) -> bool,
        mut tell: impl FnMut(&Instruction, Vaddr, &State),
    ) {
        let instructions = function.instructions(self.image);
        let graph = |jumps: &TableJumps| self.graph(function, &instructions, jumps, 0);
        let (mut jumps, mut last) = (Arc::default(), None);
        if function.has_indirect_jump {
            jumps = self.answers.jumps.get_or(function.start, || {
                let (found, seen) = table_jumps::find(&self.memory(), function, &instructions, graph, &wanted);
                last = seen;
                Arc::new(found)
            });
        }
        match last {
            // Who looked for the tables has seen it all on the way.
            Some(seen) => seen.iter().for_each(|(instruction, at, state)| tell(instruction, *at, state)),
            None => dataflow::observe(&self.memory(), &instructions, &graph(&jumps), wanted, tell),
        }
    }

    /// Where exceptions go that come out of a function's calls.
    #[must_use]
    pub fn landing_pads(&self, function: &Function) -> Vec<LandingPad> {
        let frame = self.image.frame_before(function.start).filter(|_| function.has_landing_pads());
        let pads = frame.and_then(|frame| self.image.landing_pads(frame.lsda?, frame.start).ok());
        pads.unwrap_or_default()
    }

    /// Where those indirect jumps of a function go whose tables are known.
    fn table_jumps(&self, function: &Function, instructions: &[Instruction]) -> Arc<TableJumps> {
        if !function.has_indirect_jump {
            return Arc::default();
        }
        let graph = |jumps: &TableJumps| self.graph(function, instructions, jumps, 0);
        let find = || table_jumps::find(&self.memory(), function, instructions, graph, |_| false).0;
        self.answers.jumps.get_or(function.start, || Arc::new(find()))
    }

    /// The calls of a function that say whom they call.
    #[must_use]
    pub fn named_calls(&self, id: FunctionId) -> Sites {
        self.answers.named_calls.get_or(id, || self.calls(id, |callee| callee != Callee::Computed))
    }

    /// The calls of a function whose target is computed.
    #[must_use]
    pub fn computed_calls(&self, id: FunctionId) -> Sites {
        self.answers.computed_calls.get_or(id, || self.calls(id, |callee| callee == Callee::Computed))
    }

    fn calls(&self, id: FunctionId, wanted: impl Fn(Callee) -> bool) -> Sites {
        let sites = self.functions.function(id).map(|function| call_sites(self, function, wanted));
        sites.unwrap_or_default().into_iter().map(Arc::new).collect()
    }

    fn graph(&self, function: &Function, instructions: &[Instruction], jumps: &TableJumps, depth: usize) -> Cfg {
        let (targets, entries) = self.labels(function);
        let is_whole = function.evidence != StartEvidence::Reference;
        let is_followed = function.is_followed();
        let labels =
            Labels { entry: function.start, targets: &targets, jumps, entries: &entries, is_followed, is_whole };
        Cfg::new(instructions, &labels, |call| self.comes_back(call, depth))
    }

    /// Where else than at its start, and by its own direct jumps, control may get in a function: where its indirect jumps
    /// may go, and where it may be entered with nothing known.
    #[must_use]
    pub fn labels(&self, function: &Function) -> (Vec<Vaddr>, Vec<Vaddr>) {
        let named = |kind| matches!(kind, ReferenceKind::JumpTable | ReferenceKind::Address);
        let named = function.references.iter().filter(|r| named(r.kind)).map(|r| r.target);
        let mut targets: Vec<Vaddr> = named.filter(|&at| function.contains(at) && at != function.start).collect();
        let pads = function.references.iter().filter(|r| r.kind == ReferenceKind::LandingPad);
        let mut entries: Vec<Vaddr> = pads.map(|r| r.target).collect();
        // Go's compiler writes the address of a label only into jump tables: what looks like another one is a number.
        let is_number = !function.has_indirect_jump && self.is_compiled_go(function.start);
        for &(start, end) in &function.extents {
            targets.extend(between(self.interior, start, end).iter().filter(|_| !is_number));
            entries.extend(between(self.foreign_entries(), start, end));
        }
        if !function.has_indirect_jump {
            // Labels that it does not jump to itself are for somebody else.
            entries.append(&mut targets);
        }
        (targets, entries)
    }

    /// Addresses inside bodies where control comes from elsewhere, sorted: other functions jump there or take them, a
    /// call names them, or the loader or other files can.
    fn foreign_entries(&self) -> &[Vaddr] {
        self.answers.entries.get_or_init(|| {
            let is_interior = |at: Vaddr| self.image.is_code(at) && !self.functions.starts_at(at);
            let mut found = Vec::new();
            for function in self.functions.all() {
                let leads_in = |r: &&Reference| match r.kind {
                    ReferenceKind::Call => is_interior(r.target),
                    ReferenceKind::Jump
                    | ReferenceKind::JumpTable
                    | ReferenceKind::LandingPad
                    | ReferenceKind::Address => !function.contains(r.target) && is_interior(r.target),
                    ReferenceKind::CallThrough | ReferenceKind::Load(_) | ReferenceKind::Store => false,
                };
                found.extend(function.references.iter().filter(leads_in).map(|r| r.target));
            }
            let exported = self.image.symbols().iter().filter(|s| s.is_exported()).map(|s| s.value);
            let dynamic = self.image.dynamic();
            let started = [self.image.entry(), dynamic.and_then(|d| d.init), dynamic.and_then(|d| d.fini)];
            found.extend(exported.chain(started.into_iter().flatten()).filter(|&at| is_interior(at)));
            found.sort_unstable();
            found.dedup();
            found
        })
    }

    /// Whether `at` lies in a function that Go's compiler or assembler wrote.
    #[must_use]
    pub fn is_go(&self, at: Vaddr) -> bool {
        self.go_function(at).is_some_and(|function| function.is_go)
    }

    /// Whether `at` lies in a function that Go's compiler wrote: `xmm15` is zero at its entry and behind its calls.
    #[must_use]
    pub fn is_compiled_go(&self, at: Vaddr) -> bool {
        self.go_function(at).is_some_and(|function| function.is_compiled)
    }

    fn go_function(&self, at: Vaddr) -> Option<&GoFunction<'data>> {
        self.image.go_table()?.function_at(at)
    }

    /// What a call does to the state of the function that makes it.
    #[must_use]
    pub fn effect_of(&self, call: &Instruction) -> CallEffect {
        let (changed, passed) = (self.changed_by(call), bits(ARGUMENTS));
        if self.is_go(Vaddr(call.ip())) {
            // Arguments, results and room for register arguments stand above the stack pointer and are the callee's
            // (Go's `abi-internal.md`).
            let function = direct_callee(call).and_then(|at| self.go_function(at));
            let stack = function.and_then(|function| function.argument_bytes).unwrap_or(u32::MAX);
            let passed = passed | bits(GO_ARGUMENTS);
            let keeps_zero = self.is_compiled_go(Vaddr(call.ip()));
            return CallEffect { changed, passed, stack, has_result: false, keeps_zero, returns_twice: false };
        }
        let returns_twice = self.may_return_twice(call, 0);
        CallEffect { changed, passed, stack: 0, has_result: true, keeps_zero: false, returns_twice }
    }

    /// The registers that may have changed when a call comes back; with Go's convention all but the stack pointer.
    #[must_use]
    pub fn changed_by(&self, call: &Instruction) -> u16 {
        if self.is_go(Vaddr(call.ip())) {
            return !bit(Register::RSP);
        }
        direct_callee(call).map_or_else(caller_saved, |at| self.changed_behind(at, 0))
    }

    fn changed_behind(&self, at: Vaddr, depth: usize) -> u16 {
        let function = self.functions.at(at).filter(|_| depth < MAX_CALLEES && self.functions.starts_at(at));
        let Some(id) = function else { return caller_saved() };
        let changed = || self.functions.function(id).map_or_else(caller_saved, |f| self.changed_in(f, depth));
        self.answers.changes.get_or((id, depth), changed)
    }

    fn changed_in(&self, function: &Function, depth: usize) -> u16 {
        let all = caller_saved();
        if function.has_indirect_call || function.has_indirect_jump || function.undecodable.is_some() {
            return all;
        }
        let mut changed = 0;
        let mut factory = InstructionInfoFactory::new();
        let instructions = function.instructions(self.image);
        for instruction in &instructions {
            changed |= match callee(instruction) {
                Some(Callee::Direct(at)) if at == function.start || !function.contains(at) => {
                    self.changed_behind(at, depth + 1)
                }
                Some(Callee::Through(_) | Callee::Computed) => all,
                Some(Callee::Direct(_)) | None => written(instruction, &mut factory),
            };
            if changed & all == all {
                break;
            }
        }
        let runs_on = instructions.last().is_none_or(|last| last.flow_control() == FlowControl::Next);
        if runs_on { all } else { changed & all }
    }
}

/// The address that a call names.
fn direct_callee(call: &Instruction) -> Option<Vaddr> {
    match callee(call) {
        Some(Callee::Direct(at)) => Some(at),
        _ => None,
    }
}

/// The part of a sorted list that lies in a range.
fn between(sorted: &[Vaddr], start: Vaddr, end: Vaddr) -> &[Vaddr] {
    let first = sorted.partition_point(|&at| at < start);
    let behind = sorted.partition_point(|&at| at < end);
    sorted.get(first..behind).unwrap_or(&[])
}

/// The registers that an instruction writes.
fn written(instruction: &Instruction, factory: &mut InstructionInfoFactory) -> u16 {
    if matches!(instruction.flow_control(), FlowControl::Call | FlowControl::Interrupt) {
        // The kernel writes what the instruction does not name.
        return caller_saved();
    }
    let used = factory.info(instruction).used_registers().iter();
    let writes = used.filter(|used| {
        matches!(used.access(), OpAccess::Write | OpAccess::CondWrite | OpAccess::ReadWrite | OpAccess::ReadCondWrite)
    });
    bits(writes.map(iced_x86::UsedRegister::register))
}
