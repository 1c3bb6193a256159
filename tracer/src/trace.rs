//! The file that a tracer writes: one JSON value a line, each complete as soon as it is written.
//!
//! Input: the bytes of such a file. Output: [`Trace`]. A trace ends where the tracer ended: if that was in the middle,
//! all lines but a broken last one count, and [`Trace::is_complete`] says no. Numbers of calls come at the end (and
//! from time to time before), so that a call which has none was seen at least once.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};

use chestnut_analyzer::limits::{LimitName, Limits};
use chestnut_analyzer::policy::{CodeLocation, FileIdentity};
use chestnut_analyzer::regular_file::read_all;
use chestnut_analyzer::syscall::SyscallNr;
use serde::{Deserialize, Serialize};

use crate::architecture::Architecture;
use crate::error::Error;

/// Version of the form; a reader refuses any other.
pub const TRACE_FORMAT: u32 = 1;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Record {
    /// The first line.
    Header(Header),
    /// A program has been executed in a place of the tree of programs where it was not before.
    Image(Image),
    /// A call from a place, seen for the first time.
    Call(SeenCall),
    /// What a call was given, where that is a flag or a command: argument (counted from 0) to value.
    Arguments {
        /// [`SeenCall::id`].
        call: usize,
        /// Numbers of arguments, and their values.
        values: Vec<(usize, u64)>,
    },
    /// A path that a call was given.
    Path {
        /// [`SeenCall::id`].
        call: usize,
        /// The path, as far as it is text.
        path: String,
    },
    /// How often a call was seen; a later line replaces an earlier one.
    Count {
        /// [`SeenCall::id`].
        call: usize,
        /// How often.
        count: u64,
        /// Whether it was made more often, since calls that are known no longer stop the program.
        at_least: bool,
    },
    /// Something that the tracer could not see.
    Gap {
        /// A sentence.
        text: String,
    },
    /// The last line.
    End {
        /// Exit status of the program, if it has ended by itself.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        status: Option<i32>,
        /// Signal that has ended it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        signal: Option<i32>,
    },
}

/// What was traced, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// [`TRACE_FORMAT`].
    pub format: u32,
    /// Name and version of the tool.
    pub tool: String,
    /// The command, or nothing if a running process was traced.
    pub command: Vec<String>,
    /// Calls that did not stop the program from the entry point on, and so are not in the trace.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub known: BTreeSet<SyscallNr>,
}

/// A program at a place in the tree of programs that executed one another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Number within the trace.
    pub id: usize,
    /// The program that executed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<usize>,
    /// The file.
    pub file: FileIdentity,
    /// SHA-256 of what it was before it was patched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original_sha256: Option<String>,
    /// Whether its entry point was watched; if not, all its calls count as behind it.
    #[serde(default)]
    pub entry_known: bool,
}

/// Before the entry point runs the loader, with constructors of libraries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Before the entry point of the program.
    Before,
    /// From the entry point on.
    After,
}

/// A call from a place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenCall {
    /// Number within the trace.
    pub id: usize,
    /// [`Image::id`].
    pub image: usize,
    /// Name of the call; for the reader, number and architecture rule.
    pub call: String,
    /// Number in the table of the architecture.
    pub number: u64,
    /// Which table.
    #[serde(default, skip_serializing_if = "Architecture::is_native")]
    pub architecture: Architecture,
    /// When.
    pub phase: Phase,
    /// The instruction that makes the call.
    pub site: CodeLocation,
    /// Who refused it, if it was not made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Refusal>,
}

/// Who did not let a call be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Refusal {
    /// The program's own filter, and it died.
    Filter,
    /// A person who was asked.
    Person,
}

impl SeenCall {
    /// The number, if it is one of x86-64.
    #[must_use]
    pub fn native(&self) -> Option<SyscallNr> {
        let number = u32::try_from(self.number).ok().filter(|_| self.architecture.is_native())?;
        Some(SyscallNr(number))
    }
}

/// A trace that was read.
#[derive(Clone, Debug)]
pub struct Trace {
    /// Where it was read from.
    pub path: PathBuf,
    /// What was traced.
    pub header: Header,
    /// By number.
    pub images: BTreeMap<usize, Image>,
    /// By number.
    pub calls: BTreeMap<usize, SeenCall>,
    /// How often, and whether more often.
    pub counts: BTreeMap<usize, (u64, bool)>,
    /// What was not seen.
    pub gaps: Vec<String>,
    /// Whether it has its end.
    pub is_complete: bool,
}

impl Trace {
    /// Reads a trace.
    ///
    /// # Errors
    ///
    /// It is none, is too large, is of another version, or has a broken line before its last one.
    pub fn read(path: &Path, limits: &Limits) -> Result<Self, Error> {
        let length = std::fs::metadata(path).map_or(0, |metadata| metadata.len().saturating_add(1));
        // A pipe is as good as a file: a shell makes one of `<(command)`.
        let bytes =
            File::open(path).and_then(|file| read_all(file, length, LimitName::FileSize, "bytes of the trace", limits));
        let bytes = bytes.map_err(|source| Error::Read { path: path.to_owned(), source })?;
        Self::parse(path, &bytes)
    }

    fn parse(path: &Path, bytes: &[u8]) -> Result<Self, Error> {
        let wrong = |what: String| Error::NotATrace { path: path.to_owned(), what };
        let mut lines = bytes.split_inclusive(|byte| *byte == b'\n').enumerate().peekable();
        let first = lines.next().map_or(&[][..], |(_, line)| line);
        let header = match serde_json::from_slice::<serde_json::Value>(first) {
            Ok(value) if value.get("kind").is_some_and(|kind| kind == "header") => value,
            _ => return Err(wrong("the first line is not that of a trace".to_owned())),
        };
        let format = header.get("format").and_then(serde_json::Value::as_u64);
        if format != Some(u64::from(TRACE_FORMAT)) {
            let found = format.map_or_else(|| "none".to_owned(), |format| format.to_string());
            return Err(wrong(format!("format {found}, expected {TRACE_FORMAT}")));
        }
        let Ok(Record::Header(header)) = serde_json::from_value(header) else {
            return Err(wrong("the first line lacks fields".to_owned()));
        };
        let mut trace = Self {
            path: path.to_owned(),
            header,
            images: BTreeMap::new(),
            calls: BTreeMap::new(),
            counts: BTreeMap::new(),
            gaps: Vec::new(),
            is_complete: false,
        };
        while let Some((index, line)) = lines.next() {
            match serde_json::from_slice(line) {
                Ok(record) if line.ends_with(b"\n") => trace.take(record),
                _ if lines.peek().is_none() => trace.is_complete = false,
                Ok(_) => {}
                Err(error) => return Err(wrong(format!("line {}: {error}", index.saturating_add(1)))),
            }
        }
        Ok(trace)
    }

    fn take(&mut self, record: Record) {
        match record {
            Record::Image(image) => drop(self.images.insert(image.id, image)),
            Record::Call(call) => drop(self.calls.insert(call.id, call)),
            Record::Count { call, count, at_least } => drop(self.counts.insert(call, (count, at_least))),
            Record::Gap { text } => self.gaps.push(text),
            Record::End { .. } => self.is_complete = true,
            Record::Header(_) | Record::Arguments { .. } | Record::Path { .. } => {}
        }
    }

    /// The images that are a program, and whatever was executed below them, with whether it is the program itself at
    /// the top: its calls before the entry point run without its filter.
    #[must_use]
    pub fn images_of(&self, is_program: &dyn Fn(&Image) -> bool) -> BTreeMap<usize, bool> {
        let mut found: BTreeMap<usize, bool> = BTreeMap::new();
        // A parent has a smaller number than what it executes.
        for (id, image) in &self.images {
            if image.parent.is_some_and(|parent| found.contains_key(&parent)) {
                found.insert(*id, false);
            } else if is_program(image) {
                found.insert(*id, true);
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = r#"{"kind":"header","format":1,"tool":"t","command":["a"]}"#;
    const CALL: &str = r#"{"kind":"arguments","call":0,"values":[[1,2]]}"#;
    const GAP: &str = r#"{"kind":"gap","text":"x"}"#;
    const END: &str = r#"{"kind":"end","status":0}"#;

    fn parse(text: &str) -> Result<Trace, Error> {
        Trace::parse(Path::new("t"), text.as_bytes())
    }

    /// Cut at every byte: what stands in whole lines is there, and nothing else changes.
    #[test]
    fn whole_lines_of_a_trace_that_was_cut_off_count() {
        let text = format!("{HEADER}\n{GAP}\n{GAP}\n{CALL}\n{END}\n");
        for length in 0..=text.len() {
            let cut = &text[..length];
            let lines = cut.matches('\n').count();
            match parse(cut) {
                Ok(trace) => {
                    assert_eq!(trace.gaps.len(), lines.saturating_sub(1).min(2), "{cut:?}");
                    assert_eq!(trace.is_complete, length == text.len(), "{cut:?}");
                }
                Err(_) => assert!(length < HEADER.len(), "{cut:?}"),
            }
        }
    }

    #[test]
    fn other_files_are_refused_with_a_reason() {
        let cases = [
            ("", "the first line is not that of a trace"),
            ("{}\n", "the first line is not that of a trace"),
            (r#"{"kind":"header","format":2}"#, "format 2, expected 1"),
            (r#"{"kind":"header","format":1}"#, "the first line lacks fields"),
        ];
        for (text, expected) in cases {
            assert!(parse(text).unwrap_err().to_string().contains(expected), "{text}");
        }
        let broken = parse(&format!("{HEADER}\n???\n{END}\n")).unwrap_err().to_string();
        assert!(broken.contains("line 2"), "{broken}");
    }
}
