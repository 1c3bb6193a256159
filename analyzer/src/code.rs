//! The code of one file, ready for data flow: control-flow graphs, and which calls come back.
//!
//! Input: what [`crate::functions`] and [`crate::data`] found. Output: [`Code`], which builds the [`Cfg`] of any function.
//! A call that never returns must not have an edge to the instruction behind it: compilers put unrelated code there, and
//! what the callee leaves in registers would be taken to flow into it.
//!
//! Over-approximates: a function counts as returning unless no path from its entry to a return was found.
//! May miss: a replacement of one of [`NEVER_RETURN`] that does return.

use std::collections::HashMap;
use std::sync::Mutex;

use iced_x86::{FlowControl, Instruction};
use rustc_hash::{FxBuildHasher, FxHashSet};

use crate::address::Vaddr;
use crate::arguments::{Callee, callee};
use crate::cfg::{Cfg, direct_jump_target};
use crate::data::{Data, PointerTarget};
use crate::elf::Image;
use crate::functions::{Function, FunctionId, Functions};
use crate::instruction::ReferenceKind;
use crate::memory::Memory;

/// Functions of libraries that do not return, by their specifications: C17 7.22.4, POSIX, LSB core, the Itanium C++ ABI
/// (exception handling, chapter 2), and the stack protector of GCC.
const NEVER_RETURN: [&[u8]; 19] = [
    b"abort",
    b"exit",
    b"_exit",
    b"_Exit",
    b"quick_exit",
    b"longjmp",
    b"siglongjmp",
    b"_longjmp",
    b"__longjmp_chk",
    b"pthread_exit",
    b"__assert_fail",
    b"__stack_chk_fail",
    b"__fortify_fail",
    b"__chk_fail",
    b"_Unwind_Resume",
    b"__cxa_throw",
    b"__cxa_rethrow",
    b"__cxa_bad_cast",
    b"_ZSt9terminatev",
];

/// How many levels of callees are looked at to prove that a call does not return.
const MAX_DEPTH: usize = 3;

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
    returns: Mutex<HashMap<FunctionId, bool, FxBuildHasher>>,
}

impl<'a, 'data> Code<'a, 'data> {
    /// `interior` are the addresses inside function bodies that pointers in data name, sorted.
    #[must_use]
    pub fn new(image: &'a Image<'data>, functions: &'a Functions, data: &'a Data, interior: &'a [Vaddr]) -> Self {
        Self { image, functions, data, interior, returns: Mutex::default() }
    }

    /// The memory that it reads.
    #[must_use]
    pub const fn memory(&self) -> Memory<'a, 'data> {
        Memory { image: self.image, data: self.data }
    }

    /// Decodes a function and builds its control-flow graph.
    #[must_use]
    pub fn control_flow(&self, function: &Function) -> (Vec<Instruction>, Cfg) {
        self.graph(function, 0)
    }

    fn graph(&self, function: &Function, depth: usize) -> (Vec<Instruction>, Cfg) {
        let instructions = function.instructions(self.image);
        let named = |kind| matches!(kind, ReferenceKind::JumpTable | ReferenceKind::Address);
        let named = function.references.iter().filter(|r| named(r.kind)).map(|r| r.target);
        let mut targets: Vec<Vaddr> = named.filter(|&at| function.contains(at)).collect();
        for &(start, end) in &function.extents {
            let first = self.interior.partition_point(|&at| at < start);
            let behind = self.interior.partition_point(|&at| at < end);
            targets.extend(self.interior.get(first..behind).unwrap_or(&[]));
        }
        let cfg = Cfg::new(&instructions, function.start, &targets, |call| self.comes_back(call, depth));
        (instructions, cfg)
    }

    /// Whether control may get behind a call instruction.
    fn comes_back(&self, call: &Instruction, depth: usize) -> bool {
        match callee(call) {
            Some(Callee::Direct(at)) => self.functions.at(at).is_none_or(|id| self.returns(id, depth)),
            Some(Callee::Through(slot)) => !self.never_returns(slot),
            Some(Callee::Computed) | None => true,
        }
    }

    /// Whether some path through the function ends in a return, or leaves it for a place that may return.
    fn returns(&self, id: FunctionId, depth: usize) -> bool {
        if depth >= MAX_DEPTH {
            return true;
        }
        let known = self.returns.lock().map_or(Some(true), |memo| memo.get(&id).copied());
        if let Some(known) = known {
            return known;
        }
        // While it is being looked at (recursion), it counts as returning.
        self.remember(id, true);
        let answer = self.functions.function(id).is_none_or(|function| self.has_way_out(function, depth + 1));
        self.remember(id, answer);
        answer
    }

    fn remember(&self, id: FunctionId, answer: bool) {
        if let Ok(mut memo) = self.returns.lock() {
            memo.insert(id, answer);
        }
    }

    fn has_way_out(&self, function: &Function, depth: usize) -> bool {
        let (instructions, cfg) = self.graph(function, depth);
        let mut seen: FxHashSet<usize> = FxHashSet::default();
        let mut work = vec![cfg.entry()];
        while let Some(id) = work.pop() {
            let Some(block) = cfg.blocks().get(id).filter(|_| seen.insert(id)) else { continue };
            let last = block.instructions.end.checked_sub(1).and_then(|index| instructions.get(index));
            let leaves = last.is_some_and(|last| match last.flow_control() {
                FlowControl::Return => true,
                FlowControl::IndirectBranch => match callee(last) {
                    Some(Callee::Through(slot)) => !self.never_returns(slot),
                    _ => block.successors.is_empty(),
                },
                FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch => direct_jump_target(last)
                    .is_some_and(|at| {
                        !function.contains(at) && self.functions.at(at).is_none_or(|id| self.returns(id, depth))
                    }),
                _ => false,
            });
            if leaves {
                return true;
            }
            work.extend(&block.successors);
        }
        false
    }

    /// Whether the pointer at `slot` is one to a function that is known not to return.
    fn never_returns(&self, slot: Vaddr) -> bool {
        let behind = slot.checked_add(1).unwrap_or(slot);
        let mut pointers = self.data.pointers_in(&(slot..behind)).iter();
        pointers.any(|pointer| match pointer.target {
            PointerTarget::Symbol(index, 0) => {
                let symbol = usize::try_from(index).ok().and_then(|index| self.image.symbols().get(index));
                symbol.is_some_and(|symbol| NEVER_RETURN.contains(&symbol.name))
            }
            _ => false,
        })
    }
}
