//! The command line of `chestnut`.
//!
//! Input: arguments. Output: [`Arguments`]. What the analysis looks at is told by the same flags as with
//! `chestnut-patch`.

use std::path::PathBuf;

use chestnut_analyzer::syscall::SyscallNr;
use chestnut_rewriter::command_line::{AnalysisFlags, call};
use clap::{Args, Parser, Subcommand};

/// Shows which system calls a program can make and why, and what a patched program holds.
#[derive(Clone, Debug, Parser)]
#[command(name = "chestnut", version, after_help = EXIT_STATUSES)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What is to be done.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Command {
    /// Which calls a program can make, each with the place that makes it, and what is not known.
    Analyze(Analyze),
    /// Why a program may make a call: the way from where it starts to the place that makes it.
    Explain(Explain),
    /// Whether a patched program's libraries are still those that were analyzed, and if not, whether its filter allows
    /// all that the new ones need.
    Check(Check),
    /// What a patched program holds: allowed calls, filter, the files that were analyzed.
    Inspect(Inspect),
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Analyze {
    #[command(flatten)]
    pub(crate) analysis: AnalysisFlags,

    /// Prints the policy as JSON, as `chestnut-patch --policy` takes it.
    #[arg(long)]
    pub(crate) json: bool,

    /// Says more: the whole way to each call, every place, all files.
    #[arg(short, long)]
    pub(crate) verbose: bool,

    /// The program; a patched one is analyzed as it was before.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Explain {
    #[command(flatten)]
    pub(crate) analysis: AnalysisFlags,

    /// Prints the part of the policy as JSON.
    #[arg(long)]
    pub(crate) json: bool,

    /// The program; a patched one is analyzed as it was before.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,

    /// The calls, by name or number.
    #[arg(value_name = "CALL", required = true, value_parser = call)]
    pub(crate) calls: Vec<SyscallNr>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Check {
    #[command(flatten)]
    pub(crate) analysis: AnalysisFlags,

    /// Prints JSON.
    #[arg(long)]
    pub(crate) json: bool,

    /// The patched program.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Inspect {
    /// Prints JSON.
    #[arg(long)]
    pub(crate) json: bool,

    /// The patched program.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
}

impl Command {
    /// Whether standard output is for a program.
    pub(crate) fn is_json(&self) -> bool {
        match self {
            Self::Analyze(command) => command.json,
            Self::Explain(command) => command.json,
            Self::Check(command) => command.json,
            Self::Inspect(command) => command.json,
        }
    }
}

const EXIT_STATUSES: &str =
    "Exit status: 0 done; 1 the program is refused, and why; 2 the command line is wrong, or a file cannot be read.";
