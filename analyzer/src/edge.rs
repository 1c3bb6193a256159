//! One step of the graph of a file: from a function or an object to what it leads to.
//!
//! Input: an [`Edge`]. Output: a [`PackedEdge`], which is shorter, and back: a large program has ten million.

use crate::functions::FunctionId;
use crate::instruction::ReferenceKind;

/// Where an edge ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum To {
    /// Code that is called or jumped to.
    Entered(FunctionId),
    /// Code whose address is taken.
    Taken(FunctionId),
    /// Code that the loader calls to learn an address.
    Resolver(FunctionId),
    /// A data object, by its number.
    Object(u32),
    /// A name that stands in data, by its place among those of the graph.
    Name(u32),
    /// What the pointer with this number points to, a symbol.
    Symbol(u32),
    /// The same, called or jumped to.
    Imported(u32),
    /// What is copied for the symbol with this number.
    Copy(u32),
    /// The function that finds a thread-local variable.
    TlsDescriptor,
}

/// Where the address stands by which an edge leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Stands {
    /// In the function or object itself.
    Here,
    /// In the pointer with this number.
    Pointer(u32),
    /// Nobody knows.
    Elsewhere,
}

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Edge {
    pub(crate) to: To,
    pub(crate) stands: Stands,
    pub(crate) kind: ReferenceKind,
}

/// The same, 12 bytes long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PackedEdge {
    number: u32,
    stands: u32,
    end: End,
    kind: ReferenceKind,
}

/// [`To`] without its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Entered,
    Taken,
    Resolver,
    Object,
    Name,
    Symbol,
    Imported,
    Copy,
    TlsDescriptor,
}

/// [`Stands`] where it is no pointer; no file has so many pointers.
const HERE: u32 = u32::MAX;
const ELSEWHERE: u32 = u32::MAX - 1;

impl From<Edge> for PackedEdge {
    fn from(edge: Edge) -> Self {
        let (end, number) = match edge.to {
            To::Entered(function) => (End::Entered, function.0),
            To::Taken(function) => (End::Taken, function.0),
            To::Resolver(function) => (End::Resolver, function.0),
            To::Object(number) => (End::Object, number),
            To::Name(number) => (End::Name, number),
            To::Symbol(number) => (End::Symbol, number),
            To::Imported(number) => (End::Imported, number),
            To::Copy(number) => (End::Copy, number),
            To::TlsDescriptor => (End::TlsDescriptor, 0),
        };
        let stands = match edge.stands {
            Stands::Here => HERE,
            Stands::Pointer(number) => number.min(ELSEWHERE),
            Stands::Elsewhere => ELSEWHERE,
        };
        Self { number, stands, end, kind: edge.kind }
    }
}

impl From<PackedEdge> for Edge {
    fn from(packed: PackedEdge) -> Self {
        let PackedEdge { number, stands, end, kind } = packed;
        let to = match end {
            End::Entered => To::Entered(FunctionId(number)),
            End::Taken => To::Taken(FunctionId(number)),
            End::Resolver => To::Resolver(FunctionId(number)),
            End::Object => To::Object(number),
            End::Name => To::Name(number),
            End::Symbol => To::Symbol(number),
            End::Imported => To::Imported(number),
            End::Copy => To::Copy(number),
            End::TlsDescriptor => To::TlsDescriptor,
        };
        let stands = match stands {
            HERE => Stands::Here,
            ELSEWHERE => Stands::Elsewhere,
            number => Stands::Pointer(number),
        };
        Self { to, stands, kind }
    }
}

impl PackedEdge {
    /// The number of the name that it leads to, to be changed.
    pub(crate) fn name_mut(&mut self) -> Option<&mut u32> {
        (self.end == End::Name).then_some(&mut self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_edges_are_short_and_lose_nothing() {
        assert_eq!(size_of::<PackedEdge>(), 12);
        let numbered = [To::Object, To::Name, To::Symbol, To::Imported, To::Copy].map(|to| to(7));
        let functions = [To::Entered, To::Taken, To::Resolver].map(|to| to(FunctionId(u32::MAX)));
        for to in numbered.into_iter().chain(functions).chain([To::TlsDescriptor]) {
            for stands in [Stands::Here, Stands::Elsewhere, Stands::Pointer(0), Stands::Pointer(1 << 31)] {
                for kind in [ReferenceKind::Call, ReferenceKind::Load(64), ReferenceKind::Address] {
                    let edge = Edge { to, stands, kind };
                    let mut packed = PackedEdge::from(edge);
                    assert_eq!(Edge::from(packed), edge);
                    assert_eq!(packed.name_mut().is_some(), matches!(to, To::Name(_)));
                }
            }
        }
    }
}
