//! Input that is damaged, or not for this tool: each is refused with the reason that belongs to it, and nothing panics.

#![cfg(test)]

mod programs;

use std::path::Path;

use chestnut_rewriter::{Error, FilterOptions, check, inspect, is_patched, rewrite, unpatch};
use programs::{Scratch, denying, patched, read, run};

/// A small program with everything in it.
fn program() -> Vec<u8> {
    read(Path::new("/bin/true"))
}

fn refusal(bytes: &[u8]) -> Error {
    match rewrite(bytes, &denying(&[]), &FilterOptions::default()) {
        Err(error) => error,
        Ok(_) => panic!("patched"),
    }
}

/// The program with other bytes at a place.
fn poked(at: usize, new: &[u8]) -> Vec<u8> {
    let mut bytes = program();
    bytes[at..at + new.len()].copy_from_slice(new);
    bytes
}

/// One field of the file header after the other.
#[test]
fn file_header_fields_are_checked() {
    let cases: [(&str, usize, &[u8], &str); 12] = [
        ("magic", 0, b"MZ", "not an ELF file"),
        ("class", 4, &[1], "EI_CLASS is 1"),
        ("class", 4, &[9], "EI_CLASS is 9"),
        ("data", 5, &[2], "EI_DATA is 2"),
        ("version", 6, &[0], "e_version"),
        ("type", 16, &[1, 0], "ET_REL"),
        ("type", 16, &[4, 0], "ET_CORE"),
        ("type", 16, &[0, 0xfe], "e_type is 65024"),
        ("machine", 18, &[183, 0], "e_machine is 183"),
        ("phentsize", 54, &[32, 0], "e_phentsize is 32"),
        ("phnum", 56, &[0, 0], "e_phnum is 0"),
        ("shentsize", 58, &[40, 0], "e_shentsize is 40"),
    ];
    for (field, at, new, expected) in cases {
        let message = refusal(&poked(at, new)).to_string();
        assert!(message.contains(expected), "{field}: {message}");
    }
}

/// Tables and segments that point where nothing is.
#[test]
fn places_are_checked() {
    let far = 0x7fff_ffff_ffff_fff0_u64.to_le_bytes();
    let header = |index: usize, field: usize| 64 + 56 * index + field;
    let load = segment_index(1);
    let cases = [
        ("e_phoff", 32, "the program header table"),
        ("e_shoff", 40, "the section header table"),
        ("p_offset", header(load, 8), "segment"),
        ("p_filesz", header(load, 32), "segment"),
        ("p_vaddr", header(load, 16), "p_vaddr"),
    ];
    for (field, at, expected) in cases {
        let error = refusal(&poked(at, &far));
        assert!(error.to_string().contains(expected), "{field}: {error}");
        assert!(matches!(error, Error::Truncated { .. } | Error::Damaged { .. }), "{field}: {error:?}");
    }
    // One byte off its page; below the one before it; PT_PHDR elsewhere; more in the file than in memory.
    let second = segment_index(1) + 1;
    for (at, new) in [(header(second, 16), 1_u64), (header(second, 16), 0), (header(0, 8), 65), (header(load, 40), 1)] {
        assert!(matches!(refusal(&poked(at, &new.to_le_bytes())), Error::Damaged { .. }), "{at} {new}");
    }
    let last = u16::MAX.to_le_bytes();
    assert!(matches!(refusal(&poked(62, &last)), Error::Damaged { .. }), "e_shstrndx");
}

/// Index of the first program header of a type.
fn segment_index(p_type: u32) -> usize {
    let bytes = program();
    let types = bytes[64..].chunks(56).map(|header| u32::from_le_bytes(header[..4].try_into().unwrap()));
    types.take(20).position(|found| found == p_type).unwrap()
}

/// Cut off anywhere, a file is refused as such.
#[test]
fn every_truncation_is_refused() {
    let bytes = program();
    for length in (0..600).chain((600..bytes.len()).step_by(97)).chain([bytes.len() - 1]) {
        match refusal(&bytes[..length]) {
            Error::NotElf { .. } if length < 4 => {}
            Error::Truncated { file_length, .. } => assert_eq!(file_length, length as u64),
            other => panic!("{length}: {other:?}"),
        }
    }
}

/// Libraries, also those that can be started; object files; core files are in the tests of the header.
#[test]
fn libraries_are_refused() {
    let scratch = Scratch::new();
    for path in ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"] {
        assert!(matches!(refusal(&read(Path::new(path))), Error::SharedLibrary { name: Some(_) }), "{path}");
    }
    for flags in ["-shared -fPIC", "-shared -fPIC -fuse-ld=lld", "-shared -fPIC -Wl,-soname,libx.so"] {
        let library = scratch.build(&format!("gcc {flags}"), "early_thread.c", "library.so");
        assert!(matches!(refusal(&read(&library)), Error::SharedLibrary { .. }), "{flags}");
    }
    let object = scratch.build("gcc -c", "probe.c", "object.o");
    assert!(refusal(&read(&object)).to_string().contains("ET_REL"));
    let narrow = scratch.path("narrow.o");
    let made = run("as", &["--32", "-o", narrow.to_str().unwrap(), "/dev/null"]);
    assert!(made.status.success());
    assert!(refusal(&read(&narrow)).to_string().contains("EI_CLASS is 1"));
}

/// Scripts, with the name of what runs them.
#[test]
fn scripts_are_refused_by_interpreter() {
    let cases = [("#!/bin/sh\necho\n", "/bin/sh"), ("#! /usr/bin/env -S python3 -u", "python3"), ("#!", "")];
    for (script, expected) in cases {
        match refusal(script.as_bytes()) {
            Error::Script { interpreter } => assert_eq!(interpreter, expected),
            other => panic!("{other:?}"),
        }
    }
    assert!(matches!(refusal(b""), Error::NotElf { .. }));
}

/// Trap 20: data behind the end is found by its distance from there, or from the start.
#[test]
fn trailing_data_is_refused() {
    let mut bytes = program();
    let end = bytes.len() as u64;
    bytes.extend([0; 64]);
    assert!(check(&bytes).is_ok(), "zeros are padding");
    bytes.extend(b"PK\x05\x06 an archive");
    match refusal(&bytes) {
        Error::TrailingData { offset, length } => assert_eq!((offset, length), (end, 64 + 15)),
        other => panic!("{other:?}"),
    }
}

/// Trap 21: packed code cannot be seen.
#[test]
fn packed_files_are_refused() {
    let bytes = program();
    let headers = usize::from(u16::from_le_bytes([bytes[56], bytes[57]]));
    let mark = 64 + 56 * headers + 4;
    match refusal(&poked(mark, b"UPX!")) {
        Error::Packed { offset } => assert_eq!(offset, mark as u64),
        other => panic!("{other:?}"),
    }
}

/// Twice is refused; so is to restore or inspect what was never patched.
#[test]
fn patched_files_are_known() {
    let bytes = program();
    let once = patched(&bytes, &denying(&[])).bytes;
    assert!(matches!(refusal(&once), Error::AlreadyPatched));
    assert!(is_patched(&once).unwrap() && !is_patched(&bytes).unwrap());
    assert!(matches!(unpatch(&bytes), Err(Error::NotPatched)));
    assert!(matches!(inspect(&bytes), Err(Error::NotPatched)));
}

/// A patched file in which anything was changed since gives no original back.
#[test]
fn changed_files_are_not_restored() {
    let once = patched(&program(), &denying(&[])).bytes;
    let offset = once.len() - program().len();
    assert!(offset > 0);
    for at in (64 * 64..program().len() - 4096).step_by(4099) {
        let mut changed = once.clone();
        changed[at] ^= 0x40;
        assert!(matches!(unpatch(&changed), Err(Error::Changed)), "{at:#x}");
    }
}

/// No byte of a file, whatever it becomes, makes anything panic; and what is not refused can be restored.
#[test]
fn damage_never_panics() {
    let bytes = program();
    let patched_bytes = patched(&bytes, &denying(&["reboot"])).bytes;
    let policy = denying(&[]);
    let mut number: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut next = move || {
        number ^= number << 13;
        number ^= number >> 7;
        number ^= number << 17;
        usize::try_from(number >> 8).unwrap()
    };
    let headers = 64 + 56 * 13;
    let sections = bytes.len() - 31 * 64;
    for round in 0..3000 {
        let mut damaged = if round % 3 == 0 { patched_bytes.clone() } else { bytes.clone() };
        for _ in 0..=round % 4 {
            let at = match next() % 3 {
                0 => next() % headers,
                1 => sections + next() % (damaged.len() - sections),
                _ => next() % damaged.len(),
            };
            damaged[at] = next().to_le_bytes()[0];
        }
        if let Ok(rewritten) = rewrite(&damaged, &policy, &FilterOptions::default()) {
            assert_eq!(unpatch(&rewritten.bytes).unwrap(), damaged);
        }
        let _ = (unpatch(&damaged), inspect(&damaged), is_patched(&damaged));
    }
}
