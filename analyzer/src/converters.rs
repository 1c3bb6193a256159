//! Character set converters that the C library may load: a folder of some hundred small libraries.
//!
//! Input: the folder. Output: the names of the functions that they import. They are all alike (a table and two loops
//! around it), so instead of a full analysis it is checked that none holds a system call of its own; then everything
//! that one of them can do goes through what it imports.
//!
//! Over-approximates: every import of every converter counts as called.

use std::collections::BTreeSet;
use std::path::Path;

use rayon::prelude::*;

use crate::elf::Image;
use crate::mapping::Mapping;

/// What a folder of converters brings.
#[derive(Debug, Default)]
pub struct Converters {
    /// Names of imported functions.
    pub imports: BTreeSet<Vec<u8>>,
    /// Files that need a full analysis: bytes that may be a system call.
    pub conspicuous: BTreeSet<String>,
}

/// Reads all converters in `folder`, a path of this machine.
#[must_use]
pub fn read(folder: &Path) -> Converters {
    let Ok(entries) = std::fs::read_dir(folder) else { return Converters::default() };
    let files: Vec<_> = entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
    let libraries = files.into_par_iter().filter(|path| path.extension().is_some_and(|e| e == "so"));
    libraries
        .filter_map(|path| {
            let data = Mapping::new(&std::fs::File::open(&path).ok()?).ok()?;
            let image = Image::parse(&data).ok()?;
            let mut found = Converters::default();
            if enters_kernel(&image) {
                found.conspicuous.insert(path.file_name()?.to_string_lossy().into_owned());
            }
            let undefined = image.symbols().iter().filter(|symbol| !symbol.is_defined);
            found.imports.extend(undefined.map(|symbol| symbol.name.to_vec()));
            Some(found)
        })
        .reduce(Converters::default, |mut all, one| {
            all.imports.extend(one.imports);
            all.conspicuous.extend(one.conspicuous);
            all
        })
}

/// Whether executable bytes contain `syscall`, `sysenter` or `int $0x80`, at any offset.
fn enters_kernel(image: &Image<'_>) -> bool {
    image.executable_ranges().into_iter().any(|range| {
        let length = range.end.checked_offset_from(range.start).unwrap_or(0);
        let code = image.bytes(range.start, length).unwrap_or(&[]);
        code.windows(2).any(|pair| matches!(pair, [0x0f, 0x05 | 0x34] | [0xcd, 0x80]))
    })
}
