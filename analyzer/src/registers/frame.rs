//! The function's own stack frame: what was written where, and what others may have written since.
//!
//! Input: stores at offsets from the stack pointer at the entry. Output: what a load from there gives. An address that
//! is handed out lets others write from there on, in this call and in every later one.
//!
//! Over-approximates: an address that is handed out gives away everything above it, except an array that the function
//! fills afterwards and takes the address of separately, without handing that one out. May miss: a write to such an
//! array through an address below it that a callee kept, which needs both to be parts of one object.

use std::sync::Arc;

use crate::value::{Atom, Value};

use super::arithmetic::truncate;

/// The widest write, in bytes.
const WIDEST: i64 = 8;

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

impl Slot {
    const fn end(&self) -> i64 {
        self.offset.saturating_add(self.bytes as i64)
    }

    const fn overlaps(&self, start: i64, end: i64) -> bool {
        self.offset < end && start < self.end()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Default)]
struct Places {
    /// Written slots, sorted; of those that overlap only the last one written is known.
    slots: Vec<Slot>,
    /// Where a slot was written of which nothing is known, sorted: in the function's own frame, below its return
    /// address, where nothing is known of what was not written either.
    unknown: Vec<i64>,
    /// The lowest and the highest offset whose address was handed out.
    escaped: Option<(i64, i64)>,
    /// Offsets whose address the function took, sorted.
    taken: Vec<i64>,
}

impl Places {
    fn slot(&self, offset: i64) -> Result<usize, usize> {
        self.slots.binary_search_by_key(&offset, |slot| slot.offset)
    }

    fn read(&self, offset: i64, bytes: usize) -> Value {
        match self.slot(offset) {
            Ok(index) => self
                .slots
                .get(index)
                .filter(|slot| bytes <= usize::from(slot.bytes))
                .map_or(Value::Top, |slot| slot.value.map(|atom| truncate(atom, bytes))),
            Err(_) => offset
                .checked_sub(FIRST_STACK_ARGUMENT)
                .filter(|distance| *distance >= 0 && distance % 8 == 0)
                .and_then(|distance| u16::try_from(distance / 8 + 6).ok())
                .filter(|_| !self.is_overlapped(offset, end_of(offset, bytes)))
                .map_or(Value::Top, |number| Value::One(Atom::Parameter(number))),
        }
    }

    /// Whether a slot that does not begin at `start` reaches into the bytes up to `end`.
    fn is_overlapped(&self, start: i64, end: i64) -> bool {
        let first = self.slots.partition_point(|slot| slot.offset <= start.saturating_sub(WIDEST));
        let near = self.slots.iter().skip(first).take_while(|slot| slot.offset < end);
        near.filter(|slot| slot.offset != start).any(|slot| slot.overlaps(start, end))
    }

    fn is_written(&self, offset: i64) -> bool {
        self.slot(offset).is_ok() || self.unknown.binary_search(&offset).is_ok()
    }

    /// Of what was written in these slots of the function's own frame, nothing is known any more.
    fn add_unknown(&mut self, offsets: &[i64]) {
        unite(&mut self.unknown, offsets);
    }
}

/// Whether an unknown slot there is kept in [`Places::unknown`].
const fn is_own(offset: i64) -> bool {
    offset < 0
}

fn end_of(offset: i64, bytes: usize) -> i64 {
    offset.saturating_add(i64::try_from(bytes).unwrap_or(i64::MAX))
}

/// What is known about the frame; copies share it until one of them is changed.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(super) struct Frame(Arc<Places>);

impl Frame {
    /// `bytes` at `offset`.
    pub(super) fn read(&self, offset: i64, bytes: usize) -> Value {
        self.0.read(offset, bytes)
    }

    /// The elements of an array, as far as it was written.
    pub(super) fn read_elements(&self, start: i64, stride: u32, bytes: usize) -> Value {
        let step = usize::try_from(stride).unwrap_or(usize::MAX).max(1);
        let written = (start..).step_by(step).take_while(|&offset| self.0.is_written(offset));
        let all = written.fold(Value::Bottom, |all, offset| all.join(&self.read(offset, bytes)));
        if all == Value::Bottom { Value::Top } else { all }
    }

    /// `value` is written in `bytes` (at most 8) at `offset`.
    pub(super) fn write(&mut self, offset: i64, bytes: u8, value: Value) {
        let end = offset.saturating_add(i64::from(bytes));
        // What the write overlaps only in part becomes unknown.
        if self.0.is_overlapped(offset, end) {
            self.lose(|slot| slot.offset != offset && slot.overlaps(offset, end));
        }
        let places = Arc::make_mut(&mut self.0);
        let (slot, unknown) = (places.slot(offset), places.unknown.binary_search(&offset));
        if value == Value::Top && is_own(offset) {
            if let Ok(index) = slot {
                places.slots.remove(index);
            }
            if let Err(index) = unknown {
                places.unknown.insert(index, offset);
            }
            return;
        }
        if let Ok(index) = unknown {
            places.unknown.remove(index);
        }
        let new = Slot { offset, bytes, value, is_fresh: true };
        match slot {
            Ok(index) => {
                if let Some(slot) = places.slots.get_mut(index) {
                    *slot = new;
                }
            }
            Err(index) => places.slots.insert(index, new),
        }
    }

    /// Something unknown is written in so many bytes at `offset`.
    pub(super) fn overwrite(&mut self, offset: i64, bytes: usize) {
        let end = end_of(offset, bytes);
        let mut at = offset;
        while at < end {
            self.write(at, 8, Value::Top);
            at = at.saturating_add(8);
        }
    }

    /// Something unknown is written from `offset` on, nobody knows how far.
    pub(super) fn overwrite_from(&mut self, offset: i64) {
        self.lose(|slot| slot.end() > offset);
    }

    /// What stands in a range of offsets is unknown from now on.
    pub(super) fn forget(&mut self, range: &std::ops::Range<i64>) {
        self.lose(|slot| slot.overlaps(range.start, range.end));
    }

    /// What stands in the slots that `is_lost` picks is unknown from now on.
    fn lose(&mut self, is_lost: impl Fn(&Slot) -> bool) {
        if !self.0.slots.iter().any(|slot| slot.value != Value::Top && is_lost(slot)) {
            return;
        }
        let places = Arc::make_mut(&mut self.0);
        let mut lost = Vec::new();
        places.slots.retain_mut(|slot| {
            let is_lost = is_lost(slot);
            if is_lost && is_own(slot.offset) {
                lost.push(slot.offset);
                return false;
            }
            if is_lost {
                slot.value = Value::Top;
            }
            true
        });
        places.add_unknown(&lost);
    }

    /// The function takes the address of `offset`, for its own use.
    pub(super) fn take(&mut self, offset: i64) {
        if let Err(index) = self.0.taken.binary_search(&offset) {
            Arc::make_mut(&mut self.0).taken.insert(index, offset);
        }
    }

    /// The lowest offset whose address was handed out.
    pub(super) fn lowest_escaped(&self) -> Option<i64> {
        self.0.escaped.map(|(lowest, _)| lowest)
    }

    /// Somebody else may write to the frame from `offset` on; true if that is new.
    pub(super) fn escape(&mut self, offset: i64) -> bool {
        let escaped = merged(self.0.escaped, Some((offset, offset)));
        let above = self.0.slots.partition_point(|slot| slot.offset < offset);
        if escaped == self.0.escaped && self.0.slots.iter().skip(above).all(|slot| !slot.is_fresh) {
            return false;
        }
        let places = Arc::make_mut(&mut self.0);
        places.escaped = escaped;
        places.slots.iter_mut().skip(above).for_each(|slot| slot.is_fresh = false);
        true
    }

    /// Memory behind addresses that were handed out may have changed.
    pub(super) fn forget_escaped(&mut self) {
        let Some((lowest, highest)) = self.0.escaped else { return };
        let next = self.0.taken.get(self.0.taken.partition_point(|&offset| offset <= highest)).copied();
        let is_other_object = |slot: &Slot| slot.is_fresh && next.is_some_and(|next| slot.offset >= next);
        self.lose(|slot| slot.end() > lowest && !is_other_object(slot));
    }

    /// Joins `other` in, the values of slots that differ with `joined`; true if that changed anything. Most joins of a
    /// solver that comes to its end do not, so that nothing is copied before that is known.
    pub(super) fn join(&mut self, other: &Self, mut joined: impl FnMut(&Value, &Value) -> Value) -> bool {
        let (mine, theirs) = (&*self.0, &*other.0);
        if std::ptr::eq(mine, theirs) {
            return false;
        }
        let (mut changed, mut lost) = (Vec::new(), Vec::new());
        let same = mine.slots.iter().zip(&theirs.slots).take_while(|(a, b)| a == b).count();
        let rest = |slots| <[Slot]>::get(slots, same..).unwrap_or(&[]);
        for (a, b) in pairs(rest(&mine.slots), rest(&theirs.slots)).filter(|(a, b)| a != b) {
            let Some(&Slot { offset, bytes, .. }) = a.or(b) else { continue };
            let value = match (a, b) {
                (Some(a), Some(b)) if a.bytes == b.bytes => joined(&a.value, &b.value),
                (Some(a), Some(b)) => {
                    let _lost = joined(&a.value, &Value::Top);
                    joined(&Value::Top, &b.value)
                }
                (Some(a), None) => joined(&a.value, &theirs.read(offset, usize::from(bytes))),
                (None, Some(b)) => joined(&mine.read(offset, usize::from(bytes)), &b.value),
                (None, None) => Value::Top,
            };
            let bytes = a.map_or(bytes, |slot| slot.bytes).max(b.map_or(bytes, |slot| slot.bytes));
            let is_fresh = a.is_none_or(|slot| slot.is_fresh) && b.is_none_or(|slot| slot.is_fresh);
            let is_lost = value == Value::Top && is_own(offset);
            let new = (!is_lost).then_some(Slot { offset, bytes, value, is_fresh });
            if is_lost && mine.unknown.binary_search(&offset).is_err() {
                lost.push(offset);
            }
            if new.as_ref() != a {
                changed.push((offset, new));
            }
        }
        let escaped = merged(mine.escaped, theirs.escaped);
        let is_known = |mine: &[i64], theirs: &[i64]| mine == theirs || missing(theirs, mine).next().is_none();
        if changed.is_empty()
            && lost.is_empty()
            && escaped == mine.escaped
            && is_known(&mine.unknown, &theirs.unknown)
            && is_known(&mine.taken, &theirs.taken)
        {
            return false;
        }
        let places = Arc::make_mut(&mut self.0);
        places.escaped = escaped;
        unite(&mut places.taken, &theirs.taken);
        places.add_unknown(&theirs.unknown);
        places.add_unknown(&lost);
        for (offset, new) in changed {
            match places.slot(offset) {
                Ok(index) => drop(places.slots.splice(index..=index, new)),
                Err(index) => drop(places.slots.splice(index..index, new)),
            }
        }
        true
    }
}

/// The slots of two sorted lists by offset.
fn pairs<'f>(a: &'f [Slot], b: &'f [Slot]) -> impl Iterator<Item = (Option<&'f Slot>, Option<&'f Slot>)> {
    let (mut a, mut b) = (a.iter().peekable(), b.iter().peekable());
    std::iter::from_fn(move || {
        let offsets = [a.peek().map(|slot| slot.offset), b.peek().map(|slot| slot.offset)];
        let offset = offsets.into_iter().flatten().min()?;
        Some((a.next_if(|slot| slot.offset == offset), b.next_if(|slot| slot.offset == offset)))
    })
}

/// What of one sorted list is not in another one.
fn missing<'l>(list: &'l [i64], other: &'l [i64]) -> impl Iterator<Item = i64> {
    let mut rest = other.iter().peekable();
    list.iter().copied().filter(move |offset| {
        while rest.next_if(|&other| other < offset).is_some() {}
        rest.peek() != Some(&offset)
    })
}

/// Adds to a sorted list what another one has.
fn unite(list: &mut Vec<i64>, other: &[i64]) {
    if list == other {
        return;
    }
    let new: Vec<i64> = missing(other, list).collect();
    if !new.is_empty() {
        list.extend(new);
        // Two sorted runs: merged in one pass.
        list.sort();
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
    fn sorted_lists_stay_sorted_and_without_doubles() {
        for (list, other, both) in [
            (vec![1, 5, 9], &[0, 5, 7][..], &[0, 1, 5, 7, 9][..]),
            (vec![], &[3], &[3]),
            (vec![1, 2], &[1, 2], &[1, 2]),
            (vec![1, 2, 3], &[2], &[1, 2, 3]),
        ] {
            let mut list = list;
            unite(&mut list, other);
            assert_eq!(list, both);
        }
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
