//! One ELF file as the analysis sees it.
//!
//! Input: the bytes of a file. Output: [`Image`]; what it returns is either checked (segments, dynamic section,
//! symbols, relocations: an image with damaged ones does not exist), or a hint (whatever rests on section headers), or
//! carries its own error (frame descriptions). Parts that not every caller needs are read at first use.

use std::ops::Range;
use std::path::Path;
use std::sync::OnceLock;

use object::LittleEndian as LE;
use object::elf;

use super::dynamic::Dynamic;
use super::error::ImageError;
use super::frame::{FrameDescription, FrameError, FrameTable};
use super::go_table::GoTable;
use super::go_type::GoMethods;
use super::hint::{FunctionHint, Hints, ObjectHint};
use super::landing_pad::{self, LandingPad, LandingPadError};
use super::outline::Outline;
use super::relocation::{self, Relocation};
use super::section::{self, Section};
use super::segment::Segment;
use super::symbol::{self, Symbol};
use super::tls::{self, TlsImage};
use super::{static_relocation, symbol_count};
use crate::address::Vaddr;
use crate::limits::Limits;

/// Longest text that is read from memory, in bytes with its NUL: `PATH_MAX` of the kernel. Languages whose texts do not
/// end in NUL have megabytes without one.
const LONGEST_TEXT: usize = 4096;

/// A validated ELF file: 64 bits, little endian, x86-64, `ET_EXEC` or `ET_DYN`.
#[derive(Debug)]
pub struct Image<'data> {
    outline: Outline<'data>,
    limits: Limits,
    symbols: Vec<Symbol<'data>>,
    relocations: Vec<Relocation>,
    tls: Option<TlsImage>,
    sections: OnceLock<Vec<Section<'data>>>,
    code_sections: OnceLock<Vec<Range<Vaddr>>>,
    hints: OnceLock<Hints<'data>>,
    frames: OnceLock<FrameTable>,
    go_table: OnceLock<Option<GoTable<'data>>>,
    go_methods: OnceLock<GoMethods>,
}

impl<'data> Image<'data> {
    /// Reads and checks a file.
    ///
    /// # Errors
    ///
    /// The first rule of the format that the bytes break, with the place and what was expected there.
    pub fn parse(data: &'data [u8]) -> Result<Self, ImageError> {
        Self::from_outline(Outline::parse(data)?)
    }

    /// Reads and checks symbols and relocations of a file whose outline is known already.
    ///
    /// # Errors
    ///
    /// As [`Self::parse`].
    pub fn from_outline(outline: Outline<'data>) -> Result<Self, ImageError> {
        let space = &outline.space;
        let relocations = if outline.dynamic().is_some() {
            relocation::parse(space, &outline.tags)?
        } else {
            static_relocation::find(space)
        };
        let count = symbol_count::count(space, &outline.tags, relocation::highest_symbol(&relocations))?;
        let symbols = symbol::parse(space, &outline.tags, &outline.strings, count)?;
        let tls = tls::parse(space, &outline.header)?;
        Ok(Self {
            outline,
            limits: Limits::default(),
            symbols,
            relocations,
            tls,
            sections: OnceLock::new(),
            code_sections: OnceLock::new(),
            hints: OnceLock::new(),
            frames: OnceLock::new(),
            go_table: OnceLock::new(),
            go_methods: OnceLock::new(),
        })
    }

    /// The same with other limits of what is looked for in it.
    #[must_use]
    pub fn limited(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// The limits of what is looked for in it.
    #[must_use]
    pub const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// All bytes of the file.
    #[must_use]
    pub const fn data(&self) -> &'data [u8] {
        self.outline.data
    }

    /// How many bytes the file has.
    #[must_use]
    pub fn size(&self) -> u64 {
        u64::try_from(self.data().len()).unwrap_or(u64::MAX)
    }

    /// `e_entry`; `None` if it is zero.
    #[must_use]
    pub fn entry(&self) -> Option<Vaddr> {
        Some(self.outline.header.entry).filter(|entry| *entry != Vaddr(0))
    }

    /// Whether the loader chooses where it stands (`ET_DYN`).
    #[must_use]
    pub const fn is_position_independent(&self) -> bool {
        self.outline.header.is_position_independent
    }

    /// `PT_INTERP`.
    #[must_use]
    pub const fn interpreter(&self) -> Option<&'data Path> {
        self.outline.interpreter()
    }

    /// The LOADs, ascending and disjoint; at least one.
    #[must_use]
    pub fn segments(&self) -> &[Segment] {
        self.outline.space.segments()
    }

    /// The LOAD that has `at` in memory.
    #[must_use]
    pub fn segment_at(&self, at: Vaddr) -> Option<&Segment> {
        self.outline.space.segment_at(at)
    }

    /// The file's bytes from `at` to the end of its segment's file part; never empty.
    #[must_use]
    pub fn bytes_from(&self, at: Vaddr) -> Option<&'data [u8]> {
        self.outline.space.bytes_from(at)
    }

    /// `length` bytes at `at`, if all of them stand in the file.
    #[must_use]
    pub fn bytes(&self, at: Vaddr, length: u64) -> Option<&'data [u8]> {
        self.outline.space.bytes(at, length)
    }

    /// The 8 bytes at `at` as a number.
    #[must_use]
    pub fn read_u64(&self, at: Vaddr) -> Option<u64> {
        self.outline.space.array(at).map(u64::from_le_bytes)
    }

    /// The 4 bytes at `at` as a number.
    #[must_use]
    pub fn read_u32(&self, at: Vaddr) -> Option<u32> {
        self.outline.space.array(at).map(u32::from_le_bytes)
    }

    /// The 4 bytes at `at` as a signed number: the form of jump table entries.
    #[must_use]
    pub fn read_i32(&self, at: Vaddr) -> Option<i32> {
        self.outline.space.array(at).map(i32::from_le_bytes)
    }

    /// The bytes at `at` up to a NUL, without it; `None` if there is none within `LONGEST_TEXT`.
    #[must_use]
    pub fn c_string(&self, at: Vaddr) -> Option<&'data [u8]> {
        self.c_string_within(at, LONGEST_TEXT)
    }

    /// The same, if it is no longer than `longest` bytes.
    #[must_use]
    pub fn c_string_within(&self, at: Vaddr, longest: usize) -> Option<&'data [u8]> {
        let bytes = self.bytes_from(at)?;
        let bytes = bytes.get(..=longest).unwrap_or(bytes);
        std::ffi::CStr::from_bytes_until_nul(bytes).ok().map(std::ffi::CStr::to_bytes)
    }

    /// Whether `at` lies in an executable LOAD.
    #[must_use]
    pub fn is_code(&self, at: Vaddr) -> bool {
        self.segment_at(at).is_some_and(Segment::is_executable)
    }

    /// Whether `at` lies in a LOAD that is not executable (zeros behind the file part included).
    #[must_use]
    pub fn is_data(&self, at: Vaddr) -> bool {
        self.segment_at(at).is_some_and(|segment| !segment.is_executable())
    }

    /// The dynamic section; `None` in a static executable.
    #[must_use]
    pub const fn dynamic(&self) -> Option<&Dynamic<'data>> {
        self.outline.dynamic()
    }

    /// The dynamic symbol table in table order, entry 0 included: an index of the file is an index here.
    #[must_use]
    pub fn symbols(&self) -> &[Symbol<'data>] {
        &self.symbols
    }

    /// Where the dynamic symbol table stands.
    #[must_use]
    pub fn symbol_table(&self) -> Option<Range<Vaddr>> {
        let start = Vaddr(self.outline.tags.symtab?);
        let size = u64::try_from(self.symbols.len()).ok()?.checked_mul(symbol::ENTRY_SIZE)?;
        Some(start..start.checked_add(size)?)
    }

    /// Whether `at` lies in the dynamic string table, whose names are there for the loader.
    #[must_use]
    pub fn is_in_string_table(&self, at: Vaddr) -> bool {
        let (start, size) = (self.outline.tags.strtab.map(Vaddr), self.outline.tags.strsz);
        let offset = start.and_then(|start| at.checked_offset_from(start));
        offset.zip(size).is_some_and(|(offset, size)| offset < size)
    }

    /// All relocations, sorted by slot.
    #[must_use]
    pub fn relocations(&self) -> &[Relocation] {
        &self.relocations
    }

    /// The relocations whose slots are in `range`.
    #[must_use]
    pub fn relocations_in(&self, range: Range<Vaddr>) -> &[Relocation] {
        let start = self.relocations.partition_point(|relocation| relocation.slot < range.start);
        let end = self.relocations.partition_point(|relocation| relocation.slot < range.end);
        self.relocations.get(start..end).unwrap_or_default()
    }

    /// `NT_GNU_BUILD_ID`.
    #[must_use]
    pub fn build_id(&self) -> Option<&'data [u8]> {
        self.outline.build_id()
    }

    /// `PT_TLS`.
    #[must_use]
    pub const fn tls(&self) -> Option<TlsImage> {
        self.tls
    }

    /// Functions of both symbol tables, sorted by address: for names and bounds only.
    #[must_use]
    pub fn function_hints(&self) -> &[FunctionHint<'data>] {
        &self.hints().functions
    }

    /// Data objects of both symbol tables, sorted by address: for names and bounds only.
    #[must_use]
    pub fn object_hints(&self) -> &[ObjectHint<'data>] {
        &self.hints().objects
    }

    /// Addresses of the first loaded section with this name: a hint.
    #[must_use]
    pub fn section_named(&self, name: &str) -> Option<Range<Vaddr>> {
        let mut named = self.sections().iter().filter(|section| section.name == name.as_bytes());
        named.find_map(Section::addresses)
    }

    /// Frame descriptions, sorted by start. Ask [`Self::frame_error`] whether these are all.
    #[must_use]
    pub fn frame_descriptions(&self) -> &[FrameDescription] {
        &self.frames().descriptions
    }

    /// The last frame description that starts at `at` or before.
    #[must_use]
    pub fn frame_before(&self, at: Vaddr) -> Option<&FrameDescription> {
        let frames = self.frame_descriptions();
        frames.get(frames.partition_point(|frame| frame.start <= at).checked_sub(1)?)
    }

    /// Why [`Self::frame_descriptions`] may lack some.
    #[must_use]
    pub fn frame_error(&self) -> Option<&FrameError> {
        self.frames().error.as_ref()
    }

    /// Go's function table; `None` in a file that has no Go in it.
    #[must_use]
    pub fn go_table(&self) -> Option<&GoTable<'data>> {
        self.go_table.get_or_init(|| GoTable::find(&self.outline.space, &self.relocations)).as_ref()
    }

    /// Says that there is none, where that is known of the same bytes: nobody has to look through all of them.
    pub(crate) fn has_no_go_table(&self) {
        let _ = self.go_table.set(None);
    }

    /// The methods that Go's type descriptions name.
    #[must_use]
    pub fn go_methods(&self) -> &GoMethods {
        let find = |table| GoMethods::find(&self.outline.space, table, &self.limits);
        self.go_methods.get_or_init(|| self.go_table().map(find).unwrap_or_default())
    }

    /// Where exceptions enter the description that starts at `function_start` and has its LSDA at `lsda`; ascending.
    ///
    /// # Errors
    ///
    /// The table cannot be read, or names an address that is not code.
    pub fn landing_pads(&self, lsda: Vaddr, function_start: Vaddr) -> Result<Vec<LandingPad>, LandingPadError> {
        landing_pad::landing_pads(&self.outline.space, lsda, function_start)
    }

    /// How many bytes [`Self::landing_pads`] reads, by what the table itself says.
    #[must_use]
    pub fn landing_pad_bytes(&self, lsda: Vaddr) -> u64 {
        landing_pad::length(&self.outline.space, lsda)
    }

    /// Where section headers say that code is, sorted, and without overlaps.
    pub(super) fn code_sections(&self) -> &[Range<Vaddr>] {
        self.code_sections.get_or_init(|| section::code(self.sections()))
    }

    pub(super) const fn program_headers(&self) -> &'data [elf::ProgramHeader64<LE>] {
        self.outline.header.program_headers
    }

    pub(super) fn sections(&self) -> &[Section<'data>] {
        self.sections.get_or_init(|| section::sections(self.outline.data, self.outline.header.section_headers))
    }

    fn hints(&self) -> &Hints<'data> {
        self.hints.get_or_init(|| {
            let go = self.go_table().map_or(&[][..], |table| &table.functions);
            Hints::collect(self.outline.data, &self.outline.space, self.tls, self.sections(), &self.symbols, go)
        })
    }

    fn frames(&self) -> &FrameTable {
        self.frames.get_or_init(|| {
            let mut headers = self.outline.header.program_headers.iter();
            let header = headers.find(|entry| entry.p_type.get(LE) == elf::PT_GNU_EH_FRAME);
            let header_at = header.map(|entry| Vaddr(entry.p_vaddr.get(LE)));
            let section = self.section_named(".eh_frame");
            let section = section.and_then(|at| at.end.checked_offset_from(at.start).map(|size| (at.start, size)));
            FrameTable::parse(&self.outline.space, header_at, section)
        })
    }
}
