//! What we read against what readelf reads, over real files.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::{Image, output_of};
use crate::address::Vaddr;
use crate::elf::{RelocationTarget, SymbolBinding, SymbolKind, SymbolRelocationKind};

/// Files of many kinds: libraries, position-independent and fixed, static ones, big ones, C++, musl.
fn files() -> Vec<PathBuf> {
    let names = [
        "/bin/ls",
        "/lib64/ld-linux-x86-64.so.2",
        "/lib/x86_64-linux-gnu/libc.so.6",
        "/lib/x86_64-linux-gnu/libm.so.6",
        "/usr/lib/x86_64-linux-gnu/libcrypto.so.3",
        "/usr/lib/x86_64-linux-gnu/libstdc++.so.6",
        "/usr/bin/redis-server",
        "/usr/bin/python3.11",
        "/bin/busybox",
        "/lib/ld-musl-x86_64.so.1",
    ];
    let (found, absent): (Vec<_>, Vec<_>) = names.map(PathBuf::from).into_iter().partition(|path| path.exists());
    absent.iter().for_each(|path| println!("skipped: no {}", path.display()));
    assert!(found.len() >= 3, "hardly anything to compare");
    found
}

fn hex(text: &str) -> u64 {
    u64::from_str_radix(text.trim_start_matches("0x"), 16).unwrap_or_else(|_| panic!("{text} is not a number"))
}

/// Runs `compare` on every file.
fn for_each_file(compare: impl Fn(&Path, &Image<'_>)) {
    for path in files() {
        let data = fs::read(&path).unwrap();
        compare(&path, &Image::parse(&data).unwrap());
    }
}

#[test]
fn segments_and_entry_equal_those_of_readelf() {
    for_each_file(|path, image| {
        let text = output_of("readelf", &["-lW"], path);
        let loads = text.lines().filter_map(|line| line.trim().strip_prefix("LOAD "));
        let expected: Vec<_> = loads
            .map(|line| {
                let words: Vec<&str> = line.split_whitespace().collect();
                let flags = words[5..words.len() - 1].concat();
                (hex(words[0]), hex(words[1]), hex(words[3]), hex(words[4]), flags.contains('E'), flags.contains('W'))
            })
            .collect();
        let found: Vec<_> = image
            .segments()
            .iter()
            .map(|at| (at.p_offset.0, at.p_vaddr.0, at.p_filesz, at.p_memsz, at.is_executable(), at.is_writable()))
            .collect();
        assert_eq!(found, expected, "{}", path.display());
        let entry = text.lines().find_map(|line| line.strip_prefix("Entry point ")).map(hex);
        assert_eq!(image.entry().map_or(0, |entry| entry.0), entry.unwrap(), "{}", path.display());
        let interpreter = text.lines().find_map(|line| line.trim().strip_prefix("[Requesting program interpreter: "));
        let interpreter = interpreter.map(|rest| Path::new(rest.trim_end_matches(']')));
        assert_eq!(image.interpreter(), interpreter, "{}", path.display());
    });
}

#[test]
fn dynamic_section_equals_that_of_readelf() {
    for_each_file(|path, image| {
        let text = output_of("readelf", &["-dW"], path);
        let values = |tag: &str| -> Vec<String> {
            let tag = format!("({tag})");
            let lines = text.lines().filter(|line| line.split_whitespace().nth(1) == Some(&tag));
            let value = |line: &str| line.split_once(&tag).unwrap().1.trim().to_owned();
            lines
                .map(value)
                .map(|value| {
                    value.split_once('[').map_or(value.clone(), |(_, name)| name.trim_end_matches(']').to_owned())
                })
                .collect()
        };
        let Some(dynamic) = image.dynamic() else {
            assert!(text.contains("There is no dynamic section"), "{}", path.display());
            return;
        };
        let names =
            |names: &[&[u8]]| names.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect::<Vec<_>>();
        assert_eq!(names(&dynamic.needed), values("NEEDED"), "{}", path.display());
        assert_eq!(names(&Vec::from_iter(dynamic.soname)), values("SONAME"), "{}", path.display());
        assert_eq!(names(&Vec::from_iter(dynamic.runpath)), values("RUNPATH"), "{}", path.display());
        let address = |at: Option<Vaddr>| Vec::from_iter(at.map(|at| at.0));
        let hexes = |tag| values(tag).iter().map(|value| hex(value)).collect::<Vec<_>>();
        assert_eq!(address(dynamic.init), hexes("INIT"), "{}", path.display());
        assert_eq!(address(dynamic.fini), hexes("FINI"), "{}", path.display());
        assert_eq!(address(dynamic.plt_got), hexes("PLTGOT"), "{}", path.display());
        assert_eq!(address(dynamic.init_array.first().copied()), hexes("INIT_ARRAY"), "{}", path.display());
        let bytes = values("INIT_ARRAYSZ").first().map_or(0, |size| size.split(' ').next().unwrap().parse().unwrap());
        assert_eq!(dynamic.init_array.len() * 8, bytes, "{}", path.display());
    });
}

#[test]
fn symbols_equal_those_of_readelf() {
    for_each_file(|path, image| {
        let text = output_of("readelf", &["--dyn-syms", "-W"], path);
        let mut compared = 0;
        for line in text.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let Some(index) = words.first().and_then(|word| word.strip_suffix(':')?.parse::<usize>().ok()) else {
                continue;
            };
            // What no hash table and no relocation reaches is not read: readelf knows of it by the section header.
            let Some(symbol) = image.symbols().get(index) else { continue };
            let kind = match words[3] {
                "NOTYPE" => SymbolKind::NoType,
                "OBJECT" => SymbolKind::Object,
                "FUNC" => SymbolKind::Function,
                "IFUNC" => SymbolKind::IndirectFunction,
                "TLS" => SymbolKind::Tls,
                "SECTION" => SymbolKind::Section,
                other => panic!("{other}"),
            };
            let binding = match words[4] {
                "LOCAL" => SymbolBinding::Local,
                "GLOBAL" => SymbolBinding::Global,
                "WEAK" => SymbolBinding::Weak,
                "UNIQUE" => SymbolBinding::GnuUnique,
                other => panic!("{other}"),
            };
            let size = words[2].strip_prefix("0x").map_or_else(|| words[2].parse().unwrap(), hex);
            assert_eq!((symbol.value.0, symbol.size), (hex(words[1]), size), "{}: {line}", path.display());
            assert_eq!((symbol.kind, symbol.binding), (kind, binding), "{}: {line}", path.display());
            assert_eq!(symbol.is_defined, words[6] != "UND", "{}: {line}", path.display());
            assert_eq!(symbol.is_absolute, words[6] == "ABS", "{}: {line}", path.display());
            let name = String::from_utf8_lossy(symbol.name);
            let full = match symbol.version {
                // A version's own symbol is shown plainly.
                None => name.into_owned(),
                Some(version) if version.name == symbol.name => name.into_owned(),
                Some(version) => {
                    // One sign for a reference, and for the copy of another file's object; two for a default.
                    let is_default = symbol.is_defined && version.file.is_none() && !version.is_hidden;
                    let sign = if is_default { "@@" } else { "@" };
                    format!("{name}{sign}{}", String::from_utf8_lossy(version.name))
                }
            };
            assert_eq!(full, words.get(7).copied().unwrap_or_default(), "{}: {line}", path.display());
            compared += 1;
        }
        assert_eq!(compared, image.symbols().len(), "{}", path.display());
    });
}

#[test]
fn relocations_equal_those_of_readelf() {
    for_each_file(|path, image| {
        assert_eq!(ours(image), readelf_relocations(path, image), "{}", path.display());
    });
}

/// By slot: type and addend or symbol index.
pub(super) fn ours(image: &Image<'_>) -> BTreeMap<u64, (String, u64)> {
    let describe = |target: RelocationTarget| -> (&str, u64) {
        match target {
            RelocationTarget::Relative(at) => ("RELATIV", at.0),
            RelocationTarget::Irelative(at) => ("IRELATI", at.0),
            RelocationTarget::Symbol { index, kind, .. } => match kind {
                SymbolRelocationKind::Absolute64 => ("64", index.into()),
                SymbolRelocationKind::GlobDat => ("GLOB_DA", index.into()),
                SymbolRelocationKind::JumpSlot => ("JUMP_SL", index.into()),
                SymbolRelocationKind::Copy => ("COPY", index.into()),
                other => panic!("{other:?}"),
            },
            RelocationTarget::TlsModule { index } => ("DTPMOD6", index.into()),
            RelocationTarget::TlsOffset { index, .. } => ("DTPOFF6", index.into()),
            RelocationTarget::TlsThreadOffset { index, .. } => ("TPOFF64", index.into()),
            RelocationTarget::TlsDescriptor { index, .. } => ("TLSDESC", index.into()),
            RelocationTarget::Other(kind) => panic!("type {kind}"),
        }
    };
    let entry = |(kind, value): (&str, u64)| (kind.to_owned(), value);
    image.relocations().iter().map(|found| (found.slot.0, entry(describe(found.target)))).collect()
}

/// The same from `readelf -rW`: lines "offset info type [symbol value and name | addend]"; of packed ones the offset.
pub(super) fn readelf_relocations(path: &Path, image: &Image<'_>) -> BTreeMap<u64, (String, u64)> {
    let text = output_of("readelf", &["-rW"], path);
    let mut found = BTreeMap::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if let [slot] = words.as_slice()
            && slot.len() == 16
        {
            let value = image.read_u64(Vaddr(hex(slot))).unwrap();
            found.insert(hex(slot), ("RELATIV".to_owned(), value));
        }
        let Some(kind) = words.get(2).and_then(|kind| kind.strip_prefix("R_X86_64_")) else { continue };
        if kind == "NONE" {
            continue;
        }
        let short: String = kind.chars().take(7).collect();
        let value =
            if matches!(kind, "RELATIVE" | "IRELATIV" | "IRELATIVE") { hex(words[3]) } else { hex(words[1]) >> 32 };
        found.insert(hex(words[0]), (short, value));
    }
    found
}

#[test]
fn frame_descriptions_equal_those_of_readelf() {
    for_each_file(|path, image| {
        assert_eq!(image.frame_error(), None, "{}", path.display());
        let text = output_of("readelf", &["--debug-dump=frames", "-W"], path);
        // Only .eh_frame: a file may have .debug_frame too.
        let text = text.split("Contents of the .debug_frame").next().unwrap();
        let ranges = text
            .lines()
            .filter(|line| line.contains(" FDE "))
            .filter_map(|line| line.split_once(" pc=")?.1.split_once(".."));
        let expected: BTreeSet<(u64, u64)> =
            ranges.map(|(start, end)| (hex(start), hex(end))).filter(|(start, end)| start != end).collect();
        let found: BTreeSet<(u64, u64)> = image.frame_descriptions().iter().map(|at| (at.start.0, at.end.0)).collect();
        assert_eq!(found, expected, "{}", path.display());
    });
}

#[test]
fn build_id_and_hints_equal_those_of_readelf() {
    for_each_file(|path, image| {
        let text = output_of("readelf", &["-nW"], path);
        let expected = text.lines().find_map(|line| line.split_once("Build ID: ")).map(|(_, id)| id);
        let digits = image.build_id().map(|id| id.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
        assert_eq!(digits.as_deref(), expected, "{}", path.display());
        let text = output_of("readelf", &["-sW"], path);
        let functions = text.lines().filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let is_function = matches!(words.get(3), Some(&"FUNC" | &"IFUNC")) && words.get(6) != Some(&"UND");
            is_function.then(|| hex(words[1]))
        });
        let expected: BTreeSet<u64> = functions.collect();
        let found: BTreeSet<u64> = image.function_hints().iter().map(|hint| hint.address.0).collect();
        assert_eq!(found, expected, "{}", path.display());
        if let Some(text) = image.section_named(".text") {
            assert!(image.is_code(text.start));
        }
    });
}
