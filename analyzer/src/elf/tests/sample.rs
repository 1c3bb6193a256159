//! A small ELF file made by hand, in which the place of every field is known, so that tests can damage one.
//!
//! Layout: file offset = address. The first page is a read+execute LOAD with all tables, the second a read+write one
//! with the dynamic section and what it points to; the file ends where the second one does.

use std::collections::BTreeMap;

use object::elf;

/// Start of the second LOAD.
pub(super) const DATA: u64 = 0x1000;
/// Where code is.
pub(super) const TEXT: u64 = 0xf00;
/// From here to [`TEXT`] nothing stands: tests put tables of their own there.
pub(super) const FREE: usize = 0x800;
/// Offset of the program header table.
pub(super) const PROGRAM_HEADERS: usize = 64;

/// Indices in the program header table.
pub(super) const LOAD_TEXT: usize = 0;
pub(super) const LOAD_DATA: usize = 1;
pub(super) const DYNAMIC: usize = 2;
pub(super) const INTERP: usize = 3;
pub(super) const NOTE: usize = 4;
pub(super) const TLS: usize = 5;
const PROGRAM_HEADER_COUNT: usize = 6;

/// The file, and where things are in it.
pub(super) struct Sample {
    pub(super) bytes: Vec<u8>,
    /// Offset of each table, by name.
    pub(super) at: BTreeMap<&'static str, usize>,
    /// Offset of the value of each dynamic entry.
    pub(super) dynamic: BTreeMap<i64, usize>,
}

impl Sample {
    pub(super) fn new() -> Self {
        let mut sample =
            Self { bytes: vec![0; 64 + 56 * PROGRAM_HEADER_COUNT], at: BTreeMap::new(), dynamic: BTreeMap::new() };
        sample.tables();
        sample.data();
        sample.headers();
        sample
    }

    /// The file with `value` at `offset`.
    pub(super) fn poked<const N: usize>(&self, offset: usize, value: [u8; N]) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        bytes[offset..offset + N].copy_from_slice(&value);
        bytes
    }

    /// The file with another value in a dynamic entry.
    pub(super) fn with_dynamic(&self, tag: elf::DynamicTag, value: u64) -> Vec<u8> {
        self.poked(self.dynamic[&tag.0], value.to_le_bytes())
    }

    /// The file with a dynamic entry replaced by one of another tag.
    pub(super) fn with_tag(&self, tag: elf::DynamicTag, other: elf::DynamicTag) -> Vec<u8> {
        self.poked(self.dynamic[&tag.0] - 8, other.0.to_le_bytes())
    }

    /// Offset of a field of a program header.
    pub(super) fn program_header(index: usize, field: usize) -> usize {
        PROGRAM_HEADERS + 56 * index + field
    }

    fn add(&mut self, name: &'static str, bytes: &[u8]) {
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
        self.at.insert(name, self.bytes.len());
        self.bytes.extend_from_slice(bytes);
    }

    fn tables(&mut self) {
        self.add("interp", b"/lib64/ld.so\0");
        self.add("dynstr", b"\0libc.so.6\0read\0GLIBC_2.0\0mine\0V1\0/lib\0");
        // Entry 0; `read`, undefined, version 2; `mine`, a defined function, version 3.
        let mut symbols = vec![0; 24];
        symbols.extend(symbol(11, 0x12, 0, 0));
        symbols.extend(symbol(26, 0x12, 1, TEXT));
        self.add("dynsym", &symbols);
        self.add("hash", &words(&[1, 3, 2, 0, 0, 0]));
        // One bucket that starts at symbol 2, a Bloom word, one chain word with its end bit.
        self.add("gnu_hash", &words(&[1, 2, 1, 6, 0, 0, 2, 0x7c9a_0001]));
        self.add("versym", &[0, 0, 2, 0, 3, 0]);
        let verneed = [halves(&[1, 1]), words(&[1, 16, 0]), words(&[0]), halves(&[0, 2]), words(&[16, 0])].concat();
        self.add("verneed", &verneed);
        let verdef = [halves(&[1, 0, 3, 1]), words(&[0, 20, 0]), words(&[31, 0])].concat();
        self.add("verdef", &verdef);
        let rela = [longs(&[DATA + 0x200, 8, TEXT]), longs(&[DATA + 0x208, (1 << 32) | 6, 0])].concat();
        self.add("rela", &rela);
        self.add("jmprel", &longs(&[DATA + 0x210, (1 << 32) | 7, 0]));
        self.add("relr", &longs(&[DATA + 0x218, 0b11]));
        self.add("note", &[words(&[4, 4, 3]), b"GNU\0".to_vec(), vec![0xde, 0xad, 0xbe, 0xef]].concat());
        assert!(self.bytes.len() <= FREE);
        self.bytes.resize(usize::try_from(TEXT).unwrap(), 0);
        // nop, syscall, ret.
        self.bytes.extend_from_slice(&[0x90, 0x0f, 0x05, 0xc3]);
        self.bytes.resize(usize::try_from(DATA).unwrap(), 0xcc);
    }

    fn data(&mut self) {
        let at = |sample: &Self, name| u64::try_from(sample.at[name]).unwrap();
        let entries = [
            (elf::DT_NEEDED, 1),
            (elf::DT_SONAME, 26),
            (elf::DT_RUNPATH, 34),
            (elf::DT_STRTAB, at(self, "dynstr")),
            (elf::DT_STRSZ, 39),
            (elf::DT_SYMTAB, at(self, "dynsym")),
            (elf::DT_SYMENT, 24),
            (elf::DT_HASH, at(self, "hash")),
            (elf::DT_GNU_HASH, at(self, "gnu_hash")),
            (elf::DT_VERSYM, at(self, "versym")),
            (elf::DT_VERNEED, at(self, "verneed")),
            (elf::DT_VERNEEDNUM, 1),
            (elf::DT_VERDEF, at(self, "verdef")),
            (elf::DT_VERDEFNUM, 1),
            (elf::DT_RELA, at(self, "rela")),
            (elf::DT_RELASZ, 48),
            (elf::DT_RELAENT, 24),
            (elf::DT_JMPREL, at(self, "jmprel")),
            (elf::DT_PLTRELSZ, 24),
            (elf::DT_PLTREL, 7),
            (elf::DT_RELR, at(self, "relr")),
            (elf::DT_RELRSZ, 16),
            (elf::DT_RELRENT, 8),
            (elf::DT_INIT, TEXT),
            (elf::DT_FINI, TEXT),
            (elf::DT_INIT_ARRAY, DATA + 0x218),
            (elf::DT_INIT_ARRAYSZ, 16),
            (elf::DT_PLTGOT, DATA + 0x208),
            (elf::DT_NULL, 0),
        ];
        for (tag, value) in entries {
            self.bytes.extend_from_slice(&tag.0.to_le_bytes());
            self.dynamic.insert(tag.0, self.bytes.len());
            self.bytes.extend_from_slice(&value.to_le_bytes());
        }
        assert!(self.bytes.len() <= 0x1200);
        self.bytes.resize(0x1200, 0);
        // The GOT, then the slots of DT_RELR, then the TLS image.
        self.bytes.extend_from_slice(&longs(&[0, 0, 0, TEXT + 1, TEXT + 2, 0x1234]));
    }

    fn headers(&mut self) {
        let size = u64::try_from(self.bytes.len()).unwrap();
        let note = u64::try_from(self.at["note"]).unwrap();
        let interp = u64::try_from(self.at["interp"]).unwrap();
        let headers: [(elf::ProgramType, u32, u64, u64, u64); PROGRAM_HEADER_COUNT] = [
            (elf::PT_LOAD, 5, 0, DATA, DATA),
            (elf::PT_LOAD, 6, DATA, size - DATA, size - DATA + 0x100),
            (elf::PT_DYNAMIC, 6, DATA, 29 * 16, 29 * 16),
            (elf::PT_INTERP, 4, interp, 13, 13),
            (elf::PT_NOTE, 4, note, 20, 20),
            (elf::PT_TLS, 4, DATA + 0x228, 8, 16),
        ];
        for (index, (kind, flags, offset, filesz, memsz)) in headers.into_iter().enumerate() {
            let bytes = [words(&[kind.0, flags]), longs(&[offset, offset, offset, filesz, memsz, 8])].concat();
            let at = Self::program_header(index, 0);
            self.bytes[at..at + 56].copy_from_slice(&bytes);
        }
        let count = u16::try_from(PROGRAM_HEADER_COUNT).unwrap();
        let header = [
            b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec(),
            halves(&[3, 62]),
            words(&[1]),
            longs(&[TEXT, 64, 0]),
            words(&[0]),
            halves(&[64, 56, count, 64, 0, 0]),
        ];
        self.bytes[..64].copy_from_slice(&header.concat());
    }
}

fn symbol(name: u32, info: u8, section: u16, value: u64) -> Vec<u8> {
    [words(&[name]), vec![info, 0], halves(&[section]), longs(&[value, 4])].concat()
}

pub(super) fn halves(values: &[u16]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

pub(super) fn words(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

pub(super) fn longs(values: &[u64]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}
