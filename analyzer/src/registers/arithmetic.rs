//! Arithmetic on atoms: what an instruction makes of values that are known exactly or by their origin.
//!
//! Input: one or two [`Atom`]s. Output: the atom that results, `None` where it is none of those that the lattice has.
//!
//! Over-approximates: nothing. May miss: nothing; `None` becomes `Top`.

use crate::address::Vaddr;
use crate::value::Atom;

/// Keeps the low `bytes` of a constant; other atoms survive only if nothing of their meaning is cut off.
pub(super) fn truncate(atom: Atom, bytes: usize) -> Option<Atom> {
    match (atom, bytes) {
        (Atom::Constant(c), 1) => Some(Atom::Constant(c & 0xff)),
        (Atom::Constant(c), 2) => Some(Atom::Constant(c & 0xffff)),
        (Atom::Constant(c), 4) => Some(Atom::Constant(c & 0xffff_ffff)),
        (Atom::Constant(_), _) => Some(atom),
        // Arguments of system calls' number type are 32 bits wide, so the low half is all of it.
        (atom, 4 | 8) if is_elsewhere(atom) => Some(atom),
        (Atom::Address(a), 4) if u32::try_from(a.0).is_ok() => Some(atom),
        (Atom::Address(_) | Atom::Frame(_) | Atom::Element(..) | Atom::FrameElement(..), 8) => Some(atom),
        _ => None,
    }
}

/// Whether an atom stands for a number that is fixed elsewhere.
pub(super) const fn is_elsewhere(atom: Atom) -> bool {
    use Atom::{Global, GlobalField, Parameter, ParameterField, Returned};
    matches!(atom, Parameter(_) | Global(_) | ParameterField(..) | GlobalField(..) | Returned(_))
}

/// The low `bytes` of a number, with their sign.
pub(super) fn sign_extend(number: u64, bytes: usize) -> u64 {
    let shift = 64_u32.saturating_sub(8 * u32::try_from(bytes.min(8)).unwrap_or(8));
    (number << shift).cast_signed().wrapping_shr(shift).cast_unsigned()
}

/// The sum; an address plus a number is an address.
pub(super) fn add(a: Atom, b: Atom) -> Option<Atom> {
    match (a, b) {
        (Atom::Constant(x), Atom::Constant(y)) => Some(Atom::Constant(x.wrapping_add(y))),
        (Atom::Address(base), Atom::Constant(x)) | (Atom::Constant(x), Atom::Address(base)) => {
            Some(Atom::Address(Vaddr(base.0.wrapping_add(x))))
        }
        (Atom::Frame(base), Atom::Constant(x)) | (Atom::Constant(x), Atom::Frame(base)) => {
            Some(Atom::Frame(base.wrapping_add(x.cast_signed())))
        }
        (Atom::Element(base, stride), Atom::Constant(x)) | (Atom::Constant(x), Atom::Element(base, stride)) => {
            Some(Atom::Element(Vaddr(base.0.wrapping_add(x)), stride))
        }
        (Atom::FrameElement(base, stride), Atom::Constant(x))
        | (Atom::Constant(x), Atom::FrameElement(base, stride)) => {
            Some(Atom::FrameElement(base.wrapping_add(x.cast_signed()), stride))
        }
        (Atom::Parameter(n), Atom::Constant(0)) | (Atom::Constant(0), Atom::Parameter(n)) => Some(Atom::Parameter(n)),
        _ => None,
    }
}

/// Minus a number.
pub(super) fn negate(atom: Atom) -> Option<Atom> {
    match atom {
        Atom::Constant(x) => Some(Atom::Constant(x.wrapping_neg())),
        _ => None,
    }
}

/// An operation that is known for numbers only.
pub(super) fn constants(f: impl Fn(u64, u64) -> u64) -> impl Fn(Atom, Atom) -> Option<Atom> {
    move |a, b| match (a, b) {
        (Atom::Constant(x), Atom::Constant(y)) => Some(Atom::Constant(f(x, y))),
        _ => None,
    }
}
