//! One field damaged at a time: the error must be the one that names it. And no damage may make anything panic.

use object::elf;

use super::sample::{DATA, DYNAMIC, INTERP, LOAD_DATA, LOAD_TEXT, NOTE, PROGRAM_HEADERS, Sample, TEXT, TLS, longs};
use super::{Image, touch};
use crate::address::{FileOffset, Vaddr};
use crate::elf::{HeaderField, ImageError, RelocationTarget, SymbolKind, SymbolRelocationKind};

/// Offsets of fields in a program header.
const P_FLAGS: usize = 4;
const P_OFFSET: usize = 8;
const P_VADDR: usize = 16;
const P_FILESZ: usize = 32;
const P_MEMSZ: usize = 40;

fn error(bytes: &[u8]) -> ImageError {
    match Image::parse(bytes) {
        Err(error) => error,
        Ok(_) => panic!("a damaged file was accepted"),
    }
}

macro_rules! refused {
    ($bytes:expr, $pattern:pat $(if $guard:expr)?) => {{
        let error = error(&$bytes);
        assert!(matches!(error, $pattern $(if $guard)?), "{error:?}");
        // Every message says something.
        assert!(error.to_string().len() > 20, "{error}");
    }};
}

#[test]
fn the_sample_itself_is_read_in_full() {
    let sample = Sample::new();
    let image = Image::parse(&sample.bytes).unwrap();
    touch(&image);
    assert_eq!(image.entry(), Some(Vaddr(TEXT)));
    assert_eq!(image.interpreter().unwrap().to_str(), Some("/lib64/ld.so"));
    assert_eq!(image.build_id(), Some([0xde, 0xad, 0xbe, 0xef].as_slice()));
    let dynamic = image.dynamic().unwrap();
    assert_eq!(dynamic.needed, [b"libc.so.6".as_slice()]);
    assert_eq!((dynamic.soname, dynamic.runpath), (Some(b"mine".as_slice()), Some(b"/lib".as_slice())));
    assert_eq!(dynamic.init_array, [Vaddr(DATA + 0x218), Vaddr(DATA + 0x220)]);
    let [_, read, mine] = image.symbols() else { panic!("{:?}", image.symbols()) };
    assert_eq!((read.name, read.kind, read.is_defined), (b"read".as_slice(), SymbolKind::Function, false));
    let version = read.version.unwrap();
    assert_eq!((version.name, version.file), (b"GLIBC_2.0".as_slice(), Some(b"libc.so.6".as_slice())));
    assert_eq!(
        (mine.name, mine.value, mine.version.unwrap().name),
        (b"mine".as_slice(), Vaddr(TEXT), b"V1".as_slice())
    );
    let symbol = |kind| RelocationTarget::Symbol { index: 1, addend: 0, kind };
    let expected = [
        (DATA + 0x200, RelocationTarget::Relative(Vaddr(TEXT))),
        (DATA + 0x208, symbol(SymbolRelocationKind::GlobDat)),
        (DATA + 0x210, symbol(SymbolRelocationKind::JumpSlot)),
        (DATA + 0x218, RelocationTarget::Relative(Vaddr(TEXT + 1))),
        (DATA + 0x220, RelocationTarget::Relative(Vaddr(TEXT + 2))),
    ];
    let found: Vec<_> = image.relocations().iter().map(|found| (found.slot.0, found.target)).collect();
    assert_eq!(found, expected);
    // Zeros behind the file part are memory without bytes.
    let end = image.segments()[1].memory_end();
    assert!(image.is_data(Vaddr(end.0 - 1)) && !image.is_data(end) && image.bytes(Vaddr(end.0 - 1), 1).is_none());
}

#[test]
fn every_prefix_is_refused() {
    let sample = Sample::new();
    for length in 0..sample.bytes.len() {
        assert!(Image::parse(&sample.bytes[..length]).is_err(), "the first {length} bytes were accepted");
    }
    refused!(sample.bytes[..0], ImageError::Truncated { file_size: 0, .. });
    refused!(sample.bytes[..63], ImageError::Truncated { what: "the ELF header", .. });
    refused!(sample.bytes[..64], ImageError::Truncated { what: "the program header table", .. });
}

#[test]
fn fields_of_the_file_header() {
    let sample = Sample::new();
    let field = |offset, bytes: &[u8]| {
        let mut poked = sample.bytes.clone();
        poked[offset..offset + bytes.len()].copy_from_slice(bytes);
        match error(&poked) {
            ImageError::Header { field, offset: at, .. } => {
                assert_eq!(usize::try_from(at.0).unwrap(), offset);
                field
            }
            other => panic!("{other:?}"),
        }
    };
    refused!(sample.poked(0, [b'M', b'Z']), ImageError::NotElf { .. });
    refused!(*b"hi", ImageError::NotElf { .. });
    assert_eq!(field(4, &[1]), HeaderField::Class);
    assert_eq!(field(5, &[2]), HeaderField::Encoding);
    assert_eq!(field(6, &[0]), HeaderField::Version);
    assert_eq!(field(7, &[9]), HeaderField::OsAbi);
    assert_eq!(field(16, &[1]), HeaderField::Type);
    assert_eq!(field(16, &[4]), HeaderField::Type);
    assert_eq!(field(18, &[183]), HeaderField::Machine);
    assert_eq!(field(20, &[2]), HeaderField::Version);
    assert_eq!(field(54, &[32]), HeaderField::ProgramHeaderSize);
    assert_eq!(field(56, &[0]), HeaderField::ProgramHeaderCount);
    assert_eq!(field(56, &[0xff, 0xff]), HeaderField::ProgramHeaderCount);
    refused!(sample.poked(32, u64::MAX.to_le_bytes()), ImageError::Truncated { offset: FileOffset(u64::MAX), .. });
}

#[test]
fn fields_of_the_program_headers() {
    let sample = Sample::new();
    let poked = |index, field, value: u64| sample.poked(Sample::program_header(index, field), value.to_le_bytes());
    refused!(poked(LOAD_DATA, P_VADDR, 0), ImageError::SegmentOrder { index: 1, p_vaddr: Vaddr(0), .. });
    refused!(poked(LOAD_TEXT, P_MEMSZ, 0x1001), ImageError::SegmentOrder { index: 1, .. });
    refused!(poked(LOAD_DATA, P_VADDR, 0x1008), ImageError::SegmentCongruence { index: 1, .. });
    refused!(poked(LOAD_DATA, P_MEMSZ, 1), ImageError::SegmentSize { index: 1, p_memsz: 1, .. });
    refused!(poked(LOAD_DATA, P_MEMSZ, u64::MAX), ImageError::AddressOverflow { what: "PT_LOAD", .. });
    refused!(poked(LOAD_DATA, P_OFFSET, u64::MAX - 0xfff), ImageError::Truncated { what: "PT_LOAD", .. });
    refused!(poked(LOAD_DATA, P_OFFSET, 0x2000), ImageError::Truncated { what: "PT_LOAD", .. });
    refused!(poked(DYNAMIC, P_VADDR, 0x9000), ImageError::Unbacked { what: "PT_DYNAMIC", .. });
    refused!(poked(DYNAMIC, P_FILESZ, 0x9000), ImageError::Unbacked { what: "PT_DYNAMIC", .. });
    refused!(poked(DYNAMIC, P_FILESZ, 32), ImageError::DynamicUnterminated { size: 32, .. });
    refused!(poked(INTERP, P_FILESZ, 1), ImageError::Interpreter { size: 1, .. });
    refused!(poked(INTERP, P_FILESZ, 12), ImageError::Interpreter { size: 12, .. });
    refused!(poked(INTERP, P_FILESZ, 4097), ImageError::Interpreter { size: 4097, .. });
    refused!(poked(INTERP, P_OFFSET, 0x9000), ImageError::Truncated { what: "PT_INTERP", .. });
    refused!(poked(TLS, P_FILESZ, 17), ImageError::SegmentSize { index: 5, .. });
    refused!(poked(TLS, P_MEMSZ, u64::MAX), ImageError::AddressOverflow { what: "PT_TLS", .. });
    refused!(poked(TLS, P_VADDR, 0x9000), ImageError::Unbacked { what: "PT_TLS", .. });
    let no_loads = [LOAD_TEXT, LOAD_DATA].iter().fold(sample.bytes.clone(), |mut bytes, index| {
        bytes[PROGRAM_HEADERS + 56 * index] = 0;
        bytes
    });
    refused!(no_loads, ImageError::NothingLoaded { count: 6, .. });
    // A note may be damaged: only a name is lost.
    assert_eq!(Image::parse(&poked(NOTE, P_OFFSET, 0x9000)).unwrap().build_id(), None);
    // Without its executable flag, the first LOAD can hold no constructor.
    let data_only = sample.poked(Sample::program_header(LOAD_TEXT, P_FLAGS), 4_u32.to_le_bytes());
    refused!(data_only, ImageError::DynamicAddress { tag: "DT_INIT", found: Vaddr(TEXT), .. });
}

#[test]
fn entries_of_the_dynamic_section() {
    let sample = Sample::new();
    for tag in [elf::DT_NEEDED, elf::DT_SONAME, elf::DT_RUNPATH] {
        refused!(sample.with_dynamic(tag, 39), ImageError::String { offset: 39, size: 39, .. });
    }
    // The last string loses its NUL.
    refused!(sample.with_dynamic(elf::DT_STRSZ, 38), ImageError::String { what: "DT_RUNPATH", .. });
    refused!(sample.with_dynamic(elf::DT_STRTAB, 0x9000), ImageError::Unbacked { what: "DT_STRTAB", .. });
    refused!(sample.with_tag(elf::DT_STRSZ, elf::DT_DEBUG), ImageError::DynamicMissing { missing: "DT_STRSZ", .. });
    refused!(sample.with_dynamic(elf::DT_FINI, DATA), ImageError::DynamicAddress { tag: "DT_FINI", .. });
    refused!(sample.with_dynamic(elf::DT_INIT, 0x9000), ImageError::DynamicAddress { tag: "DT_INIT", .. });
    refused!(sample.with_dynamic(elf::DT_PLTGOT, 0x9000), ImageError::DynamicAddress { tag: "DT_PLTGOT", .. });
    refused!(sample.with_dynamic(elf::DT_INIT_ARRAY, 0x9000), ImageError::Unbacked { what: "DT_INIT_ARRAY", .. });
    refused!(sample.with_dynamic(elf::DT_INIT_ARRAYSZ, 12), ImageError::DynamicValue { found: 12, .. });
    refused!(
        sample.with_tag(elf::DT_INIT_ARRAY, elf::DT_DEBUG),
        ImageError::DynamicMissing { present: "DT_INIT_ARRAYSZ", missing: "DT_INIT_ARRAY" }
    );
    refused!(sample.with_dynamic(elf::DT_SYMENT, 16), ImageError::DynamicValue { tag: "DT_SYMENT", found: 16, .. });
    refused!(sample.with_dynamic(elf::DT_RELAENT, 16), ImageError::DynamicValue { tag: "DT_RELAENT", .. });
    refused!(sample.with_dynamic(elf::DT_RELRENT, 16), ImageError::DynamicValue { tag: "DT_RELRENT", .. });
    refused!(sample.with_dynamic(elf::DT_PLTREL, 17), ImageError::DynamicValue { tag: "DT_PLTREL", .. });
    refused!(sample.with_tag(elf::DT_FINI, elf::DT_REL), ImageError::DynamicValue { tag: "DT_REL", .. });
}

#[test]
fn symbols_hashes_and_versions() {
    let sample = Sample::new();
    let word = |table: &str, index: usize, value: u32| sample.poked(sample.at[table] + 4 * index, value.to_le_bytes());
    refused!(word("dynsym", 6, 0xffff), ImageError::String { what: "dynamic symbol", .. });
    refused!(sample.with_dynamic(elf::DT_SYMTAB, 0x9000), ImageError::Unbacked { what: "DT_SYMTAB", .. });
    refused!(sample.with_tag(elf::DT_SYMTAB, elf::DT_DEBUG), ImageError::DynamicMissing { missing: "DT_SYMTAB", .. });
    // A count that the file cannot hold is refused before anything is allocated for it.
    refused!(word("hash", 1, u32::MAX), ImageError::Unbacked { what: "DT_SYMTAB", .. });
    refused!(sample.with_dynamic(elf::DT_HASH, 0x9000), ImageError::Hash { table: "DT_HASH", .. });
    refused!(sample.with_dynamic(elf::DT_GNU_HASH, 0x9000), ImageError::Hash { table: "DT_GNU_HASH", .. });
    refused!(word("gnu_hash", 0, u32::MAX), ImageError::Unbacked { what: "DT_GNU_HASH", .. });
    refused!(word("gnu_hash", 6, 1), ImageError::Hash { problem: "a bucket starts before the first symbol", .. });
    refused!(word("gnu_hash", 6, 0xff_ffff), ImageError::Hash { table: "DT_GNU_HASH", .. });
    refused!(sample.with_dynamic(elf::DT_VERSYM, 0x9000), ImageError::Unbacked { what: "DT_VERSYM", .. });
    refused!(sample.poked(sample.at["versym"] + 4, [9]), ImageError::Version { table: "DT_VERSYM", .. });
    refused!(sample.with_tag(elf::DT_VERDEFNUM, elf::DT_DEBUG), ImageError::DynamicMissing { .. });
    refused!(sample.with_dynamic(elf::DT_VERNEED, 0x9000), ImageError::Version { table: "DT_VERNEED", .. });
    refused!(word("verneed", 1, 0xffff), ImageError::String { what: "DT_VERNEED", .. });
    refused!(word("verneed", 2, u32::MAX), ImageError::Version { table: "DT_VERNEED", .. });
    refused!(word("verdef", 3, u32::MAX), ImageError::Version { table: "DT_VERDEF", .. });
    // A chain that goes through the same few bytes again and again ends by itself.
    let mut chain = word("verneed", 3, 1);
    chain[sample.at["verneed"] + 2..][..2].copy_from_slice(&u16::MAX.to_le_bytes());
    let _ = Image::parse(&chain);
}

#[test]
fn relocations() {
    let sample = Sample::new();
    let long = |table: &str, index: usize, value: u64| sample.poked(sample.at[table] + 8 * index, value.to_le_bytes());
    refused!(long("rela", 3, 0x9000), ImageError::RelocationSlot { table: "DT_RELA", index: 1, slot: Vaddr(0x9000) });
    refused!(long("jmprel", 0, 0x9000), ImageError::RelocationSlot { table: "DT_JMPREL", .. });
    refused!(long("relr", 0, 0x9000), ImageError::RelocationSlot { table: "DT_RELR", .. });
    refused!(long("relr", 0, 3), ImageError::Relr { index: 0, .. });
    refused!(long("relr", 1, u64::MAX), ImageError::RelocationSlot { table: "DT_RELR", .. });
    // The same 64 slots again and again: refused before they are more than the file can hold.
    let mut repeated = sample.with_dynamic(elf::DT_RELR, 0x800);
    repeated[0x800..0x900].copy_from_slice(&longs(&[DATA, u64::MAX].repeat(16)));
    let size = sample.dynamic[&elf::DT_RELRSZ.0];
    repeated[size..size + 8].copy_from_slice(&0x100_u64.to_le_bytes());
    refused!(repeated, ImageError::Relr { problem: "is one of more slots than the file has words", .. });
    refused!(sample.with_dynamic(elf::DT_RELASZ, 47), ImageError::DynamicValue { tag: "DT_RELASZ", .. });
    refused!(sample.with_dynamic(elf::DT_PLTRELSZ, 1), ImageError::DynamicValue { tag: "DT_PLTRELSZ", .. });
    refused!(sample.with_dynamic(elf::DT_RELRSZ, 4), ImageError::DynamicValue { tag: "DT_RELRSZ", .. });
    refused!(sample.with_dynamic(elf::DT_RELASZ, 24 << 40), ImageError::Unbacked { what: "DT_RELA", .. });
    // A symbol index that the table cannot have.
    refused!(long("rela", 4, (0xffff_ffff << 32) | 6), ImageError::Unbacked { what: "DT_SYMTAB", .. });
    // Without hash tables, the symbols that relocations use are known.
    let mut unhashed = sample.with_tag(elf::DT_HASH, elf::DT_DEBUG);
    let gnu_hash = sample.dynamic[&elf::DT_GNU_HASH.0] - 8;
    unhashed[gnu_hash..gnu_hash + 8].copy_from_slice(&elf::DT_DEBUG.0.to_le_bytes());
    assert_eq!(Image::parse(&unhashed).unwrap().symbols().len(), 2);
}

#[test]
fn no_single_byte_makes_anything_panic() {
    let sample = Sample::new();
    for offset in 0..sample.bytes.len() {
        for value in [0x00, 0x01, 0x7f, 0x80, 0xff] {
            if let Ok(image) = Image::parse(&sample.poked(offset, [value])) {
                touch(&image);
            }
        }
    }
}

#[test]
fn damaged_copies_of_a_real_file_do_not_panic() {
    let original = std::fs::read("/bin/ls").unwrap();
    // Deterministic: xorshift, so that a failure can be repeated.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |limit: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % u64::try_from(limit).unwrap()).unwrap()
    };
    for round in 0..1000 {
        let mut bytes = original.clone();
        // Half of the damage goes where the tables are.
        let range = if round % 2 == 0 { 0x6000.min(bytes.len()) } else { bytes.len() };
        for _ in 0..1 + random(8) {
            let offset = random(range);
            bytes[offset] = u8::try_from(random(256)).unwrap();
        }
        if random(4) == 0 {
            bytes.truncate(random(original.len()));
        }
        if let Ok(image) = Image::parse(&bytes) {
            touch(&image);
        }
    }
}
