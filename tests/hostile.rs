//! Files that lie in one field: refused with the reason, or handled, and then the patched program does what the
//! original does. Sections, symbols, notes and frame descriptions prove nothing; what the kernel and the loader read,
//! rules. `analyzer/src/elf/tests/malformed.rs` has the fields that the analyzer reads.

#![cfg(test)]

mod programs;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use chestnut_analyzer::policy::{AssumptionKind, Policy};
use chestnut_analyzer::{Options, analyze};
use chestnut_rewriter::{Error, FilterOptions, TablePlacement, inspect, rewrite, unpatch};
use goblin::elf::program_header::{PT_DYNAMIC, PT_GNU_PROPERTY, PT_GNU_STACK, PT_INTERP, PT_LOAD, PT_NOTE, PT_TLS};
use programs::{Scratch, call, denying, limited, read, run, signal, source_path, text};

/// A small program, with places in it.
struct Victim {
    scratch: Scratch,
    bytes: Vec<u8>,
}

const P_TYPE: usize = 0;
const P_FLAGS: usize = 4;
const P_OFFSET: usize = 8;
const P_VADDR: usize = 16;
const P_FILESZ: usize = 32;
const P_MEMSZ: usize = 40;
const P_ALIGN: usize = 48;

impl Victim {
    fn new(command: &str) -> Self {
        let scratch = Scratch::new();
        let bytes = read(&scratch.build(command, "probe.c", "probe"));
        Self { scratch, bytes }
    }

    /// Indices of the program headers of a type.
    fn headers(&self, p_type: u32) -> Vec<usize> {
        let headers = goblin::elf::Elf::parse(&self.bytes).unwrap().program_headers;
        (0..headers.len()).filter(|index| headers[*index].p_type == p_type).collect()
    }

    fn field(&self, header: usize, field: usize) -> u64 {
        let at = 64 + 56 * header + field;
        u64::from_le_bytes(self.bytes[at..at + 8].try_into().unwrap())
    }

    /// With other bytes in fields of a program header.
    fn poked(&self, header: usize, fields: &[(usize, &[u8])]) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        for (field, new) in fields {
            let at = 64 + 56 * header + field;
            bytes[at..at + new.len()].copy_from_slice(new);
        }
        bytes
    }

    /// The reason for which it is refused.
    fn refusal(&self, bytes: &[u8]) -> String {
        match rewrite(bytes, &denying(&[]), &FilterOptions::default()) {
            Err(error @ (Error::Damaged { .. } | Error::Truncated { .. })) => error.to_string(),
            other => panic!("{:?}", other.map(|done| done.layout)),
        }
    }

    /// Patched, it does what it does unpatched: runs, dies, or is not even started by the kernel.
    fn assert_handled(&self, bytes: &[u8], what: &str) {
        let rewritten = rewrite(bytes, &denying(&["getppid"]), &FilterOptions::default());
        let rewritten = rewritten.unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(unpatch(&rewritten.bytes).unwrap(), bytes, "{what}");
        let original = self.scratch.program("poked", bytes);
        let patched = self.scratch.program("patched", &rewritten.bytes);
        let outcome = |path: &Path| match Command::new(path).arg("argument").output() {
            Ok(output) => (output.status.code(), signal(&output), text(&output.stdout)),
            Err(error) => (error.raw_os_error(), None, "not started".to_owned()),
        };
        assert_eq!(outcome(&patched), outcome(&original), "{what}");
    }
}

/// `PN_XNUM` says that the count stands in section 0: the kernel does not look there.
#[test]
fn extended_program_header_count() {
    let mut victim = Victim::new("gcc");
    victim.bytes[56..58].copy_from_slice(&0xffff_u16.to_le_bytes());
    assert!(victim.refusal(&victim.bytes).contains("e_phnum is 65535, expected 1 to 65534"));
}

/// Alignments that are none, or larger than the address space: the kernel has its own opinion, which stays.
#[test]
fn alignment_of_segments() {
    for command in ["gcc", "gcc -static -no-pie"] {
        let victim = Victim::new(&format!("{command} -pthread"));
        for align in [0, 1, 3, 0x1001, 1 << 21, 1 << 40, 1 << 62, 1 << 63, u64::MAX] {
            for load in victim.headers(PT_LOAD) {
                let bytes = victim.poked(load, &[(P_ALIGN, &align.to_le_bytes())]);
                victim.assert_handled(&bytes, &format!("{command}: p_align {align:#x} of {load}"));
            }
        }
    }
}

/// Memory sizes beyond user space, and up to its end.
#[test]
fn memory_size_of_segments() {
    let victim = Victim::new("gcc");
    let last = *victim.headers(PT_LOAD).last().unwrap();
    for size in [1_u64 << 47, u64::MAX, u64::MAX - victim.field(last, P_VADDR)] {
        let refusal = victim.refusal(&victim.poked(last, &[(P_MEMSZ, &size.to_le_bytes())]));
        assert!(refusal.contains("p_vaddr + p_memsz"), "{refusal}");
    }
    let huge = (1_u64 << 46).to_le_bytes();
    match rewrite(&victim.poked(last, &[(P_MEMSZ, &huge)]), &denying(&[]), &FilterOptions::default()) {
        Err(Error::TooFar { .. } | Error::NoPlaceForTable { .. }) => {}
        other => panic!("{:?}", other.map(|done| done.layout)),
    }
}

/// LOADs of no size, where they are in order and where they are not.
#[test]
fn empty_segments() {
    for command in ["gcc", "gcc -static -no-pie"] {
        let victim = Victim::new(&format!("{command} -pthread"));
        let stack = victim.headers(PT_GNU_STACK)[0];
        let last = *victim.headers(PT_LOAD).last().unwrap();
        let end = victim.field(last, P_VADDR) + victim.field(last, P_MEMSZ);
        let address = end.next_multiple_of(4096).to_le_bytes();
        let load = PT_LOAD.to_le_bytes();
        let in_order = victim.poked(stack, &[(P_TYPE, &load), (P_VADDR, &address), (P_OFFSET, &[0; 8])]);
        victim.assert_handled(&in_order, &format!("{command}: an empty LOAD behind all others"));
        let below = victim.poked(stack, &[(P_TYPE, &load), (P_VADDR, &[0; 8]), (P_OFFSET, &[0; 8])]);
        assert!(victim.refusal(&below).contains("p_vaddr"), "{}", victim.refusal(&below));
        // All of a LOAD's file part is gone: it is zeros.
        let emptied = victim.poked(last, &[(P_FILESZ, &[0; 8])]);
        victim.assert_handled(&emptied, &format!("{command}: a LOAD without bytes"));
    }
}

/// Segments that can be written and executed, and such that cannot be executed any more.
#[test]
fn rights_of_segments() {
    for command in ["gcc", "gcc -static -no-pie"] {
        let victim = Victim::new(&format!("{command} -pthread"));
        for load in victim.headers(PT_LOAD) {
            for flags in [0, 1, 2, 4, 7, 0xffff_fff7_u32] {
                let bytes = victim.poked(load, &[(P_FLAGS, &flags.to_le_bytes())]);
                victim.assert_handled(&bytes, &format!("{command}: p_flags {flags:#x} of {load}"));
            }
        }
    }
}

/// That a segment is writable and executable is something that the policy says: its code may change.
#[test]
fn writable_code_is_an_assumption() {
    let victim = Victim::new("gcc");
    let assumed = |bytes: &[u8], name| {
        let assumptions = policy_of(&victim.scratch.program(name, bytes)).assumptions;
        let written = assumptions.into_iter().filter(|assumption| assumption.kind == AssumptionKind::WritableCode);
        written.map(|assumption| assumption.text).collect::<Vec<_>>()
    };
    assert_eq!(assumed(&victim.bytes, "as-it-is"), Vec::<String>::new());
    let code = victim.headers(PT_LOAD)[1];
    let found = assumed(&victim.poked(code, &[(P_FLAGS, &7_u32.to_le_bytes())]), "writable");
    let [text] = found.as_slice() else { panic!("{found:?}") };
    assert!(text.contains(&format!("{:#x} to", victim.field(code, P_VADDR))), "{text}");
}

/// LOADs that overlap, that share a page in another order, that swap places.
#[test]
fn order_of_segments() {
    let victim = Victim::new("gcc");
    let loads = victim.headers(PT_LOAD);
    let (first, second) = (loads[0], loads[1]);
    let mut swapped = victim.bytes.clone();
    let place = |index: usize| 64 + 56 * index;
    let (one, other) = (place(first), place(second));
    for byte in 0..56 {
        swapped.swap(one + byte, other + byte);
    }
    assert!(victim.refusal(&swapped).contains("p_vaddr"));
    let longer = (victim.field(second, P_VADDR) - victim.field(first, P_VADDR) + 1).to_le_bytes();
    let overlapping = victim.poked(first, &[(P_MEMSZ, &longer)]);
    assert!(victim.refusal(&overlapping).contains("p_vaddr"));
}

/// A PT_PHDR that names another place or another size: the loader would take the file for moved.
#[test]
fn lost_table() {
    let victim = Victim::new("gcc");
    let phdr = victim.headers(6)[0];
    for (field, change) in [(P_VADDR, 0x1000), (P_VADDR, u64::MAX), (P_FILESZ, 56)] {
        let value = victim.field(phdr, field).wrapping_add(change).to_le_bytes();
        let refusal = victim.refusal(&victim.poked(phdr, &[(field, &value)]));
        assert!(refusal.contains(if field == P_VADDR { "p_vaddr" } else { "p_filesz" }), "{refusal}");
    }
}

/// The entry point in data, in no segment, behind the last byte of the file part: the stub goes where the kernel went.
#[test]
fn entry_points_elsewhere() {
    for command in ["gcc", "gcc -static -no-pie"] {
        let victim = Victim::new(&format!("{command} -pthread"));
        let last = *victim.headers(PT_LOAD).last().unwrap();
        let data = victim.field(last, P_VADDR);
        for entry in [data + 16, data + victim.field(last, P_MEMSZ) - 1, data + 0x10_0000] {
            let mut bytes = victim.bytes.clone();
            bytes[24..32].copy_from_slice(&entry.to_le_bytes());
            victim.assert_handled(&bytes, &format!("{command}: e_entry {entry:#x}"));
        }
        // An address that no jump reaches.
        let mut bytes = victim.bytes.clone();
        bytes[24..32].copy_from_slice(&(1_u64 << 46).to_le_bytes());
        let refused = rewrite(&bytes, &denying(&[]), &FilterOptions::default());
        assert!(matches!(refused, Err(Error::TooFar { .. })), "{:?}", refused.map(|done| done.layout));
    }
}

/// What is loaded of a file, and what its headers say of it, goblin reads in the patched one as in the original, but for
/// the headers themselves.
fn assert_preserved(old: &[u8], new: &[u8], what: &str) {
    let (before, after) = (goblin::elf::Elf::parse(old).unwrap(), goblin::elf::Elf::parse(new).unwrap());
    let table = usize::try_from(after.header.e_phoff).unwrap();
    let headers = [0..64, table..table + 56 * after.program_headers.len()];
    for segment in before.program_headers.iter().filter(|segment| segment.p_type == PT_LOAD) {
        let range = segment.file_range();
        let kept = after.program_headers.iter().find(|other| other.p_vaddr == segment.p_vaddr).unwrap();
        assert_eq!((kept.p_offset, kept.p_flags), (segment.p_offset, segment.p_flags), "{what}");
        for at in range.filter(|at| !headers.iter().any(|header| header.contains(at))) {
            assert_eq!(new[at], old[at], "{what}: the byte at {at:#x}");
        }
    }
    // What the loader follows has its bytes, wherever it is now.
    for p_type in [PT_INTERP, PT_DYNAMIC, PT_TLS] {
        let of = |elf: &goblin::elf::Elf<'_>, bytes: &[u8]| {
            let found = elf.program_headers.iter().filter(|segment| segment.p_type == p_type);
            found.map(|segment| bytes[segment.file_range()].to_vec()).collect::<Vec<_>>()
        };
        assert_eq!(of(&after, new), of(&before, old), "{what}: segment of type {p_type}");
    }
}

/// A section header table that lies in what is loaded: it is left there, and the new one stands elsewhere.
#[test]
fn loaded_section_headers() {
    for command in ["gcc", "gcc -static -no-pie"] {
        let victim = Victim::new(&format!("{command} -pthread"));
        let loads = victim.headers(PT_LOAD);
        let last = *loads.last().unwrap();
        let length = (u64::try_from(victim.bytes.len()).unwrap() - victim.field(last, P_OFFSET)).to_le_bytes();
        let bytes = victim.poked(last, &[(P_FILESZ, &length), (P_MEMSZ, &length)]);
        let patched = rewrite(&bytes, &denying(&[]), &FilterOptions::default()).unwrap().bytes;
        assert_preserved(&bytes, &patched, command);
        assert_eq!(unpatch(&patched).unwrap(), bytes, "{command}");
    }
}

/// A segment that lies where interpreter and notes do, which move to make room, and is none of them: it keeps its bytes.
#[test]
fn segments_over_neighbours_of_the_table() {
    let victim = Victim::new("gcc -fuse-ld=lld -pie");
    let rewritten = rewrite(&victim.bytes, &denying(&[]), &FilterOptions::default()).unwrap();
    assert_eq!(rewritten.layout.placement, TablePlacement::MovedNeighbours);
    assert_preserved(&victim.bytes, &rewritten.bytes, "as it is");
    let (start, end, _) = rewritten.layout.moved.unwrap();
    let (stack, neighbour) = (victim.headers(PT_GNU_STACK)[0], victim.headers(PT_INTERP)[0]);
    // One of no size is nowhere.
    for p_type in [PT_GNU_STACK, PT_NOTE, PT_GNU_PROPERTY] {
        for offset in [start, start + 8, end] {
            let (p_type, place) = (p_type.to_le_bytes(), offset.to_le_bytes());
            let bytes = victim.poked(stack, &[(P_TYPE, &p_type), (P_OFFSET, &place), (P_VADDR, &place)]);
            let rewritten = rewrite(&bytes, &denying(&[]), &FilterOptions::default()).unwrap();
            assert_eq!(rewritten.layout.placement, TablePlacement::MovedNeighbours);
        }
    }
    // The same bytes once more, loaded elsewhere.
    let last = *victim.headers(PT_LOAD).last().unwrap();
    let behind = victim.field(last, P_VADDR) + victim.field(last, P_MEMSZ);
    let address = (behind.next_multiple_of(4096) + start % 4096).to_le_bytes();
    let (p_type, flags, place, length) =
        (PT_LOAD.to_le_bytes(), [4, 0, 0, 0], start.to_le_bytes(), 0x200_u64.to_le_bytes());
    let fields: [(usize, &[u8]); 6] = [
        (P_TYPE, &p_type),
        (P_FLAGS, &flags),
        (P_OFFSET, &place),
        (P_VADDR, &address),
        (P_FILESZ, &length),
        (P_MEMSZ, &length),
    ];
    let bytes = victim.poked(stack, &fields);
    let patched = rewrite(&bytes, &denying(&[]), &FilterOptions::default()).unwrap().bytes;
    assert_preserved(&bytes, &patched, "with a second PT_LOAD over PT_INTERP");
    let place =
        [P_OFFSET, P_VADDR, P_FILESZ, P_MEMSZ].map(|field| (field, victim.field(neighbour, field).to_le_bytes()));
    let mut fields: Vec<(usize, &[u8])> = place.iter().map(|(field, value)| (*field, value.as_slice())).collect();
    let p_type = PT_TLS.to_le_bytes();
    fields.push((P_TYPE, &p_type));
    let bytes = victim.poked(stack, &fields);
    let patched = rewrite(&bytes, &denying(&[]), &FilterOptions::default()).unwrap().bytes;
    assert_preserved(&bytes, &patched, "with PT_TLS over PT_INTERP");
}

/// Every field of every section header, and every symbol, says something else: nothing of it is needed.
#[test]
fn sections_and_symbols_prove_nothing() {
    let victim = Victim::new("gcc");
    let elf = goblin::elf::Elf::parse(&victim.bytes).unwrap();
    let table = usize::try_from(elf.header.e_shoff).unwrap();
    let (mut handled, mut refused) = (0, 0);
    for (index, field) in (1..elf.section_headers.len()).flat_map(|index| (0..64).step_by(8).map(move |at| (index, at)))
    {
        let mut bytes = victim.bytes.clone();
        let at = table + 64 * index + field;
        bytes[at..at + 8].copy_from_slice(&0x0000_0007_0000_0003_u64.to_le_bytes());
        match rewrite(&bytes, &denying(&[]), &FilterOptions::default()) {
            Ok(done) => {
                assert_eq!(unpatch(&done.bytes).unwrap(), bytes);
                handled += 1;
            }
            Err(Error::Verification { what }) => panic!("section {index}, field {field}: {what}"),
            Err(error) => {
                assert!(error.to_string().contains("section") || error.to_string().contains("e_shstrndx"), "{error}");
                refused += 1;
            }
        }
    }
    assert!(handled > refused && refused > 0, "{handled} {refused}");
    // The names and values of all symbols are nonsense: the program runs, and its analysis finds the same calls.
    let symbols = elf.section_headers.iter().find(|section| section.sh_type == 2).unwrap();
    let (start, size) = (usize::try_from(symbols.sh_offset).unwrap(), usize::try_from(symbols.sh_size).unwrap());
    let mut bytes = victim.bytes.clone();
    for (number, byte) in bytes[start + 24..start + size].iter_mut().enumerate() {
        *byte = u8::try_from(number * 37 % 251).unwrap();
    }
    let allowed = |bytes: &[u8], name| policy_of(&victim.scratch.program(name, bytes)).allowed;
    let (whole, lying) = (allowed(&victim.bytes, "whole"), allowed(&bytes, "lying"));
    assert!(whole.keys().eq(lying.keys()));
    victim.assert_handled(&bytes, "symbols");
}

fn policy_of(program: &Path) -> Policy {
    let mut options = Options::default();
    options.nss = Some(vec!["files".to_owned()]);
    analyze(program, &options).unwrap_or_else(|error| panic!("{error}"))
}

/// A program without libc whose few calls are known.
fn freestanding(scratch: &Scratch) -> PathBuf {
    let path = scratch.path("freestanding");
    let source = source_path("../cli/program.s");
    let words = ["-nostdlib", "-static", "-Wl,--eh-frame-hdr", source.to_str().unwrap(), "-o", path.to_str().unwrap()];
    assert!(run("gcc", &words).status.success());
    path
}

/// Frame descriptions that begin elsewhere, are longer or shorter, overlap or lead nowhere: the calls that the program
/// makes are found, whatever they say.
#[test]
fn frame_descriptions_that_lie() {
    let scratch = Scratch::new();
    let program = freestanding(&scratch);
    let bytes = read(&program);
    let elf = goblin::elf::Elf::parse(&bytes).unwrap();
    let sections = elf.section_headers.iter().filter(|section| {
        let name = elf.shdr_strtab.get_at(section.sh_name).unwrap_or_default();
        name.starts_with(".eh_frame")
    });
    let places: Vec<usize> = sections
        .flat_map(|section| {
            let start = usize::try_from(section.sh_offset).unwrap();
            start..start + usize::try_from(section.sh_size).unwrap()
        })
        .collect();
    assert!(places.len() > 100);
    let needed = ["getppid", "getpid", "exit_group"].map(call);
    let mut lost = Vec::new();
    for &at in &places {
        for change in [1, 2, 0xff] {
            let mut lying = bytes.clone();
            lying[at] = lying[at].wrapping_add(change);
            std::fs::write(scratch.path("lying"), &lying).unwrap();
            let policy = policy_of(&scratch.path("lying"));
            for call in needed {
                if !policy.allowed.contains_key(&call) && policy.unresolved.is_empty() {
                    lost.push(format!("{at:#x} + {change}: {call}"));
                }
            }
        }
    }
    assert!(lost.is_empty(), "of {}: {lost:#?}", places.len() * 3);
}

/// Libraries that need each other, and one that needs itself.
#[test]
fn cyclic_libraries() {
    let scratch = Scratch::new();
    let folder = scratch.path("");
    let build = |name: &str, code: &str, more: &str| {
        let source = scratch.path(&format!("{name}.c"));
        std::fs::write(&source, code).unwrap();
        let kind = if name.starts_with("lib") { format!("-shared -fPIC -Wl,-soname,{name}") } else { String::new() };
        let line = format!(
            "gcc -O1 {kind} -o {name}.new {name}.c -Wl,--no-as-needed {more} -Wl,-rpath,'$ORIGIN' && mv {name}.new {name}"
        );
        let status = Command::new("sh").args(["-c", &line]).current_dir(&folder).status().unwrap();
        assert!(status.success(), "{line}");
    };
    let second = "#include <unistd.h>\nint second(int more) { return getppid() + (more ? 0 : 1); }\n";
    build("libsecond.so", second, "");
    let first = "int second(int);\nint first(int more) { return more ? second(more - 1) : 0; }\n";
    build("libfirst.so", first, "libsecond.so");
    // Now the second one needs the first, and itself.
    let cyclic = "#include <unistd.h>\nint first(int);\nint second(int more) { return getppid() * 0 + first(more); }\n";
    build("libsecond.so", cyclic, "libfirst.so libsecond.so");
    build("program", "int first(int);\nint main(void) { return first(5); }\n", "libfirst.so");
    let needed = text(&run("readelf", &["-dW", scratch.path("libsecond.so").to_str().unwrap()]).stdout);
    assert!(needed.contains("[libfirst.so]") && needed.contains("Shared library: [libsecond.so]"), "{needed}");
    let program = scratch.path("program");
    let policy = policy_of(&program);
    assert!(policy.allowed.contains_key(&call("getppid")));
    let patched = scratch.patch(&program, "patched", &policy);
    let output: Output = limited(patched.to_str().unwrap(), &[]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(inspect(&read(&patched)).is_ok());
}
