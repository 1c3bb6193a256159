//! Program headers and section headers as plain values.
//!
//! Input and output: bytes, by way of the raw structures of the crate `object`. Field names are those of the gABI
//! (chapters 4 and 5). Only ELF64, little-endian; whether the values make sense is decided in `executable.rs`.

use object::elf::{
    FileHeader64, ProgramFlags, ProgramHeader64, ProgramType, SHT_NOBITS, SectionFlags, SectionHeader64, SectionType,
};
use object::pod::{bytes_of, slice_from_bytes};
use object::{LittleEndian as LE, U32, U64};

/// The file header.
pub(crate) type FileHeader = FileHeader64<LE>;

/// Size of the file header.
pub(crate) const FILE_HEADER_LENGTH: u64 = 64;
/// `e_phentsize`.
pub(crate) const SEGMENT_LENGTH: u64 = 56;
/// `e_shentsize`.
pub(crate) const SECTION_LENGTH: u64 = 64;
/// The page size of x86-64.
pub(crate) const PAGE: u64 = 4096;

/// The first multiple of `alignment`, a power of two, at or above `value`.
pub(crate) fn align_up(value: u64, alignment: u64) -> Option<u64> {
    let mask = alignment.checked_sub(1)?;
    Some(value.checked_add(mask)? & !mask)
}

/// The start of the page that holds `value`.
pub(crate) fn page_floor(value: u64) -> u64 {
    value & !0xfff
}

/// `Elf64_Phdr`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "fields of the gABI")]
pub struct Segment {
    pub p_type: ProgramType,
    pub p_flags: ProgramFlags,
    pub p_offset: u64,
    pub p_vaddr: u64,
    pub p_paddr: u64,
    pub p_filesz: u64,
    pub p_memsz: u64,
    pub p_align: u64,
}

impl Segment {
    /// All headers of a table; `None` if it is longer than the bytes.
    pub(crate) fn decode_table(bytes: &[u8], count: usize) -> Option<Vec<Self>> {
        let (raw, _) = slice_from_bytes::<ProgramHeader64<LE>>(bytes, count).ok()?;
        let decode = |raw: &ProgramHeader64<LE>| Self {
            p_type: raw.p_type.get(LE),
            p_flags: raw.p_flags.get(LE),
            p_offset: raw.p_offset.get(LE),
            p_vaddr: raw.p_vaddr.get(LE),
            p_paddr: raw.p_paddr.get(LE),
            p_filesz: raw.p_filesz.get(LE),
            p_memsz: raw.p_memsz.get(LE),
            p_align: raw.p_align.get(LE),
        };
        Some(raw.iter().map(decode).collect())
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let raw = ProgramHeader64::<LE> {
            p_type: U32::new(LE, self.p_type),
            p_flags: U32::new(LE, self.p_flags),
            p_offset: U64::new(LE, self.p_offset),
            p_vaddr: U64::new(LE, self.p_vaddr),
            p_paddr: U64::new(LE, self.p_paddr),
            p_filesz: U64::new(LE, self.p_filesz),
            p_memsz: U64::new(LE, self.p_memsz),
            p_align: U64::new(LE, self.p_align),
        };
        bytes_of(&raw).to_vec()
    }

    /// The table of several, as a file has it.
    pub(crate) fn encode_table(segments: &[Self]) -> Vec<u8> {
        segments.iter().flat_map(Self::encode).collect()
    }

    /// First file offset behind the segment.
    pub(crate) fn file_end(&self) -> Option<u64> {
        self.p_offset.checked_add(self.p_filesz)
    }

    /// First address behind the segment.
    pub(crate) fn memory_end(&self) -> Option<u64> {
        self.p_vaddr.checked_add(self.p_memsz)
    }

    /// `p_vaddr - p_offset`, which may be below zero and then wraps: for comparing only.
    pub(crate) fn bias(&self) -> u64 {
        self.p_vaddr.wrapping_sub(self.p_offset)
    }
}

/// `Elf64_Shdr`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "fields of the gABI")]
pub struct Section {
    pub sh_name: u32,
    pub sh_type: SectionType,
    pub sh_flags: SectionFlags,
    pub sh_addr: u64,
    pub sh_offset: u64,
    pub sh_size: u64,
    pub sh_link: u32,
    pub sh_info: u32,
    pub sh_addralign: u64,
    pub sh_entsize: u64,
}

impl Section {
    /// All headers of a table; `None` if it is longer than the bytes.
    pub(crate) fn decode_table(bytes: &[u8], count: usize) -> Option<Vec<Self>> {
        let (raw, _) = slice_from_bytes::<SectionHeader64<LE>>(bytes, count).ok()?;
        let decode = |raw: &SectionHeader64<LE>| Self {
            sh_name: raw.sh_name.get(LE),
            sh_type: raw.sh_type.get(LE),
            sh_flags: raw.sh_flags.get(LE),
            sh_addr: raw.sh_addr.get(LE),
            sh_offset: raw.sh_offset.get(LE),
            sh_size: raw.sh_size.get(LE),
            sh_link: raw.sh_link.get(LE),
            sh_info: raw.sh_info.get(LE),
            sh_addralign: raw.sh_addralign.get(LE),
            sh_entsize: raw.sh_entsize.get(LE),
        };
        Some(raw.iter().map(decode).collect())
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let raw = SectionHeader64::<LE> {
            sh_name: U32::new(LE, self.sh_name),
            sh_type: U32::new(LE, self.sh_type),
            sh_flags: U64::new(LE, self.sh_flags),
            sh_addr: U64::new(LE, self.sh_addr),
            sh_offset: U64::new(LE, self.sh_offset),
            sh_size: U64::new(LE, self.sh_size),
            sh_link: U32::new(LE, self.sh_link),
            sh_info: U32::new(LE, self.sh_info),
            sh_addralign: U64::new(LE, self.sh_addralign),
            sh_entsize: U64::new(LE, self.sh_entsize),
        };
        bytes_of(&raw).to_vec()
    }

    /// The range of the file that the section fills; `None` if it overflows. Nothing for NOBITS.
    pub(crate) fn file_range(&self) -> Option<(u64, u64)> {
        let length = if self.sh_type == SHT_NOBITS { 0 } else { self.sh_size };
        Some((self.sh_offset, self.sh_offset.checked_add(length)?))
    }
}

/// The bytes from `offset` on, `length` of them.
pub(crate) fn slice(bytes: &[u8], offset: u64, length: u64) -> Option<&[u8]> {
    let start = usize::try_from(offset).ok()?;
    bytes.get(start..)?.get(..usize::try_from(length).ok()?)
}
