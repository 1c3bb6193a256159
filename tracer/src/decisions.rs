//! Answers to "may it?", kept in a file.
//!
//! Input and output: JSON, by name of the call, so that a person can read and change it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use chestnut_rewriter::bpf::Action;
use serde::{Deserialize, Serialize};

use crate::error::Error;

/// Version of the form; a reader refuses any other.
const FORMAT: u32 = 1;

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Decision {
    /// It is made.
    Allow,
    /// It fails with this error number.
    Refuse(u16),
    /// The process is killed.
    Kill,
}

/// The error number of a refused call, unless another one is named.
pub(crate) const REFUSED: u16 = 1;

impl FromStr for Decision {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let error = |name: &str| match format!("errno:{name}").parse() {
            Ok(Action::Errno(number)) => Ok(Self::Refuse(number)),
            _ => Err(format!("there is no error {name:?}")),
        };
        match text.split_once([':', ' ']) {
            None if text == "allow" => Ok(Self::Allow),
            None if text == "refuse" => Ok(Self::Refuse(REFUSED)),
            None if text == "kill" => Ok(Self::Kill),
            Some(("refuse", name)) => error(name.trim()),
            _ => Err(format!("expected allow, refuse, refuse:ERRNO or kill, found {text:?}")),
        }
    }
}

impl std::fmt::Display for Decision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            Self::Allow => f.write_str("allow"),
            Self::Refuse(number) => {
                write!(f, "refuse:{}", Action::Errno(number).to_string().trim_start_matches("errno:"))
            }
            Self::Kill => f.write_str("kill"),
        }
    }
}

impl From<Decision> for String {
    fn from(decision: Decision) -> Self {
        decision.to_string()
    }
}

impl TryFrom<String> for Decision {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// What was decided about the calls of a program.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format: u32,
    /// SHA-256 of the program, before it was patched.
    program: String,
    decisions: BTreeMap<String, Decision>,
}

/// Decisions, and where they are kept.
#[derive(Clone, Debug)]
pub(crate) struct Decisions {
    path: Option<PathBuf>,
    file: File,
}

impl Decisions {
    /// Reads the decisions about a program; there are none if there is no file.
    pub(crate) fn read(path: Option<&Path>, program: &str) -> Result<Self, Error> {
        let none = File { format: FORMAT, program: program.to_owned(), decisions: BTreeMap::new() };
        let Some(path) = path else { return Ok(Self { path: None, file: none }) };
        let file = match std::fs::read(path) {
            Ok(text) => parse(path, &text, program)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => none,
            Err(source) => return Err(Error::Read { path: path.to_owned(), source }),
        };
        Ok(Self { path: Some(path.to_owned()), file })
    }

    /// What was decided about a call.
    pub(crate) fn get(&self, call: &str) -> Option<Decision> {
        self.file.decisions.get(call).copied()
    }

    /// Keeps a decision. The file is replaced as a whole or not at all.
    pub(crate) fn set(&mut self, call: &str, decision: Decision) -> Result<(), Error> {
        self.file.decisions.insert(call.to_owned(), decision);
        let Some(path) = &self.path else { return Ok(()) };
        let failed = |source| Error::Write { path: path.clone(), source };
        let mut text = serde_json::to_vec_pretty(&self.file).map_err(|error| failed(error.into()))?;
        text.push(b'\n');
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).map_err(failed)?;
        }
        let mut new = path.clone().into_os_string();
        new.push(".new");
        std::fs::write(&new, text).and_then(|()| std::fs::rename(&new, path)).map_err(failed)
    }
}

fn parse(path: &Path, text: &[u8], program: &str) -> Result<File, Error> {
    let wrong = |what: String| Error::NotDecisions { path: path.to_owned(), what };
    let file: File = serde_json::from_slice(text).map_err(|error| wrong(error.to_string()))?;
    if file.format != FORMAT {
        return Err(wrong(format!("format {}, expected {FORMAT}", file.format)));
    }
    if file.program != program {
        return Err(wrong(format!("it is of another program, SHA-256 {}", file.program)));
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_decisions_are_one_to_one() {
        for word in ["allow", "refuse:EPERM", "refuse:ENOSYS", "refuse:4000", "kill"] {
            assert_eq!(word.parse::<Decision>().map(|decision| decision.to_string()), Ok(word.to_owned()));
        }
        assert_eq!("refuse".parse(), Ok(Decision::Refuse(REFUSED)));
        for word in ["", "refuse:", "refuse:EWHATEVER", "refuse:0", "allow:1", "once"] {
            assert!(word.parse::<Decision>().is_err(), "{word}");
        }
    }

    #[test]
    fn decisions_of_another_program_or_format_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("below/decisions");
        let mut decisions = Decisions::read(Some(&path), "a").unwrap();
        decisions.set("getppid", Decision::Refuse(1)).unwrap();
        assert_eq!(Decisions::read(Some(&path), "a").unwrap().get("getppid"), Some(Decision::Refuse(1)));
        let message = Decisions::read(Some(&path), "b").unwrap_err().to_string();
        assert!(message.contains("another program"), "{message}");
        for text in ["", "{}", r#"{"format":2,"program":"a","decisions":{}}"#] {
            std::fs::write(&path, text).unwrap();
            assert!(Decisions::read(Some(&path), "a").is_err(), "{text}");
        }
    }
}
