//! Files that ask for more work than their size explains: the same bytes again and again. Each ends in no time, and what
//! could not be looked at is said.

#![cfg(test)]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use chestnut_analyzer::elf::Image;
use chestnut_analyzer::limits::Limits;
use chestnut_analyzer::summary::ModuleSummary;
use chestnut_analyzer::{ExecTarget, Options, analyze};
use tempfile::TempDir;

/// Where the file is loaded.
const BASE: u64 = 0x40_0000;
/// Where its code stands.
const CODE: u64 = BASE + 0x1000;
/// `mov $231,%eax; syscall`.
const EXIT: [u8; 7] = [0xb8, 0xe7, 0, 0, 0, 0x0f, 0x05];
/// Bytes of each part of a file.
const SIZE: usize = 1 << 19;

/// A file of position-dependent code, constants and data, and further program headers: type and bytes.
fn file(parts: [&[u8]; 3], more: &[(u32, u64, u64)]) -> Vec<u8> {
    let mut headers = Vec::new();
    let mut bodies: Vec<(u64, &[u8])> = Vec::new();
    let mut at = 0x1000;
    for (part, flags) in parts.into_iter().zip([5_u32, 4, 6]).filter(|(part, _)| !part.is_empty()) {
        let size = part.len() as u64;
        headers.push((1, flags, BASE + at, size));
        bodies.push((at, part));
        at = (at + size).next_multiple_of(0x1000);
    }
    headers.extend(more.iter().map(|&(kind, address, size)| (kind, 4, address, size)));
    let mut bytes = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0".to_vec();
    bytes.extend([CODE, 64, 0].map(u64::to_le_bytes).concat());
    bytes.extend([0, 0, 0, 0, 64, 0, 56, 0]);
    bytes.extend([u16::try_from(headers.len()).unwrap(), 64, 0, 0].map(u16::to_le_bytes).concat());
    for (kind, flags, address, size) in headers {
        bytes.extend([kind, flags].map(u32::to_le_bytes).concat());
        bytes.extend([address - BASE, address, address, size, size, 0x1000].map(u64::to_le_bytes).concat());
    }
    for (offset, body) in bodies {
        bytes.resize(usize::try_from(offset).unwrap(), 0);
        bytes.extend(body);
    }
    bytes
}

/// Where the part behind `before` stands.
fn behind(before: &[u8]) -> u64 {
    (CODE + before.len() as u64).next_multiple_of(0x1000)
}

/// `.eh_frame_hdr` and `.eh_frame` with descriptions: start, length, and one LSDA for all.
fn frames(at: u64, described: &[(u64, u64)], lsda: Option<u64>) -> Vec<u8> {
    let word = |value: u64| u32::try_from(value).unwrap().to_le_bytes();
    let mut bytes = vec![1, 0x03, 0xff, 0xff];
    bytes.extend(word(at + 8));
    let augmentation: &[u8] =
        if lsda.is_some() { b"\x01zLR\0\x01\x78\x10\x02\x03\x03" } else { b"\x01zR\0\x01\x78\x10\x01\x03" };
    let mut common = [&[0; 4], augmentation].concat();
    common.resize(common.len().next_multiple_of(4), 0);
    let mut list = [&word(common.len() as u64)[..], &common].concat();
    for &(start, length) in described {
        let mut entry = [word(list.len() as u64 + 4), word(start), word(length)].concat();
        entry.push(if lsda.is_some() { 4 } else { 0 });
        entry.extend(lsda.map(word).unwrap_or_default());
        entry.resize(entry.len().next_multiple_of(4), 0);
        list.extend(word(entry.len() as u64));
        list.extend(entry);
    }
    list.extend([0; 4]);
    [bytes, list].concat()
}

/// `PT_GNU_EH_FRAME`.
const FRAMES: u32 = 0x6474_e550;

/// Summarises a file, which must not take long; the limit that it goes beyond.
fn excess(bytes: &[u8]) -> String {
    excess_of(bytes, Limits::default())
}

/// The same with other limits.
fn excess_of(bytes: &[u8], limits: Limits) -> String {
    let start = Instant::now();
    let said = match Image::parse(bytes) {
        Ok(image) => {
            let image = image.limited(limits);
            let summary = ModuleSummary::new(&image);
            let _ = image.build_id();
            summary.excess().map_or_else(String::new, |excess| excess.to_string())
        }
        Err(error) => error.to_string(),
    };
    let limit = Duration::from_secs(if cfg!(debug_assertions) { 60 } else { 10 });
    assert!(start.elapsed() < limit, "{:?}: {said}", start.elapsed());
    said
}

#[test]
fn descriptions_that_overlap() {
    let code = [&EXIT[..], &vec![0x90; SIZE]].concat();
    let at = behind(&code);
    let described: Vec<_> = (0..SIZE as u64 / 20).map(|number| (CODE + number, code.len() as u64 - number)).collect();
    let frames = frames(at, &described, None);
    let said = excess(&file([&code, &frames, &[]], &[(FRAMES, at, 8)]));
    assert!(said.contains("frame descriptions, which overlap"), "{said}");
    // Short ones that run on into the same code.
    let described: Vec<_> = (0..2000).map(|number| (CODE + number, 2000 - number)).collect();
    let frames = self::frames(at, &described, None);
    let said = excess(&file([&code, &frames, &[]], &[(FRAMES, at, 8)]));
    assert!(said.contains("frame descriptions, which overlap"), "{said}");
}

#[test]
fn exception_tables_that_are_shared() {
    let code = [&EXIT[..], &vec![0xc3; SIZE]].concat();
    let at = behind(&code);
    let described: Vec<_> = (0..SIZE as u64 / 24).map(|number| (CODE + 7 + 2 * number, 1)).collect();
    let table_at = at + frames(at, &described, Some(0)).len() as u64;
    let mut table = frames(at, &described, Some(table_at));
    let length = SIZE & !3;
    table.extend([0xff, 0xff, 1]);
    table.extend(
        [0, 7, 14].map(|shift| u8::try_from(length >> shift & 0x7f).unwrap() | if shift < 14 { 0x80 } else { 0 }),
    );
    table.extend([0, 1, 5, 0].repeat(length / 4));
    let said = excess(&file([&code, &table, &[]], &[(FRAMES, at, 8)]));
    assert!(said.contains("exception tables"), "{said}");
}

#[test]
fn code_that_everything_points_to() {
    let code = [&EXIT[..], &vec![0x90; SIZE]].concat();
    let data: Vec<u8> = (0..SIZE as u64 / 8).flat_map(|number| (CODE + 7 + number).to_le_bytes()).collect();
    let said = excess(&file([&code, &[], &data], &[]));
    assert!(said.contains("paths through code"), "{said}");
}

#[test]
fn jump_tables_that_are_shared() {
    let count = SIZE as u64 / 64;
    let big = CODE + 16 + 16 * count;
    let described: Vec<_> = [(CODE, 7)].into_iter().chain((1..=count).map(|number| (CODE + 16 * number, 16))).collect();
    let described = [described, vec![(big, SIZE as u64)]].concat();
    let at = (big + SIZE as u64).next_multiple_of(0x1000);
    let mut constants = frames(at, &described, None);
    constants.resize(constants.len().next_multiple_of(16), 0);
    let table = at + constants.len() as u64;
    let mut code = EXIT.to_vec();
    for number in 1..=count {
        code.resize(usize::try_from(16 * number).unwrap(), 0x90);
        code.extend([0x48, 0x8d, 0x15]);
        code.extend(u32::try_from(table - (CODE + 16 * number + 7)).unwrap().to_le_bytes());
        code.extend([0xff, 0xe2]);
    }
    code.resize(usize::try_from(big - CODE).unwrap() + SIZE, 0x90);
    constants
        .extend((0..SIZE as u64 / 4).flat_map(|entry| (big + entry).wrapping_sub(table).to_le_bytes()[..4].to_vec()));
    let said = excess(&file([&code, &constants, &[]], &[(FRAMES, at, 8)]));
    assert!(said.contains("entries of jump tables"), "{said}");
}

/// As many computed jumps as labels: edges that are not drawn are entries where nothing is known, which is no excess.
#[test]
fn every_jump_to_every_label() {
    let count = SIZE as u64 / 16;
    let length = 7 + 3 * count + 7;
    let at = (CODE + length).next_multiple_of(0x1000);
    let mut constants = frames(at, &[(CODE, length)], None);
    constants.resize(constants.len().next_multiple_of(16), 0);
    let table = at + constants.len() as u64;
    let mut code = vec![0x48, 0x8d, 0x15];
    code.extend(u32::try_from(table - (CODE + 7)).unwrap().to_le_bytes());
    code.extend([0xff, 0xe2, 0x90].repeat(usize::try_from(count).unwrap()));
    code.extend(EXIT);
    let entries = (0..count).flat_map(|entry| (CODE + 7 + 3 * entry).wrapping_sub(table).to_le_bytes()[..4].to_vec());
    constants.extend(entries);
    assert_eq!(excess(&file([&code, &constants, &[]], &[(FRAMES, at, 8)])), "");
}

/// Names of half a megabyte, each a part of the next.
#[test]
fn names_that_are_shared() {
    let data_at = BASE + 0x2000;
    let count = SIZE as u64 / 24;
    let symbol = |number: u64| {
        let name = u32::try_from(number).unwrap().to_le_bytes();
        [&name[..], &[0x12, 0, 1, 0], &CODE.to_le_bytes(), &1_u64.to_le_bytes()].concat()
    };
    let mut symbols = vec![0; 24];
    (1..=count).for_each(|number| symbols.extend(symbol(number)));
    let symbols_at = data_at + 112;
    let strings_at = symbols_at + symbols.len() as u64;
    let entries = [5, strings_at, 10, SIZE as u64 + 2, 6, symbols_at, 11, 24, 4, data_at + 96, 0, 0];
    let mut data = entries.map(u64::to_le_bytes).concat();
    data.extend([u32::try_from(count + 1).unwrap(), 0].map(u32::to_le_bytes).concat());
    let hash = [1, u32::try_from(count + 1).unwrap()].map(u32::to_le_bytes).concat();
    data[96..104].copy_from_slice(&hash);
    data.resize(112, 0);
    data.extend(symbols);
    data.push(0);
    data.extend(vec![b'a'; SIZE]);
    data.push(0);
    let said = excess(&file([&EXIT, &[], &data], &[(2, data_at, 96)]));
    assert!(said.contains("is not NUL-terminated"), "{said}");
}

/// A thousand segments of notes, each of which claims all of the file's.
#[test]
fn notes_that_are_shared() {
    let note = [0_u32, 0, 9].map(u32::to_le_bytes).concat();
    let data = note.repeat(4 * SIZE / 12);
    let headers = vec![(4, BASE + 0x2000, data.len() as u64); 1000];
    assert_eq!(excess(&file([&EXIT, &[], &data], &headers)), "");
}

/// Types of Go that share one long table of methods; descriptions of modules that share one of functions.
#[test]
fn tables_of_go_that_are_shared() {
    let constants_at = BASE + 0x2000;
    let (code, types) = ([&EXIT[..], &vec![0x90; 0xff9]].concat(), SIZE / 64);
    let words = |values: &[u64]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    let index_at = constants_at + 64;
    let go = |count: u64, highest: u64| {
        let mut constants = words(&[0x0801_0000_ffff_fff1]);
        constants.resize(64, 0);
        for number in 0..count - 1 {
            constants.extend(u32::try_from(number * 0x800 / count).unwrap().to_le_bytes());
            constants.extend([0; 4]);
        }
        constants.extend(0x800_u32.to_le_bytes());
        constants.resize(constants.len() + 64, 0);
        let length = constants.len() as u64 - 64;
        let mut module = words(&[constants_at, constants_at + 8, 8, 8]);
        module.resize(104, 0);
        module.extend(words(&[index_at, length, 0, index_at, count, count, 0, CODE, highest, CODE, highest]));
        (constants, module)
    };
    // The last entry does not say what the description says: it is read to its end in vain.
    let (constants, module) = go(SIZE as u64 / 8, CODE + 0x900);
    let said = excess(&file([&code, &constants, &module.repeat(SIZE / module.len())], &[]));
    assert_eq!(said, "");
    let (constants, module) = go(3, CODE + 0x800);
    let mut data = Vec::new();
    for number in 0..types {
        data.extend(words(&[8, 0]));
        data.extend([1, 0, 0, 0, 1, 8, 8, 2]);
        data.extend([0; 24]);
        data.extend([0, 0, 0, 0, 0xff, 0xff, 0, 0]);
        data.extend(u32::try_from(64 * (types - number) - 48).unwrap().to_le_bytes());
        data.extend([0; 4]);
    }
    data.extend([0_u32, 0, 0, 0x400].map(u32::to_le_bytes).concat().repeat(65535));
    data.extend(module);
    let said = excess(&file([&code, &constants, &data], &[]));
    assert!(said.contains("methods of Go's types"), "{said}");
}

/// Limits, one of them raised or lowered as by a flag.
fn limits(set: &str) -> Limits {
    let mut limits = Limits::default();
    limits.set(set.parse().unwrap());
    limits
}

/// What is refused says which limit it is, what was found, and the flag; with the flag it is done.
#[test]
fn limits_are_named_and_can_be_raised() {
    let code = [&EXIT[..], &vec![0x90; 2993]].concat();
    let at = behind(&code);
    let described: Vec<_> = (0..2900).map(|number| (CODE + number, 3000 - number)).collect();
    let frames = frames(at, &described, None);
    let bytes = file([&code, &frames, &[]], &[(FRAMES, at, 8)]);
    // The sum over all descriptions.
    let found: u64 = described.iter().map(|(_, length)| length).sum();
    let limit = 8 * code.len() as u64 + (1 << 20);
    let said = excess(&bytes);
    let expected = format!(
        "bytes of code in frame descriptions, which overlap: {found}, over the limit of {limit} for a file of its size; \
         --limit work=N raises it (N is 8 now)"
    );
    assert_eq!(said, expected);
    assert_eq!(excess_of(&bytes, limits("work=2000")), "");
    for wrong in ["work", "work=", "work=-1", "works=1", "work=1x"] {
        assert!(wrong.parse::<chestnut_analyzer::limits::Limit>().is_err(), "{wrong}");
    }
}

/// A small world of files.
struct World(TempDir);

impl World {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn add(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        path
    }

    /// The error of an analysis, in one line, or nothing.
    fn refusal(&self, program: &Path, limits: Limits, targets: &[PathBuf]) -> String {
        let mut options = Options::default();
        options.root = self.0.path().to_path_buf();
        options.limits = limits;
        let name = |path: &PathBuf| format!("/{}", path.file_name().unwrap().to_str().unwrap());
        options.exec_targets = targets.iter().map(|path| ExecTarget::Named(name(path))).collect();
        let error = analyze(program, &options).err();
        let mut cause = error.as_ref().map(|error| error as &dyn std::error::Error);
        let mut line = Vec::new();
        while let Some(error) = cause {
            line.push(error.to_string());
            cause = error.source();
        }
        line.join(": ")
    }
}

/// A library, or a program, that needs others.
fn needing(names: &[String]) -> Vec<u8> {
    let data_at = BASE + 0x2000;
    let mut strings = vec![0];
    let mut entries = Vec::new();
    for name in names {
        entries.extend([1, strings.len() as u64]);
        strings.extend(name.as_bytes());
        strings.push(0);
    }
    let symbols_at = data_at + 16 * (names.len() as u64 + 6);
    let (hash_at, strings_at) = (symbols_at + 24, symbols_at + 40);
    entries.extend([5, strings_at, 10, strings.len() as u64, 6, symbols_at, 11, 24, 4, hash_at, 0, 0]);
    let mut data = entries.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
    let length = data.len() as u64;
    data.extend([0; 24]);
    data.extend([1_u32, 1, 0, 0].map(u32::to_le_bytes).concat());
    data.extend(strings);
    file([&EXIT, &[], &data], &[(2, data_at, length)])
}

/// A chain of libraries, each of which needs the next one.
#[test]
fn libraries_without_end() {
    let world = World::new();
    let folder = world.0.path().join("lib");
    std::fs::create_dir(&folder).unwrap();
    for number in 0..4100 {
        let next = format!("/lib/{}", number + 1);
        std::fs::write(folder.join(number.to_string()), needing(&[next])).unwrap();
    }
    std::fs::write(folder.join("4100"), needing(&[])).unwrap();
    let program = world.add("program", &needing(&["/lib/0".to_owned()]));
    let said = world.refusal(&program, Limits::default(), &[]);
    let expected = "/lib/4095 cannot be analysed: files that one process loads: 4097, over the limit of 4096; \
                    --limit files=N raises it";
    assert!(said.ends_with(expected), "{said}");
    let short = world.add("short", &needing(&["/lib/4090".to_owned()]));
    assert!(world.refusal(&short, limits("files=11"), &[]).contains("12, over the limit of 11"));
    assert_eq!(world.refusal(&short, limits("files=12"), &[]), "");
}

/// The same library again and again, and again names that are not there.
#[test]
fn names_of_libraries_without_end() {
    let world = World::new();
    world.add("library", &needing(&[]));
    let names = vec!["/library".to_owned(); SIZE / 16];
    let program = world.add("program", &needing(&names));
    let start = Instant::now();
    assert_eq!(world.refusal(&program, Limits::default(), &[]), "");
    let absent: Vec<_> = (0..SIZE / 32).map(|number| format!("absent-{number}")).collect();
    let program = world.add("absent", &needing(&absent));
    assert!(world.refusal(&program, Limits::default(), &[]).contains("absent-0"));
    assert!(start.elapsed() < Duration::from_secs(60));
}

/// A file of more bytes than anybody reads, of which none is on the disk.
#[test]
fn files_that_are_huge() {
    let world = World::new();
    let program = world.add("program", &needing(&["/library".to_owned()]));
    let library = world.add("library", &needing(&[]));
    let huge = std::fs::OpenOptions::new().write(true).open(&library).unwrap();
    huge.set_len(1 << 40).unwrap();
    let said = world.refusal(&program, Limits::default(), &[]);
    let expected = "library cannot be analysed: bytes of the file: 1099511627776, over the limit of 2147483648; \
                    --limit file-size=N raises it";
    assert!(said.ends_with(expected), "{said}");
    huge.set_len(1 << 20).unwrap();
    assert!(world.refusal(&program, limits("file-size=1048575"), &[]).contains("1048576, over the limit of 1048575"));
    assert_eq!(world.refusal(&program, limits("file-size=1048576"), &[]), "");
}

/// `mov $59,%eax; syscall` as well: a program that executes others, and more of them than anybody has.
#[test]
fn programs_without_end() {
    let world = World::new();
    let execute = [&[0xb8, 59, 0, 0, 0, 0x0f, 0x05][..], &EXIT].concat();
    let program = world.add("program", &file([&execute, &[], &[]], &[]));
    let others: Vec<_> =
        (0..1025).map(|number| world.add(&number.to_string(), &file([&EXIT, &[], &[]], &[]))).collect();
    let said = world.refusal(&program, Limits::default(), &others);
    let expected = "programs that are executed: 1025, over the limit of 1024; --limit programs=N raises it";
    assert!(said.ends_with(expected), "{said}");
    assert_eq!(world.refusal(&program, Limits::default(), &others[1..]), "");
}

/// Time is a limit like the others: none of it, and nothing is done.
#[test]
fn time_is_over() {
    let world = World::new();
    let program = world.add("program", &needing(&[]));
    let said = world.refusal(&program, limits("time=0"), &[]);
    assert!(
        said.ends_with("seconds that the analysis takes: 1, over the limit of 0; --limit time=N raises it"),
        "{said}"
    );
}

/// Functions whose addresses stand in one table, each of which calls one of them through it, and has the number of its
/// system call from whoever called it: any call may enter any function.
#[test]
fn functions_that_call_each_other_through_a_table() {
    const FUNCTION: usize = 19;
    let functions = SIZE / (FUNCTION + 8);
    // mov $39,%edi; call the first function; exit
    let mut code = [&[0xbf, 39, 0, 0, 0, 0xe8][..], &u32::try_from(EXIT.len()).unwrap().to_le_bytes(), &EXIT].concat();
    let first = CODE + code.len() as u64;
    let address = |number: usize| first + (number * FUNCTION) as u64;
    let at = (first + (functions * FUNCTION) as u64).next_multiple_of(0x1000);
    for number in 0..functions {
        // mov %rdi,%rax; syscall; lea table(%rip),%rbx; call *x(%rbx); ret
        let distance = u32::try_from(at - address(number) - 12).unwrap();
        let entry = u32::try_from((number * 7 + 1) % functions * 8).unwrap();
        code.extend([0x48, 0x89, 0xf8, 0x0f, 0x05, 0x48, 0x8d, 0x1d]);
        code.extend(distance.to_le_bytes());
        code.extend([0xff, 0x93]);
        code.extend(entry.to_le_bytes());
        code.push(0xc3);
    }
    let table: Vec<u8> = (0..functions).flat_map(|number| address(number).to_le_bytes()).collect();
    let world = World::new();
    let program = world.add("program", &file([&code, &table, &[]], &[]));
    let start = Instant::now();
    let said = world.refusal(&program, Limits::default(), &[]);
    assert!(start.elapsed() < Duration::from_secs(if cfg!(debug_assertions) { 60 } else { 10 }), "{said}");
    assert!(said.contains("distances at which calls read tables, for each function in a table: "), "{said}");
    assert!(said.ends_with("--limit work=N raises it (N is 8 now)"), "{said}");
}

/// Functions that all take the address of one table, whose entries are distances from it to all of them.
#[test]
fn tables_of_distances_that_are_shared() {
    const FUNCTION: usize = 16;
    let functions = SIZE / FUNCTION / 4;
    // call the first function; exit
    let mut code = [&[0xe8][..], &11_u32.to_le_bytes(), &EXIT].concat();
    code.resize(FUNCTION, 0x90);
    let address = |number: usize| CODE + ((number + 1) * FUNCTION) as u64;
    let described: Vec<_> = (0..functions).map(|number| (address(number), FUNCTION as u64)).collect();
    let at = (address(functions)).next_multiple_of(0x1000);
    let mut constants = frames(at, &[vec![(CODE, 12)], described].concat(), None);
    constants.resize(constants.len().next_multiple_of(16), 0);
    let table = at + constants.len() as u64;
    for number in 0..functions {
        // lea table(%rip),%rdx; call *%rcx; ret
        code.extend([0x48, 0x8d, 0x15]);
        code.extend(u32::try_from(table - address(number) - 7).unwrap().to_le_bytes());
        code.extend([0xff, 0xd1, 0xc3]);
        code.resize((number + 2) * FUNCTION, 0x90);
    }
    let distance = |number: usize| address(number).wrapping_sub(table).to_le_bytes()[..4].to_vec();
    constants.extend((0..functions).flat_map(distance));
    let world = World::new();
    let program = world.add("program", &file([&code, &constants, &[]], &[(FRAMES, at, 8)]));
    let start = Instant::now();
    let said = world.refusal(&program, Limits::default(), &[]);
    assert!(start.elapsed() < Duration::from_secs(if cfg!(debug_assertions) { 60 } else { 10 }), "{said}");
    assert!(said.contains("entries of tables and copied objects, which several references share: "), "{said}");
}
