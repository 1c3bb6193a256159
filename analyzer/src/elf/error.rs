//! Why bytes are not an ELF file that can be analysed.
//!
//! One variant per rule that was broken; each says what was read, where it stands in the file (or at which address)
//! and what was found and expected. Rules: gABI chapters 4 and 5, psABI x86-64 chapters 4 and 5, and what the kernel
//! (`fs/binfmt_elf.c`) and ld.so(8) insist on before they run a file.

use crate::address::{FileOffset, Vaddr};

/// A rule of the format that the bytes break.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The first four bytes are not `\x7fELF`.
    #[error("not an ELF file: at offset 0x0 found {found:02x?}, expected 7f 45 4c 46")]
    NotElf {
        /// The first bytes, at most four.
        found: Vec<u8>,
    },
    /// The file ends inside a header or table.
    #[error("{what} at file offset {offset} needs {size:#x} bytes, but the file has {file_size:#x} in all")]
    Truncated {
        /// Header, table or segment.
        what: &'static str,
        /// Where it starts.
        offset: FileOffset,
        /// Its size in bytes.
        size: u64,
        /// Size of the file in bytes.
        file_size: u64,
    },
    /// A field of the file header has a value that this analysis does not cover.
    #[error("{field} at file offset {offset} is {found:#x}{meaning}, expected {expected}")]
    Header {
        /// Name of the field.
        field: HeaderField,
        /// Where the field is.
        offset: FileOffset,
        /// Its value.
        found: u64,
        /// What the value means, with a leading space, where that helps the reader.
        meaning: &'static str,
        /// The values that are accepted.
        expected: &'static str,
    },
    /// No segment is loaded: nothing to run.
    #[error("the program header table at file offset {offset} has {count} entries and no PT_LOAD")]
    NothingLoaded {
        /// Where the table is.
        offset: FileOffset,
        /// Its number of entries.
        count: u64,
    },
    /// A LOAD starts before the end of the one before it.
    #[error(
        "PT_LOAD in program header {index} starts at {p_vaddr}, before the end of the previous one at {previous_end}"
    )]
    SegmentOrder {
        /// Index in the program header table.
        index: usize,
        /// Where it starts.
        p_vaddr: Vaddr,
        /// Where the previous one ends.
        previous_end: Vaddr,
    },
    /// A segment with more bytes in the file than in memory.
    #[error("program header {index}: p_filesz {p_filesz:#x} is greater than p_memsz {p_memsz:#x}")]
    SegmentSize {
        /// Index in the program header table.
        index: usize,
        /// Bytes in the file.
        p_filesz: u64,
        /// Bytes in memory.
        p_memsz: u64,
    },
    /// Address and offset of a LOAD differ within a page, so that it cannot be mapped.
    #[error("program header {index}: p_vaddr {p_vaddr} and p_offset {p_offset} differ modulo the page size 0x1000")]
    SegmentCongruence {
        /// Index in the program header table.
        index: usize,
        /// Its address.
        p_vaddr: Vaddr,
        /// Its offset.
        p_offset: FileOffset,
    },
    /// A range of addresses goes beyond 2^64.
    #[error("{what} at {start} with {size:#x} bytes goes beyond the address space")]
    AddressOverflow {
        /// What has the range.
        what: &'static str,
        /// Its first address.
        start: Vaddr,
        /// Its size in bytes.
        size: u64,
    },
    /// An address range that no LOAD backs with bytes of the file.
    #[error("{what} at {start} with {size:#x} bytes does not lie in the file part of a PT_LOAD")]
    Unbacked {
        /// What has the range.
        what: &'static str,
        /// Its first address.
        start: Vaddr,
        /// Its size in bytes.
        size: u64,
    },
    /// A dynamic entry whose address lies in no LOAD (or in one of the wrong kind).
    #[error("{tag} points to {found}, expected {expected}")]
    DynamicAddress {
        /// Name of the tag.
        tag: &'static str,
        /// The address.
        found: Vaddr,
        /// What it should point to.
        expected: &'static str,
    },
    /// A dynamic entry without the one that gives it meaning.
    #[error("the dynamic section has {present} without {missing}")]
    DynamicMissing {
        /// The tag that is there.
        present: &'static str,
        /// The tag that is not.
        missing: &'static str,
    },
    /// A dynamic entry has a value that the psABI does not allow.
    #[error("{tag} is {found:#x}, expected {expected}")]
    DynamicValue {
        /// Name of the tag.
        tag: &'static str,
        /// Its value.
        found: u64,
        /// What is allowed.
        expected: &'static str,
    },
    /// The dynamic section does not end.
    #[error("the dynamic section at {start} has no DT_NULL in its {size:#x} bytes")]
    DynamicUnterminated {
        /// Its first address.
        start: Vaddr,
        /// Its size in bytes.
        size: u64,
    },
    /// `PT_INTERP` does not hold a path.
    #[error("PT_INTERP at file offset {offset} has {size:#x} bytes, expected a path of 1 to 4095 bytes and a NUL")]
    Interpreter {
        /// Where it is.
        offset: FileOffset,
        /// Its size in bytes.
        size: u64,
    },
    /// A name starts outside the string table, or has no NUL before the end of it.
    #[error("{what}: string at {offset:#x} is not NUL-terminated within the {size:#x} bytes of DT_STRTAB, or 65536")]
    String {
        /// Whose name.
        what: &'static str,
        /// Its offset in the string table.
        offset: u64,
        /// Size of the string table.
        size: u64,
    },
    /// A hash table that does not describe a symbol table.
    #[error("{table} at {start}: {problem}")]
    Hash {
        /// `DT_HASH` or `DT_GNU_HASH`.
        table: &'static str,
        /// Where it is.
        start: Vaddr,
        /// What is wrong.
        problem: &'static str,
    },
    /// A version table that breaks its own links.
    #[error("{table} at {at}: {problem}")]
    Version {
        /// `DT_VERSYM`, `DT_VERDEF` or `DT_VERNEED`.
        table: &'static str,
        /// The entry.
        at: Vaddr,
        /// What is wrong.
        problem: &'static str,
    },
    /// A relocation that writes outside the image.
    #[error("{table}: relocation {index} changes {slot}, which lies in no PT_LOAD")]
    RelocationSlot {
        /// `DT_RELA`, `DT_JMPREL` or `DT_RELR`.
        table: &'static str,
        /// Index in its table.
        index: usize,
        /// Where it writes.
        slot: Vaddr,
    },
    /// `DT_RELR` words that make no sense.
    #[error("DT_RELR: word {index} ({word:#x}) {problem}")]
    Relr {
        /// Index of the word.
        index: usize,
        /// Its value.
        word: u64,
        /// What is wrong.
        problem: &'static str,
    },
}

/// The fields of the file header that are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HeaderField {
    /// `EI_CLASS`: 64-bit.
    Class,
    /// `EI_DATA`: little endian.
    Encoding,
    /// `EI_VERSION` and `e_version`: 1.
    Version,
    /// `EI_OSABI`: System V or GNU.
    OsAbi,
    /// `e_machine`: x86-64.
    Machine,
    /// `e_type`: executable or shared object.
    Type,
    /// `e_phentsize`: 56.
    ProgramHeaderSize,
    /// `e_phnum`: at least one, at most as many as the kernel takes.
    ProgramHeaderCount,
}

impl std::fmt::Display for HeaderField {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Class => "EI_CLASS",
            Self::Encoding => "EI_DATA",
            Self::Version => "e_version",
            Self::OsAbi => "EI_OSABI",
            Self::Machine => "e_machine",
            Self::Type => "e_type",
            Self::ProgramHeaderSize => "e_phentsize",
            Self::ProgramHeaderCount => "e_phnum",
        })
    }
}
