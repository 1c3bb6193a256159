//! How much work a file may make, and how much may belong to a program.
//!
//! Input: [`Limits`], and the size of what is looked through. Output: [`Excess`], which names the limit that something
//! goes beyond, and the flag that raises it. What compilers and linkers write is looked at once or twice; a small file
//! that lies can ask for the same bytes a million times. Such a file is refused, with what is wrong with it, before it
//! takes all time and memory. No program is known that comes near any of these limits but those that were made to.
//!
//! Not limited here, since the kernel or the loader has a limit of its own: links that lead to links (40), scripts that
//! are interpreters of scripts (4), program headers (65535). JSON may be nested 128 times (`serde_json`).

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitName {
    /// Steps for each byte of what is usually looked at once.
    Work,
    /// Bytes of one file.
    FileSize,
    /// Files that one process loads.
    Files,
    /// Programs that a program executes, and those that they execute.
    Programs,
    /// Seconds of one program's analysis.
    Time,
    /// Bytes of a policy that is read.
    PolicySize,
}

impl LimitName {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Work, Self::FileSize, Self::Files, Self::Programs, Self::Time, Self::PolicySize];

    /// As the flag has it.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Work => "work",
            Self::FileSize => "file-size",
            Self::Files => "files",
            Self::Programs => "programs",
            Self::Time => "time",
            Self::PolicySize => "policy-size",
        }
    }
}

/// The limits of an analysis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    work: u64,
    file_size: u64,
    files: u64,
    programs: u64,
    time: u64,
    policy_size: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { work: 8, file_size: 2 << 30, files: 4096, programs: 1024, time: 3600, policy_size: 64 << 20 }
    }
}

impl Limits {
    /// The value of a limit.
    #[must_use]
    pub const fn get(&self, name: LimitName) -> u64 {
        match name {
            LimitName::Work => self.work,
            LimitName::FileSize => self.file_size,
            LimitName::Files => self.files,
            LimitName::Programs => self.programs,
            LimitName::Time => self.time,
            LimitName::PolicySize => self.policy_size,
        }
    }

    /// Sets a limit.
    pub const fn set(&mut self, limit: Limit) {
        let place = match limit.name {
            LimitName::Work => &mut self.work,
            LimitName::FileSize => &mut self.file_size,
            LimitName::Files => &mut self.files,
            LimitName::Programs => &mut self.programs,
            LimitName::Time => &mut self.time,
            LimitName::PolicySize => &mut self.policy_size,
        };
        *place = limit.value;
    }

    /// Refuses more of something than its limit.
    ///
    /// # Errors
    ///
    /// `found` is more.
    pub const fn check(&self, name: LimitName, what: &'static str, found: u64) -> Result<(), Excess> {
        let limit = self.get(name);
        if found > limit { Err(Excess { what, found, limit, name, set: limit }) } else { Ok(()) }
    }
}

/// One limit, as a flag sets it: `files=8000`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Which one.
    pub name: LimitName,
    /// In the unit of its name.
    pub value: u64,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name.text(), self.value)
    }
}

impl FromStr for Limit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = || LimitName::ALL.map(LimitName::text).join(", ");
        let (name, value) =
            text.split_once('=').ok_or_else(|| format!("expected NAME=N, where NAME is {}", names()))?;
        let name = LimitName::ALL.into_iter().find(|known| known.text() == name);
        let name = name.ok_or_else(|| format!("expected a limit: {}", names()))?;
        let value = value.parse().map_err(|_| format!("expected a number, found {value:?}"))?;
        Ok(Self { name, value })
    }
}

/// Something goes beyond a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {found}, over the limit of {limit}{}; --limit {}=N raises it{}",
    if self.set == self.limit { "" } else { " for a file of its size" }, name.text(), Set(*self))]
pub struct Excess {
    /// What there is too much of.
    pub what: &'static str,
    /// How much there is, or was when the count ended.
    pub found: u64,
    /// How much there may be.
    pub limit: u64,
    /// What raises it.
    pub name: LimitName,
    /// What it is set to, from which `limit` comes.
    pub set: u64,
}

/// What a limit is set to, where its value is another.
struct Set(Excess);

impl fmt::Display for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.set == self.0.limit { Ok(()) } else { write!(f, " (N is {} now)", self.0.set) }
    }
}

/// When an analysis must be over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: Instant,
    limits: Limits,
}

impl Clock {
    /// An analysis that begins now.
    pub(crate) fn start(limits: Limits) -> Self {
        Self { start: Instant::now(), limits }
    }

    /// Refuses to go on when the time is over. Asked between stages, files and rounds: each of them ends by itself.
    pub(crate) fn check(&self) -> Result<(), Excess> {
        let limit = self.limits.get(LimitName::Time);
        let spent = self.start.elapsed();
        if spent <= Duration::from_secs(limit) {
            return Ok(());
        }
        // Rounded up, since it is more than the limit.
        let found = spent.as_secs().saturating_add(1);
        Err(Excess { what: "seconds that the analysis takes", found, limit, name: LimitName::Time, set: limit })
    }
}

/// Steps that are left, counted by many threads.
#[derive(Debug)]
pub(crate) struct Budget {
    what: &'static str,
    work: u64,
    limit: u64,
    used: AtomicU64,
}

impl Budget {
    /// For something of `size` bytes that is usually looked at once: `work` times (8), and a million steps for small files.
    pub(crate) const fn new(what: &'static str, size: u64, limits: &Limits) -> Self {
        let work = limits.get(LimitName::Work);
        let limit = size.saturating_mul(work).saturating_add(1 << 20);
        Self { what, work, limit, used: AtomicU64::new(0) }
    }

    /// Takes so many steps; false if they are too many.
    pub(crate) fn take(&self, steps: u64) -> bool {
        // More than once around is beyond any memory: steps are at most a file's bytes at a time.
        let before = self.used.fetch_add(steps.min(1 << 40), Ordering::Relaxed);
        before.saturating_add(steps) <= self.limit
    }

    /// What it was, if it was too much.
    pub(crate) fn excess(&self) -> Option<Excess> {
        let (found, limit) = (self.used.load(Ordering::Relaxed), self.limit);
        let excess = Excess { what: self.what, found, limit, name: LimitName::Work, set: self.work };
        (found > limit).then_some(excess)
    }
}

/// Steps of one thread, which it tells a budget now and then: threads that counted each one together would wait for each
/// other.
#[derive(Debug)]
pub(crate) struct Tally<'b> {
    budget: &'b Budget,
    untold: u64,
    is_within: bool,
}

impl<'b> Tally<'b> {
    /// So many steps are told at once.
    const TOLD: u64 = 1024;

    pub(crate) fn new(budget: &'b Budget) -> Self {
        Self { budget, untold: 0, is_within: budget.excess().is_none() }
    }

    /// Takes a step; false if there are too many.
    pub(crate) fn step(&mut self) -> bool {
        self.untold = self.untold.saturating_add(1);
        if self.untold >= Self::TOLD {
            self.is_within = self.budget.take(std::mem::take(&mut self.untold));
        }
        self.is_within
    }
}

impl Drop for Tally<'_> {
    fn drop(&mut self) {
        self.budget.take(self.untold);
    }
}
