//! A file whose code makes calls: what its addresses are called, and which file it is.
//!
//! Input: bytes of an ELF file, or of anything else. Output: [`Module`]. Symbols are those of `.symtab` and `.dynsym`;
//! the address of a place is that of the program headers (gABI, "Program Header"), as in a policy. A damaged file has
//! no symbols and file offsets for addresses: what ran is in the kernel's hands, and a trace says what it saw.

use std::path::{Path, PathBuf};

use chestnut_analyzer::policy::{FileIdentity, Policy, hexadecimal};
use chestnut_rewriter::{program_sha256, sha256};
use object::{Object, ObjectSegment, ObjectSymbol, SymbolKind};

/// What is known of a file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Module {
    /// File offset, length and address of each loaded stretch.
    stretches: Vec<(u64, u64, u64)>,
    /// Address, length (0: not known) and name of functions, by address.
    symbols: Vec<(u64, u64, String)>,
}

impl Module {
    /// Reads a file.
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        let Ok(file) = object::File::parse(bytes) else {
            return Self::default();
        };
        let stretch = |segment: object::Segment<'_, '_>| {
            let (offset, length) = segment.file_range();
            (offset, length, segment.address())
        };
        let is_function = |symbol: &object::Symbol<'_, '_>| {
            symbol.kind() == SymbolKind::Text && symbol.is_definition() && symbol.address() != 0
        };
        let named = |symbol: object::Symbol<'_, '_>| {
            let name = symbol.name().ok().filter(|name| !name.is_empty())?;
            Some((symbol.address(), symbol.size(), name.to_owned()))
        };
        let all = file.symbols().chain(file.dynamic_symbols());
        let mut symbols: Vec<_> = all.filter(is_function).filter_map(named).collect();
        symbols.sort();
        symbols.dedup_by_key(|symbol| symbol.0);
        Self { stretches: file.segments().map(stretch).collect(), symbols }
    }

    /// The address of a file offset.
    pub(crate) fn address(&self, offset: u64) -> Option<u64> {
        self.stretches.iter().find_map(|(start, length, address)| {
            let inside = offset.checked_sub(*start).filter(|inside| inside < length)?;
            address.checked_add(inside)
        })
    }

    /// The function that an address lies in: `read+0x10`.
    pub(crate) fn symbol(&self, address: u64) -> Option<String> {
        let behind = self.symbols.partition_point(|(start, ..)| *start <= address);
        let (start, length, name) = self.symbols.get(behind.checked_sub(1)?)?;
        match address.wrapping_sub(*start) {
            0 => Some(name.clone()),
            distance if *length != 0 && distance >= *length => None,
            distance => Some(format!("{name}+{distance:#x}")),
        }
    }
}

/// Which file some bytes are.
pub(crate) fn identity(path: &Path, bytes: &[u8]) -> FileIdentity {
    let build_id = object::File::parse(bytes).ok().and_then(|file| file.build_id().ok().flatten().map(hexadecimal));
    FileIdentity { path: path.to_owned(), build_id, sha256: hexadecimal(&sha256(bytes)) }
}

/// Whether bytes are the program of a policy, or what became of that when it was patched.
#[must_use]
pub fn is_program_of(policy: &Policy, bytes: &[u8]) -> bool {
    let FileIdentity { build_id, .. } = identity(Path::new(""), bytes);
    (build_id.is_some() && build_id == policy.program.build_id) || program_sha256(bytes) == policy.program.sha256
}

/// The path without what the kernel adds to that of a file which has been removed.
pub(crate) fn living(path: &Path) -> PathBuf {
    path.to_str().and_then(|text| text.strip_suffix(" (deleted)")).map_or_else(|| path.to_owned(), PathBuf::from)
}
