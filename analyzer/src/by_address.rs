//! A sorted list of things that stand at addresses, which is searched all the time.
//!
//! Input: the things, in ascending order of their addresses. Output: [`ByAddress`]. The span of the list is cut into pieces
//! of one size, about as many as there are things, and for each piece it is known where in the list it begins: a search
//! looks at a few neighbours in place of half the list's cache lines.

use std::ops::Range;

use serde::{Deserialize, Serialize, Serializer};

use crate::address::Vaddr;

/// Something that stands at an address.
pub(crate) trait Placed {
    /// Where.
    fn at(&self) -> Vaddr;
}

impl Placed for Vaddr {
    fn at(&self) -> Vaddr {
        *self
    }
}

impl<T> Placed for (Vaddr, T) {
    fn at(&self) -> Vaddr {
        self.0
    }
}

/// Things in ascending order of their addresses, several at one address or not.
#[derive(Debug, Deserialize)]
#[serde(from = "Vec<T>", bound(deserialize = "T: Placed + Deserialize<'de>"))]
pub(crate) struct ByAddress<T> {
    list: Vec<T>,
    base: u64,
    shift: u32,
    /// By piece, how many things stand before it; one more for all.
    before: Vec<u32>,
}

impl<T> Default for ByAddress<T> {
    fn default() -> Self {
        Self { list: Vec::new(), base: 0, shift: 0, before: Vec::new() }
    }
}

impl<T: Serialize> Serialize for ByAddress<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.list.serialize(serializer)
    }
}

impl<T: Placed> From<Vec<T>> for ByAddress<T> {
    fn from(list: Vec<T>) -> Self {
        Self::new(list)
    }
}

impl<T: Placed> ByAddress<T> {
    /// Sorts what is not sorted yet.
    #[must_use]
    pub(crate) fn new(mut list: Vec<T>) -> Self {
        if !list.is_sorted_by_key(Placed::at) {
            list.sort_by_key(Placed::at);
        }
        let base = list.first().map_or(0, |first| first.at().0);
        let span = list.last().map_or(0, |last| last.at().0.saturating_sub(base));
        // The smallest pieces of which there are no more than things.
        let most = u64::try_from(list.len()).unwrap_or(u64::MAX);
        let shift = (0..u64::BITS).find(|shift| span >> shift < most).unwrap_or(0);
        let mut before = Vec::new();
        if u32::try_from(list.len()).is_ok() {
            for (thing, position) in list.iter().zip(0_u32..) {
                let piece = usize::try_from(thing.at().0.saturating_sub(base) >> shift).unwrap_or(0);
                before.resize(before.len().max(piece.saturating_add(1)), position);
            }
            before.push(u32::try_from(list.len()).unwrap_or(u32::MAX));
        }
        Self { list, base, shift, before }
    }

    /// All of them.
    #[must_use]
    pub(crate) fn all(&self) -> &[T] {
        &self.list
    }

    /// How many stand before an address.
    #[must_use]
    pub(crate) fn count_before(&self, at: Vaddr) -> usize {
        self.search(at, |thing| thing.at() < at)
    }

    /// How many stand before an address, or there.
    #[must_use]
    pub(crate) fn count_up_to(&self, at: Vaddr) -> usize {
        self.search(at, |thing| thing.at() <= at)
    }

    /// The position of the first one at an address.
    #[must_use]
    pub(crate) fn position(&self, at: Vaddr) -> Option<usize> {
        let position = self.count_before(at);
        self.list.get(position).filter(|thing| thing.at() == at).map(|_| position)
    }

    /// Those in a range of addresses.
    #[must_use]
    pub(crate) fn within(&self, range: &Range<Vaddr>) -> &[T] {
        self.list.get(self.count_before(range.start)..self.count_before(range.end)).unwrap_or(&[])
    }

    /// The last one before an address, or there.
    #[must_use]
    pub(crate) fn last_up_to(&self, at: Vaddr) -> Option<&T> {
        self.count_up_to(at).checked_sub(1).and_then(|position| self.list.get(position))
    }

    fn search(&self, at: Vaddr, is_before: impl FnMut(&T) -> bool) -> usize {
        let near = self.around(at);
        let start = near.start;
        start.saturating_add(self.list.get(near).unwrap_or(&[]).partition_point(is_before))
    }

    /// The positions to look at: whatever stands before them is lower than `at`, whatever stands behind them higher.
    fn around(&self, at: Vaddr) -> Range<usize> {
        // Lists that are too long for the table are searched as a whole.
        let all = self.list.len();
        if self.before.is_empty() {
            return 0..all;
        }
        let Some(distance) = at.0.checked_sub(self.base) else { return 0..0 };
        let piece = usize::try_from(distance >> self.shift).unwrap_or(usize::MAX);
        let position = |piece: usize| self.before.get(piece).and_then(|&position| usize::try_from(position).ok());
        match (position(piece), position(piece.saturating_add(1))) {
            (Some(start), Some(behind)) => start..behind,
            _ => all..all,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agrees(list: &[u64]) {
        let list: Vec<Vaddr> = list.iter().copied().map(Vaddr).collect();
        let by_address = ByAddress::new(list.clone());
        let near = list.iter().flat_map(|at| [at.0.wrapping_sub(1), at.0, at.0.wrapping_add(1)]);
        for at in near.chain([0, 1, 1 << 20, u64::MAX]).map(Vaddr) {
            let (before, up_to) = (list.partition_point(|o| *o < at), list.partition_point(|o| *o <= at));
            assert_eq!(by_address.count_before(at), before, "{at:?} in {list:?}");
            assert_eq!(by_address.count_up_to(at), up_to, "{at:?} in {list:?}");
            assert_eq!(by_address.position(at), list.iter().position(|o| *o == at), "{at:?} in {list:?}");
            assert_eq!(by_address.within(&(Vaddr(0)..at)).len(), before);
        }
    }

    #[test]
    fn finds_what_a_binary_search_finds() {
        agrees(&[]);
        agrees(&[0]);
        agrees(&[u64::MAX]);
        agrees(&[0, u64::MAX]);
        agrees(&[7, 7, 7]);
        agrees(&[1, 2, 3, 1000, 1001, 1 << 40]);
        agrees(&(0..1000).map(|number| number * number).collect::<Vec<_>>());
        agrees(&(0..1000).map(|number| 0x40_0000 + 16 * number).collect::<Vec<_>>());
    }

    #[test]
    fn sorts() {
        assert_eq!(ByAddress::new(vec![Vaddr(2), Vaddr(1)]).all(), [Vaddr(1), Vaddr(2)]);
    }
}
