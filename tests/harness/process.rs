//! Runs a program to its end, with a deadline after which it is killed and the test fails: a hang is a failure.

use std::io::Read;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use super::{Trouble, wrong};

/// Not a measurement: far beyond what any fixture needs on a loaded machine.
const DEADLINE: Duration = Duration::from_secs(120);

/// SIGSYS of x86-64.
pub(crate) const SIGSYS: i32 = 31;

/// What a program left behind.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ending {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ending {
    /// Died of the filter.
    pub(crate) fn is_sigsys(&self) -> bool {
        self.status.signal() == Some(SIGSYS)
    }
}

impl std::fmt::Display for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}\nstdout: {:?}\nstderr: {:?}", self.status, self.stdout, self.stderr)
    }
}

/// Runs `program` in `folder` with a small, fixed environment.
pub(crate) fn run(folder: &Path, program: &Path, arguments: &[String]) -> Result<Ending, Trouble> {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(folder).env_clear();
    command.env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin").env("LC_ALL", "C.UTF-8");
    wait(&mut command)
}

/// Starts a prepared command in a process group of its own and waits for its end.
pub(crate) fn wait(command: &mut Command) -> Result<Ending, Trouble> {
    let shown = format!("{command:?}");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            Trouble::Missing(format!("{} is not installed", command.get_program().display()))
        }
        _ => Trouble::Wrong(format!("{shown}: {error}")),
    })?;
    let group = child.id();
    let stdout = drain(child.stdout.take());
    let stderr = drain(child.stderr.take());
    let (done, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || done.send(child.wait()));
    match ended.recv_timeout(DEADLINE) {
        Ok(status) => {
            let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
            let stdout = text(stdout.join().unwrap_or_default());
            let stderr = text(stderr.join().unwrap_or_default());
            Ok(Ending { status: status?, stdout, stderr })
        }
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
            let _ = Command::new("kill").args(["-KILL", "--", &format!("-{group}")]).status();
            wrong(format!("{shown}: still running after {DEADLINE:?}; killed"))
        }
    }
}

fn drain(stream: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stream) = stream {
            let _ = stream.read_to_end(&mut bytes);
        }
        bytes
    })
}
