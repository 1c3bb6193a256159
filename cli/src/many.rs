//! The same work on many programs.
//!
//! Input: programs, and what is to be done with one. Output: a result for each, in the order of the programs, whatever the
//! order in which several threads came to them. Meanwhile a bar on a terminal shows what is done and how long the rest will
//! take.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use indicatif::{ProgressBar, ProgressStyle};

/// How many at a time: what was asked for, or one for each processor.
pub(crate) fn jobs(asked: Option<usize>) -> usize {
    asked.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
}

/// Drawn on a terminal only (standard error), with the time that is left.
pub(crate) fn progress(number: usize) -> ProgressBar {
    let bar = ProgressBar::new(u64::try_from(number).unwrap_or(u64::MAX));
    if let Ok(style) = ProgressStyle::with_template("{wide_bar} {pos}/{len} {msg} {eta}") {
        bar.set_style(style);
    }
    bar
}

/// Does the work on each.
pub(crate) fn each<'all, One, Result>(
    all: &'all [One],
    jobs: usize,
    work: impl Fn(&'all One) -> Result + Sync,
) -> Vec<Result>
where
    One: Sync,
    Result: Send,
{
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..jobs.clamp(1, all.len().max(1)) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(one) = all.get(at) else { return };
                    let result = work(one);
                    done.lock().unwrap_or_else(PoisonError::into_inner).push((at, result));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::each;

    #[test]
    fn results_are_in_order() {
        let all: Vec<usize> = (0..100).collect();
        for jobs in [0, 1, 7, 200] {
            assert_eq!(each(&all, jobs, |one| one * 2), (0..100).map(|one| one * 2).collect::<Vec<_>>());
        }
        assert!(each(&[0_usize; 0], 4, |one| *one).is_empty());
    }
}
