//! How much work a file may make.
//!
//! Input: the size of what is looked through. Output: [`Excess`], which names the limit that a file goes beyond. What
//! compilers and linkers write is looked at once or twice; a small file that lies can ask for the same bytes a million
//! times. Such a file is refused, with what is wrong with it, before it takes all time and memory. No file is known that
//! comes near any of these limits but those that were made to.

use std::sync::atomic::{AtomicU64, Ordering};

/// A file asks for more work than its size explains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}: more than {limit} steps, which is the limit for a file of its size")]
pub struct Excess {
    /// What there is too much of.
    pub what: &'static str,
    /// How much of it is looked at.
    pub limit: u64,
}

/// Steps that are left, counted by many threads.
#[derive(Debug)]
pub(crate) struct Budget {
    what: &'static str,
    limit: u64,
    used: AtomicU64,
}

impl Budget {
    /// For something of `size` bytes that is usually looked at once: eight times, and a million steps for small files.
    pub(crate) const fn new(what: &'static str, size: u64) -> Self {
        let limit = size.saturating_mul(8).saturating_add(1 << 20);
        Self { what, limit, used: AtomicU64::new(0) }
    }

    /// Takes so many steps; false if they are too many.
    pub(crate) fn take(&self, steps: u64) -> bool {
        // More than once around is beyond any memory: steps are at most a file's bytes at a time.
        let before = self.used.fetch_add(steps.min(1 << 40), Ordering::Relaxed);
        before.saturating_add(steps) <= self.limit
    }

    /// What it was, if it was too much.
    pub(crate) fn excess(&self) -> Option<Excess> {
        let is_used_up = self.used.load(Ordering::Relaxed) > self.limit;
        is_used_up.then_some(Excess { what: self.what, limit: self.limit })
    }
}
