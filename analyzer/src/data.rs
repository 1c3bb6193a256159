//! Pointers in data, and where one data object ends and the next begins.
//!
//! Input: an [`Image`] and the addresses that its code takes. Output: [`Data`]. In a position-independent file every
//! pointer in data is a relocation; in others, every aligned word whose value lies in the image counts as one
//! (DESIGN section 3, rule 2).
//!
//! Objects have no recorded bounds in a stripped file. An object begins where a symbol says so, or at an address that
//! code or data refers to if it is aligned as compilers align aggregates that are large enough to hold two pointers; a
//! reference to any part of an object reaches all of it. An array that is referred to in its middle would fall into two
//! objects: where the pattern of pointers goes on across a boundary, the parts are one object.
//!
//! In a Go program the offsets of methods in type descriptions are pointers too, and all types are one object.
//!
//! Over-approximates: what stands between two boundaries counts as one object. May miss: an interior reference to the
//! second element of an array, if it is aligned like an object of its own.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::address::Vaddr;
use crate::by_address::{ByAddress, Placed};
use crate::elf::{Image, RelocationTarget, SymbolRelocationKind};

/// Aggregates of 16 bytes and more are aligned to it (psABI 3.1.2 for arrays; GCC and LLVM do so for all).
const OBJECT_ALIGNMENT: u64 = 16;

/// What a pointer in data points to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PointerTarget {
    /// An address in the same file.
    Local(Vaddr),
    /// A symbol of the dynamic symbol table, by index, plus so many bytes.
    Symbol(u32, i64),
    /// What the resolver function at this address returns.
    Resolver(Vaddr),
    /// The data of another module's object, copied here at start (copy relocation), by symbol index.
    Copy(u32),
    /// A thread-local variable's descriptor.
    TlsDescriptor,
}

/// A pointer in data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pointer {
    /// Where it stands; 8 bytes.
    pub slot: Vaddr,
    /// Where it points.
    pub target: PointerTarget,
    /// Whether it is an entry of the global offset table, which belongs to no object.
    pub is_linkage: bool,
}

impl Placed for Pointer {
    fn at(&self) -> Vaddr {
        self.slot
    }
}

/// A copy of another module's object.
#[derive(Debug, Serialize, Deserialize)]
struct Copied {
    place: Range<Vaddr>,
    /// The symbol's index.
    symbol: u32,
    /// The highest end of this copy and of those before it.
    reach: Vaddr,
}

/// The pointers and objects of one file.
#[derive(Debug, Serialize, Deserialize)]
pub struct Data {
    pointers: ByAddress<Pointer>,
    boundaries: ByAddress<Vaddr>,
    /// Sorted by where they stand.
    copies: Vec<Copied>,
}

impl Data {
    /// Collects the pointers of `image`.
    #[must_use]
    pub fn pointers_of(image: &Image<'_>) -> Vec<Pointer> {
        let mut pointers: Vec<Pointer> = image
            .relocations()
            .iter()
            .filter_map(|r| {
                let (target, is_linkage) = match r.target {
                    RelocationTarget::Relative(at) => (PointerTarget::Local(at), false),
                    RelocationTarget::Irelative(at) => (PointerTarget::Resolver(at), false),
                    RelocationTarget::Symbol { index, kind: SymbolRelocationKind::Copy, .. } => {
                        (PointerTarget::Copy(index), false)
                    }
                    RelocationTarget::Symbol { index, addend, kind } => {
                        let is_linkage = matches!(kind, SymbolRelocationKind::GlobDat | SymbolRelocationKind::JumpSlot);
                        (PointerTarget::Symbol(index, addend), is_linkage)
                    }
                    RelocationTarget::TlsDescriptor { .. } => (PointerTarget::TlsDescriptor, true),
                    _ => return None,
                };
                Some(Pointer { slot: r.slot, target, is_linkage })
            })
            .collect();
        if !image.is_position_independent() {
            pointers.extend(words_that_point(image));
        }
        let methods = image.go_methods().offsets.iter();
        pointers.extend(methods.map(|&(slot, function)| Pointer {
            slot,
            target: PointerTarget::Local(function),
            is_linkage: false,
        }));
        // Nothing jumps to the addresses in Go's function table.
        if let Some(table) = image.go_table() {
            pointers.retain(|pointer| !table.place.contains(&pointer.slot));
        }
        // Where a word has both, the relocation (which comes first) rules.
        pointers.sort_by_key(|p| p.slot);
        pointers.dedup_by_key(|p| p.slot);
        pointers
    }

    /// `taken` are the addresses that code refers to.
    #[must_use]
    pub fn new(image: &Image<'_>, pointers: Vec<Pointer>, taken: impl Iterator<Item = Vaddr>) -> Self {
        let pointed = pointers.iter().filter_map(|p| match p.target {
            PointerTarget::Local(at) => Some(at),
            _ => None,
        });
        let hints = image.object_hints();
        let is_inside = |at: Vaddr| {
            let before =
                hints.partition_point(|hint| hint.address < at).checked_sub(1).and_then(|index| hints.get(index));
            before.is_some_and(|hint| hint.address.checked_add(hint.size).is_some_and(|end| at < end))
        };
        let aligned = taken.chain(pointed).filter(|at| at.0 % OBJECT_ALIGNMENT == 0 && !is_inside(*at));
        let mut candidates: Vec<Vaddr> = aligned.collect();
        candidates.sort_unstable();
        candidates.dedup();
        let continues = Continuation { pointers: &pointers };
        let mut boundaries: Vec<Vaddr> = Vec::with_capacity(candidates.len());
        for candidate in candidates {
            if !boundaries.last().is_some_and(|&before| continues.across(before, candidate)) {
                boundaries.push(candidate);
            }
        }
        for hint in hints {
            boundaries.push(hint.address);
            boundaries.extend(hint.address.checked_add(hint.size));
        }
        boundaries.extend(image.layout_boundaries());
        // Go's types refer to each other by offsets, so that a reference to one may lead to all.
        if let Some(types) = &image.go_methods().place {
            boundaries.retain(|at| !types.contains(at));
            boundaries.extend([types.start, types.end]);
        }
        boundaries.sort_unstable();
        boundaries.dedup();
        let copies = pointers.iter().filter_map(|p| match p.target {
            PointerTarget::Copy(index) => {
                let symbol = usize::try_from(index).ok().and_then(|index| image.symbols().get(index))?;
                let end = p.slot.checked_add(symbol.size.max(1))?;
                Some(Copied { place: p.slot..end, symbol: index, reach: end })
            }
            _ => None,
        });
        let mut copies: Vec<Copied> = copies.collect();
        let mut reach = Vaddr(0);
        for copy in &mut copies {
            reach = reach.max(copy.reach);
            copy.reach = reach;
        }
        Self { pointers: ByAddress::new(pointers), boundaries: ByAddress::new(boundaries), copies }
    }

    /// All pointers, sorted by slot.
    #[must_use]
    pub fn pointers(&self) -> &[Pointer] {
        self.pointers.all()
    }

    /// The object that holds `at`.
    #[must_use]
    pub fn object_at(&self, at: Vaddr) -> Range<Vaddr> {
        self.object(self.object_number(at))
    }

    /// The number of the object that holds `at`, at most [`Self::object_count`].
    #[must_use]
    pub(crate) fn object_number(&self, at: Vaddr) -> u32 {
        u32::try_from(self.boundaries.count_up_to(at)).unwrap_or(u32::MAX)
    }

    /// How many boundaries there are between objects.
    #[must_use]
    pub(crate) fn object_count(&self) -> usize {
        self.boundaries.all().len()
    }

    /// Where the object with a number stands.
    #[must_use]
    pub(crate) fn object(&self, number: u32) -> Range<Vaddr> {
        let boundary = |position: Option<usize>| self.boundaries.all().get(position?).copied();
        let behind = usize::try_from(number).unwrap_or(usize::MAX);
        boundary(behind.checked_sub(1)).unwrap_or(Vaddr(0))..boundary(Some(behind)).unwrap_or(Vaddr(u64::MAX))
    }

    /// The symbols of copied objects that stand, in part at least, in a range of addresses.
    pub fn copies_in(&self, range: &Range<Vaddr>) -> impl Iterator<Item = u32> {
        let first = self.copies.partition_point(|copy| copy.reach <= range.start);
        let behind = self.copies.partition_point(|copy| copy.place.start < range.end);
        let near = self.copies.get(first..behind).unwrap_or(&[]).iter();
        near.filter(|copy| range.start < copy.place.end).map(|copy| copy.symbol)
    }

    /// What the pointer that stands at `slot` points to; no slot has two.
    #[must_use]
    pub fn pointer_at(&self, slot: Vaddr) -> Option<PointerTarget> {
        self.pointers.all().get(self.pointers.position(slot)?).map(|pointer| pointer.target)
    }

    /// The pointers in a range of addresses, with their numbers among all.
    pub(crate) fn numbered_pointers_in(&self, range: &Range<Vaddr>) -> impl Iterator<Item = (&Pointer, u32)> {
        let first = u32::try_from(self.pointers.count_before(range.start)).unwrap_or(u32::MAX);
        self.pointers.within(range).iter().zip(first..)
    }

    /// The pointers in a range of addresses.
    #[must_use]
    pub fn pointers_in(&self, range: &Range<Vaddr>) -> &[Pointer] {
        self.pointers.within(range)
    }
}

/// Words of a position-dependent file whose value is an address of the image; those of its symbol table are for the
/// loader, who is asked by name.
fn words_that_point<'i>(image: &'i Image<'_>) -> impl Iterator<Item = Pointer> + 'i {
    let table = image.symbol_table();
    let is_symbol = move |slot: u64| table.as_ref().is_some_and(|table| table.contains(&Vaddr(slot)));
    let ranges = image.data_ranges();
    ranges.into_iter().flat_map(move |Range { start, end }| {
        let is_symbol = is_symbol.clone();
        let first = start.0.checked_next_multiple_of(8).unwrap_or(u64::MAX);
        (first..end.0).step_by(8).filter(move |&slot| !is_symbol(slot)).filter_map(move |slot| {
            let value = Vaddr(image.read_u64(Vaddr(slot))?);
            let points = image.is_code(value) || image.is_data(value);
            points.then_some(Pointer { slot: Vaddr(slot), target: PointerTarget::Local(value), is_linkage: false })
        })
    })
}

/// Tells whether an array goes on across a boundary.
struct Continuation<'a> {
    pointers: &'a [Pointer],
}

impl Continuation<'_> {
    fn slots(&self, from: Vaddr, to: Vaddr) -> impl Iterator<Item = u64> {
        let first = self.pointers.partition_point(|p| p.slot < from);
        let behind = self.pointers.partition_point(|p| p.slot < to);
        let found = self.pointers.get(first..behind).unwrap_or(&[]);
        found.iter().filter(|p| !p.is_linkage).map(move |p| p.slot.0.saturating_sub(from.0))
    }

    /// Whether the bytes before `boundary` are two or more elements of one array (by where their pointers stand) whose
    /// next element stands behind it.
    fn across(&self, start: Vaddr, boundary: Vaddr) -> bool {
        let Some(len) = boundary.checked_offset_from(start) else { return false };
        (8..=len / 2).step_by(8).take(LARGEST_ELEMENT / 8).filter(|stride| len % stride == 0).any(|stride| {
            let element = |number: u64| -> Option<Vec<u64>> {
                let from = start.checked_add(stride.checked_mul(number)?)?;
                Some(self.slots(from, from.checked_add(stride)?).collect())
            };
            let count = len / stride;
            let Some(first) = element(0).filter(|slots| !slots.is_empty()) else { return false };
            // Two elements before the boundary and one behind it are a pattern; more are not looked at.
            [1, count.saturating_sub(1), count].iter().all(|&number| element(number).as_ref() == Some(&first))
        })
    }
}

/// Larger array elements are not looked for.
const LARGEST_ELEMENT: usize = 256;
