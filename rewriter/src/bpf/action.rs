//! What happens to a call that is known but not allowed.
//!
//! Input and output: the words of `--action`, and the value that a filter returns to the kernel (seccomp(2), "Filter
//! return values").

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::errno;

/// What the kernel does with a call that the policy does not allow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Action {
    /// The process dies of SIGSYS, all its threads too.
    #[default]
    KillProcess,
    /// The thread dies of SIGSYS.
    KillThread,
    /// A SIGSYS that the program can catch.
    Trap,
    /// The call is made, and the audit log has a line about it.
    Log,
    /// The call fails with this error number.
    Errno(u16),
}

impl Action {
    /// The filter's return value.
    #[must_use]
    pub fn return_value(self) -> u32 {
        match self {
            Self::KillProcess => libc::SECCOMP_RET_KILL_PROCESS,
            Self::KillThread => libc::SECCOMP_RET_KILL_THREAD,
            Self::Trap => libc::SECCOMP_RET_TRAP,
            Self::Log => libc::SECCOMP_RET_LOG,
            Self::Errno(number) => libc::SECCOMP_RET_ERRNO | u32::from(number),
        }
    }
}

/// A word that is not an action.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown action {0:?}: expected kill, kill-thread, trap, log or errno:NAME (as in errno:EPERM)")]
pub struct UnknownAction(String);

impl FromStr for Action {
    type Err = UnknownAction;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "kill" | "kill-process" => Ok(Self::KillProcess),
            "kill-thread" => Ok(Self::KillThread),
            "trap" => Ok(Self::Trap),
            "log" => Ok(Self::Log),
            _ => text
                .strip_prefix("errno:")
                .and_then(|name| errno::number(name).or_else(|| name.parse().ok().filter(|n| (1..=4095).contains(n))))
                .map(Self::Errno)
                .ok_or_else(|| UnknownAction(text.to_owned())),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KillProcess => f.write_str("kill"),
            Self::KillThread => f.write_str("kill-thread"),
            Self::Trap => f.write_str("trap"),
            Self::Log => f.write_str("log"),
            Self::Errno(number) => match errno::name(*number) {
                Some(name) => write!(f, "errno:{name}"),
                None => write!(f, "errno:{number}"),
            },
        }
    }
}

impl From<Action> for String {
    fn from(action: Action) -> Self {
        action.to_string()
    }
}

impl TryFrom<String> for Action {
    type Error = UnknownAction;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_actions_are_one_to_one() {
        for word in ["kill", "kill-thread", "trap", "log", "errno:EPERM", "errno:ENOSYS", "errno:4000"] {
            assert_eq!(word.parse::<Action>().map(|action| action.to_string()), Ok(word.to_owned()));
        }
    }

    #[test]
    fn other_words_are_refused() {
        // The kernel cuts an error number at MAX_ERRNO, so a greater one would not be what was asked for.
        for word in ["", "allow", "errno:", "errno:EWHATEVER", "errno:0", "errno:4096", "errno:-1"] {
            assert!(word.parse::<Action>().is_err(), "{word}");
        }
    }
}
