//! The command line of `chestnut-patch`.
//!
//! Input: arguments. Output: [`Arguments`], parsed and free of contradictions. Flags that decide what the analysis
//! looks at are shared with other commands: [`AnalysisFlags`].

use std::path::PathBuf;

use chestnut_analyzer::syscall::SyscallNr;
use chestnut_rewriter::bpf::Action;
use chestnut_rewriter::command_line::{AnalysisFlags, call};
use clap::Parser;

/// Makes a program sandbox itself: computes the system calls that it can make, and puts into it a seccomp filter that
/// refuses all others.
#[derive(Clone, Debug, Parser)]
#[command(name = "chestnut-patch", version, after_help = EXIT_STATUSES)]
pub(crate) struct Arguments {
    /// Takes the policy from a file (or standard input, if it is `-`) instead of computing it; it must be one of this program, by SHA-256.
    #[arg(help_heading = POLICY, long, value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,

    /// Writes the policy to a file (or standard output, if it is `-`), with the evidence for each call.
    #[arg(help_heading = POLICY, long, value_name = "FILE")]
    pub(crate) emit_policy: Option<PathBuf>,

    /// Allows calls that the analysis did not find.
    #[arg(help_heading = POLICY, long, value_name = "NAME,..", value_delimiter = ',', value_parser = call)]
    pub(crate) allow: Vec<SyscallNr>,

    /// Takes calls from the policy.
    #[arg(help_heading = POLICY, long, value_name = "NAME,..", value_delimiter = ',', value_parser = call)]
    pub(crate) deny: Vec<SyscallNr>,

    /// What happens to a call that is not allowed: kill (default), kill-thread, trap (says which call it was, on
    /// standard error and in the kernel's log, then kills), log (lets it pass, for the kernel's log) or errno:NAME.
    #[arg(long, value_name = "ACTION")]
    pub(crate) action: Option<Action>,

    /// Goes on although a reached system call has a number that is not known; the policy then states it.
    #[arg(help_heading = POLICY, long)]
    pub(crate) ignore_unresolved: bool,

    /// Patches a program that is setuid or setgid.
    #[arg(long)]
    pub(crate) allow_setuid: bool,

    /// Replaces the filter of a file that is already patched: the analysis is done anew, with the flags that the file
    /// was patched with and those given now.
    #[arg(long, conflicts_with = "unpatch")]
    pub(crate) repatch: bool,

    /// Gives back the file as it was before it was patched, byte for byte.
    #[arg(long, conflicts_with_all = ["list", "policy", "emit_policy", "allow", "deny"])]
    pub(crate) unpatch: bool,

    /// Prints the names of the allowed calls, one a line, and writes nothing.
    #[arg(long)]
    pub(crate) list: bool,

    /// Prints the result as JSON on standard output.
    #[arg(long)]
    pub(crate) json: bool,

    /// Says nothing, but why the program is refused.
    #[arg(short, long, conflicts_with = "verbose")]
    pub(crate) quiet: bool,

    /// Says more: libraries, assumptions, where everything went.
    #[arg(short, long)]
    pub(crate) verbose: bool,

    /// The program.
    #[arg(value_name = "IN")]
    pub(crate) input: PathBuf,

    /// Where the patched program goes.
    #[arg(value_name = "OUT", required_unless_present = "list")]
    pub(crate) output: Option<PathBuf>,

    // Its heading holds for all that follows.
    #[command(flatten)]
    pub(crate) analysis: AnalysisFlags,
}

/// Heading of the flags that change what is in the policy.
const POLICY: &str = "What the policy is";

const EXIT_STATUSES: &str = "Examples:
  chestnut-patch /usr/bin/curl ./curl
  chestnut-patch --action log --emit-policy policy.json /usr/sbin/nginx ./nginx
  chestnut-patch --repatch ./curl ./curl.new

Exit status: 0 done; 1 the program cannot be patched, or not written, and why; 2 the \
                             command line, or a file that a flag names, is wrong.";
