//! Jump tables: where the indirect jumps of a `switch` go.
//!
//! Input: a function with an indirect jump and every address that the file's code refers to. Output: the targets, as
//! references of kind [`ReferenceKind::JumpTable`]. Two forms exist (LLVM and GCC sources agree): 4-byte offsets from
//! the table's own start, and 8-byte addresses (position-dependent files; in others they are relocated pointers, which
//! [`crate::data`] knows). Tables lie in read-only data or in the text itself.
//!
//! A table has no recorded length: it is read on until something else is referred to, an entry does not point to code,
//! or an entry points into another function that something calls (the only foreign code that a table may name is a
//! `.cold` fragment, and nobody calls those).
//!
//! Over-approximates: every table that the function refers to serves every indirect jump in it. May miss: tables whose
//! address is computed.

use rustc_hash::FxHashSet;

use crate::address::Vaddr;
use crate::elf::Image;
use crate::functions::{Function, Functions};
use crate::instruction::{Reference, ReferenceKind};
use crate::limits::Budget;

/// Reads jump tables of one file.
#[derive(Debug)]
pub struct JumpTables<'a, 'data> {
    image: &'a Image<'data>,
    /// Every address that code takes, sorted: a table ends where the next one begins at the latest.
    taken: Vec<Vaddr>,
    /// Every address that code calls.
    called: FxHashSet<Vaddr>,
}

impl<'a, 'data> JumpTables<'a, 'data> {
    /// Collects what bounds the tables of a file.
    #[must_use]
    pub fn new(image: &'a Image<'data>, functions: &Functions) -> Self {
        let all = || functions.all().iter().flat_map(|f| &f.references);
        let mut taken: Vec<Vaddr> = all().filter(|r| r.kind == ReferenceKind::Address).map(|r| r.target).collect();
        taken.sort_unstable();
        taken.dedup();
        let called = all().filter(|r| r.kind == ReferenceKind::Call).map(|r| r.target).collect();
        Self { image, taken, called }
    }

    /// The targets of the tables that `function` refers to, as far as the budget reaches.
    pub(crate) fn targets(&self, function: &Function, functions: &Functions, budget: &Budget) -> Vec<Reference> {
        let belongs = |target: &Vaddr| {
            function.contains(*target)
                || functions
                    .at(*target)
                    .and_then(|id| functions.function(id))
                    .is_some_and(|f| !self.called.contains(&f.start))
        };
        let mut found = Vec::new();
        for reference in function.references.iter().filter(|r| r.kind == ReferenceKind::Address) {
            let both = self
                .relative(reference.target)
                .take_while(belongs)
                .chain(self.absolute(reference.target).take_while(belongs));
            let both = both.take_while(|_| budget.take(1));
            found.extend(both.map(|target| Reference { target, kind: ReferenceKind::JumpTable, from: reference.from }));
        }
        found
    }

    /// Where the table that starts at `table` ends at the latest.
    fn limit(&self, table: Vaddr) -> Vaddr {
        let behind = self.taken.partition_point(|&at| at <= table);
        self.taken.get(behind).copied().unwrap_or(Vaddr(u64::MAX))
    }

    fn relative(&self, table: Vaddr) -> impl Iterator<Item = Vaddr> + '_ {
        self.entries(table, 4).map_while(move |at| {
            let offset = self.image.read_i32(at)?;
            let target = table.0.checked_add_signed(i64::from(offset)).map(Vaddr)?;
            self.image.is_code(target).then_some(target)
        })
    }

    fn absolute(&self, table: Vaddr) -> impl Iterator<Item = Vaddr> + '_ {
        let applies = !self.image.is_position_independent();
        self.entries(table, 8).take_while(move |_| applies).map_while(|at| {
            let target = Vaddr(self.image.read_u64(at)?);
            self.image.is_code(target).then_some(target)
        })
    }

    /// Addresses of the table's entries, up to where something else begins.
    fn entries(&self, table: Vaddr, bytes: u64) -> impl Iterator<Item = Vaddr> + use<> {
        let limit = self.limit(table);
        std::iter::successors(Some(table), move |at| at.checked_add(bytes)).take_while(move |&at| at < limit)
    }
}
