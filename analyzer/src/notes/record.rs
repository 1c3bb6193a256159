//! The bytes of notes.
//!
//! Input: a section. Output: one note after the other. Each is an ELF note (gABI chapter 5): sizes of name and
//! descriptor, kind, `Chestnut`, then the descriptor: version and machine, 16 bits each, and what the kind has. Text
//! ends with a zero byte, a list of texts with an empty one.

use super::{Caller, FunctionNote, Handed, ModuleNote, Problem, SeenFunction, SyscallNote, VERSION, VariableNote};
use crate::address::Vaddr;

pub(super) const KIND_FUNCTION: u32 = 1;
pub(super) const KIND_VARIABLE: u32 = 2;
pub(super) const KIND_MODULE: u32 = 3;

const NAME: &[u8; 9] = b"Chestnut\0";
/// `EM_X86_64`.
const MACHINE: u16 = 62;
const IS_LOCAL: u8 = 1;
const IS_WEAK: u8 = 2;
const IS_OPAQUE: u8 = 4;

/// Reads a section note by note.
pub(super) struct Reader<'data> {
    rest: &'data [u8],
    offset: usize,
}

/// The descriptor of a note.
pub(super) struct Note<'data> {
    rest: &'data [u8],
    offset: usize,
}

impl<'data> Reader<'data> {
    pub(super) const fn new(bytes: &'data [u8]) -> Self {
        Self { rest: bytes, offset: 0 }
    }

    /// The next note with its kind; `None` at the end. Linkers fill up with zeros between notes.
    pub(super) fn next_note(&mut self) -> Result<Option<(u32, Note<'data>)>, Problem> {
        while let Some(rest) = self.rest.strip_prefix(&[0; 4]) {
            self.rest = rest;
            self.offset = self.offset.saturating_add(4);
        }
        if self.rest.iter().all(|&byte| byte == 0) {
            return Ok(None);
        }
        let offset = self.offset;
        let Some((kind, name, descriptor, length)) = split(self.rest) else { return Err(Problem::Cut { offset }) };
        if name != NAME {
            return Err(Problem::Foreign { offset });
        }
        self.rest = self.rest.get(length..).unwrap_or_default();
        self.offset = self.offset.saturating_add(length);
        let mut note = Note { rest: descriptor, offset };
        let (version, machine) = (u16::from_le_bytes(note.take()?), u16::from_le_bytes(note.take()?));
        if version != VERSION {
            return Err(Problem::Version { offset, found: version });
        }
        if machine != MACHINE {
            return Err(Problem::Machine { offset, found: machine });
        }
        Ok(Some((kind, note)))
    }
}

/// Kind, name, descriptor and length with padding of the first note.
fn split(bytes: &[u8]) -> Option<(u32, &[u8], &[u8], usize)> {
    let (words, _) = bytes.as_chunks::<4>();
    let [name_size, size, kind] = words.first_chunk()?.map(u32::from_le_bytes);
    let (name_size, size) = (usize::try_from(name_size).ok()?, usize::try_from(size).ok()?);
    let at = 12_usize.checked_add(name_size)?.checked_next_multiple_of(4)?;
    let end = at.checked_add(size)?;
    let name = bytes.get(12..)?.get(..name_size)?;
    Some((kind, name, bytes.get(at..end)?, end.checked_next_multiple_of(4)?))
}

impl Note<'_> {
    /// Where the note stands in its section.
    pub(super) const fn offset(&self) -> usize {
        self.offset
    }

    const fn cut(&self) -> Problem {
        Problem::Cut { offset: self.offset }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], Problem> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(self.cut())?;
        self.rest = rest;
        Ok(*taken)
    }

    fn number(&mut self) -> Result<u64, Problem> {
        self.take().map(u64::from_le_bytes)
    }

    fn text(&mut self) -> Result<String, Problem> {
        let end = self.rest.iter().position(|&byte| byte == 0).ok_or(self.cut())?;
        let (text, rest) = self.rest.split_at_checked(end).ok_or(self.cut())?;
        self.rest = rest.get(1..).unwrap_or_default();
        Ok(String::from_utf8_lossy(text).into_owned())
    }

    fn list(&mut self) -> Result<Vec<String>, Problem> {
        let mut list = Vec::new();
        loop {
            let text = self.text()?;
            if text.is_empty() {
                return Ok(list);
            }
            list.push(text);
        }
    }

    /// A list each of whose texts has a form.
    fn parsed<T>(&mut self, parse: impl Fn(&str) -> Option<T>) -> Result<Vec<T>, Problem> {
        self.list()?.iter().map(|text| parse(text).ok_or(self.cut())).collect()
    }

    pub(super) fn function(&mut self) -> Result<FunctionNote, Problem> {
        let address = Vaddr(self.number()?);
        let [flags] = self.take()?;
        Ok(FunctionNote {
            address,
            is_local: flags & IS_LOCAL != 0,
            is_weak: flags & IS_WEAK != 0,
            is_opaque: flags & IS_OPAQUE != 0,
            name: self.text()?,
            kind: self.text()?,
            aliases: self.list()?,
            resolves: self.list()?,
            called: self.list()?,
            indirect: self.list()?,
            taken: self.list()?,
            handed: self.parsed(handed)?,
            syscalls: self.parsed(syscall)?,
        })
    }

    pub(super) fn variable(&mut self) -> Result<VariableNote, Problem> {
        let address = Vaddr(self.number()?);
        let [_flags] = self.take()?;
        Ok(VariableNote { address, size: self.number()?, name: self.text()?, taken: self.list()? })
    }

    pub(super) fn module(&mut self) -> Result<ModuleNote, Problem> {
        Ok(ModuleNote {
            source: self.text()?,
            seen: self.parsed(seen)?,
            united: self.parsed(|text| text.split_once('\t').map(|(one, other)| (one.to_owned(), other.to_owned())))?,
            from_data: self.list()?,
            to_data: self.list()?,
            callers: self.parsed(caller)?,
        })
    }
}

fn handed(text: &str) -> Option<Handed> {
    let mut parts = text.splitn(3, '\t');
    let (callee, parameter, kind) = (parts.next()?, parts.next()?, parts.next()?);
    Some(Handed { callee: callee.to_owned(), parameter: parameter.parse().ok()?, kind: kind.to_owned() })
}

fn syscall(text: &str) -> Option<SyscallNote> {
    let (how, values) = text.split_once(' ')?;
    let is_instruction = match how {
        "instruction" => true,
        "function" => false,
        _ => return None,
    };
    let value = |word: &str| if word == "?" { Some(None) } else { word.parse().ok().map(Some) };
    Some(SyscallNote { is_instruction, values: values.split(' ').map(value).collect::<Option<_>>()? })
}

fn caller(text: &str) -> Option<Caller> {
    let (name, kinds) = text.split_once('\t')?;
    Some(Caller { name: name.to_owned(), kinds: kinds.split('\t').map(str::to_owned).collect() })
}

fn seen(text: &str) -> Option<SeenFunction> {
    let (name, kinds) = text.split_once('\t')?;
    let has = |mark| kinds.split('\t').any(|kind| kind == mark);
    let (is_data, is_number) = (has("*"), has("#"));
    let kinds = kinds.split('\t').filter(|kind| !matches!(*kind, "*" | "#")).map(str::to_owned).collect();
    Some(SeenFunction { name: name.to_owned(), kinds, is_data, is_number })
}
