//! The function's own stack frame: what was written where, and what others may have written since.
//!
//! Input: stores at offsets from the stack pointer at the entry. Output: what a load from there gives. An address that
//! is handed out lets others write from there on, in this call and in every later one.
//!
//! Over-approximates: an address that is handed out gives away everything above it, except an array that the function
//! fills afterwards and takes the address of separately, without handing that one out. May miss: a write to such an
//! array through an address below it that a callee kept, which needs both to be parts of one object.

use crate::value::{Atom, Value};

use super::arithmetic::truncate;

/// Bytes from the stack pointer at the entry (the return address) to the first argument on the stack.
const FIRST_STACK_ARGUMENT: i64 = 8;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Slot {
    offset: i64,
    bytes: u8,
    value: Value,
    /// Written after the last time that an address below it was handed out.
    is_fresh: bool,
}

/// What is known about the frame.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(super) struct Frame {
    /// Written slots, sorted; of those that overlap only the last one written is known. A place in none was not written.
    slots: Vec<Slot>,
    /// The lowest and the highest offset whose address was handed out.
    escaped: Option<(i64, i64)>,
    /// Offsets whose address the function took, sorted.
    taken: Vec<i64>,
}

impl Frame {
    /// `bytes` at `offset`.
    pub(super) fn read(&self, offset: i64, bytes: usize) -> Value {
        match self.slots.binary_search_by_key(&offset, |slot| slot.offset) {
            Ok(index) => self
                .slots
                .get(index)
                .filter(|slot| bytes <= usize::from(slot.bytes))
                .map_or(Value::Top, |slot| slot.value.map(|atom| truncate(atom, bytes))),
            Err(_) if self.is_overlapped(offset, bytes) => Value::Top,
            Err(_) => offset
                .checked_sub(FIRST_STACK_ARGUMENT)
                .filter(|distance| *distance >= 0 && distance % 8 == 0)
                .and_then(|distance| u16::try_from(distance / 8 + 6).ok())
                .map_or(Value::Top, |number| Value::One(Atom::Parameter(number))),
        }
    }

    fn is_overlapped(&self, offset: i64, bytes: usize) -> bool {
        let end = offset.saturating_add(i64::try_from(bytes).unwrap_or(i64::MAX));
        self.slots.iter().any(|slot| slot.offset < end && offset < slot.offset.saturating_add(i64::from(slot.bytes)))
    }

    /// The elements of an array, as far as it was written.
    pub(super) fn read_elements(&self, start: i64, stride: u32, bytes: usize) -> Value {
        let step = usize::try_from(stride).unwrap_or(usize::MAX).max(1);
        let is_written = |offset: &i64| self.slots.binary_search_by_key(offset, |slot| slot.offset).is_ok();
        let written = (start..).step_by(step).take_while(is_written);
        let all = written.fold(Value::Bottom, |all, offset| all.join(&self.read(offset, bytes)));
        if all == Value::Bottom { Value::Top } else { all }
    }

    /// `value` is written in `bytes` (at most 8) at `offset`.
    pub(super) fn write(&mut self, offset: i64, bytes: u8, value: Value) {
        let end = offset.saturating_add(i64::from(bytes));
        // What the write overlaps only in part becomes unknown.
        for slot in &mut self.slots {
            if slot.offset < end && offset < slot.offset.saturating_add(i64::from(slot.bytes)) {
                slot.value = Value::Top;
            }
        }
        let new = Slot { offset, bytes, value, is_fresh: true };
        match self.slots.binary_search_by_key(&offset, |slot| slot.offset) {
            Ok(index) => {
                if let Some(slot) = self.slots.get_mut(index) {
                    *slot = new;
                }
            }
            Err(index) => self.slots.insert(index, new),
        }
    }

    /// Something unknown is written in so many bytes at `offset`.
    pub(super) fn overwrite(&mut self, offset: i64, bytes: usize) {
        let end = offset.saturating_add(i64::try_from(bytes).unwrap_or(i64::MAX));
        let mut at = offset;
        while at < end {
            self.write(at, 8, Value::Top);
            at = at.saturating_add(8);
        }
    }

    /// Something unknown is written from `offset` on, nobody knows how far.
    pub(super) fn overwrite_from(&mut self, offset: i64) {
        for slot in self.slots.iter_mut().filter(|slot| slot.offset.saturating_add(i64::from(slot.bytes)) > offset) {
            slot.value = Value::Top;
        }
    }

    /// What stands in a range of offsets is unknown from now on.
    pub(super) fn forget(&mut self, range: &std::ops::Range<i64>) {
        for slot in &mut self.slots {
            if slot.offset < range.end && range.start < slot.offset.saturating_add(i64::from(slot.bytes)) {
                slot.value = Value::Top;
            }
        }
    }

    /// The function takes the address of `offset`, for its own use.
    pub(super) fn take(&mut self, offset: i64) {
        if let Err(index) = self.taken.binary_search(&offset) {
            self.taken.insert(index, offset);
        }
    }

    /// The lowest offset whose address was handed out.
    pub(super) const fn lowest_escaped(&self) -> Option<i64> {
        match self.escaped {
            Some((lowest, _)) => Some(lowest),
            None => None,
        }
    }

    /// Somebody else may write to the frame from `offset` on; true if that is new.
    pub(super) fn escape(&mut self, offset: i64) -> bool {
        let before = self.escaped;
        self.escaped = merged(self.escaped, Some((offset, offset)));
        let mut changed = before != self.escaped;
        for slot in self.slots.iter_mut().filter(|slot| slot.offset >= offset) {
            changed |= std::mem::replace(&mut slot.is_fresh, false);
        }
        changed
    }

    /// Memory behind addresses that were handed out may have changed.
    pub(super) fn forget_escaped(&mut self) {
        let Some((lowest, highest)) = self.escaped else { return };
        let next = self.taken.get(self.taken.partition_point(|&offset| offset <= highest)).copied();
        for slot in &mut self.slots {
            let is_other_object = slot.is_fresh && next.is_some_and(|next| slot.offset >= next);
            if slot.offset.saturating_add(i64::from(slot.bytes)) > lowest && !is_other_object {
                slot.value = Value::Top;
            }
        }
    }

    /// Joins `other` in, each pair of values with `joined`; true if that changed anything.
    pub(super) fn join(&mut self, other: &Self, mut joined: impl FnMut(&Value, &Value) -> Value) -> bool {
        let mut changed = false;
        if self.slots != other.slots {
            let mut slots: Vec<Slot> = Vec::with_capacity(self.slots.len().max(other.slots.len()));
            for (offset, mine, theirs) in self.pairs(other) {
                let bytes = mine.or(theirs).map_or(8, |slot| slot.bytes);
                let value = match (mine, theirs) {
                    (Some(a), Some(b)) if a.bytes == b.bytes => joined(&a.value, &b.value),
                    (Some(a), Some(b)) => {
                        let _lost = joined(&a.value, &Value::Top);
                        joined(&Value::Top, &b.value)
                    }
                    (Some(a), None) => joined(&a.value, &other.read(offset, usize::from(bytes))),
                    (None, Some(b)) => joined(&self.read(offset, usize::from(bytes)), &b.value),
                    (None, None) => Value::Top,
                };
                let bytes = mine.map_or(bytes, |slot| slot.bytes).max(theirs.map_or(bytes, |slot| slot.bytes));
                let is_fresh = mine.is_none_or(|slot| slot.is_fresh) && theirs.is_none_or(|slot| slot.is_fresh);
                slots.push(Slot { offset, bytes, value, is_fresh });
            }
            changed = slots != self.slots;
            self.slots = slots;
        }
        let escaped = merged(self.escaped, other.escaped);
        changed |= escaped != self.escaped;
        self.escaped = escaped;
        for &offset in &other.taken {
            if let Err(index) = self.taken.binary_search(&offset) {
                self.taken.insert(index, offset);
                changed = true;
            }
        }
        changed
    }

    /// The slots of both by offset.
    fn pairs<'f>(&'f self, other: &'f Self) -> Vec<(i64, Option<&'f Slot>, Option<&'f Slot>)> {
        let (mut mine, mut theirs) = (self.slots.iter().peekable(), other.slots.iter().peekable());
        let mut pairs = Vec::new();
        loop {
            let offset = match (mine.peek(), theirs.peek()) {
                (Some(a), Some(b)) => a.offset.min(b.offset),
                (Some(slot), None) | (None, Some(slot)) => slot.offset,
                (None, None) => return pairs,
            };
            let a = mine.next_if(|slot| slot.offset == offset);
            let b = theirs.next_if(|slot| slot.offset == offset);
            pairs.push((offset, a, b));
        }
    }
}

fn merged(a: Option<(i64, i64)>, b: Option<(i64, i64)>) -> Option<(i64, i64)> {
    match (a, b) {
        (Some(a), Some(b)) => Some((a.0.min(b.0), a.1.max(b.1))),
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_of_four_bytes_do_not_hide_each_other() {
        let mut frame = Frame::default();
        frame.write(-16, 4, Value::constant(1));
        frame.write(-12, 4, Value::constant(2));
        assert_eq!(frame.read(-16, 4), Value::constant(1));
        assert_eq!(frame.read(-16, 8), Value::Top);
        assert_eq!(frame.read_elements(-16, 4, 4), Value::from_atoms(vec![Atom::Constant(1), Atom::Constant(2)]));
        assert_eq!(frame.read_elements(-64, 4, 4), Value::Top);
    }

    #[test]
    fn an_address_that_was_handed_out_gives_away_all_but_a_separate_array_filled_later() {
        let mut frame = Frame::default();
        frame.write(-24, 8, Value::constant(1));
        frame.escape(-64);
        frame.write(-32, 8, Value::constant(2));
        frame.take(-32);
        frame.forget_escaped();
        assert_eq!(frame.read(-24, 8), Value::Top);
        assert_eq!(frame.read(-32, 8), Value::constant(2));
        frame.escape(-32);
        frame.forget_escaped();
        assert_eq!(frame.read(-32, 8), Value::Top);
    }
}
