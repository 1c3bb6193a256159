//! Tests of the ELF front end: against readelf over real files, against what compilers were asked to build, and with
//! one field damaged at a time.

mod built;
mod go;
mod malformed;
mod oracle;
mod sample;

use std::path::Path;
use std::process::Command;

use super::Image;

/// What a tool prints; the locale is fixed, since the text is parsed.
fn output_of(tool: &str, arguments: &[&str], file: &Path) -> String {
    let output = Command::new(tool).env("LC_ALL", "C").args(arguments).arg(file).output();
    let output = output.unwrap_or_else(|error| panic!("{tool} does not start: {error}"));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Calls everything that an image offers: nothing of it may panic, whatever the file holds.
fn touch(image: &Image<'_>) {
    for description in image.frame_descriptions() {
        if let Some(lsda) = description.lsda {
            let _ = image.landing_pads(lsda, description.start);
        }
    }
    let _ = (image.frame_error(), image.function_hints(), image.object_hints(), image.build_id());
    let _ = (image.go_table(), image.go_methods(), image.symbol_table());
    let _ = (image.section_named(".text"), image.tls(), image.entry(), image.interpreter());
    for relocation in image.relocations() {
        let _ = (image.read_u64(relocation.slot), image.c_string(relocation.slot), image.is_code(relocation.slot));
    }
}
