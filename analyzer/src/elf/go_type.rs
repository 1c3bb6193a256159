//! Methods that Go's type descriptions name: 32-bit offsets from the text, which are no pointers and have no
//! relocation.
//!
//! Input: the address space and Go's function table. Output: [`GoMethods`]. The runtime calls what stands there: it
//! fills the method table of an interface when a value is converted to it (`getitab`), and reflection looks methods up
//! by name. Go's linker has set to zero or -1 what nobody can ask for. Descriptions have no list of their own; each is
//! found by its form, wherever it stands. Sources: Go's `internal/abi/type.go` (`Type`, `UncommonType`, `Method`), and
//! `runtime/type.go` of earlier versions.
//!
//! Over-approximates: other data of the same form counts. May miss: nothing that Go 1.7 to 1.27 writes.

use std::ops::Range;

use rustc_hash::FxHashSet;

use super::go_table::GoTable;
use super::segment::{AddressSpace, Segment};
use crate::address::Vaddr;
use crate::limits::{Budget, Excess, Limits};

/// The methods of all types.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct GoMethods {
    /// Where an offset stands, and the function that it names; sorted.
    pub offsets: Vec<(Vaddr, Vaddr)>,
    /// From the first type with methods to the last: types refer to each other by offsets too.
    pub place: Option<Range<Vaddr>>,
    /// The limit beyond which there are methods.
    pub excess: Option<Excess>,
}

/// Bytes of what all type descriptions begin with.
const HEAD: usize = 48;
/// Bytes of `UncommonType`, and of a `Method`.
const RECORD: u64 = 16;

/// Offsets where `UncommonType` can stand, by kind: behind the part that the kind adds.
const fn uncommon_at(kind: u8) -> &'static [u64] {
    match kind {
        // Array; chan.
        17 => &[72],
        18 => &[64],
        // Func, pointer, slice.
        19 | 22 | 23 => &[56],
        // Interface, struct.
        20 | 25 => &[80],
        // Map: as buckets (until Go 1.23) and as groups.
        21 => &[88, 112, 104, 96],
        1..=16 | 24 | 26 => &[48],
        _ => &[],
    }
}

impl GoMethods {
    /// Looks through all data but the table itself.
    pub(super) fn find(space: &AddressSpace<'_>, table: &GoTable<'_>, limits: &Limits) -> Self {
        let starts: FxHashSet<Vaddr> = table.functions.iter().map(|function| function.start).collect();
        let mut found = Self::default();
        let budget = Budget::new(
            "methods of Go's types, which share them",
            u64::try_from(space.file_words()).unwrap_or(u64::MAX),
            limits,
        );
        for segment in space.segments().iter().filter(|segment| !segment.is_executable()) {
            found.search((space, table, &budget), segment, &starts);
        }
        found.excess = budget.excess();
        found.offsets.sort_unstable();
        found.offsets.dedup();
        found
    }

    fn search(
        &mut self,
        (space, table, budget): (&AddressSpace<'_>, &GoTable<'_>, &Budget),
        segment: &Segment,
        starts: &FxHashSet<Vaddr>,
    ) {
        let Some(bytes) = space.bytes(segment.p_vaddr, segment.p_filesz) else { return };
        let padding = usize::try_from(segment.p_vaddr.0.wrapping_neg() % 8).unwrap_or(0);
        let places = (padding..bytes.len()).step_by(8);
        for offset in places {
            let head = offset.checked_add(HEAD).and_then(|end| bytes.get(offset..end));
            let Some(kind) = head.and_then(kind_with_methods) else { continue };
            let at = u64::try_from(offset).ok().and_then(|offset| segment.p_vaddr.checked_add(offset));
            let Some(at) = at.filter(|at| !table.place.contains(at)) else { continue };
            for &distance in uncommon_at(kind) {
                let Some(end) = self.methods((space, table, budget), starts, at, distance) else { continue };
                let first = self.place.as_ref().map_or(at, |place| place.start.min(at));
                let last = self.place.as_ref().map_or(end, |place| place.end.max(end));
                self.place = Some(first..last);
            }
        }
    }

    /// Takes the methods of the type at `at`, whose `UncommonType` stands `distance` bytes behind; where they end.
    fn methods(
        &mut self,
        (space, table, budget): (&AddressSpace<'_>, &GoTable<'_>, &Budget),
        starts: &FxHashSet<Vaddr>,
        at: Vaddr,
        distance: u64,
    ) -> Option<Vaddr> {
        let uncommon = at.checked_add(distance)?;
        let [_, _, _, _, low, high, exported_low, exported_high, m0, m1, m2, m3] = space.array::<12>(uncommon)?;
        let (count, exported) = (u16::from_le_bytes([low, high]), u16::from_le_bytes([exported_low, exported_high]));
        let offset = u64::from(u32::from_le_bytes([m0, m1, m2, m3]));
        if count == 0 || exported > count || offset < RECORD || offset % 4 != 0 {
            return None;
        }
        let first = uncommon.checked_add(offset)?;
        let end = first.checked_add(u64::from(count).checked_mul(RECORD)?)?;
        let mut found = Vec::new();
        for number in 0..u64::from(count) {
            if !budget.take(1) {
                return None;
            }
            let record = first.checked_add(number.checked_mul(RECORD)?)?;
            for slot in [record.checked_add(8)?, record.checked_add(12)?] {
                let offset = u32::from_le_bytes(space.array(slot)?);
                if offset == 0 || offset == u32::MAX {
                    continue;
                }
                let function = table.text.checked_add(u64::from(offset))?;
                table.function_at(function)?;
                found.push((slot, function));
            }
        }
        let is_certain = found.iter().any(|(_, function)| starts.contains(function));
        if is_certain {
            self.offsets.append(&mut found);
        }
        is_certain.then_some(end)
    }
}

/// The kind of the type whose description begins so, if it can be one and has methods or a package.
fn kind_with_methods(head: &[u8]) -> Option<u8> {
    let number = |at: usize| -> Option<u64> {
        let bytes = head.get(at..at.checked_add(8)?)?;
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    };
    let (size, pointers) = (number(0)?, number(8)?);
    let &[flags, alignment, field_alignment, kind] = head.get(20..24)? else { return None };
    let is_alignment = |bytes: u8| bytes.is_power_of_two() && bytes <= 64;
    let fits = pointers <= size && size <= 1 << 48 && is_alignment(alignment) && is_alignment(field_alignment);
    (fits && flags & 1 != 0 && flags < 0x40).then_some(kind & 0x1f)
}
