//! Runs programs and records which system calls they make, or decides about them while they run.
//!
//! [`trace()`] writes a [`Trace`], [`run()`] is the permission system, [`Refinement`] compares traces with a policy, and
//! [`explain_violations`] reads what the kernel writes of refused calls. Messages go where a caller says ([`Messages`]).
//!
//! ```
//! use std::path::Path;
//!
//! use chestnut_analyzer::limits::Limits;
//! use chestnut_analyzer::{Options, analyze};
//! use chestnut_tracer::{Messages, Refinement, Target, Trace, TraceOptions, trace};
//!
//! # let folder = tempfile::tempdir()?;
//! let file = folder.path().join("true.trace");
//! let options = TraceOptions {
//!     target: Target::Command(vec!["/bin/true".into()]),
//!     output: Some(file.clone()),
//!     known: None,
//!     paths: false,
//!     live: false,
//!     messages: Messages::new(Vec::new()),
//! };
//! assert_eq!(trace(&options)?.status, Some(0));
//!
//! let policy = analyze(Path::new("/bin/true"), &Options::default())?;
//! let refinement = Refinement::new(&policy, &[Trace::read(&file, &Limits::default())?])?;
//! assert!(refinement.missing(&policy).is_empty());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod architecture;
mod ask;
mod decisions;
mod engine;
mod entry;
mod error;
mod facts;
mod filter;
mod gate;
mod hand_over;
mod inject;
mod install;
mod kernel;
mod live;
mod maps;
mod messages;
mod module;
mod recorder;
mod refine;
mod session;
mod signals;
mod summary;
mod trace;
mod tree;
mod violation;

pub use architecture::Architecture;
pub use decisions::Decision;
pub use error::Error;
pub use gate::Mode;
pub use messages::Messages;
pub use module::is_program_of;
pub use refine::{Changes, Refinement};
pub use summary::{Outcome, RunOptions, Target, TraceOptions, run, trace};
pub use trace::{Header, Image, Phase, Record, Refusal, SeenCall, TRACE_FORMAT, Trace};
pub use violation::explain as explain_violations;

/// Ends this process as another one has ended: with its status, or by the same signal.
#[must_use]
pub fn end_as(status: Option<i32>, signal: Option<i32>) -> u8 {
    if let Some(signal) = signal {
        kernel::die_of(signal);
        return u8::try_from(signal.saturating_add(128)).unwrap_or(u8::MAX);
    }
    status.and_then(|status| u8::try_from(status).ok()).unwrap_or(0)
}

/// The page about the libraries, so that its example is compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../../docs/library.md")]
struct LibraryPage;

/// A process of its own that has a thread before it traces: the thread must not keep what is waited for.
///
/// ```
/// use chestnut_tracer::{Messages, Target, TraceOptions, trace};
///
/// std::thread::spawn(std::thread::park);
/// let begun = std::time::Instant::now();
/// let target = Target::Command(vec!["/bin/true".into()]);
/// let messages = Messages::new(std::io::sink());
/// let options = TraceOptions { target, output: None, known: None, paths: false, live: false, messages };
/// assert_eq!(trace(&options)?.status, Some(0));
/// // It was ten seconds for many of its calls.
/// assert!(begun.elapsed().as_secs() < 60);
/// # Ok::<(), chestnut_tracer::Error>(())
/// ```
#[cfg(doctest)]
struct OtherThreads;
