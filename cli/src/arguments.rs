//! The command line of `chestnut`.
//!
//! Input: arguments. Output: [`Arguments`]. What the analysis looks at is told by the same flags as with
//! `chestnut-patch`.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::PathBuf;

use chestnut_analyzer::syscall::SyscallNr;
use chestnut_rewriter::bpf::Action;
use chestnut_rewriter::command_line::{AnalysisFlags, LimitFlags, call};
use clap::{ArgGroup, Args, CommandFactory, Parser, Subcommand, ValueEnum};

use crate::help;

/// Shows which system calls a program can make and why, which it does make, and what a patched program holds.
#[derive(Clone, Debug, Parser)]
#[command(name = "chestnut", version, after_help = help::EXIT_STATUSES)]
pub(crate) struct Arguments {
    /// Whether words are coloured: on a terminal if NO_COLOR is not set, always, or never.
    #[arg(long, global = true, value_enum, value_name = "auto|always|never", default_value_t = Colour::Auto)]
    #[arg(hide_possible_values = true, hide_default_value = true, display_order = LAST)]
    pub(crate) color: Colour,

    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Behind the flags that a command has of its own.
const LAST: usize = 900;

/// When words are coloured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Colour {
    /// On a terminal, unless `NO_COLOR` is set.
    Auto,
    /// Wherever the output goes.
    Always,
    /// Not at all.
    Never,
}

/// Commands by what they are for, as `--help` shows them.
const COMMANDS: [(&str, &[&str]); 4] = [
    ("To look at programs", &["analyze", "explain", "report", "inspect", "check"]),
    ("To hold them to what they need", &["harden", "export"]),
    ("To watch them", &["trace", "refine", "run", "explain-violation"]),
    ("To compile them", &["cc", "c++", "notes"]),
];

/// The command line, with the commands in groups.
pub(crate) fn command() -> clap::Command {
    let command = Arguments::command();
    let mut list = String::new();
    for (heading, names) in COMMANDS {
        // Writing to a string cannot fail.
        let _ = writeln!(list, "{heading}:");
        for name in names {
            let about = command.find_subcommand(name).and_then(clap::Command::get_about).map(ToString::to_string);
            let about = about.unwrap_or_default();
            let _ = writeln!(list, "  {name:<18} {}", about.split([':', ';', ',', '.']).next().unwrap_or_default());
        }
        list.push('\n');
    }
    let template =
        format!("{{about-with-newline}}\n{{usage-heading}} {{usage}}\n\n{list}Options:\n{{options}}{{after-help}}");
    command.help_template(template)
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
    /// Writes a page about what a program may call: for people who decide. Or a table about many programs.
    Report(Report),
    /// Writes what a program may call in the form that something else enforces: a container runtime, systemd, a
    /// sandbox, a program of yours.
    Export(Export),
    /// What the compiler wrote down about the functions of a program, library or object file, as JSON.
    Notes {
        #[command(flatten)]
        limits: LimitFlags,

        /// The file.
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Compiles C with clang and writes notes for the analysis: all arguments are the compiler's.
    #[command(disable_help_flag = true)]
    Cc {
        /// As for clang.
        #[arg(value_name = "ARGUMENT", trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// The same for C++.
    #[command(name = "c++", disable_help_flag = true)]
    Cxx {
        /// As for clang++.
        #[arg(value_name = "ARGUMENT", trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Patches many programs of a tree, in their places or into another tree; each library is analyzed once.
    Harden(Harden),
    /// Runs a program and records which calls it makes, how often and from where.
    Trace(Trace),
    /// Compares traces with a policy; adds what the policy lacks, takes away what was never used.
    Refine(Refine),
    /// Runs a program under a policy without killing it: what is not allowed is asked about, or recorded. No barrier
    /// against a hostile program: the answer is by number and registers, and memory can change after it.
    Run(Run),
    /// Says what the kernel's log of a refused call means, and what would allow the call.
    ExplainViolation(ExplainViolation),
}

#[derive(Clone, Debug, Args)]
#[command(after_help = help::ANALYZE_HELP)]
pub(crate) struct Analyze {
    /// Prints the policy as JSON, as `chestnut-patch --policy` takes it.
    #[arg(long)]
    pub(crate) json: bool,

    /// Says more: the whole way to each call, every place, all files.
    #[arg(short, long)]
    pub(crate) verbose: bool,

    /// The program; a patched one is analyzed as it was before.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,

    // Its heading holds for all that follows.
    #[command(flatten)]
    pub(crate) analysis: AnalysisFlags,
}

#[derive(Clone, Debug, Args)]
#[command(after_help = help::EXPLAIN_HELP)]
pub(crate) struct Explain {
    /// What lies behind a function: the way to it, and from there to each call (or to those that are named). By its name
    /// as nm has it, or as FILE+0xADDRESS.
    #[arg(long, value_name = "FUNCTION", conflicts_with = "diff")]
    pub(crate) all_paths_through: Option<String>,

    /// What FILE may call that OTHER, a program, patched or not, or a policy, may not, and the other way round.
    #[arg(long, value_name = "OTHER")]
    pub(crate) diff: Option<PathBuf>,

    /// Prints JSON.
    #[arg(long)]
    pub(crate) json: bool,

    /// Says more: the way to every place that makes a call.
    #[arg(short, long)]
    pub(crate) verbose: bool,

    /// The program; a patched one is analyzed as it was before.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,

    /// The calls, by name or number.
    #[arg(value_name = "CALL", required_unless_present_any = ["all_paths_through", "diff"], value_parser = call)]
    pub(crate) calls: Vec<SyscallNr>,

    // Its heading holds for all that follows.
    #[command(flatten)]
    pub(crate) analysis: AnalysisFlags,
}

#[derive(Clone, Debug, Args)]
#[command(after_help = help::CHECK_HELP)]
pub(crate) struct Check {
    /// Prints JSON.
    #[arg(long)]
    pub(crate) json: bool,

    /// The patched program.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,

    // Its heading holds for all that follows.
    #[command(flatten)]
    pub(crate) analysis: AnalysisFlags,
}

#[derive(Clone, Debug, Args)]
#[command(after_help = help::INSPECT_HELP)]
pub(crate) struct Inspect {
    #[command(flatten)]
    pub(crate) limits: LimitFlags,

    /// Prints JSON.
    #[arg(long)]
    pub(crate) json: bool,

    /// The patched program.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
}

#[derive(Clone, Debug, Args)]
#[command(after_help = help::REPORT_HELP)]
pub(crate) struct Report {
    /// Where the page goes; standard output if not given, or if `-`.
    #[arg(short, long, value_name = "FILE", conflicts_with = "table")]
    pub(crate) output: Option<PathBuf>,

    /// A line for each program in place of a page: calls blocked, whether it can execute others and make memory
    /// executable, known vulnerabilities of the kernel that it cannot reach.
    #[arg(long)]
    pub(crate) table: bool,

    /// Prints the table as JSON.
    #[arg(long, requires = "table")]
    pub(crate) json: bool,

    /// How many programs of a table at a time; as many as there are processors if not given.
    #[arg(short, long, value_name = "N", requires = "table")]
    pub(crate) jobs: Option<usize>,

    /// More vulnerabilities: a name, a tab, calls that lead to it, a tab and a source on each line.
    #[arg(long, value_name = "FILE")]
    pub(crate) vulnerabilities: Vec<PathBuf>,

    /// The program, or its policy; a patched one is analyzed as it was before.
    #[arg(value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,

    // Its heading holds for all that follows.
    #[command(flatten)]
    pub(crate) analysis: AnalysisFlags,
}

#[derive(Clone, Debug, Args)]
#[command(after_help = help::EXPORT_HELP)]
pub(crate) struct Export {
    /// Who is to enforce it.
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub(crate) format: Format,

    #[command(flatten)]
    pub(crate) filter: FilterFlags,

    /// The filter is installed at the program's entry point, as chestnut-patch does it: what its loader and execve need
    /// is left out.
    #[arg(long)]
    pub(crate) at_entry: bool,

    /// Writes to a file instead of standard output.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,

    /// The program; a patched one is analyzed as it was before.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,

    // Its heading holds for all that follows.
    #[command(flatten)]
    pub(crate) analysis: AnalysisFlags,
}

#[derive(Clone, Debug, Args)]
#[command(after_help = help::HARDEN_HELP)]
#[command(group = ArgGroup::new("which").required(true).args(["all", "list"]))]
#[command(group = ArgGroup::new("where").required(true).args(["out", "in_place"]))]
pub(crate) struct Harden {
    /// All executables below --root, on its file system.
    #[arg(long)]
    pub(crate) all: bool,

    /// The programs that a file (or standard input, if it is `-`) names, a path below --root a line; lines that begin with
    /// # are passed over.
    #[arg(long, value_name = "FILE")]
    pub(crate) list: Option<PathBuf>,

    /// Writes the patched programs into another tree, under the same paths.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,

    /// Puts each patched program in the place of the original.
    #[arg(long)]
    pub(crate) in_place: bool,

    /// How many programs at a time; as many as there are processors if not given.
    #[arg(short, long, value_name = "N")]
    pub(crate) jobs: Option<usize>,

    /// Writes a summary and the policy of each program into a folder.
    #[arg(long, value_name = "DIR")]
    pub(crate) report: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) filter: FilterFlags,

    /// Patches setuid and setgid programs, too.
    #[arg(long)]
    pub(crate) allow_setuid: bool,

    /// Patches anew what an earlier run has patched, although program, libraries and flags are the same: after the
    /// system's configuration was changed.
    #[arg(long)]
    pub(crate) again: bool,

    /// Prints JSON.
    #[arg(long)]
    pub(crate) json: bool,

    /// Says nothing while it works.
    #[arg(short, long)]
    pub(crate) quiet: bool,

    // Its heading holds for all that follows.
    #[command(flatten)]
    pub(crate) analysis: AnalysisFlags,
}

/// Which filter a policy becomes.
#[derive(Clone, Debug, Args)]
pub(crate) struct FilterFlags {
    /// What happens to a call that is not allowed: kill, kill-thread, trap, log or errno:NAME.
    #[arg(long, value_name = "ACTION", default_value = "kill")]
    pub(crate) action: Action,

    /// Goes on although a reached system call has a number that is not known.
    #[arg(long)]
    pub(crate) ignore_unresolved: bool,
}

/// Who takes a profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// `linux.seccomp` in the config.json of an OCI bundle (runc, crun).
    Oci,
    /// docker run --security-opt seccomp=FILE.
    Docker,
    /// podman run --security-opt seccomp=FILE.
    Podman,
    /// A drop-in for a unit of systemd.
    Systemd,
    /// A SeccompProfile of Kubernetes' Security Profiles Operator.
    KubernetesSpo,
    /// A policy of minijail0 -S.
    Minijail,
    /// Lines for a profile of firejail.
    Firejail,
    /// The instructions, as bwrap --seccomp takes them.
    Bpf,
    /// The instructions as text, for the kernel's bpf_asm.
    BpfAsm,
    /// The instructions as C.
    C,
    /// The policy, as chestnut-patch --policy takes it.
    Json,
}

#[derive(Clone, Debug, Args)]
#[command(after_help = help::TRACE_HELP)]
#[command(group = ArgGroup::new("target").required(true).args(["pid", "command"]))]
pub(crate) struct Trace {
    #[command(flatten)]
    pub(crate) limits: LimitFlags,

    /// Writes the trace to a file, a JSON value a line, as it grows; without it a report is printed at the end.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,

    /// From the entry point on, only calls that this policy does not allow stop the program, and are recorded.
    #[arg(long, value_name = "FILE", conflicts_with = "pid")]
    pub(crate) policy: Option<PathBuf>,

    /// Traces a running process, until it ends or this command gets SIGINT or SIGTERM.
    #[arg(short, long, value_name = "PID")]
    pub(crate) pid: Option<i32>,

    /// Keeps the paths that calls are given, too.
    #[arg(long)]
    pub(crate) paths: bool,

    /// Prints nothing.
    #[arg(short, long)]
    pub(crate) quiet: bool,

    /// The program and its arguments.
    #[arg(value_name = "PROGRAM", trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) command: Vec<OsString>,
}

#[derive(Clone, Debug, Args)]
#[command(after_help = help::REFINE_HELP)]
pub(crate) struct Refine {
    #[command(flatten)]
    pub(crate) limits: LimitFlags,

    /// Adds calls that were seen and that the policy does not allow.
    #[arg(long)]
    pub(crate) add: bool,

    /// Takes away calls that the policy allows and that were never seen.
    #[arg(long)]
    pub(crate) remove_unused: bool,

    /// Writes the policy to a file, as `chestnut-patch --policy` takes it; without it it is printed, if it changes.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,

    /// The policy, as `chestnut-patch --emit-policy` writes it.
    #[arg(value_name = "POLICY")]
    pub(crate) policy: PathBuf,

    /// Traces of its program.
    #[arg(value_name = "TRACE", required = true)]
    pub(crate) traces: Vec<PathBuf>,
}

#[derive(Clone, Debug, Args)]
#[command(after_help = help::RUN_HELP)]
#[command(group = ArgGroup::new("mode").required(true).args(["ask", "learn", "log"]))]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) limits: LimitFlags,

    /// Asks about a call that is not allowed, while its caller waits.
    #[arg(long)]
    pub(crate) ask: bool,

    /// Lets all calls be made, and records those that are not allowed.
    #[arg(long)]
    pub(crate) learn: bool,

    /// Lets all calls be made, and writes a line about those that are not allowed.
    #[arg(long)]
    pub(crate) log: bool,

    /// The policy; without it that of the patched program, or what the analysis finds.
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,

    /// Asks by a command, which finds the call in CHESTNUT_CALL, CHESTNUT_ARGUMENTS, CHESTNUT_SITE, CHESTNUT_PROGRAM
    /// and prints `once`, `always`, `refuse`, `refuse ERRNO` or `kill`.
    #[arg(long, value_name = "CMD", requires = "ask")]
    pub(crate) ask_command: Option<String>,

    /// Where answers are kept (all but `once`); a file of the program's own in the user's state folder if not given.
    #[arg(long, value_name = "FILE")]
    pub(crate) decisions: Option<PathBuf>,

    /// Writes a trace of the calls that were not allowed, for `chestnut refine --add`.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,

    /// The program and its arguments.
    #[arg(value_name = "PROGRAM", required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) command: Vec<OsString>,
}

#[derive(Clone, Debug, Args)]
#[command(after_help = help::VIOLATION_HELP)]
pub(crate) struct ExplainViolation {
    #[command(flatten)]
    pub(crate) limits: LimitFlags,

    /// Text that holds lines of the kernel's audit log (dmesg, journalctl -k, audit.log); standard input if not given.
    #[arg(value_name = "FILE")]
    pub(crate) log: Option<PathBuf>,
}

impl Command {
    /// Whether standard output is for a program.
    pub(crate) fn is_json(&self) -> bool {
        match self {
            Self::Analyze(command) => command.json,
            Self::Explain(command) => command.json,
            Self::Check(command) => command.json,
            Self::Inspect(command) => command.json,
            Self::Harden(command) => command.json,
            Self::Report(command) => command.json,
            Self::Export(_) | Self::Trace(_) | Self::Refine(_) | Self::Run(_) | Self::ExplainViolation(_) => false,
            Self::Notes { .. } => true,
            Self::Cc { .. } | Self::Cxx { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARED: &str = "What the analysis looks at";

    #[test]
    fn every_command_is_in_one_group_and_has_examples() {
        let command = command();
        let mut listed: Vec<_> = COMMANDS.iter().flat_map(|(_, names)| names.iter().copied()).collect();
        let mut names: Vec<_> = command.get_subcommands().map(clap::Command::get_name).collect();
        listed.sort_unstable();
        names.sort_unstable();
        assert_eq!(listed, names);
        for command in command.get_subcommands().filter(|c| !["cc", "c++", "notes"].contains(&c.get_name())) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.starts_with("Examples:\n  "), "{}: {help}", command.get_name());
            // What every command has comes behind what makes this one, and under a heading of its own.
            let analyses = command.get_arguments().any(|argument| argument.get_id() == "root");
            let is_shared =
                |name: &str| analyses && ["root", "libraries", "nss", "dlopen", "exec", "limits"].contains(&name);
            let wrong = command.get_arguments().find(|argument| {
                is_shared(argument.get_id().as_str()) != (argument.get_help_heading() == Some(SHARED))
                    && !["exec_target", "folder", "is_off"].contains(&argument.get_id().as_str())
            });
            assert!(wrong.is_none(), "{}: {wrong:?}", command.get_name());
        }
        command.debug_assert();
    }
}
