//! The kernel's own account of what a program calls: a ptrace supervisor, run as a process of its own.
//!
//! `end_to_end supervise REPORT PROGRAM ARG...` runs PROGRAM with all its threads and children, writes REPORT and ends
//! with 0 if it could do so. Recording starts when the program reaches its ELF entry point (`AT_ENTRY`, where a
//! breakpoint is put): what the loader and the constructors of libraries do before is not part of it. Programs that are
//! executed later count from their first instruction: a filter is inherited.
//!
//! REPORT has a line `call NUMBER` for each call seen, `signal NUMBER` if the program died of a signal, and `refused
//! NUMBER` for a call that a filter did not let pass: the kernel has put back the registers of the thread when the call
//! ends, so that the result is the number itself. `unfiltered` says that a thread ended without a filter, `entered`
//! that the entry point was reached.
//!
//! # Safety
//!
//! `ptrace`, `waitpid` and `kill` have no safe form in the standard library. Requests that make the kernel write get a
//! pointer to a value of the right type that outlives the call.
#![allow(unsafe_code, reason = "ptrace has no safe interface")]

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use libc::{c_int, c_long, c_uint, pid_t};

use super::{Trouble, process, wrong};

/// What a supervised run has shown.
#[derive(Debug, Default)]
pub(crate) struct Account {
    pub(crate) calls: BTreeSet<u64>,
    pub(crate) signal: Option<i32>,
    /// Calls that a filter did not let pass, when the program died.
    pub(crate) refused: BTreeSet<u64>,
    pub(crate) unfiltered: bool,
    pub(crate) entered: bool,
}

/// Runs `program` under a supervisor process.
pub(crate) fn observe(folder: &Path, program: &Path, arguments: &[String]) -> Result<Account, Trouble> {
    let report = program.with_extension("report");
    let mut all = vec!["supervise".to_owned(), report.display().to_string(), program.display().to_string()];
    all.extend(arguments.iter().cloned());
    let ending = process::run(folder, &std::env::current_exe()?, &all)?;
    if !ending.status.success() {
        return wrong(format!("the supervisor failed: {ending}"));
    }
    let mut account = Account::default();
    for line in std::fs::read_to_string(&report)?.lines() {
        let (key, value) = line.split_once(' ').unwrap_or((line, "0"));
        let number: u64 = value.parse().map_err(|_| Trouble::Wrong(format!("report line {line:?}")))?;
        match key {
            "call" => drop(account.calls.insert(number)),
            "signal" => account.signal = i32::try_from(number).ok(),
            "refused" => drop(account.refused.insert(number)),
            "unfiltered" => account.unfiltered = true,
            "entered" => account.entered = true,
            _ => return wrong(format!("report line {line:?}")),
        }
    }
    Ok(account)
}

/// The supervisor process. `arguments`: REPORT PROGRAM ARG...
pub(crate) fn main(arguments: Vec<OsString>) -> ExitCode {
    match supervise(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("supervise: {error}");
            ExitCode::FAILURE
        }
    }
}

fn supervise(arguments: &[OsString]) -> std::io::Result<()> {
    let [report, program, rest @ ..] = arguments else {
        return Err(std::io::Error::other("REPORT PROGRAM ARG..."));
    };
    // The shell stops itself, so that it can be seized before it becomes the program.
    let child =
        Command::new("/bin/sh").arg("-c").arg("kill -STOP $$; exec \"$0\" \"$@\"").arg(program).args(rest).spawn()?;
    let main = pid_t::try_from(child.id()).map_err(std::io::Error::other)?;
    wait(main, libc::WUNTRACED)?;
    let options = libc::PTRACE_O_TRACESYSGOOD
        | libc::PTRACE_O_TRACECLONE
        | libc::PTRACE_O_TRACEFORK
        | libc::PTRACE_O_TRACEVFORK
        | libc::PTRACE_O_TRACEEXEC
        | libc::PTRACE_O_TRACEEXIT
        | libc::PTRACE_O_EXITKILL;
    request(libc::PTRACE_SEIZE, main, 0, c_long::from(options))?;
    // SAFETY: no memory is involved.
    unsafe { libc::kill(main, libc::SIGCONT) };
    let mut supervisor = Supervisor { main, ..Supervisor::default() };
    while supervisor.step()? {}
    std::fs::write(report, supervisor.report())
}

/// One traced thread.
#[derive(Debug, Default)]
struct Thread {
    /// Between the two stops of a call.
    inside: bool,
    /// The call that it ended last, if that did not pass a filter.
    refused: Option<u64>,
}

#[derive(Debug, Default)]
struct Supervisor {
    main: pid_t,
    threads: BTreeMap<pid_t, Thread>,
    /// Address of the entry point and the byte that stood there, while the breakpoint is set.
    breakpoint: Option<(u64, u8)>,
    executed: bool,
    entered: bool,
    calls: BTreeSet<u64>,
    signal: Option<(c_int, BTreeSet<u64>)>,
    unfiltered: bool,
}

impl Supervisor {
    /// Handles one event; `false` when nothing is left.
    fn step(&mut self) -> std::io::Result<bool> {
        let (pid, status) = match wait(-1, libc::__WALL) {
            Ok(event) => event,
            Err(error) if error.raw_os_error() == Some(libc::ECHILD) => return Ok(false),
            Err(error) => return Err(error),
        };
        if libc::WIFEXITED(status) || libc::WIFSIGNALED(status) {
            if pid == self.main && libc::WIFSIGNALED(status) {
                let refused = self.signal.take().map_or_else(|| self.refused_calls(), |(_, refused)| refused);
                self.signal = Some((libc::WTERMSIG(status), refused));
            }
            self.threads.remove(&pid);
            return Ok(true);
        }
        // Whoever is killed while it is stopped is gone for every request; its end is told later.
        ignore_gone(self.stopped(pid, status))?;
        Ok(true)
    }

    /// Handles the stop of a thread and lets it go on.
    fn stopped(&mut self, pid: pid_t, status: c_int) -> std::io::Result<()> {
        let stop = libc::WSTOPSIG(status);
        let deliver = match status >> 16 {
            0 if stop == libc::SIGTRAP | 0x80 => self.call(pid)?,
            0 if stop == libc::SIGTRAP && self.at_breakpoint(pid)? => 0,
            0 => stop,
            libc::PTRACE_EVENT_EXEC => self.exec(pid)?,
            libc::PTRACE_EVENT_EXIT => self.exit(pid)?,
            libc::PTRACE_EVENT_STOP if stop != libc::SIGTRAP => return request(libc::PTRACE_LISTEN, pid, 0, 0),
            _ => 0,
        };
        request(libc::PTRACE_SYSCALL, pid, 0, c_long::from(deliver))
    }

    fn call(&mut self, pid: pid_t) -> std::io::Result<c_int> {
        let values = registers(pid)?;
        let number = values.orig_rax;
        let entered = self.entered;
        let thread = self.threads.entry(pid).or_default();
        thread.inside = !thread.inside;
        thread.refused = (!thread.inside && values.rax == number).then_some(number);
        if thread.inside && entered {
            self.calls.insert(number);
        }
        Ok(0)
    }

    /// The first image is the program: its entry point is where the account begins.
    fn exec(&mut self, pid: pid_t) -> std::io::Result<c_int> {
        self.threads.entry(pid).or_default().inside = true;
        if !self.executed && pid == self.main {
            self.executed = true;
            let address = entry_point(pid)?;
            let memory = std::fs::File::options().read(true).write(true).open(format!("/proc/{pid}/mem"))?;
            let mut byte = [0];
            memory.read_exact_at(&mut byte, address)?;
            memory.write_all_at(&[0xcc], address)?;
            self.breakpoint = Some((address, byte[0]));
        }
        Ok(0)
    }

    fn at_breakpoint(&mut self, pid: pid_t) -> std::io::Result<bool> {
        let Some((address, byte)) = self.breakpoint else { return Ok(false) };
        let mut values = registers(pid)?;
        if values.rip != address + 1 {
            return Ok(false);
        }
        std::fs::File::options().write(true).open(format!("/proc/{pid}/mem"))?.write_all_at(&[byte], address)?;
        values.rip = address;
        let pointer: *const libc::user_regs_struct = &raw const values;
        // SAFETY: the kernel reads one `user_regs_struct` from the pointer, which is valid until the call returns.
        if unsafe { libc::ptrace(libc::PTRACE_SETREGS, pid, 0, pointer) } < 0 {
            return Err(std::io::Error::last_os_error());
        }
        self.breakpoint = None;
        self.entered = true;
        Ok(true)
    }

    fn exit(&mut self, pid: pid_t) -> std::io::Result<c_int> {
        let mut text = String::new();
        let file = std::fs::File::open(format!("/proc/{pid}/status"));
        if file.and_then(|mut file| file.read_to_string(&mut text)).is_ok() && text.contains("\nSeccomp:\t0") {
            self.unfiltered = true;
        }
        let mut code: c_long = 0;
        let pointer: *mut c_long = &raw mut code;
        // SAFETY: the kernel writes one `unsigned long` to the pointer, which is valid until the call returns.
        let known = unsafe { libc::ptrace(libc::PTRACE_GETEVENTMSG, pid, 0, pointer) } == 0;
        let deadly = c_int::try_from(code).unwrap_or(0) & 0x7f;
        if known && deadly == process::SIGSYS && self.signal.is_none() {
            self.signal = Some((deadly, self.refused_calls()));
        }
        Ok(0)
    }

    fn refused_calls(&self) -> BTreeSet<u64> {
        self.threads.values().filter_map(|thread| thread.refused).collect()
    }

    fn report(&self) -> Vec<u8> {
        let mut text = Vec::new();
        let write = |out: &mut Vec<u8>, line: String| writeln!(out, "{line}").unwrap_or_default();
        for number in &self.calls {
            write(&mut text, format!("call {number}"));
        }
        if let Some((signal, refused)) = &self.signal {
            write(&mut text, format!("signal {signal}"));
            for number in refused {
                write(&mut text, format!("refused {number}"));
            }
        }
        if self.unfiltered {
            write(&mut text, "unfiltered".into());
        }
        if self.entered {
            write(&mut text, "entered".into());
        }
        text
    }
}

/// `AT_ENTRY` of the auxiliary vector.
fn entry_point(pid: pid_t) -> std::io::Result<u64> {
    let auxv = std::fs::read(format!("/proc/{pid}/auxv"))?;
    let (words, _) = auxv.as_chunks::<8>();
    words
        .chunks_exact(2)
        .find(|pair| u64::from_le_bytes(pair[0]) == libc::AT_ENTRY)
        .map(|pair| u64::from_le_bytes(pair[1]))
        .ok_or_else(|| std::io::Error::other("no AT_ENTRY"))
}

fn registers(pid: pid_t) -> std::io::Result<libc::user_regs_struct> {
    let mut values = std::mem::MaybeUninit::<libc::user_regs_struct>::uninit();
    let pointer = values.as_mut_ptr();
    // SAFETY: the kernel writes one `user_regs_struct` to the pointer, which is valid until the call returns.
    if unsafe { libc::ptrace(libc::PTRACE_GETREGS, pid, 0, pointer) } < 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: the request succeeded, so the kernel has written the whole structure.
    Ok(unsafe { values.assume_init() })
}

/// A request whose address and data are plain numbers.
fn request(code: c_uint, pid: pid_t, address: c_long, data: c_long) -> std::io::Result<()> {
    // SAFETY: none of the requests that are made here lets the kernel touch this process's memory.
    if unsafe { libc::ptrace(code, pid, address, data) } < 0 {
        return Err(std::io::Error::last_os_error());
    }
    Ok(())
}

/// A thread may be killed while it is stopped; its end is reported by `waitpid`.
fn ignore_gone(result: std::io::Result<()>) -> std::io::Result<()> {
    match result {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        other => other,
    }
}

fn wait(pid: pid_t, options: c_int) -> std::io::Result<(pid_t, c_int)> {
    let mut status = 0;
    // SAFETY: the kernel writes one `int` to the pointer, which is valid until the call returns.
    let found = unsafe { libc::waitpid(pid, &raw mut status, options) };
    if found < 0 { Err(std::io::Error::last_os_error()) } else { Ok((found, status)) }
}
