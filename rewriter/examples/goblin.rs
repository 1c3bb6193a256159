//! What the crate goblin reads in files, for comparisons: it shares no code with the parsers of Chestnut.
//!
//! ```sh
//! cargo run -p chestnut-rewriter --example goblin -- /bin/true /tmp/true
//! ```
//!
//! For each file all of it is parsed: headers, dynamic section, symbols, relocations, versions, notes. One line a file,
//! of what no rewriter may change, or the error; status 1 if there is one.

#![allow(clippy::print_stdout, reason = "a program that prints; the library never does")]

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;

use goblin::elf::Elf;
use goblin::elf::program_header::{PT_LOAD, PT_NOTE, PT_TLS};

fn main() -> ExitCode {
    let mut status = ExitCode::SUCCESS;
    for argument in std::env::args_os().skip(1) {
        match line(Path::new(&argument)) {
            Ok(line) => println!("{line}"),
            Err(error) => {
                println!("{}: {error}", argument.display());
                status = ExitCode::FAILURE;
            }
        }
    }
    status
}

fn line(path: &Path) -> Result<String, Box<dyn Error>> {
    let bytes = std::fs::read(path)?;
    let elf = Elf::parse(&bytes)?;
    let mut notes = 0;
    for note in elf.iter_note_headers(&bytes).into_iter().flatten() {
        note?;
        notes += 1;
    }
    let count = |kind: u32| elf.program_headers.iter().filter(|header| header.p_type == kind).count();
    // Where the kernel and the loader look, as far as the file has it; all the rest is in memory only.
    for header in elf.program_headers.iter().filter(|header| header.p_type == PT_LOAD) {
        let end = header.p_offset.checked_add(header.p_filesz).ok_or("a segment without end")?;
        if end > u64::try_from(bytes.len())? {
            return Err("a segment that ends behind the file".into());
        }
    }
    if count(PT_NOTE) > 0 && notes == 0 {
        return Err("notes that cannot be read".into());
    }
    Ok(format!(
        "type {} loads {} tls {} libraries {} interpreter {} dynamic-symbols {} symbols {} relocations {} {} {} versions {} {}",
        elf.header.e_type,
        count(PT_LOAD),
        count(PT_TLS),
        elf.libraries.join(","),
        elf.interpreter.unwrap_or("-"),
        elf.dynsyms.len(),
        elf.syms.len(),
        elf.dynrelas.len(),
        elf.dynrels.len(),
        elf.pltrelocs.len(),
        elf.verneed.iter().count(),
        elf.verdef.iter().count(),
    ))
}
