//! The ELF file header and the program header table, validated.
//!
//! Input: the bytes of a file. Output: [`Header`], which exists only for an x86-64 executable or shared object whose
//! program header table lies in the file. Spec: gABI chapter 4 "ELF Header" and chapter 5 "Program Header"; the limit
//! on the table's size is the kernel's (`load_elf_phdrs` in `fs/binfmt_elf.c`).

use object::LittleEndian as LE;
use object::elf;
use object::pod::{self, Pod};

use super::error::{HeaderField, ImageError};
use crate::address::{FileOffset, Vaddr};

/// Most bytes of program headers that the kernel reads.
const PROGRAM_HEADERS_LIMIT: usize = 65536;

/// What the file header says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header<'data> {
    /// `e_entry`; zero means none.
    pub(super) entry: Vaddr,
    /// `e_type` is `ET_DYN`.
    pub(super) is_position_independent: bool,
    /// `e_phoff`.
    pub(super) program_headers_at: FileOffset,
    /// The program header table.
    pub(super) program_headers: &'data [elf::ProgramHeader64<LE>],
    /// `e_shoff`, `e_shentsize`, `e_shnum`, `e_shstrndx`, unchecked: section headers are hints.
    pub(super) section_headers: SectionHeaderFields,
}

/// The fields of the file header that lead to the section headers, as found.
#[derive(Clone, Copy, Debug)]
pub(super) struct SectionHeaderFields {
    pub(super) e_shoff: u64,
    pub(super) e_shentsize: u16,
    pub(super) e_shnum: u16,
    pub(super) e_shstrndx: u16,
}

impl<'data> Header<'data> {
    /// Reads and checks the header of `data`.
    pub(super) fn parse(data: &'data [u8]) -> Result<Self, ImageError> {
        // The magic comes first: a short text file is "not ELF", not a truncated ELF file.
        let magic = data.get(..4).unwrap_or(data);
        if magic != elf::ELFMAG.as_slice() && !(data.len() < 4 && elf::ELFMAG.starts_with(data)) {
            return Err(ImageError::NotElf { found: magic.to_vec() });
        }
        let header: &elf::FileHeader64<LE> = one(data, "the ELF header", FileOffset(0))?;
        check_identification(&header.e_ident)?;
        check_kind(header)?;
        let program_headers = program_headers(data, header)?;
        Ok(Self {
            entry: Vaddr(header.e_entry.get(LE)),
            is_position_independent: header.e_type.get(LE) == elf::ET_DYN,
            program_headers_at: FileOffset(header.e_phoff.get(LE)),
            program_headers,
            section_headers: SectionHeaderFields {
                e_shoff: header.e_shoff.get(LE),
                e_shentsize: header.e_shentsize.get(LE),
                e_shnum: header.e_shnum.get(LE),
                e_shstrndx: header.e_shstrndx.get(LE).0,
            },
        })
    }
}

/// One structure at an offset of the file.
pub(super) fn one<'data, T: Pod>(
    data: &'data [u8],
    what: &'static str,
    offset: FileOffset,
) -> Result<&'data T, ImageError> {
    let found = table(data, what, offset, 1)?;
    found.first().ok_or_else(|| truncated(data, what, offset, 1))
}

/// `count` structures at an offset of the file. Bounded by the file: nothing is allocated.
pub(super) fn table<'data, T: Pod>(
    data: &'data [u8],
    what: &'static str,
    offset: FileOffset,
    count: usize,
) -> Result<&'data [T], ImageError> {
    let bytes = usize::try_from(offset.0).ok().and_then(|start| data.get(start..));
    let found = bytes.and_then(|bytes| pod::slice_from_bytes(bytes, count).ok());
    let size = u64::try_from(count.saturating_mul(size_of::<T>())).unwrap_or(u64::MAX);
    found.map(|(structures, _)| structures).ok_or_else(|| truncated(data, what, offset, size))
}

/// The error for a range that ends behind the end of the file.
pub(super) fn truncated(data: &[u8], what: &'static str, offset: FileOffset, size: u64) -> ImageError {
    ImageError::Truncated { what, offset, size, file_size: u64::try_from(data.len()).unwrap_or(u64::MAX) }
}

/// `e_ident`: class, byte order, version, and the system whose calls the code makes.
fn check_identification(ident: &elf::Ident) -> Result<(), ImageError> {
    let refuse = |field, offset, found: u8, meaning, expected| {
        Err(ImageError::Header { field, offset: FileOffset(offset), found: u64::from(found), meaning, expected })
    };
    if ident.class != elf::ELFCLASS64 {
        let meaning = if ident.class == elf::ELFCLASS32 { " (32-bit)" } else { "" };
        return refuse(HeaderField::Class, 4, ident.class.0, meaning, "2 (64-bit)");
    }
    if ident.data != elf::ELFDATA2LSB {
        let meaning = if ident.data == elf::ELFDATA2MSB { " (big endian)" } else { "" };
        return refuse(HeaderField::Encoding, 5, ident.data.0, meaning, "1 (little endian)");
    }
    if ident.version != elf::EV_CURRENT {
        return refuse(HeaderField::Version, 6, ident.version.0, "", "1");
    }
    // Linux runs any value here, but a file for another system has that system's call numbers in its code.
    if ident.os_abi != elf::ELFOSABI_SYSV && ident.os_abi != elf::ELFOSABI_GNU {
        return refuse(HeaderField::OsAbi, 7, ident.os_abi.0, " (another system)", "0 (System V) or 3 (GNU/Linux)");
    }
    Ok(())
}

/// Machine and type.
fn check_kind(header: &elf::FileHeader64<LE>) -> Result<(), ImageError> {
    let refuse = |field, offset, found: u64, meaning, expected| {
        Err(ImageError::Header { field, offset: FileOffset(offset), found, meaning, expected })
    };
    let kind = header.e_type.get(LE);
    if kind != elf::ET_EXEC && kind != elf::ET_DYN {
        let meaning = match kind {
            elf::ET_REL => " (relocatable object: link it first)",
            elf::ET_CORE => " (core dump)",
            _ => "",
        };
        return refuse(HeaderField::Type, 16, u64::from(kind.0), meaning, "2 (executable) or 3 (shared object)");
    }
    let machine = header.e_machine.get(LE);
    if machine != elf::EM_X86_64 {
        let meaning = match machine {
            elf::EM_AARCH64 => " (aarch64)",
            elf::EM_386 => " (i386)",
            elf::EM_RISCV => " (RISC-V)",
            elf::EM_ARM => " (arm)",
            elf::EM_PPC64 => " (ppc64)",
            elf::EM_S390 => " (s390)",
            _ => "",
        };
        return refuse(HeaderField::Machine, 18, u64::from(machine.0), meaning, "62 (x86-64)");
    }
    let version = header.e_version.get(LE);
    if version != u32::from(elf::EV_CURRENT.0) {
        return refuse(HeaderField::Version, 20, u64::from(version), "", "1");
    }
    Ok(())
}

/// The program header table; the kernel refuses a file without one, or with one of more than 64 KiB.
fn program_headers<'data>(
    data: &'data [u8],
    header: &elf::FileHeader64<LE>,
) -> Result<&'data [elf::ProgramHeader64<LE>], ImageError> {
    let entry_size = size_of::<elf::ProgramHeader64<LE>>();
    let found = usize::from(header.e_phentsize.get(LE));
    let count = usize::from(header.e_phnum.get(LE));
    let refuse = |field, offset, found: u16, expected| {
        Err(ImageError::Header { field, offset: FileOffset(offset), found: u64::from(found), meaning: "", expected })
    };
    // `PN_XNUM` (0xffff, count in section header 0) is above the kernel's limit, so that it needs no case of its own.
    if count == 0 || count.saturating_mul(entry_size) > PROGRAM_HEADERS_LIMIT {
        return refuse(HeaderField::ProgramHeaderCount, 56, header.e_phnum.get(LE), "1 to 1170");
    }
    if found != entry_size {
        return refuse(HeaderField::ProgramHeaderSize, 54, header.e_phentsize.get(LE), "56");
    }
    table(data, "the program header table", FileOffset(header.e_phoff.get(LE)), count)
}
