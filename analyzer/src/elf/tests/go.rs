//! Go's function table: against Go's own `nm` over programs built on the spot, and against tables of each format that
//! are written here byte by byte, whole and damaged.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::sample::{halves, longs, words};
use super::{Image, output_of, touch};
use crate::address::Vaddr;
use crate::elf::GoTable;

const PROGRAM: &str = r#"
package main

import "reflect"

type named struct{ text string }

func (n named) Reflected() string { return n.text }
func (n *named) String() string   { return n.text }

type texter interface{ String() string }

func main() {
	for _, thing := range []any{named{"a"}, &named{"b"}} {
		method := reflect.ValueOf(thing).MethodByName("Reflected")
		println(method.Call(nil)[0].String())
		if asked, ok := thing.(texter); ok {
			println(asked.String())
		}
	}
}
"#;

/// Builds the program; `None` (and a line that says so) without Go.
fn build(folder: &TempDir, name: &str, arguments: &[&str]) -> Option<PathBuf> {
    let (input, output) = (folder.path().join("main.go"), folder.path().join(name));
    fs::write(&input, PROGRAM).unwrap();
    let mut command = Command::new("go");
    command.current_dir(folder.path()).args(["build", "-o"]).arg(&output).args(arguments).arg(&input);
    command.envs([("CGO_ENABLED", "0"), ("GO111MODULE", "off"), ("GOFLAGS", ""), ("GOTOOLCHAIN", "local")]);
    command.env("GOCACHE", folder.path().join("cache")).env("GOPATH", folder.path().join("path"));
    match command.output() {
        Ok(result) if result.status.success() => Some(output),
        Ok(result) => {
            println!("skipped: go: {}", String::from_utf8_lossy(&result.stderr));
            None
        }
        Err(error) => {
            println!("skipped: go: {error}");
            None
        }
    }
}

/// Functions by address, as Go's `nm` prints them.
fn listed(path: &Path) -> BTreeMap<u64, String> {
    let text = output_of("go", &["tool", "nm"], path);
    let lines = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let (address, kind, name) = (words.next()?, words.next()?, words.next()?);
        let is_bound = matches!(name, "runtime.text" | "runtime.etext");
        let is_function = matches!(kind, "T" | "t") && !is_bound;
        is_function.then(|| Some((u64::from_str_radix(address, 16).ok()?, name.to_owned())))?
    });
    lines.collect()
}

#[test]
fn functions_are_those_that_go_itself_lists_stripped_or_not() {
    let folder = TempDir::new().unwrap();
    for (name, arguments) in [("exe", &[][..]), ("pie", &["-buildmode=pie"][..])] {
        let Some(path) = build(&folder, name, arguments) else { return };
        let expected = listed(&path);
        assert!(expected.len() > 1000, "{}", expected.len());
        assert!(Command::new("strip").arg(&path).status().unwrap().success());
        let mut data = fs::read(&path).unwrap();
        data[40..48].fill(0);
        data[58..64].fill(0);
        let image = Image::parse(&data).unwrap();
        touch(&image);
        let table = image.go_table().unwrap();
        let found: BTreeSet<u64> = table.functions.iter().map(|function| function.start.0).collect();
        assert_eq!(found, expected.keys().copied().collect(), "{name}");
        let main = table.functions.iter().find(|function| function.name == b"main.main").unwrap();
        assert_eq!(expected[&main.start.0], "main.main");
        assert!(main.is_go && main.is_compiled && table.function_at(main.start) == Some(main));
        let assembly = table.functions.iter().find(|function| function.name == b"runtime.memmove").unwrap();
        assert!(assembly.is_go && !assembly.is_compiled);
    }
}

#[test]
fn methods_are_found_that_only_a_type_names() {
    let folder = TempDir::new().unwrap();
    for (name, arguments) in [("exe", &["-ldflags=-s -w"][..]), ("pie", &["-buildmode=pie"][..])] {
        let Some(path) = build(&folder, name, arguments) else { return };
        let data = fs::read(&path).unwrap();
        let image = Image::parse(&data).unwrap();
        let table = image.go_table().unwrap();
        let named = |at: Vaddr| table.function_at(at).filter(|f| f.start == at).map_or(&b"?"[..], |f| f.name);
        let found: BTreeSet<&[u8]> = image.go_methods().offsets.iter().map(|(_, function)| named(*function)).collect();
        for method in [&b"main.named.Reflected"[..], b"main.(*named).Reflected", b"main.(*named).String"] {
            assert!(found.contains(method), "{name}: {}", String::from_utf8_lossy(method));
        }
        assert!(!found.contains(&b"?"[..]), "{name}: an offset that names no function");
    }
}

const TEXT: u64 = 0x40_1000;
const DATA: u64 = 0x40_2000;
const NAMES: u64 = DATA + 0x180;
const INDEX: u64 = DATA + 0x1c0;
const MODULE: u64 = DATA + 0x340;

/// A file with a table of two functions, `a.b` at the text's start (24 bytes of arguments) and `c`, a C function, 32
/// bytes behind, both 32 bytes long, in the format that `magic` is for.
fn file(magic: u32) -> Vec<u8> {
    let mut bytes = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    bytes.extend(
        [halves(&[2, 62]), words(&[1]), longs(&[TEXT, 64, 0]), words(&[0]), halves(&[64, 56, 2, 0, 0, 0])].concat(),
    );
    bytes.extend([words(&[1, 5]), longs(&[0x1000, TEXT, TEXT, 0x80, 0x80, 0x1000])].concat());
    bytes.extend([words(&[1, 6]), longs(&[0x2000, DATA, DATA, 0x800, 0x800, 0x1000])].concat());
    bytes.resize(0x2800, 0);
    let mut put = |at: u64, value: &[u8]| {
        let at = usize::try_from(at - DATA).unwrap() + 0x2000;
        bytes[at..at + value.len()].copy_from_slice(value);
    };
    put(DATA + 0x40, &words(&[magic, 0x0801_0000]));
    put(NAMES, b"a.b\0c\0");
    // Descriptions: entry, name, arguments, deferreturn, pcsp.
    let is_new = magic == 0xffff_fff0 || magic == 0xffff_fff1;
    let entry = |offset: u32| if is_new { words(&[offset]) } else { longs(&[TEXT + u64::from(offset)]) };
    let (first, second) = (INDEX + 0x40, INDEX + 0x60);
    // Names count from the table itself in the first format.
    let names = if magic == 0xffff_fffb { 0x140 } else { 0 };
    put(first, &[entry(0), words(&[names, 24, 0, 9])].concat());
    put(second, &[entry(32), words(&[names + 4, 0, 0, 0])].concat());
    let functions = if magic == 0xffff_fffb { DATA + 0x40 } else { INDEX };
    let index = [TEXT, first - functions, TEXT + 32, second - functions, TEXT + 64];
    if is_new {
        let offsets = [0, index[1], 32, index[3], 64].map(|number| u32::try_from(number).unwrap());
        put(INDEX, &words(&offsets));
    } else {
        put(INDEX, &longs(&index));
    }
    let table = DATA + 0x40;
    let slice = |at: u64, count: u64| [at, count, count];
    let bounds = [0, TEXT, TEXT + 64, TEXT, TEXT + 64];
    let module = if magic == 0xffff_fffb {
        [&slice(table, 0x280)[..], &slice(INDEX, 3), &slice(0, 0), &bounds].concat()
    } else {
        let split = [slice(NAMES, 8), slice(0, 0), slice(0, 0), slice(0, 0), slice(INDEX, 0x80), slice(INDEX, 3)];
        [&[table][..], &split.concat(), &bounds].concat()
    };
    put(MODULE, &longs(&module));
    bytes
}

/// What each format must give.
fn assert_is_the_sample(table: &GoTable<'_>, magic: u32) {
    let [first, second] = table.functions.as_slice() else { panic!("{magic:x}: {:?}", table.functions) };
    assert_eq!((first.start, first.end, first.name, first.is_go), (Vaddr(TEXT), Vaddr(TEXT + 32), &b"a.b"[..], true));
    assert_eq!(first.argument_bytes, Some(24), "{magic:x}");
    // Only formats since Go 1.18 tell assembly apart.
    assert_eq!(
        (first.is_compiled, second.is_compiled),
        (matches!(magic, 0xffff_fff0 | 0xffff_fff1), false),
        "{magic:x}"
    );
    assert_eq!((second.start, second.end, second.name, second.is_go), (first.end, Vaddr(TEXT + 64), &b"c"[..], false));
    assert_eq!(table.text, Vaddr(TEXT));
}

const MAGICS: [u32; 4] = [0xffff_fffb, 0xffff_fffa, 0xffff_fff0, 0xffff_fff1];

#[test]
fn a_file_full_of_beginnings_of_tables_is_read() {
    let mut data = file(0xffff_fff1);
    // So many that the test would not end if each were looked for in the whole file.
    data.extend(longs(&vec![0x0801_0000_ffff_fff1; 1 << 20]));
    let size = (data.len() as u64 - 0x2000).to_le_bytes();
    // File and memory size of the second LOAD.
    data[64 + 56 + 32..64 + 56 + 40].copy_from_slice(&size);
    data[64 + 56 + 40..64 + 56 + 48].copy_from_slice(&size);
    let image = Image::parse(&data).unwrap();
    assert_is_the_sample(image.go_table().unwrap(), 0xffff_fff1);
}

#[test]
fn assembly_keeps_no_zero() {
    for (magic, flag_at) in [(0xffff_fff0, 37), (0xffff_fff1, 41)] {
        let mut data = file(magic);
        data[usize::try_from(INDEX + 0x40 - DATA).unwrap() + 0x2000 + flag_at] = 4;
        let image = Image::parse(&data).unwrap();
        let first = image.go_table().unwrap().functions[0];
        assert!(first.is_go && !first.is_compiled, "{magic:x}");
    }
}

#[test]
fn every_format_since_go_1_2_is_read() {
    for magic in MAGICS {
        let data = file(magic);
        let image = Image::parse(&data).unwrap();
        assert_is_the_sample(image.go_table().unwrap_or_else(|| panic!("{magic:x}")), magic);
    }
}

#[test]
fn a_damaged_table_is_none_or_names_code_only() {
    for magic in MAGICS {
        let data = file(magic);
        for at in (0x2000..0x2800).step_by(4) {
            for value in [0_u32, 1, 0x7fff_ffff, 0xffff_ffff, 0x0040_1fff] {
                let mut damaged = data.clone();
                damaged[at..at + 4].copy_from_slice(&value.to_le_bytes());
                let image = Image::parse(&damaged).unwrap();
                let functions = image.go_table().map_or(&[][..], |table| &table.functions);
                assert!(functions.iter().all(|f| image.is_code(f.start) && f.start < f.end), "{at:x}: {value:x}");
                let _ = image.go_methods();
            }
        }
    }
}
