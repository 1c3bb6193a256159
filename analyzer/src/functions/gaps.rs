//! Executable bytes that no description bounds.
//!
//! Input: an [`Image`] and the functions whose bounds are known. Output: [`Gaps`], the ranges between them.
//!
//! Over-approximates: padding between functions is a gap too. May miss: nothing.

use std::ops::Range;

use super::Function;
use crate::address::Vaddr;
use crate::elf::Image;

/// Executable bytes that no frame description covers.
#[derive(Debug)]
pub(super) struct Gaps {
    ranges: Vec<(Vaddr, Vaddr)>,
}

impl Gaps {
    pub(super) fn new(image: &Image<'_>, described: &[Function]) -> Self {
        let mut covered: Vec<(Vaddr, Vaddr)> = described.iter().flat_map(|f| f.extents.iter().copied()).collect();
        covered.sort_unstable();
        let mut ranges = Vec::new();
        for Range { start, end } in image.executable_ranges() {
            let mut at = start;
            for &(from, to) in &covered {
                if to <= at || from >= end {
                    continue;
                }
                if from > at {
                    ranges.push((at, from));
                }
                at = at.max(to);
            }
            if at < end {
                ranges.push((at, end));
            }
        }
        ranges.sort_unstable();
        Self { ranges }
    }

    /// The end of the gap that holds `at`.
    pub(super) fn end_of(&self, at: Vaddr) -> Option<Vaddr> {
        let behind = self.ranges.partition_point(|&(start, _)| start <= at);
        let &(_, end) = behind.checked_sub(1).and_then(|index| self.ranges.get(index))?;
        (at < end).then_some(end)
    }
}
