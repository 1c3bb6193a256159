//! Puts a seccomp filter, and the stub that installs it, into an x86-64 Linux executable.
//!
//! The pipeline, each stage a function from shared references to a new type: [`Policy`] → [`bpf::Specification`] →
//! [`bpf::Filter`] → payload → [`Layout`] → patches → bytes → verified. [`rewrite`] is all of it, [`unpatch`] the way
//! back, [`inspect`] what a patched file says about itself. Nothing but [`command_line`] and [`output`] reads or writes
//! files; nothing prints or ends the process.
//!
//! ```
//! use std::path::Path;
//!
//! use chestnut_analyzer::{Options, analyze};
//! use chestnut_rewriter::bpf::Action;
//! use chestnut_rewriter::{FilterOptions, inspect, rewrite, unpatch};
//!
//! let original = std::fs::read("/bin/true")?;
//! let policy = analyze(Path::new("/bin/true"), &Options::default())?;
//! // A call that is refused fails with EPERM; without this it ends the program.
//! let options = FilterOptions { action: Action::Errno(1), ..FilterOptions::default() };
//! let patched = rewrite(&original, &policy, &options)?.bytes;
//!
//! let filter = inspect(&patched)?.filter;
//! assert!(policy.allowed.keys().eq(filter.specification().allowed()));
//! assert_eq!(unpatch(&patched)?, original);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! `examples/patch.rs` is a whole program.

pub mod bpf;
pub mod command_line;
mod dynamic;
mod elf;
mod error;
mod executable;
mod layout;
mod made_with;
pub mod output;
mod patch;
mod payload;
mod preserved;
mod record;
mod stub_image;
mod table;
mod verify;

use std::collections::{BTreeMap, BTreeSet};

use chestnut_analyzer::policy::{Policy, hexadecimal};
use chestnut_analyzer::syscall::SyscallNr;

use bpf::{Action, CompileError, Filter, Program, Specification};
pub use elf::{Section, Segment};
pub use error::Error;
use executable::{Executable, length_of};
pub use layout::{Layout, SECTION_NAMES, SectionLayout};
pub use made_with::MadeWith;
use payload::Parts;
pub use record::{DigestKind, RecordedFile, Rest, sha256};
pub use table::TablePlacement;
use table::TablePlan;

/// How much a file may grow, but for what fills up to a page.
const GROWTH: u64 = 8192 - ROUNDING;

/// What moved pieces behind the note may take for their alignment.
const ROUNDING: u64 = 16;

/// What a caller decides about a filter beyond the policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FilterOptions {
    /// What happens to a known call that the policy does not allow.
    pub action: Action,
    /// Calls that fail with an error number, whatever the policy says.
    pub failing: BTreeMap<SyscallNr, u16>,
    /// What a person decided, to be recorded.
    pub made_with: MadeWith,
}

/// A patched file and how it was made.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Rewritten {
    /// The new file.
    pub bytes: Vec<u8>,
    /// The filter in it.
    pub filter: Filter,
    /// Where everything went.
    pub layout: Layout,
}

/// Puts the filter of a policy into an executable.
///
/// # Errors
///
/// A refusal, if the file is not one that can be patched; nothing is returned that was not verified.
pub fn rewrite(bytes: &[u8], policy: &Policy, options: &FilterOptions) -> Result<Rewritten, Error> {
    let executable = Executable::parse(bytes)?;
    let filter = compile(policy, options)?;
    let plan = TablePlan::choose(&executable);
    let undo = patch::overwritten(&executable, &plan);
    let code = filter.program().encode();
    let stub = stub_image::image(options.action)?;
    let layout_with = |stub: &[u8], note_length| {
        let parts = Parts::new(length_of(stub), length_of(&code), note_length);
        Layout::new(&executable, &plan, &parts.ok_or(Error::Record { what: "too long" })?)
    };
    // The handler of Action::Trap, for finding faults, comes on top.
    let room = GROWTH.saturating_sub(layout_with(stub_image::image(Action::default())?, 0)?.content());
    let note = record::encode(policy, &filter, &options.made_with, bytes, &undo, room)?;
    let layout = layout_with(stub, length_of(&note))?;
    let payload = payload::encode(stub, layout.stub_address(), executable.entry(), &code, &note)?;
    let patches = patch::patches(&executable, &layout)?;
    let bytes = patch::apply(&executable, &layout, &patches, &payload)?;
    verify::verify(executable.bytes, &bytes, &layout, filter.specification())?;
    Ok(Rewritten { bytes, filter, layout })
}

/// The filter of a policy, as [`rewrite`] would put it into a file.
///
/// # Errors
///
/// A number that no call can have, or a failure of the compiler.
pub fn compile(policy: &Policy, options: &FilterOptions) -> Result<Filter, Error> {
    let allowed: BTreeSet<SyscallNr> = policy.allowed.keys().copied().collect();
    let highest = allowed.last().copied().unwrap_or(SyscallNr(0));
    let specification = Specification::new(allowed, options.failing.clone(), options.action);
    let specification = specification.ok_or(Error::PolicyNumber { number: highest })?;
    Ok(Filter::compile(specification)?)
}

/// Whether a file has been patched.
///
/// # Errors
///
/// If it is not an executable.
pub fn is_patched(bytes: &[u8]) -> Result<bool, Error> {
    Ok(payload::find(&Executable::parse_headers(bytes)?).is_some())
}

/// Refuses what [`rewrite`] would refuse for the file's own sake, before any analysis.
///
/// # Errors
///
/// The reason.
pub fn check(bytes: &[u8]) -> Result<(), Error> {
    Executable::parse(bytes).map(|_| ())
}

/// Gives back the file that was patched, byte for byte.
///
/// # Errors
///
/// If the file is not a patched one, or has been changed since, so that this is not possible.
pub fn unpatch(bytes: &[u8]) -> Result<Vec<u8>, Error> {
    let executable = Executable::parse_headers(bytes)?;
    let record = record::decode(payload::find(&executable).ok_or(Error::NotPatched)?.note)?;
    let old = elf::slice(bytes, 0, record.old_length).ok_or(Error::Changed)?;
    let mut old = old.to_vec();
    let pieces = record.undo.iter().map(|(offset, piece)| (*offset, piece.as_slice()));
    patch::overwrite(&mut old, pieces).map_err(|_| Error::Changed)?;
    if sha256(&old) == record.old_sha256 { Ok(old) } else { Err(Error::Changed) }
}

/// SHA-256 of a patched file as it was before, as a policy has it; `None` if it is not patched.
#[must_use]
pub fn original_sha256(bytes: &[u8]) -> Option<String> {
    inspect(bytes).ok().map(|found| hexadecimal(&found.old_sha256))
}

/// SHA-256 of a program, as a policy has it; of a patched one, as it was before.
#[must_use]
pub fn program_sha256(bytes: &[u8]) -> String {
    original_sha256(bytes).unwrap_or_else(|| hexadecimal(&sha256(bytes)))
}

/// What a patched file holds.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Inspection {
    /// Name and version of the tool that patched it.
    pub tool: String,
    /// The filter: what it allows, its action, its program.
    pub filter: Filter,
    /// The program, then the libraries in load order.
    pub files: Vec<RecordedFile>,
    /// The files behind these, for which there was no room in the record.
    pub rest: Option<Rest>,
    /// What the analysis assumed.
    pub assumptions: Vec<String>,
    /// How many more assumptions there were than are recorded.
    pub more_assumptions: usize,
    /// How many unresolved sites were let pass.
    pub unresolved: usize,
    /// What a person decided when the file was patched.
    pub made_with: MadeWith,
    /// Address of the stub.
    pub stub_address: u64,
    /// The program's own entry point.
    pub entry: u64,
    /// Length of the file before it was patched.
    pub old_length: u64,
    /// SHA-256 of the file before it was patched.
    pub old_sha256: [u8; 32],
}

/// Reads what a patched file holds.
///
/// # Errors
///
/// If the file is not a patched one, or its filter does not decide as its record says.
pub fn inspect(bytes: &[u8]) -> Result<Inspection, Error> {
    let executable = Executable::parse_headers(bytes)?;
    let found = payload::find(&executable).ok_or(Error::NotPatched)?;
    let record = record::decode(found.note)?;
    let program = Program::decode(found.filter).map_err(CompileError::from)?;
    let allowed = allowed_by(&program, record.ceiling);
    let specification = Specification::new(allowed, record.failing, record.action);
    let specification = specification.ok_or(Error::Record { what: "a wrong ceiling" })?;
    let filter = Filter::from_program(specification, program).map_err(CompileError::from)?;
    Ok(Inspection {
        tool: record.tool,
        filter,
        files: record.files,
        rest: record.rest,
        assumptions: record.assumptions,
        more_assumptions: record.more_assumptions,
        unresolved: record.unresolved,
        made_with: record.made_with,
        stub_address: found.address,
        entry: found.entry(),
        old_length: record.old_length,
        old_sha256: record.old_sha256,
    })
}

/// The numbers that a program allows, up to a ceiling.
fn allowed_by(program: &Program, ceiling: SyscallNr) -> BTreeSet<SyscallNr> {
    let allowed = |nr: &u32| program.run(&bpf::SeccompData::of_call(*nr)) == libc::SECCOMP_RET_ALLOW;
    (0..=ceiling.min(Specification::HIGHEST).0).filter(allowed).map(SyscallNr).collect()
}
