//! What was asked about the code of a file so far.
//!
//! Input: questions of [`crate::code`], each with a way to compute the answer. Output: [`Answers`]. They depend on nothing
//! but the file, so that they are kept with it and serve every round and every program that loads it.

use std::hash::Hash;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rustc_hash::{FxHashMap, FxHashSet};

use crate::address::Vaddr;
use crate::arguments::Sites;
use crate::functions::FunctionId;
use crate::table_jumps::TableJumps;

/// By function and by how deep the question was nested, so that an answer does not depend on who asked first.
type ByDepth = (FunctionId, usize);

/// Answers to one question, by what it was asked about.
#[derive(Debug)]
pub(crate) struct Memo<K, V>(Mutex<FxHashMap<K, V>>);

impl<K, V> Default for Memo<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash, V: Clone> Memo<K, V> {
    /// The answer, computed unless it is known. Nobody waits for another one who computes the same.
    pub(crate) fn get_or(&self, key: K, compute: impl FnOnce() -> V) -> V {
        let known = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(answer) = known().get(&key) {
            return answer.clone();
        }
        let answer = compute();
        known().entry(key).or_insert(answer).clone()
    }
}

/// All that is known of one file.
#[derive(Debug, Default)]
pub struct Answers {
    pub(crate) returns: Memo<ByDepth, bool>,
    pub(crate) returns_twice: Memo<ByDepth, bool>,
    pub(crate) changes: Memo<ByDepth, u16>,
    pub(crate) jumps: Memo<Vaddr, Arc<TableJumps>>,
    /// Calls that say whom they call, and calls that compute it.
    pub(crate) named_calls: Memo<FunctionId, Sites>,
    pub(crate) computed_calls: Memo<FunctionId, Sites>,
    pub(crate) entries: OnceLock<Vec<Vaddr>>,
    pub(crate) never_return: OnceLock<FxHashSet<Vaddr>>,
}
