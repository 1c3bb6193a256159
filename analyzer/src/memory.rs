//! What the file itself says about memory: constants and variables.
//!
//! Input: an address in the image. Output: the [`Value`] that a load from there gives, as far as the file fixes it.
//!
//! Over-approximates: an element of an array may be any element of the object behind its first one. May miss: constants
//! that code changes after making their pages writable again.

use iced_x86::Instruction;

use crate::address::Vaddr;
use crate::code::Code;
use crate::data::{Data, Pointer, PointerTarget};
use crate::elf::Image;
use crate::registers::{CallEffect, State};
use crate::value::{Atom, Value};

/// Longer arrays are not looked through.
const MOST_ELEMENTS: u64 = 1 << 16;

/// The image as data flow reads it.
#[derive(Clone, Copy, Debug)]
pub struct Memory<'a, 'data> {
    /// The file.
    pub image: &'a Image<'data>,
    /// Its objects and pointers.
    pub data: &'a Data,
    /// Its functions, for what a call changes.
    pub code: &'a Code<'a, 'data>,
}

impl Memory<'_, '_> {
    /// What a call does to the state of the function that makes it.
    #[must_use]
    pub fn effect_of(&self, call: &Instruction) -> CallEffect {
        self.code.effect_of(call)
    }

    /// Whether the instruction belongs to a function of Go.
    #[must_use]
    pub fn is_go(&self, instruction: &Instruction) -> bool {
        self.code.is_go(Vaddr(instruction.ip()))
    }

    /// The state at the entry of the function that starts at `start`.
    #[must_use]
    pub fn at_entry(&self, start: Vaddr) -> State {
        State::at_entry(self.code.is_go(start), self.code.is_compiled_go(start))
    }

    /// What stands at an address: a number or a pointer where nobody can write, else a variable.
    #[must_use]
    pub fn read(&self, at: Vaddr, bytes: usize) -> Value {
        if !self.image.is_constant(at) {
            let is_variable = self.image.is_data(at) && matches!(bytes, 4 | 8);
            return if is_variable { Value::One(Atom::Global(at)) } else { Value::Top };
        }
        let behind = u64::try_from(bytes).ok().and_then(|bytes| at.checked_add(bytes)).unwrap_or(at);
        let near = Vaddr(at.0.saturating_sub(7))..behind;
        // In a position-dependent file a word that points into it is the number that it is.
        let is_relocated =
            |p: &&Pointer| self.image.is_position_independent() || !matches!(p.target, PointerTarget::Local(_));
        if let Some(pointer) = self.data.pointers_in(&near).iter().find(is_relocated) {
            return match pointer.target {
                _ if pointer.slot != at || bytes != 8 => Value::Top,
                PointerTarget::Local(target) => Value::One(Atom::Address(target)),
                // What it points to depends on other files.
                _ => Value::One(Atom::Global(at)),
            };
        }
        let raw = u64::try_from(bytes).ok().filter(|_| bytes <= 8).and_then(|len| self.image.bytes(at, len));
        raw.map_or(Value::Top, |raw| {
            Value::constant(raw.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
        })
    }

    /// What stands in the elements of an array: `start`, and every `stride` bytes up to the end of its object. Not known if
    /// there are more than 65,536.
    #[must_use]
    pub fn read_elements(&self, start: Vaddr, stride: u32, bytes: usize) -> Value {
        let stride = u64::from(stride.max(1));
        let end = self.data.object_at(start).end;
        if end.0.saturating_sub(start.0) / stride > MOST_ELEMENTS {
            return Value::Top;
        }
        let places = std::iter::successors(Some(start), |at| at.checked_add(stride));
        let mut all = Value::Bottom;
        for at in places.take_while(|&at| at < end) {
            all = match self.read(at, bytes) {
                value @ Value::One(_) => all.join(&value),
                _ => Value::Top,
            };
            if all == Value::Top {
                break;
            }
        }
        all
    }
}
