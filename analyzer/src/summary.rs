//! Everything that linking needs to know about one file, wherever it is loaded and with whom.
//!
//! Input: an [`Image`]. Output: [`ModuleSummary`]: functions with their references, data objects with their pointers,
//! and system-call sites with their numbers. Nothing here depends on another file, so a summary can be made once for a
//! library and used for every program that loads it.

use std::sync::OnceLock;

use rayon::prelude::*;
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use crate::address::Vaddr;
use crate::answers::Answers;
use crate::code::Code;
use crate::data::{Data, PointerTarget};
use crate::elf::Image;
use crate::functions::{FunctionId, Functions};
use crate::graph::Graph;
use crate::instruction::ReferenceKind;
use crate::limits::Excess;
use crate::loader_state::LoaderState;
use crate::notes::{Notes, Problem};
use crate::references::References;
use crate::syscall_site::{SyscallSite, syscall_sites};

/// One file, ready to be linked. What is kept of it for other runs is what takes long to find.
#[derive(Debug, Serialize, Deserialize)]
pub struct ModuleSummary {
    functions: Functions,
    data: Data,
    sites: FxHashMap<FunctionId, Vec<SyscallSite>>,
    interior: Vec<Vaddr>,
    /// Whether there is a table of Go's functions, for which all of a file has to be looked through.
    is_go: bool,
    #[serde(skip)]
    answers: Answers,
    /// Of what was an interpreter when this was made, or is one now.
    #[serde(with = "if_known")]
    loader_state: OnceLock<LoaderState>,
    #[serde(skip)]
    references: OnceLock<References>,
    #[serde(skip)]
    graph: OnceLock<Graph>,
    #[serde(skip)]
    notes: Notes,
    #[serde(skip)]
    notes_problem: Option<Problem>,
    #[serde(skip)]
    excess: Option<Excess>,
}

impl ModuleSummary {
    /// Analyses one file.
    #[must_use]
    pub fn new(image: &Image<'_>) -> Self {
        let pointers = Data::pointers_of(image);
        let targets: Vec<Vaddr> = pointers
            .iter()
            .filter_map(|p| match p.target {
                PointerTarget::Local(at) | PointerTarget::Resolver(at) => Some(at),
                _ => None,
            })
            .collect();
        let (notes, notes_problem) = read_notes(image);
        let noted = notes.functions.iter().map(|note| note.address);
        let functions = Functions::discover(image, &targets.iter().copied().chain(noted).collect::<Vec<_>>());
        let excess = functions.excess().or(image.go_methods().excess);
        let taken = functions.all().iter().flat_map(|f| &f.references).filter(|r| r.kind == ReferenceKind::Address);
        let data = Data::new(image, pointers, taken.map(|r| r.target));
        let mut interior: Vec<Vaddr> =
            targets.into_iter().filter(|&at| image.is_code(at) && !functions.starts_at(at)).collect();
        interior.sort_unstable();
        let answers = Answers::default();
        let code = Code::new(image, &functions, &data, &interior, &answers);
        let numbered = (0_u32..).map(FunctionId).zip(functions.all());
        let making: Vec<_> = numbered.filter(|(_, f)| excess.is_none() && !f.syscalls.is_empty()).collect();
        let sites =
            making.into_par_iter().with_max_len(8).map(|(id, function)| (id, syscall_sites(&code, function))).collect();
        Self {
            functions,
            data,
            sites,
            interior,
            is_go: image.go_table().is_some(),
            answers,
            loader_state: OnceLock::new(),
            references: OnceLock::new(),
            graph: OnceLock::new(),
            notes,
            notes_problem,
            excess,
        }
    }

    /// The summary that an earlier run has made of the same file, complete again.
    #[must_use]
    pub(crate) fn recalled(self, image: &Image<'_>) -> Self {
        self.tell(image);
        let (notes, notes_problem) = read_notes(image);
        Self { notes, notes_problem, ..self }
    }

    /// Spares another image of the same bytes to look for what is not there.
    pub(crate) fn tell(&self, image: &Image<'_>) {
        if !self.is_go {
            image.has_no_go_table();
        }
    }

    /// The limit that the file goes beyond: not all of it is known then.
    #[must_use]
    pub const fn excess(&self) -> Option<Excess> {
        self.excess
    }

    /// The functions of the file.
    #[must_use]
    pub const fn functions(&self) -> &Functions {
        &self.functions
    }

    /// The pointers and objects of the file.
    #[must_use]
    pub const fn data(&self) -> &Data {
        &self.data
    }

    /// The system-call sites of a function.
    #[must_use]
    pub fn sites(&self, id: FunctionId) -> &[SyscallSite] {
        self.sites.get(&id).map_or(&[], Vec::as_slice)
    }

    /// What the file leaves behind in a process if it is its interpreter; `image` is what the summary was made of.
    pub fn loader_state(&self, image: &Image<'_>) -> &LoaderState {
        if let Some(known) = self.loader_state.get() {
            return known;
        }
        // Not while others wait for it: rayon may have their work done on a thread that waits for a part of this.
        let new = LoaderState::new(&self.code(image));
        self.loader_state.get_or_init(|| new)
    }

    /// Who refers to what in it.
    #[must_use]
    pub fn references(&self) -> &References {
        self.references.get_or_init(|| References::new(&self.functions, &self.data))
    }

    /// What its functions and objects lead to; `image` is what the summary was made of.
    pub(crate) fn graph(&self, image: &Image<'_>) -> &Graph {
        if let Some(known) = self.graph.get() {
            return known;
        }
        // As for the loader's state.
        let new = Graph::new(image, &self.functions, &self.data);
        self.graph.get_or_init(|| new)
    }

    /// What its compiler wrote down.
    #[must_use]
    pub const fn notes(&self) -> &Notes {
        &self.notes
    }

    /// Why that is ignored.
    #[must_use]
    pub const fn notes_problem(&self) -> Option<&Problem> {
        self.notes_problem.as_ref()
    }

    /// The code of the file, for data flow; `image` is what the summary was made of.
    #[must_use]
    pub fn code<'a, 'data>(&'a self, image: &'a Image<'data>) -> Code<'a, 'data> {
        Code::new(image, &self.functions, &self.data, &self.interior, &self.answers)
    }
}

/// What was not asked for yet is kept as such.
mod if_known {
    use std::sync::OnceLock;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<T: Serialize, S: Serializer>(
        value: &OnceLock<T>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        value.get().serialize(serializer)
    }

    pub(super) fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<OnceLock<T>, D::Error> {
        Option::<T>::deserialize(deserializer).map(|value| value.map_or_else(OnceLock::new, OnceLock::from))
    }
}

fn read_notes(image: &Image<'_>) -> (Notes, Option<Problem>) {
    match Notes::read(image.data()) {
        Ok(notes) => (notes, None),
        Err(problem) => (Notes::default(), Some(problem)),
    }
}
