//! Who refers to an address of one file, found without looking through all of its code.
//!
//! Input: the references of its functions and the pointers in its data. Output: [`References`], sorted by target.
//!
//! Over-approximates: nothing. May miss: nothing that [`crate::functions`] and [`crate::data`] found.

use std::ops::Range;
use std::sync::OnceLock;

use rustc_hash::FxHashSet;

use crate::address::Vaddr;
use crate::data::{Data, PointerTarget};
use crate::functions::{FunctionId, Functions};
use crate::instruction::ReferenceKind;

/// Target and function, sorted.
type Edges = Vec<(Vaddr, FunctionId)>;

/// References of one file by target.
#[derive(Debug, Default)]
pub struct References {
    accesses: Edges,
    addresses: Edges,
    calls: Edges,
    /// Pointers in data, by where they point.
    pointed: Vec<(Vaddr, Vaddr)>,
    /// Pointers in data to symbols themselves, by the symbol's index.
    named: Vec<(u32, Vaddr)>,
    /// Every address that code or data takes, once that is asked.
    bases: OnceLock<FxHashSet<Vaddr>>,
}

fn edges_in<'e>(edges: &'e Edges, range: &Range<Vaddr>) -> &'e [(Vaddr, FunctionId)] {
    let first = edges.partition_point(|(at, _)| *at < range.start);
    let behind = edges.partition_point(|(at, _)| *at < range.end);
    edges.get(first..behind).unwrap_or(&[])
}

fn within<'e>(edges: &'e Edges, range: &Range<Vaddr>) -> impl Iterator<Item = FunctionId> + use<'e> {
    edges_in(edges, range).iter().map(|(_, function)| *function)
}

impl References {
    /// Collects them.
    #[must_use]
    pub fn new(functions: &Functions, data: &Data) -> Self {
        let mut found = Self::default();
        for (id, function) in (0_u32..).map(FunctionId).zip(functions.all()) {
            for reference in &function.references {
                match reference.kind {
                    ReferenceKind::Load(_) | ReferenceKind::Store => found.accesses.push((reference.target, id)),
                    ReferenceKind::Address => found.addresses.push((reference.target, id)),
                    ReferenceKind::CallThrough => found.calls.push((reference.target, id)),
                    _ => {}
                }
            }
        }
        let pointers = data.pointers().iter();
        found.pointed.extend(pointers.filter_map(|p| match p.target {
            PointerTarget::Local(at) => Some((at, p.slot)),
            _ => None,
        }));
        let pointers = data.pointers().iter();
        found.named.extend(pointers.filter_map(|p| match p.target {
            PointerTarget::Symbol(index, 0) => Some((index, p.slot)),
            _ => None,
        }));
        found.named.sort_unstable();
        found.accesses.sort_unstable();
        found.accesses.dedup();
        found.addresses.sort_unstable();
        found.addresses.dedup();
        found.calls.sort_unstable();
        found.calls.dedup();
        found.pointed.sort_unstable();
        found
    }

    /// The functions that read or write memory whose first byte is in `range`.
    pub fn accessing(&self, range: &Range<Vaddr>) -> impl Iterator<Item = FunctionId> {
        within(&self.accesses, range)
    }

    /// The functions that take an address in `range`.
    pub fn taking(&self, range: &Range<Vaddr>) -> impl Iterator<Item = FunctionId> {
        within(&self.addresses, range)
    }

    /// The addresses in `range` that functions take, each with the function.
    pub fn taken_in(&self, range: &Range<Vaddr>) -> &[(Vaddr, FunctionId)] {
        edges_in(&self.addresses, range)
    }

    /// The functions that call or jump through the pointer at `slot`.
    pub fn calling(&self, slot: Vaddr) -> impl Iterator<Item = FunctionId> {
        let here = slot..slot.checked_add(1).unwrap_or(slot);
        within(&self.calls, &here)
    }

    /// Whether code or data takes exactly this address.
    #[must_use]
    pub fn is_base(&self, at: Vaddr) -> bool {
        let all = || self.addresses.iter().map(|(at, _)| *at).chain(self.pointed.iter().map(|(at, _)| *at)).collect();
        self.bases.get_or_init(all).contains(&at)
    }

    /// Whether data points into `range`.
    #[must_use]
    pub fn is_pointed_into(&self, range: &Range<Vaddr>) -> bool {
        self.pointing_into(range).next().is_some()
    }

    /// Where in data the pointers into `range` stand.
    pub fn pointing_into(&self, range: &Range<Vaddr>) -> impl Iterator<Item = Vaddr> {
        let first = self.pointed.partition_point(|(at, _)| *at < range.start);
        let behind = self.pointed.partition_point(|(at, _)| *at < range.end);
        self.pointed.get(first..behind).unwrap_or(&[]).iter().map(|(_, slot)| *slot)
    }

    /// The symbols to which pointers in data point, by index, each once.
    pub fn symbols(&self) -> impl Iterator<Item = u32> {
        self.named.chunk_by(|one, other| one.0 == other.0).filter_map(|chunk| chunk.first()).map(|(symbol, _)| *symbol)
    }

    /// Where in data the pointers to a symbol stand.
    pub fn naming(&self, symbol: u32) -> impl Iterator<Item = Vaddr> {
        let first = self.named.partition_point(|(index, _)| *index < symbol);
        self.named.iter().skip(first).take_while(move |(index, _)| *index == symbol).map(|(_, slot)| *slot)
    }

    /// The functions that read or write memory at `slot`.
    pub fn loading(&self, slot: Vaddr) -> impl Iterator<Item = FunctionId> {
        let here = slot..slot.checked_add(1).unwrap_or(slot);
        within(&self.accesses, &here)
    }
}
