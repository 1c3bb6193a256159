//! Patched programs, judged by the kernel, by loaders, and by other tools that read and write ELF files.
//!
//! The numbers of traps are those of a list of what has gone wrong in ELF rewriters before: see each test.

#![cfg(test)]

mod programs;

use std::path::Path;

use chestnut_analyzer::policy::Policy;
use chestnut_rewriter::{Rewritten, TablePlacement, inspect, unpatch};
use goblin::elf::program_header::{
    PF_X, PT_DYNAMIC, PT_GNU_EH_FRAME, PT_GNU_PROPERTY, PT_GNU_RELRO, PT_GNU_STACK, PT_INTERP, PT_LOAD, PT_NOTE,
    PT_PHDR, PT_TLS, ProgramHeader,
};
use programs::{SIGSYS, Scratch, call, denying, identity, patched, read, run, signal, text, tool};

const PAGE: u64 = 4096;

/// Compilers, linkers and kinds of output that are built and compared.
const COMPILERS: [&str; 3] = ["gcc", "clang", "musl-gcc"];
const LINKERS: [&str; 6] =
    ["", "-fuse-ld=lld", "-fuse-ld=gold", "-fuse-ld=mold", "-Wl,-z,noseparate-code", "-Wl,-z,max-page-size=0x200000"];
const KINDS: [&str; 4] = ["-pie -fPIE", "-no-pie", "-static -no-pie", "-static-pie -fPIE"];

/// Every configuration that links and runs unpatched here.
fn configurations() -> impl Iterator<Item = String> {
    COMPILERS.into_iter().flat_map(|compiler| {
        LINKERS.into_iter().flat_map(move |linker| {
            // gold cannot link static position-independent programs with glibc; what lld and mold make of a static
            // one with musl does not start.
            let works = move |kind: &&str| match (compiler, linker) {
                ("gcc" | "clang", "-fuse-ld=gold") => !kind.starts_with("-static-pie"),
                ("musl-gcc", "-fuse-ld=lld" | "-fuse-ld=mold") => *kind != "-static -no-pie",
                _ => true,
            };
            let kinds = KINDS.into_iter().filter(works);
            kinds.map(move |kind| format!("{compiler} {linker} {kind} -pthread"))
        })
    })
}

fn segments(bytes: &[u8]) -> Vec<ProgramHeader> {
    goblin::elf::Elf::parse(bytes).expect("goblin reads it").program_headers
}

/// What the kernel and loaders rely on, read by goblin. Traps 1, 2, 3, 5, 6, 9, 11 and 12.
fn assert_sound(original: &[u8], rewritten: &Rewritten, what: &str) {
    let (old, new) = (segments(original), segments(&rewritten.bytes));
    let header = goblin::elf::Elf::parse(&rewritten.bytes).expect("goblin reads it").header;
    let loads: Vec<_> = new.iter().filter(|segment| segment.p_type == PT_LOAD).collect();
    let added = loads.last().expect("there is one");
    let old_end =
        old.iter().filter(|segment| segment.p_type == PT_LOAD).map(|segment| segment.p_vaddr + segment.p_memsz);
    let old_end = old_end.max().unwrap();
    assert!(added.p_vaddr >= old_end && added.p_vaddr % PAGE == 0, "{what}");
    assert_eq!(header.e_entry, added.p_vaddr, "{what}");
    assert_eq!(added.p_offset % PAGE, 0, "{what}");
    if rewritten.layout.placement != TablePlacement::AddedSegment {
        // Trap 13: right behind the last one, so that the heap begins where it did.
        assert_eq!(added.p_vaddr, old_end.next_multiple_of(PAGE), "{what}");
        // Trap 2: no holes.
        assert!(added.p_offset < (original.len() as u64).next_multiple_of(PAGE) + 2 * PAGE, "{what}");
    }
    for pair in loads.windows(2) {
        assert!(pair[0].p_vaddr + pair[0].p_memsz <= pair[1].p_vaddr, "{what}: PT_LOADs ascend");
    }
    let table = header.e_phoff..header.e_phoff + 56 * u64::from(header.e_phnum);
    let bias = loads[0].p_vaddr.wrapping_sub(loads[0].p_offset);
    let cover = loads.iter().find(|load| load.p_offset <= table.start && load.p_offset + load.p_filesz >= table.end);
    let cover = cover.unwrap_or_else(|| panic!("{what}: the table is in memory"));
    // AT_PHDR before Linux 5.18 and since (fs/binfmt_elf.c: create_elf_tables; commit 0da1d5002745).
    let (before, since) = (bias.wrapping_add(table.start), table.start - cover.p_offset + cover.p_vaddr);
    assert_eq!(before, since, "{what}: old and new kernels find the table");
    if let Some(at) = new.iter().position(|segment| segment.p_type == PT_PHDR) {
        let phdr = &new[at];
        assert_eq!((phdr.p_offset, phdr.p_filesz), (table.start, table.end - table.start), "{what}");
        assert_eq!(phdr.p_vaddr.wrapping_sub(phdr.p_offset), bias, "{what}");
        assert!(new[..at].iter().all(|segment| segment.p_type != PT_LOAD), "{what}: PT_PHDR comes first");
    }
    assert_eq!(unpatch(&rewritten.bytes).expect("it is patched"), original, "{what}: the way back");
}

/// All configurations run as before and have a filter. Traps 1 to 12, 18, 21.
#[test]
fn programs_of_all_linkers_run_as_before() {
    let scratch = Scratch::new();
    for configuration in configurations() {
        let program = scratch.build(&configuration, "probe.c", "probe");
        let expected = run(&program, &["argument"]);
        assert_eq!(expected.status.code(), Some(7), "{configuration}: {}", text(&expected.stderr));
        let without_sections = remove_section_headers(read(&program));
        for (form, bytes) in [("with sections", read(&program)), ("without", without_sections)] {
            let what = format!("{configuration} {form}");
            let rewritten = patched(&bytes, &denying(&["getppid"]));
            assert_sound(&bytes, &rewritten, &what);
            let output = run(scratch.program("patched", &rewritten.bytes), &["argument"]);
            assert_eq!(output.status.code(), Some(7), "{what}: {}", text(&output.stderr));
            assert_eq!(text(&output.stdout), text(&expected.stdout), "{what}");
            assert!(text(&output.stderr).ends_with(" 2\n"), "{what}: a filter is on: {}", text(&output.stderr));
        }
    }
}

fn remove_section_headers(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes[40..48].fill(0);
    bytes[58..64].fill(0);
    let end = segments(&bytes).iter().map(|segment| segment.p_offset + segment.p_filesz).max().unwrap();
    bytes.truncate(usize::try_from(end).unwrap());
    bytes
}

/// Each way to make room for a header is taken by a program for which it is the first that works.
#[test]
fn every_placement_has_its_program() {
    let scratch = Scratch::new();
    let cases = [
        ("gcc", TablePlacement::MergedNotes),
        ("clang -fuse-ld=lld -no-pie", TablePlacement::ReplacedPhdr),
        ("gcc -fuse-ld=lld -pie", TablePlacement::MovedNeighbours),
        ("musl-gcc -pie -fPIE", TablePlacement::Padding),
        ("musl-gcc -fuse-ld=mold -pie -fPIE", TablePlacement::AddedSegment),
    ];
    for (configuration, expected) in cases {
        let program = read(&scratch.build(configuration, "probe.c", "probe"));
        assert_eq!(patched(&program, &denying(&[])).layout.placement, expected, "{configuration}");
    }
}

/// Trap 22, and 7: Go's linker puts section headers behind the program headers; Go's runtime reads its own tables.
#[test]
fn static_go_program_runs() {
    let scratch = Scratch::new();
    let program = scratch.path("hello");
    let mut go = std::process::Command::new("go");
    go.env("GOCACHE", scratch.path("cache")).env("CGO_ENABLED", "0").env("GO111MODULE", "off").args(["build", "-o"]);
    let output = go.arg(&program).arg(programs::source_path("hello.go")).output().expect("go is needed");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let bytes = read(&program);
    let rewritten = patched(&bytes, &denying(&["getppid"]));
    assert_eq!(rewritten.layout.placement, TablePlacement::Grown);
    assert_sound(&bytes, &rewritten, "go");
    let output = run(scratch.program("patched", &rewritten.bytes), &["argument"]);
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(7), "120 true argument\n"));
}

/// Programs of the distribution, each started in a way that shows that it works.
#[test]
fn programs_of_the_system_run() {
    let scratch = Scratch::new();
    let programs: [(&str, &[&str]); 8] = [
        ("/bin/true", &[]),
        ("/bin/ls", &["-d", "/"]),
        ("/bin/cat", &["/proc/self/comm"]),
        ("/bin/bash", &["-c", "(echo one) | while read word; do echo $word; done"]),
        ("/usr/bin/env", &["-i", "A=b"]),
        ("/usr/bin/sort", &["--parallel=2", "/etc/passwd"]),
        ("/usr/bin/awk", &["BEGIN { print 6 * 7 }"]),
        ("/usr/bin/perl", &["-e", "print join ' ', map { $_ * 2 } 1 .. 3"]),
    ];
    for (path, arguments) in programs {
        let bytes = read(Path::new(path));
        let rewritten = patched(&bytes, &denying(&["reboot"]));
        assert_sound(&bytes, &rewritten, path);
        let name = Path::new(path).file_name().unwrap().to_str().unwrap();
        let (expected, found) = (run(path, arguments), run(scratch.program(name, &rewritten.bytes), arguments));
        assert_eq!(found.status.code(), expected.status.code(), "{path}");
        assert_eq!(text(&found.stdout), text(&expected.stdout), "{path}");
    }
}

/// A call that is not allowed kills, with SIGSYS.
#[test]
fn refused_call_kills() {
    let scratch = Scratch::new();
    let program = scratch.build("gcc", "raw.c", "raw");
    let patched = scratch.patch(&program, "patched", &denying(&["getppid"]));
    let number = call("getppid").0.to_string();
    assert_eq!(signal(&run(patched, &["syscall", &number])), Some(SIGSYS));
    assert!(run(program, &["syscall", &number]).status.success());
}

/// Trap 4: a position-dependent program does not grow downwards.
#[test]
fn position_dependent_program_stays_where_it_was() {
    let scratch = Scratch::new();
    for configuration in ["gcc -no-pie", "clang -fuse-ld=lld -static -no-pie", "musl-gcc -static -no-pie"] {
        let bytes = read(&scratch.build(configuration, "probe.c", "probe"));
        let rewritten = patched(&bytes, &denying(&[])).bytes;
        let lowest = |bytes: &[u8]| {
            segments(bytes).iter().filter(|segment| segment.p_type == PT_LOAD).map(|segment| segment.p_vaddr).min()
        };
        assert_eq!(lowest(&rewritten), lowest(&bytes), "{configuration}");
    }
}

/// Traps 14, 15, 16 and 23: dynamic section, notes, stack and hardening headers are what they were.
#[test]
fn everything_else_is_kept() {
    let scratch = Scratch::new();
    for configuration in ["gcc -fcf-protection=full", "gcc -fuse-ld=lld", "clang -no-pie -fuse-ld=lld", "gcc -static"] {
        let program = scratch.build(configuration, "probe.c", "probe");
        let bytes = read(&program);
        let rewritten = patched(&bytes, &denying(&[]));
        let patched = scratch.program("patched", &rewritten.bytes);
        let kept = [PT_DYNAMIC, PT_GNU_EH_FRAME, PT_GNU_RELRO, PT_GNU_STACK, PT_TLS];
        for kind in kept {
            let of = |bytes: &[u8]| -> Vec<_> {
                segments(bytes).into_iter().filter(|segment| segment.p_type == kind).collect()
            };
            assert_eq!(of(&rewritten.bytes), of(&bytes), "{configuration}: {kind:#x}");
        }
        let contents = |bytes: &[u8], kind: u32| -> Vec<Vec<u8>> {
            let of_kind = segments(bytes).into_iter().filter(|segment| segment.p_type == kind);
            of_kind.map(|segment| bytes[segment.file_range()].to_vec()).collect()
        };
        for kind in [PT_INTERP, PT_GNU_PROPERTY] {
            assert_eq!(contents(&rewritten.bytes, kind), contents(&bytes, kind), "{configuration}: {kind:#x}");
        }
        assert_eq!(contents(&rewritten.bytes, PT_NOTE).concat(), contents(&bytes, PT_NOTE).concat(), "{configuration}");
        let dynamic = |path| tool("readelf", &["-dW"], path);
        // readelf names the offset of the section, which is what is compared too.
        assert_eq!(dynamic(&patched), dynamic(&program), "{configuration}");
        let notes = tool("readelf", &["-nW"], &patched);
        for line in tool("readelf", &["-nW"], &program).lines().filter(|line| !line.starts_with("Displaying")) {
            assert!(notes.contains(line), "{configuration}: {line}");
        }
    }
}

/// Nothing in the old part of a file changes but headers, and what stands in the list of changes.
#[test]
fn old_bytes_stay_in_place() {
    for path in ["/bin/ls", "/bin/bash", "/usr/bin/perl"] {
        let bytes = read(Path::new(path));
        let rewritten = patched(&bytes, &denying(&[]));
        let old = &rewritten.bytes[..bytes.len()];
        let table_end = 64 + 56 * segments(&bytes).len();
        let different: Vec<_> = (0..bytes.len()).filter(|at| bytes[*at] != old[*at]).collect();
        let sections = goblin::elf::Elf::parse(&bytes).unwrap().header.e_shoff;
        let allowed = |at: &usize| *at < table_end || *at as u64 >= sections;
        assert!(different.iter().all(allowed), "{path}: {different:?}");
    }
}

/// File growth is at most 8 KiB beyond alignment: also with 2 MiB pages (trap 10), 20 MB of zeros (traps 2 and 13), and
/// the record of two hundred libraries, or of far more than there is room for.
#[test]
fn files_grow_little() {
    let scratch = Scratch::new();
    let hundred =
        ["read", "write"].into_iter().map(call).chain((2..240).step_by(2).map(chestnut_analyzer::syscall::SyscallNr));
    let mut policy = programs::allowing(hundred);
    let library = |number: u32| {
        let digits = format!("{:02x}", number.wrapping_mul(37) & 0xff);
        // Names that pack no better than real ones.
        let name = number.wrapping_mul(0x9e37_79b9);
        identity(&format!("/usr/lib/x86_64-linux-gnu/lib{name:x}name.so.{}", number % 7), &digits)
    };
    policy.libraries.extend((0..213).map(library));
    let mut many = policy.clone();
    many.libraries.extend((213..1000).map(library));
    for configuration in [
        "gcc",
        "gcc -DBSS=20000000",
        "gcc -Wl,-z,max-page-size=0x200000",
        "gcc -static -DBSS=20000000",
        "gcc -fuse-ld=lld -DBSS=20000000",
        "gcc -fuse-ld=gold -DBSS=20000000 -s",
        "musl-gcc -fuse-ld=mold -pie -fPIE",
    ] {
        let program = scratch.build(&format!("{configuration} -pthread"), "probe.c", "probe");
        assert_small_growth(&scratch, &program, &policy, configuration);
        assert_small_growth(&scratch, &program, &many, &format!("{configuration}, many libraries"));
    }
}

/// The same for programs of the distribution with policies of their own.
#[test]
fn programs_of_the_system_grow_little() {
    let scratch = Scratch::new();
    for path in ["/bin/true", "/bin/ls", "/bin/bash", "/usr/bin/apt", "/usr/bin/env", "/usr/bin/perl"] {
        let program = std::fs::canonicalize(path).unwrap();
        let policy = chestnut_analyzer::analyze(&program, &chestnut_analyzer::Options::default()).unwrap();
        assert_small_growth(&scratch, &program, &policy, path);
    }
}

/// Patches, and compares what readelf says of both files: content is all that is new but the bytes between the end of
/// section headers and names and the page of the new segment.
fn assert_small_growth(scratch: &Scratch, program: &Path, policy: &Policy, what: &str) {
    let rewritten = patched(&read(program), policy);
    let output = scratch.program("grown", &rewritten.bytes);
    let old_length = program.metadata().unwrap().len();
    let hexadecimal =
        |word: &str| u64::from_str_radix(word.trim_start_matches("0x").trim_end_matches(':'), 16).unwrap();
    let loads = |path: &Path| -> Vec<(u64, u64)> {
        let said = tool("readelf", &["-lW"], path);
        let lines = said.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let loads = lines.filter(|words| words.first() == Some(&"LOAD"));
        loads.map(|words| (hexadecimal(words[1]), hexadecimal(words[4]))).collect()
    };
    let (start, length) = *loads(&output).last().unwrap();
    assert!(loads(program).iter().all(|load| load.0 < start), "{what}");
    assert_eq!(start + length, rewritten.bytes.len() as u64, "{what}: the new segment ends the file");
    let said = tool("readelf", &["-SW"], &output);
    let table = said.split_once("starting at offset ").unwrap().1.split_whitespace().next().map(hexadecimal).unwrap();
    let count = said.split_once("There are ").unwrap().1.split_whitespace().next().unwrap().parse::<u64>().unwrap();
    let names = said.lines().rev().find_map(|line| line.split_once("] .shstrtab ")).unwrap().1;
    let names: Vec<_> = names.split_whitespace().collect();
    let names_end = hexadecimal(names[2]) + hexadecimal(names[3]);
    let front = old_length.max(table + 64 * count).max(names_end);
    let content = front - old_length + length;
    assert!(content <= 8192, "{what}: {content}");
    assert_eq!(content, rewritten.layout.content(), "{what}");
    let holes = rewritten.layout.placement == TablePlacement::AddedSegment;
    assert!(start - front < PAGE || holes, "{what}: no more than alignment");
    unpatch(&rewritten.bytes).unwrap();
    std::fs::remove_file(&output).unwrap();
}

/// The added segment can be read and executed, never written.
#[test]
fn added_segment_is_not_writable() {
    let rewritten = patched(&read(Path::new("/bin/true")), &denying(&[]));
    let added = segments(&rewritten.bytes).into_iter().rfind(|segment| segment.p_type == PT_LOAD).unwrap();
    assert_eq!(added.p_flags, PF_X | goblin::elf::program_header::PF_R);
}

/// The same input gives the same bytes.
#[test]
fn result_is_reproducible() {
    let bytes = read(Path::new("/bin/ls"));
    let policy = denying(&["getppid"]);
    assert_eq!(patched(&bytes, &policy).bytes, patched(&bytes, &policy).bytes);
}

/// What a patched file says about itself.
#[test]
fn inspection_says_what_was_put_in() {
    let mut policy = denying(&["getppid", "reboot"]);
    policy.libraries.push(identity("/lib/libc.so.6", "c0"));
    let rewritten = patched(&read(Path::new("/bin/ls")), &policy);
    let inspection = inspect(&rewritten.bytes).unwrap();
    assert_eq!(&inspection.filter, &rewritten.filter);
    assert!(inspection.filter.specification().allowed().iter().eq(policy.allowed.keys()));
    let files: Vec<_> =
        inspection.files.iter().map(|file| (file.path.to_str().unwrap(), file.digest.as_str())).collect();
    assert_eq!(files, [("/usr/bin/program", "0101010101010101"), ("/lib/libc.so.6", "c0c0c0c0c0c0c0c0")]);
}
