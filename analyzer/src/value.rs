//! What a register or a stack slot can hold: a small set of atoms, or anything at all.
//!
//! The lattice of the data-flow analysis ([`crate::dataflow`]): `Bottom` (no path reaches this point) below finite sets
//! below `Top`. A set may mix numbers, addresses and parameters, so that "1, or the caller's first argument" is one
//! value. Joins only grow, and a set that outgrows [`MAX_ATOMS`] becomes `Top`, which bounds the height.
//!
//! Over-approximates: correlation between registers is lost at a join. May miss: nothing; what is not modelled is
//! `Top`.

use serde::{Deserialize, Serialize};

use crate::address::Vaddr;

/// Larger sets become `Top`; the largest real one that was met (a `switch` over clock operations) has fewer than 20.
pub const MAX_ATOMS: usize = 32;

/// One value that is known exactly or by its origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Atom {
    /// A number.
    Constant(u64),
    /// An address in the image, which the loader moves with it.
    Address(Vaddr),
    /// The function's n-th integer argument at its entry, counted from 0: `rdi, rsi, rdx, rcx, r8, r9`, then the
    /// stack from `8(%rsp)` on (psABI 3.2.3).
    Parameter(u16),
    /// The stack pointer at the function's entry plus so many bytes.
    Frame(i64),
    /// An element of an array in the image: this address, or a multiple of so many bytes behind it.
    Element(Vaddr, u32),
    /// An element of an array in the frame.
    FrameElement(i64, u32),
    /// What stands in the variable at this address of the image.
    Global(Vaddr),
    /// What stands so many bytes behind the address that is the function's n-th argument.
    ParameterField(u16, i64),
    /// What stands so many bytes behind the address that is in the variable.
    GlobalField(Vaddr, i64),
    /// What the call at this address returned.
    Returned(Vaddr),
}

/// A set of [`Atom`]s, or anything.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Value {
    /// No path gets here.
    #[default]
    Bottom,
    /// Exactly one.
    One(Atom),
    /// Two or more, sorted, at most [`MAX_ATOMS`].
    Many(Box<[Atom]>),
    /// Unknown.
    Top,
}

impl Value {
    /// The constant `number`.
    #[must_use]
    pub const fn constant(number: u64) -> Self {
        Self::One(Atom::Constant(number))
    }

    /// A value of the given atoms; `Top` if there are too many.
    #[must_use]
    pub fn from_atoms(mut atoms: Vec<Atom>) -> Self {
        atoms.sort_unstable();
        atoms.dedup();
        match atoms.as_slice() {
            [] => Self::Bottom,
            [one] => Self::One(*one),
            more if more.len() <= MAX_ATOMS => Self::Many(atoms.into_boxed_slice()),
            _ => Self::Top,
        }
    }

    /// The atoms, or `None` for `Top`.
    #[must_use]
    pub fn atoms(&self) -> Option<&[Atom]> {
        match self {
            Self::Bottom => Some(&[]),
            Self::One(atom) => Some(std::slice::from_ref(atom)),
            Self::Many(atoms) => Some(atoms),
            Self::Top => None,
        }
    }

    /// The only atom, if there is exactly one.
    #[must_use]
    pub const fn single(&self) -> Option<Atom> {
        match self {
            Self::One(atom) => Some(*atom),
            _ => None,
        }
    }

    /// The stack offset that this value is, if it is exactly one.
    #[must_use]
    pub const fn frame_offset(&self) -> Option<i64> {
        match self {
            Self::One(Atom::Frame(offset)) => Some(*offset),
            _ => None,
        }
    }

    /// The least value above both.
    #[must_use]
    pub fn join(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::Top, _) | (_, Self::Top) => Self::Top,
            (Self::Bottom, value) | (value, Self::Bottom) => value.clone(),
            (a, b) if a == b => a.clone(),
            (a, b) => {
                let both = a.atoms().unwrap_or(&[]).iter().chain(b.atoms().unwrap_or(&[]));
                Self::from_atoms(both.copied().collect())
            }
        }
    }

    /// The least value above both that does not keep growing: addresses at regular distances become an array, other
    /// differences `Top`.
    #[must_use]
    pub fn widen(&self, other: &Self) -> Self {
        let joined = self.join(other);
        if joined == *self {
            return joined;
        }
        let (Some(before), Some(all)) = (self.atoms(), joined.atoms()) else { return Self::Top };
        let mut widened = Vec::new();
        for space in [Space::Image, Space::Frame, Space::Other] {
            let here = || all.iter().filter(|atom| place(atom).0 == space);
            if here().all(|atom| before.contains(atom)) {
                widened.extend(here());
            } else {
                let places: Vec<(i64, u32)> = here().map(|atom| (place(atom).1, place(atom).2)).collect();
                let was =
                    before.iter().filter(|atom| place(atom).0 == space).map(|atom| (place(atom).1, place(atom).2));
                let Some(array) = array_of(space, was, &places) else { return Self::Top };
                widened.push(array);
            }
        }
        Self::from_atoms(widened)
    }

    /// Whether it may be an address in the frame, and the lowest one.
    #[must_use]
    pub fn lowest_frame_offset(&self) -> Option<i64> {
        self.frame_offsets().min()
    }

    /// The addresses in the frame that it may be.
    pub fn frame_offsets(&self) -> impl Iterator<Item = i64> + '_ {
        self.atoms().unwrap_or(&[]).iter().filter_map(|atom| match atom {
            Atom::Frame(offset) | Atom::FrameElement(offset, _) => Some(*offset),
            _ => None,
        })
    }

    /// Each atom through `f`; `Top` as soon as `f` does not know.
    #[must_use]
    pub fn map(&self, f: impl Fn(Atom) -> Option<Atom>) -> Self {
        match self {
            Self::Top => Self::Top,
            Self::Bottom => Self::Bottom,
            Self::One(atom) => f(*atom).map_or(Self::Top, Self::One),
            Self::Many(atoms) => {
                atoms.iter().map(|&atom| f(atom)).collect::<Option<Vec<_>>>().map_or(Self::Top, Self::from_atoms)
            }
        }
    }

    /// Each pair of atoms through `f`; `Top` as soon as `f` does not know or the pairs are too many.
    #[must_use]
    pub fn combine(&self, other: &Self, f: impl Fn(Atom, Atom) -> Option<Atom>) -> Self {
        if let (&Self::One(left), &Self::One(right)) = (self, other) {
            return f(left, right).map_or(Self::Top, Self::One);
        }
        let (Some(left), Some(right)) = (self.atoms(), other.atoms()) else { return Self::Top };
        if left.len().saturating_mul(right.len()) > MAX_ATOMS * MAX_ATOMS {
            return Self::Top;
        }
        let pairs = left.iter().flat_map(|&a| right.iter().map(move |&b| (a, b)));
        pairs.map(|(a, b)| f(a, b)).collect::<Option<Vec<_>>>().map_or(Self::Top, Self::from_atoms)
    }
}

/// What an address counts from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Space {
    Image,
    Frame,
    /// No address.
    Other,
}

/// Where an atom points, and the stride if it is an array.
const fn place(atom: &Atom) -> (Space, i64, u32) {
    match *atom {
        Atom::Address(at) => (Space::Image, at.0.cast_signed(), 0),
        Atom::Element(at, stride) => (Space::Image, at.0.cast_signed(), stride),
        Atom::Frame(at) => (Space::Frame, at, 0),
        Atom::FrameElement(at, stride) => (Space::Frame, at, stride),
        _ => (Space::Other, 0, 0),
    }
}

/// The array whose elements the places (with the strides of arrays among them) are; `before` are those that were known.
fn array_of(space: Space, mut before: impl Iterator<Item = (i64, u32)>, places: &[(i64, u32)]) -> Option<Atom> {
    let start = places.iter().map(|&(at, _)| at).min()?;
    // An array that grows downwards would go on for ever.
    if before.any(|(at, stride)| stride != 0 && at > start) {
        return None;
    }
    let mut stride = 0;
    for &(at, old) in places {
        stride = greatest_common_divisor(stride, u32::try_from(at.checked_sub(start)?).ok()?);
        stride = greatest_common_divisor(stride, old);
    }
    match space {
        _ if stride == 0 => None,
        Space::Image => Some(Atom::Element(Vaddr(start.cast_unsigned()), stride)),
        Space::Frame => Some(Atom::FrameElement(start, stride)),
        Space::Other => None,
    }
}

const fn greatest_common_divisor(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(at: u64) -> Value {
        Value::One(Atom::Address(Vaddr(at)))
    }

    #[test]
    fn a_pointer_that_walks_upwards_becomes_an_array_and_stays_one() {
        let array = address(0x100).widen(&address(0x110));
        assert_eq!(array, Value::One(Atom::Element(Vaddr(0x100), 0x10)));
        let behind = Value::One(Atom::Element(Vaddr(0x110), 0x10));
        assert_eq!(array.widen(&behind), array);
    }

    #[test]
    fn a_pointer_that_walks_downwards_is_unknown_at_last() {
        let array = address(0x110).widen(&address(0x100));
        assert_eq!(array.widen(&Value::One(Atom::Element(Vaddr(0xf0), 0x10))), Value::Top);
    }

    #[test]
    fn what_does_not_grow_survives_beside_an_array() {
        let both = address(0x100).join(&Value::constant(0));
        let widened = both.widen(&address(0x108));
        let expected = Value::from_atoms(vec![Atom::Constant(0), Atom::Element(Vaddr(0x100), 8)]);
        assert_eq!(widened, expected);
        assert_eq!(Value::constant(1).widen(&Value::constant(2)), Value::Top);
    }
}
