//! Writes the tests that lead from the number of a call to its answer.
//!
//! Input: [`Range`]s of numbers with one answer each. Output: instructions that take the number in A and return the
//! answer, the cheapest that are made of two kinds of tests: "at least this number", which halves a part of the ranges,
//! and "this number", for parts in which single numbers differ from what is around them.
//!
//! What is cheap: the filter is installed at each start of a program. For that the kernel translates each instruction,
//! and walks the filter once for every number that it knows, to fill the bitmap from which it then answers allowed
//! calls (`kernel/seccomp.c`, `seccomp_cache_prepare_bitmap`). So a tree costs [`INSTRUCTION`] for each instruction,
//! and one for each step on the way of each known number. The search is the classic one for optimal binary search
//! trees: the cheapest tree of a part is the cheapest way to cut it, over the cheapest trees of both sides.
//!
//! Returns are shared, and as jumps of a filter go forward only and by 255 instructions at most, the instructions are
//! written from the last to the first: a return or a jump that has become too far is repeated.

use std::collections::BTreeMap;

use chestnut_analyzer::syscall::SyscallNr;

use super::instruction::SockFilter;
use super::specification::Range;

/// What the kernel pays to translate an instruction, in steps of its walk: 0.39 against 0.0013 microseconds, measured
/// on Linux 6.18 with trees of 41 to 309 instructions.
pub(super) const INSTRUCTION: u64 = 300;

/// More ranges than this are halved without a search, whose time grows with the third power. The calls that are known
/// make fewer.
const SEARCHED: usize = 512;

/// How far a jump may lead, with room for one instruction that comes in between.
const REACH: usize = 254;

/// Instructions that decide a number in A. Ranges are sorted and cover all numbers.
pub(super) fn decide(ranges: &[Range]) -> Code {
    let mut code = Code::default();
    code.part(ranges);
    code
}

/// Instructions, the last one first. A place is the number of instructions from there to the end.
#[derive(Debug, Default)]
pub(super) struct Code {
    reversed: Vec<SockFilter>,
    returns: BTreeMap<u32, usize>,
}

impl Code {
    /// The instructions in their order.
    pub(super) fn into_instructions(mut self) -> Vec<SockFilter> {
        self.reversed.reverse();
        self.reversed
    }

    /// Puts an instruction in front.
    pub(super) fn push(&mut self, instruction: SockFilter) -> usize {
        self.reversed.push(instruction);
        self.reversed.len()
    }

    /// Puts a test in front.
    pub(super) fn test(&mut self, test: impl FnOnce(u8, u8) -> SockFilter, yes: usize, no: usize) -> usize {
        let (yes, no) = (self.near(yes), self.near(no));
        // Both are near; the whole filter is compared with its specification before anyone sees it.
        let skipped = |place| u8::try_from(self.reversed.len() - place).unwrap_or(u8::MAX);
        let instruction = test(skipped(yes), skipped(no));
        self.push(instruction)
    }

    /// A return with this value.
    pub(super) fn answer(&mut self, value: u32) -> usize {
        if let Some(place) = self.returns.get(&value) {
            return *place;
        }
        let place = self.push(SockFilter::ret(value));
        self.returns.insert(value, place);
        place
    }

    /// The same place, or one in front of everything that leads there.
    fn near(&mut self, place: usize) -> usize {
        let skipped = self.reversed.len() - place;
        if skipped <= REACH {
            return place;
        }
        let value = self.returns.iter().find_map(|(value, at)| (*at == place).then_some(*value));
        if let Some(value) = value {
            self.returns.remove(&value);
            return self.answer(value);
        }
        // A filter has at most 4096 instructions: `Program` refuses more.
        self.push(SockFilter::jump(u32::try_from(skipped).unwrap_or(u32::MAX)))
    }

    fn part(&mut self, ranges: &[Range]) -> usize {
        if ranges.len() > SEARCHED {
            let (low, high) = ranges.split_at(ranges.len() / 2);
            let (low_place, high_place) = (self.part(low), self.part(high));
            return self.halves(high, high_place, low_place);
        }
        let plan = plan(ranges);
        self.planned(ranges, &plan, 0, ranges.len().saturating_sub(1))
    }

    fn planned(&mut self, ranges: &[Range], plan: &Plan, first: usize, last: usize) -> usize {
        let part = ranges.get(first..=last).unwrap_or_default();
        match step(plan, first, last).way {
            Way::Answer => part.first().map_or(0, |range| self.answer(range.answer)),
            Way::Singles => {
                let mut next = part.first().map_or(0, |range| self.answer(range.answer));
                for single in part.iter().skip(1).step_by(2).rev() {
                    let yes = self.answer(single.answer);
                    next = self.test(|jt, jf| SockFilter::jump_if_equal(single.first, jt, jf), yes, next);
                }
                next
            }
            Way::Cut(at) => {
                // What is written last is where the test goes on without a jump; a return need not be near.
                let high_first = at == last;
                let early = high_first.then(|| self.planned(ranges, plan, at, last));
                let low = self.planned(ranges, plan, first, at - 1);
                let high = early.unwrap_or_else(|| self.planned(ranges, plan, at, last));
                self.halves(ranges.get(at..).unwrap_or_default(), high, low)
            }
        }
    }

    fn halves(&mut self, high: &[Range], high_place: usize, low_place: usize) -> usize {
        let number = high.first().map_or(0, |range| range.first);
        self.test(|jt, jf| SockFilter::jump_if_greater_or_equal(number, jt, jf), high_place, low_place)
    }
}

/// How the ranges from one to another are told apart.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// It is one range.
    Answer,
    /// Single numbers, every second range, are asked for one by one.
    Singles,
    /// The ranges from this one on are on the other side of a test.
    Cut(usize),
}

#[derive(Clone, Copy, Debug)]
struct Step {
    cost: u64,
    way: Way,
}

/// By the first range of a part, then by the number of further ranges in it: the cheapest way.
type Plan = Vec<Vec<Step>>;

fn step(plan: &Plan, first: usize, last: usize) -> Step {
    let row = plan.get(first).and_then(|row| row.get(last.checked_sub(first)?));
    row.copied().unwrap_or(Step { cost: 0, way: Way::Answer })
}

fn plan(ranges: &[Range]) -> Plan {
    // Numbers of the ranges in front of each.
    let mut before = vec![0];
    for (range, next) in ranges.iter().zip(ranges.iter().skip(1).map(|next| next.first).chain([u32::MAX])) {
        let end = SyscallNr::highest_known().0 + 1;
        let numbers = next.min(end).saturating_sub(range.first);
        before.push(before.last().copied().unwrap_or(0) + u64::from(numbers));
    }
    let numbers = |first: usize, last: usize| {
        let at = |index: usize| before.get(index).copied().unwrap_or(0);
        at(last + 1) - at(first)
    };
    let mut plan = vec![Vec::new(); ranges.len()];
    // By the last range of a part, then by the number of further ranges in it: what the cheapest way costs.
    let mut by_last: Vec<Vec<u64>> = vec![Vec::new(); ranges.len()];
    for first in (0..ranges.len()).rev() {
        let mut row = vec![Step { cost: 0, way: Way::Answer }];
        // Of the parts that begin with `first`; the shortest one has its range alone.
        let mut lows = vec![0];
        if let Some(shortest) = by_last.get_mut(first) {
            shortest.push(0);
        }
        let mut singles = 0;
        for (last, highs) in by_last.iter_mut().enumerate().skip(first + 1) {
            let asked = numbers(first, last);
            // In two passes: the first one is all that takes time, and does nothing else.
            let sides = || lows.iter().zip(highs.iter().rev()).map(|(low, high)| low + high);
            let least = sides().min().unwrap_or(0);
            let cut = |index| Step { cost: asked + INSTRUCTION + least, way: Way::Cut(first + 1 + index) };
            let best = sides().position(|cost| cost == least).map(cut);
            // One more single number, if there have been only such.
            if (last - first) % 2 == 0 && 2 * singles + 2 == last - first && is_single(ranges, last - 1) {
                singles += 1;
            }
            let tests = u64::try_from(singles).unwrap_or(u64::MAX);
            let by_singles = (2 * singles == last - first).then(|| Step {
                cost: tests * (asked + INSTRUCTION) - (tests * tests.saturating_sub(1) / 2).min(tests * asked),
                way: Way::Singles,
            });
            let cheapest = by_singles.into_iter().chain(best).min_by_key(|step| step.cost);
            let Some(cheapest) = cheapest else { continue };
            row.push(cheapest);
            lows.push(cheapest.cost);
            highs.push(cheapest.cost);
        }
        if let Some(slot) = plan.get_mut(first) {
            *slot = row;
        }
    }
    plan
}

/// Whether a range is one number, between two ranges with the same answer.
fn is_single(ranges: &[Range], at: usize) -> bool {
    let around = at.checked_sub(1).and_then(|before| ranges.get(before..=at + 1));
    let Some([before, range, after]) = around else { return false };
    before.answer == after.answer && after.first - range.first == 1
}
