//! `.note.chestnut`: what a patched file says about itself.
//!
//! Input: [`Policy`] and the bytes of the old file that are overwritten. Output: one ELF note (gABI, "Note Section") of
//! owner `Chestnut` and type 1, and back. Its descriptor, all numbers little-endian:
//!
//! ```text
//! u32       version of this form
//! u64       length of the old file
//! [u8; 32]  SHA-256 of the old file
//! u32       length of the packed text when unpacked
//! u32       number of files F
//! F × [u8; 8]  first bytes of the build-id of a file, or of its SHA-256: the program, then the libraries in load order,
//!              then the programs that it executes
//! ...       packed (raw deflate): JSON text ([`Body`]), then the bytes of the old file in the order of its `undo` list
//! ```
//! The first bytes of a digest do not pack, so they stand apart; all the rest packs well, which keeps a program with
//! two hundred libraries within a few KiB. Of more files than there is room for, the last ones share one digest
//! ([`Rest`]). The allowed calls are not here: the filter says them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use chestnut_analyzer::path_text;
use chestnut_analyzer::policy::{Assumption, FileIdentity, Policy, hexadecimal};
use chestnut_analyzer::syscall::SyscallNr;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::bpf::{Action, Filter};
use crate::elf::{align_up, slice};
use crate::error::Error;
use crate::executable::length_of;
use crate::made_with::MadeWith;
use crate::patch::Stretch;

const OWNER: &[u8] = b"Chestnut\0";
const NOTE_TYPE: u32 = 1;
const RECORD_VERSION: u32 = 1;

/// Deflate level: the best; the text is short.
const LEVEL: u8 = 10;

/// Longest unpacked text that is believed.
const LONGEST_TEXT: usize = 16 << 20;

/// Longest text of all recorded assumptions together; a policy file has them all.
const ASSUMPTION_BUDGET: usize = 1536;

/// Which bytes identify a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DigestKind {
    /// `NT_GNU_BUILD_ID`.
    #[serde(rename = "b")]
    BuildId,
    /// SHA-256 of the file.
    #[serde(rename = "s")]
    Sha256,
}

/// A file that the analysis has read, as far as a patched file remembers it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RecordedFile {
    /// Path at the time.
    #[serde(with = "path_text")]
    pub path: PathBuf,
    /// What the digest is of.
    pub kind: DigestKind,
    /// The digest's first eight bytes, in hexadecimal digits.
    pub digest: String,
}

impl RecordedFile {
    /// Whether a file is this one, as far as the recorded digest tells.
    #[must_use]
    pub fn is(&self, file: &FileIdentity) -> bool {
        let (_, kind, digest) = identity(file);
        kind == self.kind && hexadecimal(&digest) == self.digest
    }
}

/// Files for which there is no room in the record, one by one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rest {
    /// How many.
    pub count: usize,
    /// The first eight bytes of the SHA-256 of what identifies them, in hexadecimal digits.
    pub digest: String,
}

impl Rest {
    /// These files, in whatever order; `None` if there is none.
    pub fn of<'file>(files: impl IntoIterator<Item = &'file FileIdentity>) -> Option<Self> {
        let files: BTreeMap<&Path, &FileIdentity> = files.into_iter().map(|file| (file.path.as_path(), file)).collect();
        let mut text = Vec::new();
        for (path, file) in &files {
            let (_, kind, digest) = identity(file);
            text.extend(path.as_os_str().as_encoded_bytes());
            text.extend([0, u8::from(kind == DigestKind::BuildId)]);
            text.extend(digest);
        }
        let digest = hexadecimal(sha256(&text).first_chunk::<8>()?);
        (!files.is_empty()).then_some(Self { count: files.len(), digest })
    }
}

/// What the packed text says. Short names: it is in every patched file.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Body {
    tool: String,
    action: Action,
    ceiling: SyscallNr,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    failing: BTreeMap<SyscallNr, u16>,
    /// Paths as [`path_text`] has them.
    files: Vec<(String, DigestKind)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rest: Option<Rest>,
    assumptions: Vec<String>,
    /// How many more assumptions there were.
    more: usize,
    /// How many unresolved sites were let pass.
    unresolved: usize,
    #[serde(default)]
    made_with: MadeWith,
    undo: Vec<Stretch>,
}

/// The record of a patched file.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) tool: String,
    pub(crate) action: Action,
    pub(crate) ceiling: SyscallNr,
    pub(crate) failing: BTreeMap<SyscallNr, u16>,
    pub(crate) files: Vec<RecordedFile>,
    pub(crate) rest: Option<Rest>,
    pub(crate) assumptions: Vec<String>,
    pub(crate) more_assumptions: usize,
    pub(crate) unresolved: usize,
    pub(crate) made_with: MadeWith,
    pub(crate) old_length: u64,
    pub(crate) old_sha256: [u8; 32],
    /// Bytes of the old file.
    pub(crate) undo: Vec<(u64, Vec<u8>)>,
}

/// Makes the note: with all files if it is no longer than `room` then, else with as many of the first ones as there is
/// room for. It always has the program, and what is needed to get the old file back.
pub(crate) fn encode(
    policy: &Policy,
    filter: &Filter,
    made_with: &MadeWith,
    old: &[u8],
    undo: &[Stretch],
    room: u64,
) -> Result<Vec<u8>, Error> {
    let specification = filter.specification();
    let (assumptions, more) = shorten(&policy.assumptions);
    let mut body = Body {
        tool: format!("chestnut {}", env!("CARGO_PKG_VERSION")),
        action: specification.action(),
        ceiling: specification.ceiling(),
        failing: specification.failing().clone(),
        files: Vec::new(),
        rest: None,
        assumptions,
        more,
        unresolved: policy.unresolved.len(),
        made_with: made_with.clone(),
        undo: undo.to_vec(),
    };
    let files: Vec<_> = std::iter::once(&policy.program).chain(&policy.libraries).chain(&policy.executed).collect();
    let all = encode_files(&mut body, &files, files.len(), old)?;
    if length_of(&all) <= room {
        return Ok(all);
    }
    // So many fit, or it is the program alone; so many do not.
    let (mut few, mut many) = (1_usize, files.len());
    while few.saturating_add(1) < many {
        let middle = few.midpoint(many);
        let fits = length_of(&encode_files(&mut body, &files, middle, old)?) <= room;
        *(if fits { &mut few } else { &mut many }) = middle;
    }
    encode_files(&mut body, &files, few, old)
}

/// The note with the first files.
fn encode_files(body: &mut Body, files: &[&FileIdentity], count: usize, old: &[u8]) -> Result<Vec<u8>, Error> {
    let long = || Error::Record { what: "too long" };
    let (files, rest) = files.split_at_checked(count).unwrap_or((files, &[]));
    let paths: BTreeSet<&Path> = files.iter().map(|file| file.path.as_path()).collect();
    body.rest = Rest::of(rest.iter().copied().filter(|file| !paths.contains(file.path.as_path())));
    let files: Vec<_> = files.iter().map(|file| identity(file)).collect();
    body.files = files.iter().map(|(path, kind, _)| (path_text::text(path).into_owned(), *kind)).collect();
    let mut text = serde_json::to_vec(body).map_err(|_| Error::Record { what: "no JSON" })?;
    for (offset, length) in &body.undo {
        text.extend(slice(old, *offset, *length).ok_or_else(long)?);
    }
    let mut descriptor = RECORD_VERSION.to_le_bytes().to_vec();
    descriptor.extend(length_of(old).to_le_bytes());
    descriptor.extend(sha256(old));
    descriptor.extend(u32::try_from(text.len()).map_err(|_| long())?.to_le_bytes());
    descriptor.extend(u32::try_from(files.len()).map_err(|_| long())?.to_le_bytes());
    descriptor.extend(files.iter().flat_map(|(_, _, digest)| digest));
    descriptor.extend(miniz_oxide::deflate::compress_to_vec(&text, LEVEL));
    let mut note = u32::try_from(OWNER.len()).map_err(|_| long())?.to_le_bytes().to_vec();
    note.extend(u32::try_from(descriptor.len()).map_err(|_| long())?.to_le_bytes());
    note.extend(NOTE_TYPE.to_le_bytes());
    note.extend(OWNER);
    note.resize(note.len().next_multiple_of(4), 0);
    note.extend(descriptor);
    note.resize(note.len().next_multiple_of(4), 0);
    Ok(note)
}

/// SHA-256 of some bytes.
#[must_use]
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

fn identity(file: &FileIdentity) -> (&Path, DigestKind, [u8; 8]) {
    let (kind, digits) = match &file.build_id {
        Some(build_id) => (DigestKind::BuildId, build_id),
        None => (DigestKind::Sha256, &file.sha256),
    };
    let mut digest = [0; 8];
    for (byte, pair) in digest.iter_mut().zip(digits.as_bytes().as_chunks::<2>().0) {
        let pair = str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok());
        *byte = pair.unwrap_or(0);
    }
    (&file.path, kind, digest)
}

/// The first assumptions, each once, and the number of those left out.
fn shorten(assumptions: &[Assumption]) -> (Vec<String>, usize) {
    let mut kept: Vec<String> = Vec::new();
    let mut length: usize = 0;
    let mut more: usize = 0;
    for text in assumptions.iter().map(|assumption| &assumption.text) {
        if kept.contains(text) {
            continue;
        }
        length = length.saturating_add(text.len());
        if length > ASSUMPTION_BUDGET {
            more = more.saturating_add(1);
        } else {
            kept.push(text.clone());
        }
    }
    (kept, more)
}

/// Takes bytes from the front.
struct Cursor<'data>(&'data [u8]);

impl<'data> Cursor<'data> {
    fn take(&mut self, length: usize) -> Option<&'data [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const LENGTH: usize>(&mut self) -> Option<[u8; LENGTH]> {
        self.take(LENGTH)?.try_into().ok()
    }

    fn number(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }
}

/// Reads the note back.
pub(crate) fn decode(note: &[u8]) -> Result<Record, Error> {
    let damaged = |what| move || Error::Record { what };
    let mut descriptor = Cursor(descriptor(note).ok_or_else(damaged("not a note of Chestnut's"))?);
    if descriptor.number() != Some(RECORD_VERSION) {
        return Err(Error::Record { what: "written by another version" });
    }
    read_descriptor(&mut descriptor).ok_or_else(damaged("unreadable"))
}

fn descriptor(note: &[u8]) -> Option<&[u8]> {
    let mut cursor = Cursor(note);
    let (name, length, note_type) = (cursor.number()?, cursor.number()?, cursor.number()?);
    let owner = cursor.take(usize::try_from(align_up(u64::from(name), 4)?).ok()?)?;
    let good = owner.starts_with(OWNER) && note_type == NOTE_TYPE;
    cursor.take(usize::try_from(length).ok()?).filter(|_| good)
}

fn read_descriptor(cursor: &mut Cursor<'_>) -> Option<Record> {
    let old_length = u64::from_le_bytes(cursor.array()?);
    let old_sha256 = cursor.array()?;
    let text_length = usize::try_from(cursor.number()?).ok().filter(|length| *length <= LONGEST_TEXT)?;
    let count = usize::try_from(cursor.number()?).ok()?;
    let (digests, _) = cursor.take(count.checked_mul(8)?)?.as_chunks::<8>();
    let text = miniz_oxide::inflate::decompress_to_vec_with_limit(cursor.0, text_length).ok()?;
    let mut values = serde_json::Deserializer::from_slice(&text).into_iter::<Body>();
    let body = values.next()?.ok()?;
    let mut rest = Cursor(text.get(values.byte_offset()..)?);
    let files = body.files.into_iter().zip(digests).map(|((path, kind), digest)| RecordedFile {
        path: path_text::path(&path),
        kind,
        digest: hexadecimal(digest),
    });
    let undo = body.undo.into_iter().map(|(offset, length)| {
        let old = rest.take(usize::try_from(length).ok()?)?;
        Some((offset, old.to_vec()))
    });
    Some(Record {
        tool: body.tool,
        action: body.action,
        ceiling: body.ceiling,
        failing: body.failing,
        files: files.collect(),
        rest: body.rest,
        assumptions: body.assumptions,
        more_assumptions: body.more,
        unresolved: body.unresolved,
        made_with: body.made_with,
        old_length,
        old_sha256,
        undo: undo.collect::<Option<_>>()?,
    })
}
