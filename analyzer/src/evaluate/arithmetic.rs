//! Results and flags of integer instructions on words that may be unknown.
//!
//! Input: two operands and their width. Output: the result, and the flags that go with it (SDM volume 1, 3.4.3.1).
//!
//! Over-approximates: whatever depends on something unknown is unknown. May miss: nothing.

use iced_x86::ConditionCode;

/// A word that may be unknown.
pub(super) type Word = Option<u64>;

/// The flags that conditions look at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Flags {
    carry: Option<bool>,
    zero: Option<bool>,
    sign: Option<bool>,
    overflow: Option<bool>,
}

/// The low `bytes` of a word.
pub(super) const fn low(word: u64, bytes: usize) -> u64 {
    match bytes {
        1 => word & 0xff,
        2 => word & 0xffff,
        4 => word & 0xffff_ffff,
        _ => word,
    }
}

/// The sign bit of a word that is `bytes` wide.
const fn sign(word: u64, bytes: usize) -> bool {
    let bit = match bytes {
        1 => 7,
        2 => 15,
        4 => 31,
        _ => 63,
    };
    word >> bit & 1 == 1
}

impl Flags {
    /// Those of a result; carry and overflow are cleared.
    pub(super) fn logical(result: Word, bytes: usize) -> Self {
        Self { carry: Some(false), overflow: Some(false), ..Self::of(result, bytes) }
    }

    /// Zero and sign of a result; carry and overflow are unknown.
    pub(super) fn of(result: Word, bytes: usize) -> Self {
        Self {
            zero: result.map(|word| low(word, bytes) == 0),
            sign: result.map(|word| sign(word, bytes)),
            ..Self::default()
        }
    }

    /// The carry flag of `other` in place of its own.
    pub(super) const fn with_carry_of(self, other: Self) -> Self {
        Self { carry: other.carry, ..self }
    }

    /// Whether a condition holds (SDM volume 2, appendix B.1.4); `None` if that is not known.
    pub(super) fn holds(self, condition: ConditionCode) -> Option<bool> {
        use ConditionCode::{a, ae, b, be, e, g, ge, l, le, ne, no, ns, o, s};
        let less = || Some(self.sign? != self.overflow?);
        Some(match condition {
            o => self.overflow?,
            no => !self.overflow?,
            b => self.carry?,
            ae => !self.carry?,
            e => self.zero?,
            ne => !self.zero?,
            be => self.carry? || self.zero?,
            a => !(self.carry? || self.zero?),
            s => self.sign?,
            ns => !self.sign?,
            l => less()?,
            ge => !less()?,
            le => self.zero? || less()?,
            g => !(self.zero? || less()?),
            _ => return None,
        })
    }
}

/// The sum and its flags.
pub(super) fn add(a: Word, b: Word, bytes: usize) -> (Word, Flags) {
    let (Some(x), Some(y)) = (a.map(|word| low(word, bytes)), b.map(|word| low(word, bytes))) else {
        return (None, Flags::default());
    };
    let sum = low(x.wrapping_add(y), bytes);
    let overflow = sign(x, bytes) == sign(y, bytes) && sign(sum, bytes) != sign(x, bytes);
    let flags = Flags { carry: Some(sum < x), overflow: Some(overflow), ..Flags::of(Some(sum), bytes) };
    (Some(sum), flags)
}

/// The difference and its flags.
pub(super) fn subtract(a: Word, b: Word, bytes: usize) -> (Word, Flags) {
    let (Some(x), Some(y)) = (a.map(|word| low(word, bytes)), b.map(|word| low(word, bytes))) else {
        return (None, Flags::default());
    };
    let difference = low(x.wrapping_sub(y), bytes);
    let overflow = sign(x, bytes) != sign(y, bytes) && sign(difference, bytes) != sign(x, bytes);
    let flags = Flags { carry: Some(x < y), overflow: Some(overflow), ..Flags::of(Some(difference), bytes) };
    (Some(difference), flags)
}

/// The low `bytes` of a word as a signed number.
pub(super) fn extend(word: u64, bytes: usize) -> u64 {
    if sign(word, bytes) { low(word, bytes) | !low(u64::MAX, bytes) } else { low(word, bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Rust's own arithmetic says about signed and unsigned comparison of 32-bit numbers.
    #[test]
    fn comparisons_agree_with_those_of_the_language() {
        let samples = [0_u32, 1, 2, 0x7fff_ffff, 0x8000_0000, 0x8000_0001, u32::MAX - 1, u32::MAX];
        for x in samples {
            for y in samples {
                let (difference, flags) = subtract(Some(x.into()), Some(y.into()), 4);
                assert_eq!(difference, Some(x.wrapping_sub(y).into()));
                let (a, b) = (x.cast_signed(), y.cast_signed());
                for (condition, expected) in [
                    (ConditionCode::b, x < y),
                    (ConditionCode::be, x <= y),
                    (ConditionCode::a, x > y),
                    (ConditionCode::ae, x >= y),
                    (ConditionCode::l, a < b),
                    (ConditionCode::le, a <= b),
                    (ConditionCode::g, a > b),
                    (ConditionCode::ge, a >= b),
                    (ConditionCode::e, x == y),
                    (ConditionCode::ne, x != y),
                    (ConditionCode::o, a.checked_sub(b).is_none()),
                    (ConditionCode::s, a.wrapping_sub(b) < 0),
                ] {
                    assert_eq!(flags.holds(condition), Some(expected), "{x} {condition:?} {y}");
                }
                let (sum, flags) = add(Some(x.into()), Some(y.into()), 4);
                assert_eq!(sum, Some(x.wrapping_add(y).into()));
                assert_eq!(flags.holds(ConditionCode::b), Some(x.checked_add(y).is_none()));
                assert_eq!(flags.holds(ConditionCode::o), Some(a.checked_add(b).is_none()));
            }
        }
        assert_eq!(subtract(None, Some(1), 4).1.holds(ConditionCode::e), None);
        assert_eq!(extend(0x1_ffff_fffe, 4).cast_signed(), -2);
    }
}
