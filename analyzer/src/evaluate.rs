//! What a function returns for arguments that are known: its code is followed as the machine would run it.
//!
//! Input: a function and its arguments. Output: what it returns. Numbers of system calls are looked up by name in
//! tables, through hash functions and comparisons of text that no data flow sees through; with the name at hand the
//! instructions themselves give the number. Only integer instructions are known; memory is what the files say about
//! constants and about variables that nothing changes, and the frame.
//!
//! Over-approximates: nothing; whatever is not known ends the run where something depends on it. May miss: replacements
//! of the C library's string functions that do something else.

mod arithmetic;
mod step;

use iced_x86::{Decoder, DecoderOptions, Register};
use rustc_hash::FxHashMap;

use crate::address::Vaddr;
use crate::arguments::CallSite;
use crate::callers::Callers;
use crate::data::PointerTarget;
use crate::elf::SymbolKind;
use crate::functions::FunctionId;
use crate::origins::{Seen, nested};
use crate::program::ModuleId;
use crate::reachability::FunctionKey;
use crate::registers::ARGUMENTS;
use crate::value::{Atom, Value};
use arithmetic::{Flags, Word, low};

/// A run that takes longer is given up.
const MOST_STEPS: usize = 20_000;
/// Modules that can be moved lie so far apart, the first one at this distance from 0.
const MODULE_DISTANCE: u64 = 1 << 40;
/// Where the stack begins, and grows down from; no module lies there.
const STACK: u64 = 1 << 62;
/// Returning here ends the run.
const END: u64 = 3 << 61;
/// The functions of `KNOWN` have their addresses from here on.
const KNOWN_FUNCTIONS: u64 = 1 << 61;
/// Longer text is not compared.
const LONGEST_TEXT: u64 = 4096;

/// Functions of the C library that many a look-up by name calls (C17 7.24), in implementations for each processor.
const KNOWN: [&[u8]; 4] = [b"strcmp", b"strncmp", b"strlen", b"memcmp"];

/// A machine that runs one function.
pub(crate) struct Machine<'m, 'a, 'data> {
    callers: &'m Callers<'a, 'data>,
    /// What each register holds, and which of its bits are known.
    registers: [(u64, u64); 16],
    flags: Flags,
    /// Written bytes of the stack.
    stack: FxHashMap<u64, Option<u8>>,
    /// The next instruction.
    at: u64,
    /// How deep the question is nested that this answers.
    depth: usize,
}

/// What `callee` returns in `rax` to a call, if the arguments are enough to tell.
#[must_use]
pub(crate) fn evaluate(
    callers: &Callers<'_, '_>,
    callee: FunctionKey,
    (caller, site): (FunctionKey, &CallSite),
    depth: usize,
) -> Option<(Atom, ModuleId)> {
    let arguments: Vec<Value> = (0..6).map(|number| site.argument(number)).collect();
    let module = callers.program.module(callee.0)?;
    let start = module.summary.functions().function(callee.1)?.start;
    let mut machine = Machine {
        callers,
        registers: [(0, 0); 16],
        flags: Flags::default(),
        stack: FxHashMap::default(),
        at: 0,
        depth,
    };
    machine.at = machine.place(callee.0, start)?;
    machine.pass(caller.0, &arguments);
    machine.push(Some(END))?;
    for _ in 0..MOST_STEPS {
        if machine.at == END {
            return machine.result(callee.0);
        }
        if let Some(name) = machine.at.checked_sub(KNOWN_FUNCTIONS).and_then(|index| usize::try_from(index).ok()) {
            machine.call_known(KNOWN.get(name)?)?;
            continue;
        }
        let (module, at) = machine.module_of(machine.at)?;
        let image = &callers.program.module(module)?.image;
        let code = image.bytes_from(at).filter(|_| image.is_code(at))?;
        let instruction = Decoder::with_ip(64, code, machine.at, DecoderOptions::NONE).decode();
        machine.at = instruction.next_ip();
        machine.step(&instruction)?;
    }
    None
}

impl Machine<'_, '_, '_> {
    /// Where an address of a module stands.
    fn place(&self, module: ModuleId, at: Vaddr) -> Option<u64> {
        let can_move = self.callers.program.module(module)?.image.is_position_independent();
        let base = if can_move { u64::from(module.0).checked_add(1)?.checked_mul(MODULE_DISTANCE)? } else { 0 };
        at.0.checked_add(base)
    }

    /// Whose address it is.
    fn module_of(&self, address: u64) -> Option<(ModuleId, Vaddr)> {
        let at = Vaddr(address.checked_rem(MODULE_DISTANCE)?);
        match address.checked_div(MODULE_DISTANCE)?.checked_sub(1) {
            Some(id) => Some((ModuleId(u32::try_from(id).ok()?), at)),
            None => {
                let mut fixed = self.callers.program.modules().filter(|(_, m)| !m.image.is_position_independent());
                fixed.find(|(_, module)| module.image.segment_at(at).is_some()).map(|(id, _)| (id, at))
            }
        }
    }

    fn concrete(&self, module: ModuleId, atom: Atom) -> Word {
        match atom {
            Atom::Constant(number) => Some(number),
            Atom::Address(at) => self.place(module, at),
            Atom::Global(slot) => self.variable(module, slot),
            _ => None,
        }
    }

    /// What a variable holds, if it is always the same.
    fn variable(&self, module: ModuleId, slot: Vaddr) -> Word {
        let seen = Seen { function: (module, FunctionId(0)), at: slot, value: Value::One(Atom::Global(slot)) };
        let found = nested(self.callers, seen, self.depth.saturating_add(1))?;
        let &[(atom, (holder, _), _)] = found.as_slice() else { return None };
        match atom {
            Atom::Constant(number) => Some(number),
            Atom::Address(at) => self.place(holder, at),
            _ => None,
        }
    }

    /// Puts arguments where a function expects them.
    fn pass(&mut self, module: ModuleId, arguments: &[Value]) {
        for (value, register) in arguments.iter().zip(ARGUMENTS) {
            let word = value.single().and_then(|atom| self.concrete(module, atom));
            self.set(register, 8, word);
        }
        self.set(Register::RSP, 8, Some(STACK));
    }

    /// What is returned: a number, or an address of a module.
    fn result(&self, callee: ModuleId) -> Option<(Atom, ModuleId)> {
        let word = self.get(Register::RAX)?;
        let is_ours = (KNOWN_FUNCTIONS..=END).contains(&word);
        let place = word.checked_div(MODULE_DISTANCE)?.checked_sub(1).and_then(|_| self.module_of(word));
        let found = place.filter(|&(id, at)| {
            self.callers.program.module(id).is_some_and(|module| module.image.segment_at(at).is_some())
        });
        match found {
            Some((module, at)) => Some((Atom::Address(at), module)),
            None if is_ours => None,
            None => Some((Atom::Constant(word), callee)),
        }
    }

    /// `bytes` (1, 2, 4 or 8) at an address: what the run wrote, or what the files say.
    fn read(&self, address: u64, bytes: usize) -> Word {
        if address >= STACK.saturating_sub(MODULE_DISTANCE) {
            let mut word = 0_u64;
            for offset in (0..u64::try_from(bytes).ok()?).rev() {
                let byte = self.stack.get(&address.checked_add(offset)?).copied().flatten()?;
                word = word << 8 | u64::from(byte);
            }
            return Some(word);
        }
        let (id, at) = self.module_of(address)?;
        let module = self.callers.program.module(id)?;
        let data = module.summary.data();
        let near = Vaddr(at.0.saturating_sub(7))..at.checked_add(u64::try_from(bytes).ok()?)?;
        if let Some(pointer) = data.pointers_in(&near).first() {
            let is_fixed = pointer.is_linkage || module.image.is_constant(at);
            return match (pointer.slot == at && bytes == 8, is_fixed) {
                (true, true) => self.pointer(id, pointer.target),
                (true, false) => self.variable(id, at),
                (false, _) => None,
            };
        }
        if !module.image.is_constant(at) {
            return if matches!(bytes, 4 | 8) { self.variable(id, at).map(|word| low(word, bytes)) } else { None };
        }
        let raw = module.image.bytes(at, u64::try_from(bytes).ok()?)?;
        Some(raw.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte)))
    }

    /// What the loader puts where a pointer stands.
    fn pointer(&self, module: ModuleId, target: PointerTarget) -> Word {
        let (index, addend) = match target {
            PointerTarget::Local(at) => return self.place(module, at),
            PointerTarget::Symbol(index, addend) => (index, addend),
            _ => return None,
        };
        let symbols = self.callers.program.module(module)?.image.symbols();
        let name = usize::try_from(index).ok().and_then(|index| symbols.get(index))?.name;
        if let Some(known) = KNOWN.iter().position(|known| *known == name) {
            return KNOWN_FUNCTIONS.checked_add(u64::try_from(known).ok()?);
        }
        let found = self.callers.program.bind(module, index);
        let [one] = found.as_slice() else { return None };
        let is_plain = one.kind != SymbolKind::IndirectFunction;
        self.place(one.module, one.address)?.checked_add_signed(addend).filter(|_| is_plain)
    }

    /// Writes to the stack; anything else would be seen elsewhere.
    fn write(&mut self, address: u64, bytes: usize, word: Word) -> Option<()> {
        let is_stack = address <= STACK && STACK.checked_sub(address)? < MODULE_DISTANCE;
        if !is_stack {
            return None;
        }
        for offset in 0..u32::try_from(bytes).ok()? {
            let byte = word.map(|word| word.wrapping_shr(offset.saturating_mul(8)).to_le_bytes()).map(|[low, ..]| low);
            self.stack.insert(address.checked_add(offset.into())?, byte);
        }
        Some(())
    }

    /// Does what a function of `KNOWN` does, and returns.
    fn call_known(&mut self, name: &[u8]) -> Option<()> {
        use Register::{RAX, RDI, RDX, RSI};
        let first = self.get(RDI)?;
        let result = match name {
            b"strlen" => (0..LONGEST_TEXT).find_map(|n| match self.byte(first, n) {
                Some(0) => Some(Some(n)),
                Some(_) => None,
                None => Some(None),
            })??,
            _ => {
                let second = self.get(RSI)?;
                let limit = if name == b"strcmp" { LONGEST_TEXT } else { self.get(RDX)?.min(LONGEST_TEXT) };
                self.compare(first, second, limit, name != b"memcmp")?
            }
        };
        self.set(RAX, 8, Some(result));
        self.at = self.pop()??;
        Some(())
    }

    fn byte(&self, start: u64, offset: u64) -> Word {
        self.read(start.checked_add(offset)?, 1)
    }

    /// The sign of the first difference within `limit` bytes, as an `int`.
    fn compare(&self, first: u64, second: u64, limit: u64, is_text: bool) -> Word {
        for offset in 0..limit {
            let (a, b) = (self.byte(first, offset)?, self.byte(second, offset)?);
            match a.cmp(&b) {
                std::cmp::Ordering::Less => return Some(u64::from(u32::MAX)),
                std::cmp::Ordering::Greater => return Some(1),
                std::cmp::Ordering::Equal if a == 0 && is_text => return Some(0),
                std::cmp::Ordering::Equal => {}
            }
        }
        (limit < LONGEST_TEXT).then_some(0)
    }
}
