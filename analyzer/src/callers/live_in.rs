//! Which registers a function reads before it writes them, of those that a callee may change: what a call passes, and
//! what only lies there.
//!
//! Input: a call. Output: the registers that what it enters may read (a set of [`bit`]s). A compiler leaves old values
//! in registers that the callee has no parameter for; only the callee's code says which these are, or its name, where a
//! standard says what it takes. Saving a register counts as reading it.
//!
//! Over-approximates: a call whose target is not known reads all of them, and so does code that cannot be decoded. May
//! miss: registers that a callee reads though a call before may have changed them, which no compiler does (psABI
//! 3.2.1).

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use iced_x86::{FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register};
use rustc_hash::FxHashMap;

use super::Callers;
use crate::address::Vaddr;
use crate::arguments::{CallSite, Callee, callee, is_call};
use crate::code::Code;
use crate::data::PointerTarget;
use crate::dataflow;
use crate::elf::SymbolKind;
use crate::functions::Function;
use crate::program::ModuleId;
use crate::reachability::FunctionKey;
use crate::registers::{ARGUMENTS, State, bit, bits, caller_saved};
use crate::value::{Atom, Value};

/// More functions are not looked at for one answer.
const MOST_FUNCTIONS: usize = 4096;

/// Functions of C libraries with the number of their parameters, all of them integers or pointers: C17 7.22.3 and 7.24,
/// LSB core, the ELF handling of thread-local storage. What they do at first can take them far (an allocator that sets
/// itself up), through calls whose targets nobody knows.
const PARAMETERS: [(&[u8], usize); 12] = [
    (b"__tls_get_addr", 1),
    (b"__errno_location", 0),
    (b"malloc", 1),
    (b"calloc", 2),
    (b"realloc", 2),
    (b"free", 1),
    (b"memcpy", 3),
    (b"memmove", 3),
    (b"memset", 3),
    (b"memcmp", 3),
    (b"strlen", 1),
    (b"strcmp", 2),
];

/// What one function does with the registers that it gets.
#[derive(Debug, Default)]
struct Body {
    /// Read by its own instructions.
    reads: u16,
    /// Left to another function, which may read them.
    leaves: Vec<(FunctionKey, u16)>,
}

/// What a call gives its registers to.
enum Entered {
    /// One of these functions.
    Functions(Vec<FunctionKey>),
    /// A function that reads no others than these.
    Reading(u16),
}

/// What a function returns, and where it does.
pub(crate) type Results = Rc<[(Vaddr, Value)]>;

/// Answers, once found.
#[derive(Debug, Default)]
pub(super) struct LiveIn {
    registers: RefCell<FxHashMap<FunctionKey, u16>>,
    /// Bytes of arguments on the stack, by how many tail calls away the function was.
    stack: RefCell<FxHashMap<(FunctionKey, usize), i64>>,
}

/// So many tail calls are followed to see what reads arguments on the stack.
const MOST_TAIL_CALLS: usize = 4;

/// Bytes from the stack pointer at the entry to the first argument on the stack (psABI 3.2.2).
const FIRST_STACK_ARGUMENT: i64 = 8;

/// Whether a register that takes part in an address may hold one in the frame.
fn has_frame(instruction: &Instruction, state: &State) -> bool {
    [instruction.memory_base(), instruction.memory_index()]
        .into_iter()
        .filter(|register| *register != Register::None)
        .any(|register| state.register(register).lowest_frame_offset().is_some())
}

impl<'a, 'data> Callers<'a, 'data> {
    /// The argument registers that may be read by what a call or jump of `module` enters.
    #[must_use]
    pub fn read_by(&self, module: ModuleId, call: &Instruction) -> u16 {
        let entered = callee(call).and_then(|callee| self.entered(module, callee));
        match entered {
            Some(Entered::Functions(keys)) => keys.into_iter().fold(0, |set, key| set | self.live_in(key)),
            Some(Entered::Reading(registers)) => registers,
            None => caller_saved(),
        }
    }

    /// The least solution for `root` and all that it leaves registers to.
    pub(crate) fn live_in(&self, root: FunctionKey) -> u16 {
        if let Some(&known) = self.live_in.registers.borrow().get(&root) {
            return known;
        }
        let mut bodies: BTreeMap<FunctionKey, Body> = BTreeMap::new();
        let mut work = vec![root];
        while let Some(key) = work.pop() {
            if bodies.contains_key(&key) {
                continue;
            }
            if bodies.len() >= MOST_FUNCTIONS {
                return caller_saved();
            }
            let body = match self.live_in.registers.borrow().get(&key) {
                Some(&reads) => Body { reads, leaves: Vec::new() },
                None => self.body(key),
            };
            work.extend(body.leaves.iter().map(|(key, _)| *key));
            bodies.insert(key, body);
        }
        let mut found: FxHashMap<FunctionKey, u16> = bodies.iter().map(|(&key, body)| (key, body.reads)).collect();
        loop {
            let mut changed = false;
            for (key, body) in &bodies {
                let reads = body.leaves.iter().fold(body.reads, |reads, (to, left)| {
                    reads | left & found.get(to).copied().unwrap_or_else(caller_saved)
                });
                changed |= found.insert(*key, reads) != Some(reads);
            }
            if !changed {
                break;
            }
        }
        let answer = found.get(&root).copied().unwrap_or_else(caller_saved);
        self.live_in.registers.borrow_mut().extend(found);
        answer
    }

    /// How many bytes of arguments on the stack may be read by what a call or jump of `module` enters.
    #[must_use]
    pub fn stack_read_by(&self, module: ModuleId, call: &Instruction) -> i64 {
        match callee(call).and_then(|callee| self.entered(module, callee)) {
            Some(Entered::Functions(keys)) => keys.into_iter().map(|key| self.stack_read(key, 0)).max().unwrap_or(0),
            Some(Entered::Reading(_)) => 0,
            None => i64::MAX,
        }
    }

    /// How many bytes of arguments on the stack a function may read that is `depth` tail calls away.
    pub(crate) fn stack_read(&self, key: FunctionKey, depth: usize) -> i64 {
        if let Some(&known) = self.live_in.stack.borrow().get(&(key, depth)) {
            return known;
        }
        let found = if depth < MOST_TAIL_CALLS { self.find_stack_read(key, depth) } else { None };
        let found = found.unwrap_or(i64::MAX);
        self.live_in.stack.borrow_mut().insert((key, depth), found);
        found
    }

    fn find_stack_read(&self, key: FunctionKey, depth: usize) -> Option<i64> {
        let code = self.code(key.0)?;
        let function = self.program.module(key.0)?.summary.functions().function(key.1)?;
        let (instructions, cfg) = code.control_flow(function);
        let has_memory = |i: &Instruction| (0..i.op_count()).any(|operand| i.op_kind(operand) == OpKind::Memory);
        // Whom it jumps to gets its arguments, too.
        let is_jump = |i: &Instruction| leaves(function, i) && !is_call(i);
        if function.undecodable.is_some() {
            return None;
        }
        let mut bytes = 0;
        for jump in instructions.iter().filter(|i| is_jump(i)) {
            let Entered::Functions(keys) = self.entered(key.0, callee(jump)?)? else { return None };
            bytes = keys.into_iter().map(|key| self.stack_read(key, depth + 1)).fold(bytes, i64::max);
        }
        dataflow::observe(&code.memory(), &instructions, &cfg, has_memory, |instruction, _, state| {
            let base = instruction.memory_base();
            let is_lost = matches!(base, Register::RSP | Register::RBP) && state.register(base).atoms().is_none();
            let address = state.memory_address(instruction);
            let is_address = instruction.mnemonic() == Mnemonic::Lea || instruction.has_rep_prefix();
            for at in address.frame_offsets().filter(|at| *at >= FIRST_STACK_ARGUMENT) {
                let size = i64::try_from(instruction.memory_size().size()).unwrap_or(i64::MAX);
                let end = at.saturating_sub(FIRST_STACK_ARGUMENT).saturating_add(size);
                bytes = bytes.max(if is_address { i64::MAX } else { end });
            }
            if is_lost || address.atoms().is_none() && has_frame(instruction, state) {
                bytes = i64::MAX;
            }
        });
        Some(bytes)
    }

    /// What a call can enter; `None` if that is not known.
    fn entered(&self, module: ModuleId, callee: Callee) -> Option<Entered> {
        let entry = self.program.module(module)?;
        let slot = match callee {
            Callee::Direct(at) => return Some(Entered::Functions(vec![self.starting(module, at)?])),
            Callee::Through(slot) => slot,
            Callee::Computed => return None,
        };
        let data = entry.summary.data();
        let pointer = data.pointers_in(&(slot..slot.checked_add(1)?)).first().copied()?;
        if !pointer.is_linkage && !entry.image.is_constant(slot) {
            return None;
        }
        let functions = match pointer.target {
            PointerTarget::Local(at) => vec![self.starting(module, at)?],
            PointerTarget::Resolver(at) => self.resolved(module, at)?,
            PointerTarget::Symbol(index, 0) => {
                let symbol = usize::try_from(index).ok().and_then(|index| entry.image.symbols().get(index))?;
                if let Some((_, count)) = PARAMETERS.iter().find(|(name, _)| *name == symbol.name) {
                    return Some(Entered::Reading(bits(ARGUMENTS.into_iter().take(*count))));
                }
                let mut keys = Vec::new();
                for found in self.program.bind(module, index) {
                    match found.kind {
                        SymbolKind::IndirectFunction => keys.extend(self.resolved(found.module, found.address)?),
                        _ => keys.push(self.starting(found.module, found.address)?),
                    }
                }
                keys
            }
            _ => return None,
        };
        (!functions.is_empty()).then_some(Entered::Functions(functions))
    }

    /// The function that starts exactly there.
    fn starting(&self, module: ModuleId, at: Vaddr) -> Option<FunctionKey> {
        let functions = self.program.module(module)?.summary.functions();
        let id = functions.at(at)?;
        (functions.function(id)?.start == at).then_some((module, id))
    }

    /// The functions whose addresses a resolver can return.
    fn resolved(&self, module: ModuleId, resolver: Vaddr) -> Option<Vec<FunctionKey>> {
        let mut keys = Vec::new();
        for (_, value) in self.results(self.starting(module, resolver)?)?.iter() {
            for &atom in value.atoms()? {
                if atom != Atom::Constant(0) {
                    keys.push(self.starting(module, self.program.address(module, atom)?)?);
                }
            }
        }
        (!keys.is_empty()).then_some(keys)
    }

    /// What a function returns in `rax`, and where; `None` if it may leave in another way.
    pub(crate) fn results(&self, key: FunctionKey) -> Option<Results> {
        if let Some(known) = self.results.borrow().get(&key) {
            return known.clone();
        }
        let found = self.find_results(key).map(Into::into);
        self.results.borrow_mut().insert(key, found.clone());
        found
    }

    fn find_results(&self, key: FunctionKey) -> Option<Vec<(Vaddr, Value)>> {
        let code = self.code(key.0)?;
        let function = self.program.module(key.0)?.summary.functions().function(key.1)?;
        let (instructions, cfg) = code.control_flow(function);
        let mut results = Vec::new();
        let is_way_out =
            |i: &Instruction| i.flow_control() == FlowControl::Return || !is_call(i) && leaves(function, i);
        dataflow::observe(&code.memory(), &instructions, &cfg, is_way_out, |instruction, at, state| {
            let returns = instruction.flow_control() == FlowControl::Return;
            results.push(returns.then(|| (at, state.register(Register::RAX))));
        });
        results.into_iter().collect()
    }

    /// The functions that a call can enter; `None` if that is not known, or known by a standard's prototype only.
    pub(crate) fn callees(&self, caller: FunctionKey, site: &CallSite, depth: usize) -> Option<Vec<FunctionKey>> {
        if site.callee != Callee::Computed {
            return match self.entered(caller.0, site.callee)? {
                Entered::Functions(keys) => Some(keys),
                Entered::Reading(_) => None,
            };
        }
        let targets = self.targets_of(caller, site, depth)?;
        let functions =
            targets.iter().map(|&(atom, (holder, _), _)| self.starting(holder, self.program.address(holder, atom)?));
        functions.collect::<Option<Vec<_>>>().filter(|keys| !keys.is_empty())
    }

    fn body(&self, key: FunctionKey) -> Body {
        let unknown = || Body { reads: caller_saved(), leaves: Vec::new() };
        let (Some(module), Some(code)) = (self.program.module(key.0), self.code(key.0)) else { return unknown() };
        match module.summary.functions().function(key.1).filter(|function| function.undecodable.is_none()) {
            Some(function) => self.follow(key.0, &code, function),
            None => unknown(),
        }
    }

    /// Follows the registers from the function's entry to where they are read, overwritten or left to a callee.
    fn follow(&self, module: ModuleId, code: &Code<'a, 'data>, function: &Function) -> Body {
        let (instructions, cfg) = code.control_flow(function);
        let mut walk = Walk { callers: self, module, code, function, body: Body::default() };
        let mut factory = InstructionInfoFactory::new();
        let mut held: Vec<u16> = vec![0; cfg.blocks().len()];
        let mut work: Vec<usize> = Vec::new();
        for entered in cfg.orphans().chain([cfg.entry()]) {
            if let Some(held) = held.get_mut(entered) {
                *held = caller_saved();
                work.push(entered);
            }
        }
        while let Some(id) = work.pop() {
            let (Some(block), Some(&entry)) = (cfg.blocks().get(id), held.get(id)) else { continue };
            let mut set = entry;
            let instructions = instructions.get(block.instructions.clone()).unwrap_or(&[]);
            for instruction in instructions {
                set = walk.step(instruction, set, &mut factory);
            }
            let runs_on = instructions.last().is_none_or(|last| last.flow_control() == FlowControl::Next);
            if runs_on && block.successors.is_empty() {
                walk.body.reads |= set;
            }
            for &successor in &block.successors {
                if let Some(held) = held.get_mut(successor).filter(|held| **held | set != **held) {
                    *held |= set;
                    work.push(successor);
                }
            }
        }
        walk.body.leaves.sort_unstable();
        walk.body.leaves.dedup();
        walk.body
    }
}

/// Whether an instruction is a call, or a jump that may leave the function.
fn leaves(function: &Function, instruction: &Instruction) -> bool {
    callee(instruction)
        .is_some_and(|c| !matches!(c, Callee::Direct(at) if function.contains(at) && at != function.start))
}

/// One function on the way.
struct Walk<'w, 'a, 'data> {
    callers: &'w Callers<'a, 'data>,
    module: ModuleId,
    code: &'w Code<'a, 'data>,
    function: &'w Function,
    body: Body,
}

impl Walk<'_, '_, '_> {
    /// `held` are the registers that still have what they had at the entry; returns those that have it afterwards.
    fn step(&mut self, instruction: &Instruction, held: u16, factory: &mut InstructionInfoFactory) -> u16 {
        if held == 0 || instruction.mnemonic() == Mnemonic::Nop {
            return held;
        }
        let mut written = 0;
        for used in factory.info(instruction).used_registers() {
            let register = used.register();
            match used.access() {
                OpAccess::Write if register.size() >= 4 => written |= bit(register),
                OpAccess::Write | OpAccess::CondWrite | OpAccess::None => {}
                _ => self.body.reads |= held & bit(register),
            }
        }
        if leaves(self.function, instruction) {
            match callee(instruction).and_then(|callee| self.callers.entered(self.module, callee)) {
                Some(Entered::Functions(keys)) => self.body.leaves.extend(keys.into_iter().map(|key| (key, held))),
                Some(Entered::Reading(registers)) => self.body.reads |= held & registers,
                None => self.body.reads |= held,
            }
        }
        match instruction.flow_control() {
            // What fills the room between functions.
            FlowControl::Interrupt if instruction.mnemonic() == Mnemonic::Int3 => {}
            FlowControl::Interrupt => self.body.reads |= held,
            // The kernel calls no address that it gets in a register, nor does it give one back.
            FlowControl::Call if instruction.mnemonic() == Mnemonic::Syscall => {}
            FlowControl::Call | FlowControl::IndirectCall => written |= self.code.changed_by(instruction),
            _ => {}
        }
        held & !written
    }
}
