//! Files of kinds that a system has few of, built on the spot: static, packed relocations, without section headers,
//! with exceptions.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::oracle::{ours, readelf_relocations};
use super::{Image, touch};
use crate::elf::RelocationTarget;

const C_PROGRAM: &str = r#"
#include <stdio.h>
#include <string.h>
static const char *const names[] = { "one", "two", "three" };
static void hello(void) { puts(names[0]); }
static void (*table[])(void) = { hello, hello };
__thread int counter = 7;
__attribute__((constructor)) static void start(void) { counter++; }
int main(int argc, char **argv) { table[argc & 1](); return (int)strlen(argv[0]) + counter; }
"#;

const CXX_PROGRAM: &str = r#"
#include <string>
#include <cstdio>
struct Guard { const char *name; ~Guard() { std::puts(name); } };
int work(int n);
__attribute__((noinline)) int work(int n) {
    Guard outer{"outer"};
    try { Guard inner{"inner"}; if (n > 3) throw std::string("deep"); return n; }
    catch (const std::string &text) { return (int)text.size(); }
    catch (int value) { Guard last{"last"}; return work(value - 1); }
}
int main(int argc, char **) { try { return work(argc); } catch (...) { return 1; } }
"#;

/// Compiles `source`; `None` (and a line that says so) if the compiler cannot.
fn build(folder: &TempDir, compiler: &str, source: &str, arguments: &[&str]) -> Option<PathBuf> {
    let extension = if compiler.contains("++") { "cc" } else { "c" };
    let (input, output) = (folder.path().join("main").with_extension(extension), folder.path().join("main"));
    fs::write(&input, source).unwrap();
    let result = Command::new(compiler).args(arguments).arg("-o").arg(&output).arg(&input).output();
    match result {
        Ok(result) if result.status.success() => Some(output),
        Ok(result) => {
            println!("skipped: {compiler} {arguments:?}: {}", String::from_utf8_lossy(&result.stderr));
            None
        }
        Err(error) => {
            println!("skipped: {compiler}: {error}");
            None
        }
    }
}

/// The file as a tool like sstrip(1) leaves it: without section headers.
fn without_section_headers(path: &Path) -> Vec<u8> {
    let mut data = fs::read(path).unwrap();
    data[40..48].fill(0);
    data[58..64].fill(0);
    data
}

/// All that the analysis rests on must be the same without section headers.
fn assert_headers_do_not_matter(path: &Path) {
    let (whole, bare) = (fs::read(path).unwrap(), without_section_headers(path));
    let (whole, bare) = (Image::parse(&whole).unwrap(), Image::parse(&bare).unwrap());
    assert_eq!(whole.symbols(), bare.symbols());
    assert_eq!(whole.relocations(), bare.relocations());
    assert_eq!(whole.build_id(), bare.build_id());
    assert_eq!(bare.section_named(".text"), None);
    assert_eq!(bare.frame_error(), None);
    if whole.dynamic().is_some() {
        assert_eq!(whole.frame_descriptions(), bare.frame_descriptions());
    }
    touch(&bare);
}

#[test]
fn static_position_independent_program() {
    let folder = TempDir::new().unwrap();
    let Some(path) = build(&folder, "gcc", C_PROGRAM, &["-static-pie", "-O1"]) else { return };
    let data = fs::read(&path).unwrap();
    let image = Image::parse(&data).unwrap();
    assert!(image.is_position_independent() && image.interpreter().is_none() && image.dynamic().is_some());
    assert_eq!(ours(&image), readelf_relocations(&path, &image));
    assert!(image.relocations().iter().any(|found| matches!(found.target, RelocationTarget::Irelative(_))));
    assert!(image.tls().is_some_and(|tls| tls.p_filesz >= 4));
    assert_headers_do_not_matter(&path);
}

#[test]
fn static_program_finds_its_irelative_relocations_without_symbols() {
    let folder = TempDir::new().unwrap();
    for arguments in [&["-static", "-O1"][..], &["-static", "-s"], &["-static", "-Wl,-z,noseparate-code"]] {
        let Some(path) = build(&folder, "gcc", C_PROGRAM, arguments) else { continue };
        let data = fs::read(&path).unwrap();
        let image = Image::parse(&data).unwrap();
        assert!(!image.is_position_independent() && image.dynamic().is_none());
        assert!(!image.relocations().is_empty());
        assert_eq!(ours(&image), readelf_relocations(&path, &image));
        assert_headers_do_not_matter(&path);
    }
}

#[test]
fn packed_relocations_are_the_same_pointers() {
    let folder = TempDir::new().unwrap();
    // By what they point to: addresses move when the table gets smaller.
    let texts = |path: &Path| -> Vec<Vec<u8>> {
        let data = fs::read(path).unwrap();
        let image = Image::parse(&data).unwrap();
        assert_headers_do_not_matter(path);
        let targets = image.relocations().iter().filter_map(|found| match found.target {
            RelocationTarget::Relative(at) => image.c_string(at).filter(|_| image.is_data(at)),
            _ => None,
        });
        targets.filter(|text| text.len() > 2 && text.is_ascii()).map(<[u8]>::to_vec).collect()
    };
    // Linkers spell it differently.
    let variants = [
        ("-fuse-ld=bfd", "-Wl,-z,pack-relative-relocs"),
        ("-fuse-ld=lld", "-Wl,--pack-dyn-relocs=relr"),
        ("-fuse-ld=mold", "-Wl,-z,pack-relative-relocs"),
    ];
    let mut compared = 0;
    for (linker, packed) in variants {
        let Some(path) = build(&folder, "gcc", C_PROGRAM, &["-O0", linker]) else { continue };
        let expected = texts(&path);
        let Some(path) = build(&folder, "gcc", C_PROGRAM, &["-O0", linker, packed]) else { continue };
        if !super::output_of("readelf", &["-dW"], &path).contains("(RELR)") {
            println!("skipped: {linker} ignores {packed}");
            continue;
        }
        assert_eq!(expected, [b"one".to_vec(), b"two".to_vec(), b"three".to_vec()]);
        assert_eq!(texts(&path), expected, "{linker}");
        compared += 1;
    }
    assert!(compared > 0, "no linker here writes DT_RELR");
}

#[test]
fn landing_pads_are_those_that_the_compiler_wrote() {
    let folder = TempDir::new().unwrap();
    for (compiler, level) in [("g++", "-O0"), ("g++", "-O2"), ("clang++", "-O1")] {
        // The assembly names every landing pad; the program is made of the same.
        let Some(assembly) = build(&folder, compiler, CXX_PROGRAM, &[level, "-S"]) else { continue };
        let text = fs::read_to_string(&assembly).unwrap();
        let expected = landing_pad_labels(&text);
        let Some(path) = build(&folder, compiler, CXX_PROGRAM, &[level]) else { continue };
        let data = fs::read(&path).unwrap();
        let image = Image::parse(&data).unwrap();
        let mut found = 0;
        for description in image.frame_descriptions() {
            let Some(lsda) = description.lsda else { continue };
            let mut pads: Vec<_> =
                image.landing_pads(lsda, description.start).unwrap().into_iter().map(|pad| pad.target).collect();
            pads.dedup();
            assert!(pads.iter().all(|pad| (description.start..description.end).contains(pad)), "{pads:?}");
            found += pads.len();
        }
        assert!(expected >= 3, "{compiler} {level}: {expected}");
        assert_eq!(found, expected, "{compiler} {level}");
        assert_headers_do_not_matter(&path);
    }
}

/// Counts the landing pads in call-site tables: of each entry's four values, the third, if it is not zero.
fn landing_pad_labels(assembly: &str) -> usize {
    let mut pads = BTreeSet::new();
    let mut values: Option<Vec<&str>> = None;
    for line in assembly.lines().map(str::trim) {
        // GCC: `.LLSDACSB0:`, clang: `.Lcst_begin0:`; the ends likewise.
        if line.starts_with(".LLSDACSB") || line.starts_with(".Lcst_begin") {
            values = Some(Vec::new());
        } else if line.starts_with(".LLSDACSE") || line.starts_with(".Lcst_end") {
            for entry in values.take().unwrap_or_default().chunks(4) {
                let pad = entry[2].split('-').next().unwrap().trim();
                if pad != "0" {
                    pads.insert(pad.to_owned());
                }
            }
        } else if let (Some(values), Some(value)) =
            (&mut values, line.strip_prefix(".uleb128").or_else(|| line.strip_prefix(".byte")))
        {
            values.push(value.split('#').next().unwrap().trim());
        }
    }
    pads.len()
}

#[test]
fn truncated_program_never_panics() {
    let folder = TempDir::new().unwrap();
    let Some(path) = build(&folder, "gcc", C_PROGRAM, &["-s", "-Os", "-Wl,-z,noseparate-code"]) else { return };
    let data = fs::read(&path).unwrap();
    for length in 0..data.len() {
        if let Ok(image) = Image::parse(&data[..length]) {
            // Only section headers stand behind the last segment.
            touch(&image);
        }
    }
}
