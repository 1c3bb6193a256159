//! The cheap part of a file: headers, segments, interpreter, dynamic section.
//!
//! Input: the bytes of a file. Output: [`Outline`], which is all that a loader needs in order to find the libraries;
//! [`super::Image`] adds symbols and relocations. Spec: gABI chapter 5.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use object::LittleEndian as LE;
use object::elf;

use super::dynamic::{self, Dynamic};
use super::dynamic_tags::DynamicTags;
use super::error::ImageError;
use super::header::{Header, table};
use super::note;
use super::segment::AddressSpace;
use super::string_table::StringTable;
use crate::address::{FileOffset, Vaddr};

/// The kernel's limit on the length of the interpreter's path, NUL included (`PATH_MAX`).
const PATH_LIMIT: u64 = 4096;

/// A validated ELF file without its symbols and relocations.
#[derive(Clone, Debug)]
pub struct Outline<'data> {
    pub(super) data: &'data [u8],
    pub(super) header: Header<'data>,
    pub(super) space: AddressSpace<'data>,
    pub(super) strings: StringTable<'data>,
    pub(super) tags: DynamicTags,
    interpreter: Option<&'data Path>,
    dynamic: Option<Dynamic<'data>>,
}

impl<'data> Outline<'data> {
    /// Checks header, segments, interpreter and dynamic section.
    ///
    /// # Errors
    ///
    /// The first rule that the bytes break.
    pub fn parse(data: &'data [u8]) -> Result<Self, ImageError> {
        let header = Header::parse(data)?;
        let space = AddressSpace::parse(data, &header)?;
        let interpreter = interpreter(data, &header)?;
        let mut outline = Self {
            data,
            header,
            space,
            strings: StringTable::default(),
            tags: DynamicTags::default(),
            interpreter,
            dynamic: None,
        };
        // ld.so finds the section by address, and takes the last header of the kind, as it does of every kind.
        let entries = header.program_headers.iter();
        let found = entries.rev().find(|entry| entry.p_type.get(LE) == elf::PT_DYNAMIC);
        if let Some(found) = found {
            let (start, size) = (Vaddr(found.p_vaddr.get(LE)), found.p_filesz.get(LE));
            outline.tags = DynamicTags::parse(&outline.space, start, size)?;
            outline.strings = dynamic::string_table(&outline.space, &outline.tags)?;
            outline.dynamic = Some(Dynamic::parse(&outline.space, &outline.tags, &outline.strings)?);
        }
        Ok(outline)
    }

    /// `PT_INTERP`: the path of the program that loads this one.
    #[must_use]
    pub const fn interpreter(&self) -> Option<&'data Path> {
        self.interpreter
    }

    /// The dynamic section; `None` if there is none.
    #[must_use]
    pub const fn dynamic(&self) -> Option<&Dynamic<'data>> {
        self.dynamic.as_ref()
    }

    /// `NT_GNU_BUILD_ID`.
    #[must_use]
    pub fn build_id(&self) -> Option<&'data [u8]> {
        let notes = self.header.program_headers.iter().filter(|entry| entry.p_type.get(LE) == elf::PT_NOTE);
        notes.into_iter().find_map(|entry| {
            let size = usize::try_from(entry.p_filesz.get(LE)).ok()?;
            let bytes = table(self.data, "PT_NOTE", FileOffset(entry.p_offset.get(LE)), size).ok()?;
            note::build_id(bytes, entry.p_align.get(LE))
        })
    }
}

/// The path in the first `PT_INTERP`: that is the one that the kernel takes.
fn interpreter<'data>(data: &'data [u8], header: &Header<'data>) -> Result<Option<&'data Path>, ImageError> {
    let mut entries = header.program_headers.iter();
    let Some(entry) = entries.find(|entry| entry.p_type.get(LE) == elf::PT_INTERP) else { return Ok(None) };
    let (offset, size) = (FileOffset(entry.p_offset.get(LE)), entry.p_filesz.get(LE));
    let refused = ImageError::Interpreter { offset, size };
    if !(2..=PATH_LIMIT).contains(&size) {
        return Err(refused);
    }
    let count = usize::try_from(size).map_err(|_| refused.clone())?;
    let bytes: &[u8] = table(data, "PT_INTERP", offset, count)?;
    // The kernel wants the NUL at the end, and opens what stands before the first one.
    if bytes.last() != Some(&0) {
        return Err(refused);
    }
    let path = bytes.split(|byte| *byte == 0).next().filter(|path| !path.is_empty()).ok_or(refused)?;
    Ok(Some(Path::new(OsStr::from_bytes(path))))
}
