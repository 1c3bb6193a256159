//! What a register or a stack slot can hold: a small set of atoms, or anything at all.
//!
//! The lattice of the data-flow analysis ([`crate::dataflow`]): `Bottom` (no path reaches this point) below finite sets
//! below `Top`. A set may mix numbers, addresses and parameters, so that "1, or the caller's first argument" is one
//! value. Joins only grow, and a set that outgrows [`MAX_ATOMS`] becomes `Top`, which bounds the height.
//!
//! Over-approximates: correlation between registers is lost at a join. May miss: nothing; what is not modelled is `Top`.

use crate::address::Vaddr;

/// Larger sets become `Top`; the largest real one that was met (a `switch` over clock operations) has fewer than 20.
pub const MAX_ATOMS: usize = 32;

/// One value that is known exactly or by its origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
}

/// A set of [`Atom`]s, or anything.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
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
        array_of(&joined).map_or(Self::Top, Self::One)
    }

    /// Whether it may be an address in the frame, and the lowest one.
    #[must_use]
    pub fn lowest_frame_offset(&self) -> Option<i64> {
        let offset = |atom: &Atom| match atom {
            Atom::Frame(offset) | Atom::FrameElement(offset, _) => Some(*offset),
            _ => None,
        };
        self.atoms()?.iter().filter_map(offset).min()
    }

    /// Each atom through `f`; `Top` as soon as `f` does not know.
    #[must_use]
    pub fn map(&self, f: impl Fn(Atom) -> Option<Atom>) -> Self {
        match self.atoms() {
            None => Self::Top,
            Some(atoms) => {
                atoms.iter().map(|&atom| f(atom)).collect::<Option<Vec<_>>>().map_or(Self::Top, Self::from_atoms)
            }
        }
    }

    /// Each pair of atoms through `f`; `Top` as soon as `f` does not know or the pairs are too many.
    #[must_use]
    pub fn combine(&self, other: &Self, f: impl Fn(Atom, Atom) -> Option<Atom>) -> Self {
        let (Some(left), Some(right)) = (self.atoms(), other.atoms()) else { return Self::Top };
        if left.len().saturating_mul(right.len()) > MAX_ATOMS * MAX_ATOMS {
            return Self::Top;
        }
        let pairs = left.iter().flat_map(|&a| right.iter().map(move |&b| (a, b)));
        pairs.map(|(a, b)| f(a, b)).collect::<Option<Vec<_>>>().map_or(Self::Top, Self::from_atoms)
    }
}

/// The array whose elements the atoms are, if all are addresses in the image or all are addresses in the frame.
fn array_of(value: &Value) -> Option<Atom> {
    let atoms = value.atoms()?;
    let places: Option<Vec<(bool, i64, u32)>> = atoms
        .iter()
        .map(|atom| match *atom {
            Atom::Address(at) => Some((true, at.0.cast_signed(), 0)),
            Atom::Element(at, stride) => Some((true, at.0.cast_signed(), stride)),
            Atom::Frame(at) => Some((false, at, 0)),
            Atom::FrameElement(at, stride) => Some((false, at, stride)),
            _ => None,
        })
        .collect();
    let places = places?;
    let &(in_image, ..) = places.first()?;
    let start = places.iter().map(|&(_, at, _)| at).min()?;
    // An array that grows downwards would go on for ever.
    let grows_down = places.iter().any(|&(_, at, stride)| stride != 0 && at > start);
    let mut stride = 0;
    for &(kind, at, old) in &places {
        if kind != in_image {
            return None;
        }
        stride = greatest_common_divisor(stride, u32::try_from(at.checked_sub(start)?).ok()?);
        stride = greatest_common_divisor(stride, old);
    }
    match (grows_down || stride == 0, in_image) {
        (true, _) => None,
        (false, true) => Some(Atom::Element(Vaddr(start.cast_unsigned()), stride)),
        (false, false) => Some(Atom::FrameElement(start, stride)),
    }
}

const fn greatest_common_divisor(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}
