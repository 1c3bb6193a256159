//! The program that a command speaks about.
//!
//! Input: a path and the flags of an analysis. Output: what the program may call. Of a file that is not patched this is
//! what it can call. A patched file is analyzed with the flags that it was patched with, below those given now, and then
//! speaks through its filter: what a person allowed or denied, or what other libraries needed then, counts. A file that
//! holds a policy stands for its program. Refused for the same reasons as by `chestnut-patch`: a script, a library, a
//! damaged file.

use std::collections::BTreeMap;
use std::path::Path;

use chestnut_analyzer::Session;
use chestnut_analyzer::explanation::{Explanation, Question};
use chestnut_analyzer::policy::{AllowedCall, Evidence, Policy};
use chestnut_analyzer::syscall::SyscallNr;
use chestnut_rewriter::Inspection;
use chestnut_rewriter::bpf::Filter;
use chestnut_rewriter::command_line::AnalysisFlags;

use crate::failure::Failure;
use crate::program;

/// A program and what it may call.
pub(crate) struct Subject {
    /// Calls that are to fail are not among the allowed ones.
    pub(crate) policy: Policy,
    /// Calls that are to fail, with their error numbers.
    pub(crate) failing: BTreeMap<SyscallNr, u16>,
    /// Calls that the program can make, and that the filter in its file refuses.
    pub(crate) refused: BTreeMap<SyscallNr, AllowedCall>,
    /// What the file holds, if it is patched.
    pub(crate) patched: Option<Inspection>,
}

/// A file that holds a program, and how that is to be analyzed.
struct Opened {
    /// What the program was before it was patched, if it is.
    original: Option<Vec<u8>>,
    patched: Option<Inspection>,
    flags: AnalysisFlags,
}

impl Subject {
    /// The program, or the policy, in a file.
    pub(crate) fn of(path: &Path, flags: &AnalysisFlags) -> Result<Self, Failure> {
        let session = flags.cache.session().map_err(|source| Failure::Analysis { path: path.to_owned(), source })?;
        Self::one_of(&session, path, flags)
    }

    /// The same for one of many.
    pub(crate) fn one_of(session: &Session, path: &Path, flags: &AnalysisFlags) -> Result<Self, Failure> {
        let bytes = program::read(path, &flags.limits())?;
        if bytes.starts_with(b"{") {
            return Ok(Self::new(program::parse_policy(path, &bytes)?, None, flags));
        }
        let Opened { original, patched, flags } = Opened::new(path, &bytes, flags)?;
        let analysis = |source| Failure::Analysis { path: path.to_owned(), source };
        let policy = flags.analyze_in(session, path, original.as_deref()).map_err(analysis)?;
        Ok(Self::new(policy, patched, &flags))
    }

    /// The program in a file, with the answer to a question.
    pub(crate) fn explained(
        path: &Path,
        flags: &AnalysisFlags,
        question: &Question,
    ) -> Result<(Self, Explanation), Failure> {
        let Opened { original, patched, flags } = Opened::new(path, &program::read(path, &flags.limits())?, flags)?;
        let analysis = |source| Failure::Analysis { path: path.to_owned(), source };
        let (policy, explanation) = flags.explain(path, original.as_deref(), question).map_err(analysis)?;
        Ok((Self::new(policy, patched, &flags), explanation))
    }

    /// The answer to a question about the program in a file; `None` if that holds a policy, of which nothing more is known.
    pub(crate) fn explanation(
        path: &Path,
        flags: &AnalysisFlags,
        question: &Question,
    ) -> Result<Option<Explanation>, Failure> {
        if question.calls.is_empty() || program::is_stream(path) {
            return Ok(None);
        }
        if program::read(path, &flags.limits())?.starts_with(b"{") {
            return Ok(None);
        }
        Ok(Some(Self::explained(path, flags, question)?.1))
    }

    fn new(mut policy: Policy, patched: Option<Inspection>, flags: &AnalysisFlags) -> Self {
        let failing = flags.failing();
        policy.allowed.retain(|call, _| !failing.contains_key(call));
        let mut subject = Self { policy, failing, refused: BTreeMap::new(), patched: None };
        if let Some(found) = patched {
            subject.filter_with(&found);
            subject.patched = Some(found);
        }
        subject
    }

    fn filter_with(&mut self, found: &Inspection) {
        let filter = found.filter.specification();
        self.failing.clone_from(filter.failing());
        let is_refused = |call: &SyscallNr, _: &mut AllowedCall| !filter.allowed().contains(call);
        self.refused = self.policy.allowed.extract_if(.., is_refused).collect();
        self.refused.retain(|call, _| !self.failing.contains_key(call));
        for &call in filter.allowed() {
            let by = if found.made_with.allow.contains(&call) {
                "--allow when the file was patched"
            } else if found.made_with.from_policy {
                "the policy that the file was patched with"
            } else {
                "what was there when the file was patched"
            };
            let evidence = Evidence::Requested { by: by.to_owned() };
            self.policy.allowed.entry(call).or_insert_with(|| AllowedCall { name: call.to_string(), evidence });
        }
    }

    /// Why the filter in the file refuses a call that the program can make.
    pub(crate) fn why_refused(&self, call: SyscallNr) -> &'static str {
        match self.patched.as_ref().map(|found| &found.made_with) {
            Some(made_with) if made_with.deny.contains(&call) => "--deny when it was patched",
            Some(made_with) if made_with.from_policy => "the policy that it was patched with lacks it",
            _ => "other libraries or flags when it was patched",
        }
    }

    /// What the program can call by itself, as long as nothing refuses it; what a person added and took away counts.
    pub(crate) fn unfiltered(mut self) -> Policy {
        let denied = self.patched.as_ref().map(|found| &found.made_with.deny);
        self.policy
            .allowed
            .extend(self.refused.into_iter().filter(|(call, _)| denied.is_none_or(|denied| !denied.contains(call))));
        self.policy
    }

    /// The filter in the file, if there is one.
    pub(crate) fn filter(&self) -> Option<&Filter> {
        self.patched.as_ref().map(|found| &found.filter)
    }
}

/// What the program in a file can call, whatever a filter in the file says.
pub(crate) fn needs(path: &Path, flags: &AnalysisFlags) -> Result<Policy, Failure> {
    let Opened { original, flags, .. } = Opened::new(path, &program::read(path, &flags.limits())?, flags)?;
    let analysis = |source| Failure::Analysis { path: path.to_owned(), source };
    let policy = flags.analyze(path, original.as_deref()).map_err(analysis)?;
    Ok(Subject::new(policy, None, &flags).policy)
}

impl Opened {
    fn new(path: &Path, bytes: &[u8], flags: &AnalysisFlags) -> Result<Self, Failure> {
        if program::is_stream(path) {
            return Err(Failure::ProgramWithoutPlace);
        }
        let refused = |source| Failure::Refused { path: path.to_owned(), source };
        if !chestnut_rewriter::is_patched(bytes).map_err(refused)? {
            chestnut_rewriter::check(bytes).map_err(refused)?;
            return Ok(Self { original: None, patched: None, flags: flags.clone() });
        }
        let original = chestnut_rewriter::unpatch(bytes).map_err(refused)?;
        chestnut_rewriter::check(&original).map_err(refused)?;
        let found = chestnut_rewriter::inspect(bytes).map_err(refused)?;
        let wrong = |source| Failure::RecordedFlags { path: path.to_owned(), source };
        let flags = flags.on_top_of(&found.made_with.flags).map_err(wrong)?;
        Ok(Self { original: Some(original), patched: Some(found), flags })
    }
}
