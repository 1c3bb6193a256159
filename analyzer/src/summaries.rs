//! Summaries of files that several processes load, each made once.
//!
//! Input: an [`Image`] and the identity of its file. Output: its [`ModuleSummary`], shared. Nothing in a summary
//! depends on who loads the file ([`crate::summary`]).

use std::sync::{Arc, Mutex, PoisonError};

use rayon::prelude::*;
use rustc_hash::FxHashMap;

use crate::elf::Image;
use crate::loader::{FileId, LoadedFile};
use crate::summary::ModuleSummary;

/// Summaries by file.
#[derive(Debug, Default)]
pub struct Summaries {
    known: Mutex<FxHashMap<FileId, Arc<ModuleSummary>>>,
}

impl Summaries {
    /// The summary of a file, computed unless it is known.
    ///
    /// Nobody waits for another one who computes the same: rayon runs other tasks on a thread that waits, which might
    /// ask for the same summary. [`Self::prepare`] computes each one once beforehand.
    #[must_use]
    pub fn of(&self, id: FileId, image: &Image<'_>) -> Arc<ModuleSummary> {
        if let Some(known) = self.get(id) {
            return known;
        }
        let summary = Arc::new(ModuleSummary::new(image));
        Arc::clone(self.known.lock().unwrap_or_else(PoisonError::into_inner).entry(id).or_insert(summary))
    }

    /// Summarises those files that are not known yet, each once. One that is damaged is left to whoever loads it.
    pub fn prepare<'f>(&self, files: impl Iterator<Item = &'f LoadedFile>) {
        let files: FxHashMap<FileId, &LoadedFile> = files.map(|file| (file.id(), file)).collect();
        let mut new: Vec<_> = files.into_iter().filter(|(id, _)| self.get(*id).is_none()).collect();
        new.sort_unstable_by_key(|(id, _)| *id);
        new.into_par_iter().for_each(|(id, file)| {
            if let Ok(image) = Image::parse(file.data()) {
                let _ = self.of(id, &image);
            }
        });
    }

    fn get(&self, id: FileId) -> Option<Arc<ModuleSummary>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }
}
