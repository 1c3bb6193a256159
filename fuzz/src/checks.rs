//! What must hold for any bytes: nothing panics, nothing takes long, and what is patched can be had back.
//!
//! Each function takes the input of a fuzzer and is a target of `tests/robust/fuzz`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use chestnut_analyzer::address::Vaddr;
use chestnut_analyzer::elf::Image;
use chestnut_analyzer::notes::Notes;
use chestnut_analyzer::policy::{AllowedCall, Evidence, FileIdentity, POLICY_FORMAT, Policy};
use chestnut_analyzer::summary::ModuleSummary;
use chestnut_analyzer::syscall::SyscallNr;
use chestnut_rewriter::bpf::Specification;
use chestnut_rewriter::{FilterOptions, check, compile, inspect, is_patched, rewrite, unpatch};

use super::fields::{Input, SEEDS, edited};

/// A policy that allows few calls, so that its filter is made in no time.
fn policy_of_a_test() -> &'static Policy {
    static POLICY: OnceLock<Policy> = OnceLock::new();
    POLICY.get_or_init(|| {
        let evidence = || Evidence::Requested { by: "a fuzzer".to_owned() };
        let call = |nr| (SyscallNr(nr), AllowedCall { name: SyscallNr(nr).to_string(), evidence: evidence() });
        let program = FileIdentity { path: "/program".into(), build_id: None, sha256: "01".repeat(32) };
        Policy {
            format: POLICY_FORMAT,
            tool: "a fuzzer".to_owned(),
            program,
            libraries: Vec::new(),
            executed: Vec::new(),
            allowed: [0, 1, 60, 231].map(call).into_iter().collect::<BTreeMap<_, _>>(),
            unresolved: Vec::new(),
            assumptions: Vec::new(),
        }
    })
}

/// Every table that an image has, in full.
pub fn image(bytes: &[u8]) {
    let Ok(image) = Image::parse(bytes) else { return };
    touch(&image);
}

/// So many of an image's own addresses are asked about.
const MOST_QUESTIONS: usize = 1000;

fn touch(image: &Image<'_>) {
    let _ = (image.entry(), image.interpreter(), image.build_id(), image.tls(), image.symbol_table(), image.dynamic());
    let _ = (image.function_hints(), image.object_hints(), image.frame_error(), image.go_table(), image.go_methods());
    let _ = (image.executable_ranges(), image.data_ranges(), image.layout_boundaries());
    for name in [".text", ".eh_frame", ""] {
        let _ = image.section_named(name);
    }
    for frame in image.frame_descriptions().iter().take(MOST_QUESTIONS) {
        let _ = frame.lsda.map(|lsda| image.landing_pads(lsda, frame.start));
        let _ = (image.frame_before(frame.start), image.go_table().and_then(|table| table.function_at(frame.start)));
    }
    let symbols = image.symbols().iter().map(|symbol| symbol.value);
    let slots = image.relocations().iter().map(|relocation| relocation.slot);
    let segments = image.segments().iter().flat_map(|segment| [segment.p_vaddr, segment.memory_end()]);
    for at in segments.chain(symbols).chain(slots).chain([Vaddr(0), Vaddr(u64::MAX)]).take(MOST_QUESTIONS) {
        let _ = (image.c_string(at), image.c_string_within(at, 7), image.bytes(at, 16), image.bytes(at, u64::MAX));
        let _ = (image.read_u64(at), image.read_u32(at), image.read_i32(at), image.is_constant(at));
        let _ = (image.is_code(at), image.is_data(at), image.is_in_code_section(at), image.is_in_string_table(at));
        let _ = image.relocations_in(at..Vaddr(u64::MAX));
    }
}

/// Functions, data, numbers of system calls.
pub fn summary(bytes: &[u8]) {
    let Ok(image) = Image::parse(bytes) else { return };
    let summary = ModuleSummary::new(&image);
    let _ = summary.loader_state(&image);
    for function in summary.functions().all() {
        assert!(summary.functions().at(function.start).is_some(), "a function is found where it starts");
    }
}

/// What a person may have edited: read, written and read again it is the same, and the filter decides as it says.
pub fn policy(bytes: &[u8]) {
    let Ok(policy) = serde_json::from_slice::<Policy>(bytes) else { return };
    let text = serde_json::to_string(&policy).expect("what was read can be written");
    assert_eq!(serde_json::from_str::<Policy>(&text).expect("what was written can be read"), policy);
    if let Ok(filter) = compile(&policy, &FilterOptions::default()) {
        let real = policy.allowed.keys().filter(|nr| **nr <= Specification::HIGHEST);
        assert!(filter.specification().allowed().iter().eq(real));
    }
    let _ = rewrite(SEEDS[0], &policy, &FilterOptions::default()).map(|done| inspect(&done.bytes).expect("a record"));
}

/// What a compiler wrote down, in the section of an object file.
pub fn notes(bytes: &[u8]) {
    let names = b"\0.note.chestnut.calls\0.shstrtab\0";
    let mut file = vec![0_u8; 64];
    file[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    file[16..24].copy_from_slice(&[1, 0, 62, 0, 1, 0, 0, 0]);
    file.extend(bytes);
    file.extend(names);
    let sections = file.len() as u64;
    file[40..48].copy_from_slice(&sections.to_le_bytes());
    file[52..64].copy_from_slice(&[64, 0, 0, 0, 0, 0, 64, 0, 3, 0, 2, 0]);
    let names_at = sections - names.len() as u64;
    let header = |name: u32, kind: u32, start: u64, length: u64| {
        let mut header = [name, kind].map(u32::to_le_bytes).concat();
        header.extend([0, 0, start, length, 0, 1, 0].map(u64::to_le_bytes).concat());
        header
    };
    file.extend(header(0, 0, 0, 0));
    file.extend(header(1, 7, 64, bytes.len() as u64));
    file.extend(header(23, 3, names_at, names.len() as u64));
    let _ = Notes::read(&file);
    let _ = Notes::read(bytes);
}

/// What is not refused can be restored, byte for byte, and inspected.
pub fn rewrite_and_back(bytes: &[u8]) {
    let done = match rewrite(bytes, policy_of_a_test(), &FilterOptions::default()) {
        Ok(done) => done,
        Err(error @ chestnut_rewriter::Error::Verification { .. }) => panic!("{error}"),
        Err(_) => return,
    };
    assert!(check(bytes).is_ok() && is_patched(&done.bytes).expect("it is a program"));
    assert!(unpatch(&done.bytes).expect("it is patched") == bytes, "the way back");
    let inspection = inspect(&done.bytes).expect("it is patched");
    assert!(inspection.filter.specification().allowed().iter().eq(policy_of_a_test().allowed.keys()));
    assert_sound(bytes, &done.bytes);
}

/// What loaders rely on, read by another parser: one segment more, above all others, entered first; and nothing of what
/// was loaded before is loaded in another way.
fn assert_sound(old: &[u8], new: &[u8]) {
    // Goblin refuses what no loader looks at.
    let (Ok(old), Ok(new)) = (goblin::elf::Elf::parse(old), goblin::elf::Elf::parse(new)) else { return };
    let loads = |elf: &goblin::elf::Elf<'_>| {
        elf.program_headers.iter().filter(|header| header.p_type == 1).cloned().collect::<Vec<_>>()
    };
    let (old_loads, new_loads) = (loads(&old), loads(&new));
    assert_eq!(new_loads.len(), old_loads.len() + 1);
    for (old, new) in old_loads.iter().zip(&new_loads) {
        assert_eq!((old.p_vaddr, old.p_offset, old.p_flags), (new.p_vaddr, new.p_offset, new.p_flags));
        assert!(old.p_memsz <= new.p_memsz && old.p_filesz <= new.p_filesz);
    }
    let added = new_loads.last().expect("there is one");
    assert_eq!((added.p_flags, new.header.e_entry), (5, added.p_vaddr));
    assert!(old_loads.iter().all(|load| load.p_vaddr + load.p_memsz <= added.p_vaddr));
    // Where the table is in memory, before Linux 5.18 and since (fs/binfmt_elf.c, load_elf_binary and create_elf_tables;
    // commit 0da1d5002745).
    let first = &new_loads[0];
    let before = new.header.e_phoff.wrapping_add(first.p_vaddr).wrapping_sub(first.p_offset);
    let holder =
        new_loads.iter().find(|load| (load.p_offset..load.p_offset + load.p_filesz).contains(&new.header.e_phoff));
    // A table that stayed where it was may always have been outside of memory.
    let Some(holder) = holder else { return assert_eq!(new.header.e_phoff, old.header.e_phoff) };
    assert_eq!(before, new.header.e_phoff.wrapping_sub(holder.p_offset).wrapping_add(holder.p_vaddr), "AT_PHDR");
}

/// Anything in place of a patched file; or any record in one.
pub fn unpatch_and_inspect(bytes: &[u8]) {
    let look = |bytes: &[u8]| {
        let _ = (is_patched(bytes), inspect(bytes));
        let _ = unpatch(bytes);
    };
    look(bytes);
    static PATCHED: OnceLock<Vec<u8>> = OnceLock::new();
    let patched = PATCHED.get_or_init(|| {
        rewrite(SEEDS[0], policy_of_a_test(), &FilterOptions::default()).expect("a seed can be patched").bytes
    });
    let Some((&how, rest)) = bytes.split_first() else { return };
    if how & 1 == 0 {
        look(&edited(patched, &mut Input(rest)));
        return;
    }
    // The record's text is packed, which no fuzzer sees through: length and text are its own.
    let at = patched.windows(9).rposition(|window| window == b"Chestnut\0").expect("there is a note");
    let mut file = patched[..at + 12 + 44].to_vec();
    let text = miniz_oxide::deflate::compress_to_vec(rest, 1);
    let length = if how & 2 == 0 { rest.len() as u32 } else { u32::MAX >> (how >> 2 & 31) };
    file.extend([length.to_le_bytes(), u32::from(how >> 7).to_le_bytes()].concat());
    file.extend(if how & 0x80 == 0 { &[][..] } else { &[7; 8] });
    file.extend(text);
    file.resize(patched.len().max(file.len()), 0);
    look(&file);
}

/// One field after the other of a valid file.
pub fn fields(bytes: &[u8]) {
    let Some((&seed, rest)) = bytes.split_first() else { return };
    let file = edited(SEEDS[usize::from(seed) % SEEDS.len()], &mut Input(rest));
    image(&file);
    summary(&file);
    rewrite_and_back(&file);
}

/// A program, its library and its loader, one of which is edited, from their files to a policy.
pub fn bind(bytes: &[u8]) {
    let Some((&which, rest)) = bytes.split_first() else { return };
    // Files that are mapped must not be written to by another thread.
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let number = CALLS.fetch_add(1, Ordering::Relaxed);
    let base = if Path::new("/dev/shm").is_dir() { PathBuf::from("/dev/shm") } else { std::env::temp_dir() };
    let folder = base.join(format!("chestnut-fuzz-{}-{number}", std::process::id()));
    std::fs::create_dir_all(folder.join("lib64")).expect("the folder can be written to");
    let which = usize::from(which) % 5;
    let (program, places) =
        (if which < 3 { 0 } else { which }, ["program", "lib64/libx.so", "lib64/ld-linux-x86-64.so.2"]);
    for (index, place) in places.iter().enumerate() {
        let seed = SEEDS[if index == 0 { program } else { index }];
        let is_edited = index == if which < 3 { which } else { 0 };
        let file = if is_edited { edited(seed, &mut Input(rest)) } else { seed.to_vec() };
        std::fs::write(folder.join(place), file).expect("the folder can be written to");
    }
    let mut options = chestnut_analyzer::Options::default();
    options.root = folder.clone();
    options.nss = Some(vec!["files".to_owned()]);
    let _ = chestnut_analyzer::analyze(&folder.join("program"), &options);
    let _ = std::fs::remove_dir_all(&folder);
}
