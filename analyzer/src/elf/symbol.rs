//! The dynamic symbol table, in table order.
//!
//! Input: `DT_SYMTAB`, the count that the hash tables give, and the version tables. Output: one [`Symbol`] per entry,
//! entry 0 included, so that an index of the file is an index of the slice. Spec: gABI chapter 4 "Symbol Table";
//! GNU extensions `STT_GNU_IFUNC` and `STB_GNU_UNIQUE` (psABI x86-64, "Linux extensions").

use object::LittleEndian as LE;
use object::elf;

use super::dynamic_tags::DynamicTags;
use super::error::ImageError;
use super::segment::AddressSpace;
use super::string_table::StringTable;
use super::version::{SymbolVersion, VersionTable};
use crate::address::Vaddr;

/// One entry of the dynamic symbol table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Symbol<'data> {
    /// Name, without version; empty for entry 0 and section symbols.
    pub name: &'data [u8],
    /// `st_value`: an address, or for [`SymbolKind::Tls`] an offset in the TLS image, or for [`Self::is_absolute`]
    /// a plain number.
    pub value: Vaddr,
    /// `st_size` in bytes; zero if not known.
    pub size: u64,
    /// `st_info`, type.
    pub kind: SymbolKind,
    /// `st_info`, binding.
    pub binding: SymbolBinding,
    /// `st_other`.
    pub visibility: SymbolVisibility,
    /// Whether this file defines it (`st_shndx` is not `SHN_UNDEF`).
    pub is_defined: bool,
    /// Whether its value does not move with the file (`SHN_ABS`).
    pub is_absolute: bool,
    /// Version that it defines or needs; `None` where the file says local or global without a version.
    pub version: Option<SymbolVersion<'data>>,
}

/// What a symbol names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SymbolKind {
    /// `STT_NOTYPE`.
    NoType,
    /// `STT_OBJECT`.
    Object,
    /// `STT_FUNC`.
    Function,
    /// `STT_GNU_IFUNC`: the value is a resolver.
    IndirectFunction,
    /// `STT_TLS`.
    Tls,
    /// `STT_SECTION`.
    Section,
    /// `STT_COMMON`.
    Common,
    /// Any other.
    Other,
}

/// How far a symbol is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SymbolBinding {
    /// `STB_LOCAL`, and any value that ld.so does not bind to.
    Local,
    /// `STB_GLOBAL`.
    Global,
    /// `STB_WEAK`.
    Weak,
    /// `STB_GNU_UNIQUE`.
    GnuUnique,
}

/// `st_other`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SymbolVisibility {
    /// `STV_DEFAULT`.
    Default,
    /// `STV_INTERNAL`.
    Internal,
    /// `STV_HIDDEN`.
    Hidden,
    /// `STV_PROTECTED`.
    Protected,
}

impl SymbolKind {
    pub(super) const fn from_raw(kind: elf::SymbolType) -> Self {
        match kind {
            elf::STT_NOTYPE => Self::NoType,
            elf::STT_OBJECT => Self::Object,
            elf::STT_FUNC => Self::Function,
            elf::STT_GNU_IFUNC => Self::IndirectFunction,
            elf::STT_TLS => Self::Tls,
            elf::STT_SECTION => Self::Section,
            elf::STT_COMMON => Self::Common,
            _ => Self::Other,
        }
    }
}

impl SymbolBinding {
    const fn from_raw(binding: elf::SymbolBind) -> Self {
        match binding {
            elf::STB_GLOBAL => Self::Global,
            elf::STB_WEAK => Self::Weak,
            elf::STB_GNU_UNIQUE => Self::GnuUnique,
            _ => Self::Local,
        }
    }
}

impl SymbolVisibility {
    fn from_raw(other: elf::SymbolOther) -> Self {
        // The low two bits; the others belong to other machines.
        match elf::SymbolVisibility(other.0 & 3) {
            elf::STV_INTERNAL => Self::Internal,
            elf::STV_HIDDEN => Self::Hidden,
            elf::STV_PROTECTED => Self::Protected,
            _ => Self::Default,
        }
    }
}

impl Symbol<'_> {
    /// Whether ld.so may bind a reference of any file to this one: defined, seen from outside, and of a kind with a
    /// value. What it does with versions is the binder's matter.
    #[must_use]
    pub const fn is_exported(&self) -> bool {
        self.is_defined
            && !matches!(self.binding, SymbolBinding::Local)
            && !matches!(self.visibility, SymbolVisibility::Hidden | SymbolVisibility::Internal)
            && !matches!(self.kind, SymbolKind::Section)
    }

    /// Whether it is a function, or an IFUNC resolver.
    #[must_use]
    pub const fn is_function(&self) -> bool {
        matches!(self.kind, SymbolKind::Function | SymbolKind::IndirectFunction)
    }
}

/// Bytes of an entry of the symbol table (gABI, "Symbol Table").
pub(super) const ENTRY_SIZE: u64 = size_of::<elf::Sym64<LE>>() as u64;

/// Reads `count` symbols. The count is bounded by the file: the table must lie in the file part of a segment.
pub(super) fn parse<'data>(
    space: &AddressSpace<'data>,
    tags: &DynamicTags,
    strings: &StringTable<'data>,
    count: u64,
) -> Result<Vec<Symbol<'data>>, ImageError> {
    let Some(start) = tags.symtab.map(Vaddr) else { return Ok(Vec::new()) };
    if let Some(found) = tags.syment.filter(|size| *size != ENTRY_SIZE) {
        return Err(ImageError::DynamicValue { tag: "DT_SYMENT", found, expected: "24" });
    }
    let entries: &[elf::Sym64<LE>] = space.table("DT_SYMTAB", start, count.saturating_mul(ENTRY_SIZE))?;
    let versions = VersionTable::parse(space, tags, strings, count)?;
    entries.iter().enumerate().map(|(index, entry)| symbol(entry, index, strings, &versions)).collect()
}

fn symbol<'data>(
    entry: &elf::Sym64<LE>,
    index: usize,
    strings: &StringTable<'data>,
    versions: &VersionTable<'data>,
) -> Result<Symbol<'data>, ImageError> {
    let section = entry.st_shndx.get(LE);
    let name_at = entry.st_name.get(LE);
    // Name 0 is "no name", also where the string table is empty.
    let name = if name_at == 0 { b"".as_slice() } else { strings.name("dynamic symbol", u64::from(name_at))? };
    Ok(Symbol {
        name,
        value: Vaddr(entry.st_value.get(LE)),
        size: entry.st_size.get(LE),
        kind: SymbolKind::from_raw(entry.st_type()),
        binding: SymbolBinding::from_raw(entry.st_bind()),
        visibility: SymbolVisibility::from_raw(entry.st_other),
        is_defined: section != elf::SHN_UNDEF,
        is_absolute: section == elf::SHN_ABS,
        version: versions.of_symbol(index)?,
    })
}
