//! An executable that can be rewritten.
//!
//! Input: the bytes of a file. Output: [`Executable`]: its headers, of which everything that the layout relies on has
//! been checked; or the reason why the file is not one for this tool. Program headers rule; section headers may be
//! missing. Follows the gABI, chapters 4 and 5, and what the kernel's `fs/binfmt_elf.c` asks of a program.

use object::LittleEndian as LE;
use object::elf::{
    ELFCLASS64, ELFDATA2LSB, EM_X86_64, ET_CORE, ET_DYN, ET_EXEC, ET_REL, PN_XNUM, PT_DYNAMIC, PT_INTERP, PT_LOAD,
    PT_PHDR, SHN_UNDEF, SHT_STRTAB,
};
use object::pod::from_bytes;

use crate::dynamic::Dynamic;
use crate::elf::{FILE_HEADER_LENGTH, FileHeader, PAGE, SECTION_LENGTH, SEGMENT_LENGTH, Section, Segment, slice};
use crate::error::Error;
use crate::payload;

/// The greatest address of user space, with 4-level paging.
const ADDRESS_LIMIT: u64 = 1 << 47;

/// A validated executable.
#[derive(Clone, Debug)]
pub(crate) struct Executable<'data> {
    pub(crate) bytes: &'data [u8],
    pub(crate) header: FileHeader,
    pub(crate) segments: Vec<Segment>,
    pub(crate) sections: Option<Sections<'data>>,
}

/// The section header table.
#[derive(Clone, Debug)]
pub(crate) struct Sections<'data> {
    pub(crate) headers: Vec<Section>,
    /// Index of the table of section names.
    pub(crate) names_index: usize,
    /// Its contents.
    pub(crate) names: &'data [u8],
}

impl<'data> Executable<'data> {
    /// Reads and checks a file.
    pub(crate) fn parse(bytes: &'data [u8]) -> Result<Self, Error> {
        let executable = Self::parse_headers(bytes)?;
        if payload::find(&executable).is_some() {
            return Err(Error::AlreadyPatched);
        }
        executable.refuse_lost_table()?;
        executable.refuse_packed()?;
        executable.refuse_library()?;
        executable.refuse_trailing_data()?;
        Ok(executable)
    }

    /// Reads and checks the headers only: also for files that this tool has patched.
    pub(crate) fn parse_headers(bytes: &'data [u8]) -> Result<Self, Error> {
        let header = parse_file_header(bytes)?;
        let segments = parse_segments(bytes, &header)?;
        check_segments(bytes, header.e_phoff.get(LE), &segments)?;
        let sections = parse_sections(bytes, &header)?;
        Ok(Self { bytes, header, segments, sections })
    }

    pub(crate) fn entry(&self) -> u64 {
        self.header.e_entry.get(LE)
    }

    /// Whether addresses are final: no loader moves the file.
    pub(crate) fn is_position_dependent(&self) -> bool {
        self.header.e_type.get(LE) == ET_EXEC
    }

    pub(crate) fn loads(&self) -> impl DoubleEndedIterator<Item = &Segment> {
        self.segments.iter().filter(|segment| segment.p_type == PT_LOAD)
    }

    pub(crate) fn has_segment(&self, p_type: object::elf::ProgramType) -> bool {
        self.segments.iter().any(|segment| segment.p_type == p_type)
    }

    /// Offset and end of the program header table.
    pub(crate) fn segment_table(&self) -> (u64, u64) {
        table(self.header.e_phoff.get(LE), self.segments.len(), SEGMENT_LENGTH)
    }

    /// Offset and end of the section header table.
    pub(crate) fn section_table(&self) -> Option<(u64, u64)> {
        let sections = self.sections.as_ref()?;
        Some(table(self.header.e_shoff.get(LE), sections.headers.len(), SECTION_LENGTH))
    }

    /// Every range of the file that a header names, in no order.
    pub(crate) fn named_ranges(&self) -> impl Iterator<Item = (u64, u64)> {
        let segments = self.segments.iter().filter_map(|segment| Some((segment.p_offset, segment.file_end()?)));
        let sections = self.sections.iter().flat_map(|sections| &sections.headers).filter_map(Section::file_range);
        let tables = [Some((0, FILE_HEADER_LENGTH)), Some(self.segment_table()), self.section_table()];
        segments.chain(sections).chain(tables.into_iter().flatten()).filter(|(start, end)| start < end)
    }

    /// Whether nothing of a range of the file is loaded, or is file header, program header table or the interpreter's name:
    /// whether a tool may change it, and nobody will notice who starts the program.
    pub(crate) fn is_aside(&self, (from, to): (u64, u64)) -> bool {
        let read = self.segments.iter().filter(|segment| matches!(segment.p_type, PT_LOAD | PT_INTERP));
        let loads = read.map(|segment| (segment.p_offset, segment.file_end().unwrap_or(u64::MAX)));
        let headers = [(0, FILE_HEADER_LENGTH), self.segment_table()];
        !loads.chain(headers).any(|(start, end)| from < end && start < to)
    }

    /// The loader takes the distance between PT_PHDR's address and where the kernel says that the table is for the one
    /// that the file was moved by (glibc: `rtld.c`); kernels before 5.18 compute that place from the first segment.
    fn refuse_lost_table(&self) -> Result<(), Error> {
        let (start, end) = self.segment_table();
        let bias = self.loads().next().map_or(0, Segment::bias);
        let cover = self.loads().find(|load| load.p_offset <= start && load.file_end() >= Some(end));
        let named = |index: usize, field: &str| format!("{field} of program header {index}");
        if let Some(load) = cover.filter(|load| load.bias() != bias) {
            let found = format!("{:#x} behind the program header table's offset", load.bias());
            return Err(damaged(
                "the address of the program header table",
                found,
                format!("{bias:#x}, as of the first"),
            ));
        }
        let headers = self.segments.iter().enumerate();
        for (index, phdr) in headers.filter(|(_, segment)| segment.p_type == PT_PHDR) {
            let (length, address) = (end.saturating_sub(start), start.wrapping_add(bias));
            if phdr.p_filesz != length {
                return Err(damaged(named(index, "p_filesz"), format!("{:#x}", phdr.p_filesz), format!("{length:#x}")));
            }
            if phdr.p_vaddr != address || cover.is_none() {
                let expected = format!("{address:#x}, in a PT_LOAD");
                return Err(damaged(named(index, "p_vaddr"), format!("{:#x}", phdr.p_vaddr), expected));
            }
        }
        Ok(())
    }

    fn refuse_packed(&self) -> Result<(), Error> {
        // UPX writes its mark right behind the program headers, and again at the end.
        const MARK: &[u8] = b"UPX!";
        let (_, table_end) = self.segment_table();
        let near = slice(self.bytes, table_end, 64).or_else(|| slice(self.bytes, table_end, 16)).unwrap_or_default();
        match near.windows(MARK.len()).position(|window| window == MARK).and_then(|at| u64::try_from(at).ok()) {
            Some(at) => Err(Error::Packed { offset: table_end.saturating_add(at) }),
            None => Ok(()),
        }
    }

    /// A library is ET_DYN as a program is; what tells them apart is the interpreter, which a static-PIE lacks too. Its
    /// linker marks it with DF_1_PIE. Some libraries (libc.so.6, ld.so) can be started; they have a name as a library.
    fn refuse_library(&self) -> Result<(), Error> {
        if self.is_position_dependent() {
            return Ok(());
        }
        let dynamic = match self.segments.iter().find(|segment| segment.p_type == PT_DYNAMIC) {
            Some(segment) => Dynamic::parse(self, segment),
            None => Dynamic::default(),
        };
        let program = dynamic.is_pie || (self.has_segment(PT_INTERP) && dynamic.soname.is_none());
        // Old and foreign linkers do not set the mark: a file that can be entered and has no name is a program.
        let unmarked = dynamic.soname.is_none() && self.entry() != 0 && !dynamic.needs_libraries;
        if program || unmarked { Ok(()) } else { Err(Error::SharedLibrary { name: dynamic.soname }) }
    }

    fn refuse_trailing_data(&self) -> Result<(), Error> {
        let end = self.named_ranges().map(|(_, end)| end).max().unwrap_or(0);
        let length = length_of(self.bytes).saturating_sub(end);
        let rest = slice(self.bytes, end, length).unwrap_or_default();
        // Zeros are padding, which nobody looks for.
        if rest.iter().all(|byte| *byte == 0) { Ok(()) } else { Err(Error::TrailingData { offset: end, length }) }
    }
}

/// Length of a slice in the unit of file offsets.
pub(crate) fn length_of(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

fn table(offset: u64, count: usize, entry: u64) -> (u64, u64) {
    let length = u64::try_from(count).unwrap_or(u64::MAX).saturating_mul(entry);
    (offset, offset.saturating_add(length))
}

/// The bytes of a structure, or the message that they are not there.
fn read<'data>(bytes: &'data [u8], offset: u64, length: u64, what: &str) -> Result<&'data [u8], Error> {
    slice(bytes, offset, length).ok_or_else(|| Error::Truncated {
        what: what.to_owned(),
        offset,
        length,
        file_length: length_of(bytes),
    })
}

fn damaged(what: impl Into<String>, found: impl Into<String>, expected: impl Into<String>) -> Error {
    Error::Damaged { what: what.into(), found: found.into(), expected: expected.into() }
}

fn parse_file_header(bytes: &[u8]) -> Result<FileHeader, Error> {
    if !bytes.starts_with(b"\x7fELF") {
        return Err(not_elf(bytes));
    }
    // The class decides how long the header is, so it comes before the length.
    let ident = |at: usize| bytes.get(at).copied().unwrap_or(0);
    let unsupported = |field, found: String, expected| Err(Error::Unsupported { field, found, expected });
    if bytes.len() > 4 && ident(4) != ELFCLASS64.0 {
        return unsupported("EI_CLASS", format!("{} (32-bit is 1)", ident(4)), "2 (64-bit)");
    }
    if bytes.len() > 5 && ident(5) != ELFDATA2LSB.0 {
        return unsupported("EI_DATA", format!("{} (big-endian is 2)", ident(5)), "1 (little-endian)");
    }
    let raw = read(bytes, 0, FILE_HEADER_LENGTH, "the file header")?;
    let Ok((header, _)) = from_bytes::<FileHeader>(raw) else {
        return Err(damaged("the file header", "unreadable", "64 bytes"));
    };
    if header.e_machine.get(LE) != EM_X86_64 {
        return unsupported("e_machine", header.e_machine.get(LE).0.to_string(), "62 (x86-64)");
    }
    match header.e_type.get(LE) {
        ET_EXEC | ET_DYN => {}
        ET_REL => return unsupported("e_type", "ET_REL (an object file: link it first)".to_owned(), "a program"),
        ET_CORE => return unsupported("e_type", "ET_CORE (a core dump)".to_owned(), "a program"),
        other => return unsupported("e_type", other.0.to_string(), "2 (ET_EXEC) or 3 (ET_DYN)"),
    }
    let (size, version) = (header.e_phentsize.get(LE), header.e_version.get(LE));
    if u64::from(size) != SEGMENT_LENGTH {
        return Err(damaged("e_phentsize", size.to_string(), SEGMENT_LENGTH.to_string()));
    }
    if ident(6) != 1 || version != 1 {
        return Err(damaged("e_version", format!("{}, {version}", ident(6)), "1, 1"));
    }
    Ok(*header)
}

fn not_elf(bytes: &[u8]) -> Error {
    if let Some(line) = bytes.strip_prefix(b"#!") {
        let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let words = line.split(|byte| byte.is_ascii_whitespace()).filter(|word| !word.is_empty());
        // `env` only looks the interpreter up; an option of it is not the name of one.
        let program = |word: &&[u8]| !word.ends_with(b"/env") && !word.starts_with(b"-");
        let interpreter = words.clone().find(program).or_else(|| words.clone().next()).unwrap_or_default();
        let interpreter = String::from_utf8_lossy(interpreter).chars().take(256).collect();
        return Error::Script { interpreter };
    }
    Error::NotElf { found: bytes.iter().take(4).copied().collect() }
}

fn parse_segments(bytes: &[u8], header: &FileHeader) -> Result<Vec<Segment>, Error> {
    let count = header.e_phnum.get(LE);
    if count == 0 || count == PN_XNUM {
        return Err(damaged("e_phnum", count.to_string(), "1 to 65534"));
    }
    let length = u64::from(count).saturating_mul(SEGMENT_LENGTH);
    let raw = read(bytes, header.e_phoff.get(LE), length, "the program header table")?;
    Segment::decode_table(raw, usize::from(count))
        .ok_or_else(|| damaged("the program header table", "unreadable", "whole entries"))
}

/// What the kernel checks, or relies on, when it maps a program.
fn check_segments(bytes: &[u8], table: u64, segments: &[Segment]) -> Result<(), Error> {
    let mut previous_end = 0;
    let mut loads: usize = 0;
    for (index, segment) in segments.iter().enumerate() {
        let name = |field: &str| format!("{field} of program header {index}");
        if segment.p_filesz > 0 {
            read(bytes, segment.p_offset, segment.p_filesz, &format!("segment {index}"))?;
        }
        if segment.p_type == PT_PHDR && loads > 0 {
            return Err(damaged(name("p_type"), "PT_PHDR behind a PT_LOAD", "PT_PHDR before all of them"));
        }
        if segment.p_type == PT_PHDR && segment.p_offset != table {
            let found = format!("{:#x}", segment.p_offset);
            return Err(damaged(name("p_offset"), found, format!("e_phoff, which is {table:#x}")));
        }
        if segment.p_type != PT_LOAD {
            continue;
        }
        loads = loads.saturating_add(1);
        let end = segment.memory_end().filter(|end| *end <= ADDRESS_LIMIT);
        let end = end.ok_or_else(|| damaged(name("p_vaddr + p_memsz"), "beyond user space", "less than 2^47"))?;
        if segment.p_filesz > segment.p_memsz {
            let (found, limit) = (format!("{:#x}", segment.p_filesz), format!("at most {:#x}", segment.p_memsz));
            return Err(damaged(name("p_filesz"), found, limit));
        }
        if segment.bias() % PAGE != 0 {
            let found = format!("{:#x} at file offset {:#x}", segment.p_vaddr, segment.p_offset);
            return Err(damaged(name("p_vaddr"), found, "the same place in a page as in the file"));
        }
        if segment.p_vaddr < previous_end && loads > 1 {
            let found = format!("{:#x}", segment.p_vaddr);
            return Err(damaged(name("p_vaddr"), found, format!("at least {previous_end:#x}")));
        }
        previous_end = end;
    }
    if loads == 0 {
        return Err(damaged("the program header table", "without PT_LOAD", "at least one"));
    }
    Ok(())
}

fn parse_sections<'data>(bytes: &'data [u8], header: &FileHeader) -> Result<Option<Sections<'data>>, Error> {
    let (offset, count, index) = (header.e_shoff.get(LE), header.e_shnum.get(LE), header.e_shstrndx.get(LE));
    if offset == 0 || count == 0 {
        // With an offset and no count the count would stand in section 0: 65280 sections or more.
        if offset != 0 && header.e_shentsize.get(LE) != 0 && slice(bytes, offset, SECTION_LENGTH).is_some() {
            return Err(damaged("e_shnum", "0", "1 to 65279, or no section header table (e_shoff 0)"));
        }
        return Ok(None);
    }
    if u64::from(header.e_shentsize.get(LE)) != SECTION_LENGTH {
        return Err(damaged("e_shentsize", header.e_shentsize.get(LE).to_string(), SECTION_LENGTH.to_string()));
    }
    let raw = read(bytes, offset, u64::from(count).saturating_mul(SECTION_LENGTH), "the section header table")?;
    let headers = Section::decode_table(raw, usize::from(count))
        .ok_or_else(|| damaged("the section header table", "unreadable", "whole entries"))?;
    for (number, section) in headers.iter().enumerate().skip(1) {
        let length = section.file_range().map_or(u64::MAX, |(start, end)| end.saturating_sub(start));
        if length > 0 {
            read(bytes, section.sh_offset, length, &format!("section {number}"))?;
        }
    }
    if index == SHN_UNDEF {
        // Sections without names: nothing can be added to them that a tool would recognise.
        return Ok(None);
    }
    let names_index = usize::from(index.0);
    let names = headers.get(names_index).filter(|section| section.sh_type == SHT_STRTAB);
    let names = names.ok_or_else(|| damaged("e_shstrndx", index.0.to_string(), "the index of a string table"))?;
    let names = read(bytes, names.sh_offset, names.sh_size, "the table of section names")?;
    Ok(Some(Sections { headers, names_index, names }))
}
