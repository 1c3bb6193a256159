//! The files of a process, linked round by round.
//!
//! Input: the bytes of files, in the order in which ld.so searches them, those that come later last. Output: [`Linked`]: a
//! [`Program`] that grows. What is parsed borrows from the bytes, so they stay where they are.

use std::sync::OnceLock;

use crate::loader::FileIndex;
use crate::mapping::Mapping;
use crate::program::Program;

/// The bytes of files, round by round: what is there stays where it is when more comes.
#[derive(Debug, Default)]
pub(crate) struct Shelf {
    mappings: Vec<Mapping>,
    next: OnceLock<Box<Shelf>>,
}

impl Shelf {
    fn followed_by(&self, mappings: Vec<Mapping>) -> &Self {
        self.next.get_or_init(|| Box::new(Self { mappings, next: OnceLock::new() }))
    }
}

/// Files that are linked; those of later rounds join them.
#[derive(Debug)]
pub(crate) struct Linked<'m> {
    pub(crate) program: Program<'m>,
    /// By module.
    pub(crate) order: Vec<FileIndex>,
    last: &'m Shelf,
}

impl<'m> Linked<'m> {
    /// None yet.
    pub(crate) fn nothing(shelf: &'m Shelf) -> Self {
        Self { program: Program::default(), order: Vec::new(), last: shelf }
    }
    /// Keeps the bytes of further files as long as all of them.
    pub(crate) fn keep(&mut self, mappings: Vec<Mapping>) -> &'m [Mapping] {
        if mappings.is_empty() {
            return &[];
        }
        self.last = self.last.followed_by(mappings);
        &self.last.mappings
    }
}
