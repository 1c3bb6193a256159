//! Profiles of container runtimes.
//!
//! Follows the OCI runtime specification (config-linux.md, "Seccomp"), Docker's profile format, which Podman and
//! containers/common share, and the Security Profiles Operator's `SeccompProfile`. The engines give calls that are newer
//! than the newest one in a profile ENOSYS by themselves (runc since 1.0-rc93, crun with libseccomp 2.5). A profile has
//! the program's calls in one group and those that only the engine needs ([`ENGINE`]) in a second one.

use chestnut_analyzer::syscall::SyscallNr;
use chestnut_rewriter::bpf::{Action, errno_name};
use serde_json::{Map, Value, json};

use super::Profile;
use crate::failure::Failure;

const ARCHITECTURE: &str = "SCMP_ARCH_X86_64";

/// What the engine's own process calls between the filter and `execve`, with `no_new_privs` (without it, the filter comes
/// earlier and much more is needed). Seen below runc 1.1: `libcontainer/standard_init_linux.go` writes to the start
/// fifo and closes descriptors, Go's runtime runs its threads meanwhile.
const ENGINE: [&str; 24] = [
    "close",
    "epoll_ctl",
    "epoll_pwait",
    "exit_group",
    "fcntl",
    "fstatfs",
    "futex",
    "getdents64",
    "getpid",
    "gettid",
    "madvise",
    "mmap",
    "munmap",
    "nanosleep",
    "newfstatat",
    "openat",
    "prctl",
    "read",
    "rt_sigprocmask",
    "rt_sigreturn",
    "sched_yield",
    "sigaltstack",
    "tgkill",
    "write",
];

/// The `linux.seccomp` object of an OCI bundle's `config.json`.
pub(super) fn oci(profile: &Profile<'_>) -> Result<String, Failure> {
    let mut value = rules(profile);
    value.insert("architectures".to_owned(), json!([ARCHITECTURE]));
    Ok(format!("{}\n", serde_json::to_string_pretty(&value)?))
}

/// What `--security-opt seccomp=FILE` takes.
pub(super) fn docker(profile: &Profile<'_>) -> Result<String, Failure> {
    let mut value = rules(profile);
    value.insert("archMap".to_owned(), json!([{ "architecture": ARCHITECTURE, "subArchitectures": [] }]));
    Ok(format!("{}\n", serde_json::to_string_pretty(&value)?))
}

/// A resource of the Security Profiles Operator. JSON is YAML.
pub(super) fn kubernetes(profile: &Profile<'_>) -> Result<String, Failure> {
    let mut rules = rules(profile);
    rules.insert("architectures".to_owned(), json!([ARCHITECTURE]));
    // The resource has no field for it: without one, the runtimes return EPERM.
    rules.remove("defaultErrnoRet");
    if let Action::Errno(number) = profile.action()
        && errno_name(number) != Some("EPERM")
    {
        let specification = profile.filter.specification();
        let is_other =
            |call: &SyscallNr| !specification.allowed().contains(call) && !specification.failing().contains_key(call);
        let names = SyscallNr::all_known().filter(is_other).map(|call| call.to_string());
        let names: Vec<_> = names.filter(|name| !ENGINE.contains(&name.as_str())).collect();
        let group = json!({ "names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": number });
        if let Some(groups) = rules.get_mut("syscalls").and_then(Value::as_array_mut) {
            groups.push(group);
        }
    }
    let resource = json!({
        "apiVersion": "security-profiles-operator.x-k8s.io/v1beta1",
        "kind": "SeccompProfile",
        "metadata": { "name": resource_name(profile) },
        "spec": rules,
    });
    Ok(format!("{}\n", serde_json::to_string_pretty(&resource)?))
}

fn rules(profile: &Profile<'_>) -> Map<String, Value> {
    let mut value = Map::new();
    value.insert("defaultAction".to_owned(), json!(action_name(profile.action())));
    if let Action::Errno(number) = profile.action() {
        value.insert("defaultErrnoRet".to_owned(), json!(number));
    }
    let names = profile.names();
    let engine: Vec<_> = ENGINE.iter().filter(|name| !names.iter().any(|known| known == *name)).collect();
    let mut groups = vec![json!({ "names": names, "action": "SCMP_ACT_ALLOW" })];
    if !engine.is_empty() {
        groups.push(json!({ "names": engine, "action": "SCMP_ACT_ALLOW" }));
    }
    for (call, number) in profile.filter.specification().failing() {
        groups.push(json!({ "names": [call.to_string()], "action": "SCMP_ACT_ERRNO", "errnoRet": number }));
    }
    value.insert("syscalls".to_owned(), json!(groups));
    value
}

fn action_name(action: Action) -> &'static str {
    match action {
        Action::KillProcess => "SCMP_ACT_KILL_PROCESS",
        Action::KillThread => "SCMP_ACT_KILL_THREAD",
        Action::Trap => "SCMP_ACT_TRAP",
        Action::Log => "SCMP_ACT_LOG",
        Action::Errno(_) => "SCMP_ACT_ERRNO",
    }
}

/// The program's name as a name of a resource can be (RFC 1123: lower-case letters, digits, `-`).
fn resource_name(profile: &Profile<'_>) -> String {
    let name = profile.program.file_name().map_or_else(String::new, |name| name.to_string_lossy().to_lowercase());
    let name: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    format!("chestnut-{}", name.trim_matches('-'))
}
