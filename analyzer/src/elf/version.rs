//! Versions of dynamic symbols: `memcpy@@GLIBC_2.14`.
//!
//! Input: `DT_VERSYM` (one index per symbol), `DT_VERDEF` (versions that the file defines) and `DT_VERNEED` (versions
//! that it needs, by file). Output: the [`SymbolVersion`] of each symbol. Spec: LSB core, "Symbol Versioning"; the base
//! definition (`VER_FLG_BASE`) names the file and is no version, as in ld.so (`_dl_check_map_versions`).

use object::LittleEndian as LE;
use object::elf;
use object::pod::Pod;

use super::dynamic_tags::DynamicTags;
use super::error::ImageError;
use super::segment::AddressSpace;
use super::string_table::StringTable;
use crate::address::Vaddr;

/// A version index has 15 bits.
const VERSIONS_LIMIT: u16 = 0x8000;

/// The version of one symbol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SymbolVersion<'data> {
    /// `GLIBC_2.14`.
    pub name: &'data [u8],
    /// For a definition: `@` (only for references that ask for this version) and not `@@` (the default).
    pub is_hidden: bool,
    /// For a reference: the file that must define it (`vn_file`).
    pub file: Option<&'data [u8]>,
    /// The version index; ld.so binds a reference without version to the definition with the lowest ones (2 is the
    /// first version that a file ever had).
    pub index: u16,
}

/// What an index stands for.
#[derive(Clone, Copy, Debug)]
struct Version<'data> {
    name: &'data [u8],
    file: Option<&'data [u8]>,
}

/// All versions of a file.
#[derive(Debug, Default)]
pub(super) struct VersionTable<'data> {
    start: Vaddr,
    /// One entry per symbol, or empty: the file has no versions.
    of_symbols: &'data [elf::Versym<LE>],
    /// By index; at most 32768, since the index has 15 bits.
    versions: Vec<Option<Version<'data>>>,
    /// How many entries were read; more than there are indices cannot all mean something.
    read: u16,
}

impl<'data> VersionTable<'data> {
    pub(super) fn parse(
        space: &AddressSpace<'data>,
        tags: &DynamicTags,
        strings: &StringTable<'data>,
        symbol_count: u64,
    ) -> Result<Self, ImageError> {
        let Some(start) = tags.versym.map(Vaddr) else { return Ok(Self::default()) };
        let of_symbols = space.table("DT_VERSYM", start, symbol_count.saturating_mul(2))?;
        let mut table = Self { start, of_symbols, versions: Vec::new(), read: 0 };
        if let Some(at) = tags.verdef {
            let count = counted("DT_VERDEF", "DT_VERDEFNUM", tags.verdefnum)?;
            table.add_definitions(space, strings, Vaddr(at), count)?;
        }
        if let Some(at) = tags.verneed {
            let count = counted("DT_VERNEED", "DT_VERNEEDNUM", tags.verneednum)?;
            table.add_needs(space, strings, Vaddr(at), count)?;
        }
        Ok(table)
    }

    /// The version of the symbol at `index`.
    pub(super) fn of_symbol(&self, index: usize) -> Result<Option<SymbolVersion<'data>>, ImageError> {
        let Some(entry) = self.of_symbols.get(index) else { return Ok(None) };
        let entry = entry.0.get(LE);
        // Local and global: without a version.
        if entry.is_local() || entry.is_global() {
            return Ok(None);
        }
        let number = entry.index().0;
        let Some(known) = self.versions.get(usize::from(number)) else {
            let at = u64::try_from(index).ok().and_then(|index| self.start.checked_add(index.saturating_mul(2)));
            let problem = "its index is in neither DT_VERDEF nor DT_VERNEED";
            return Err(ImageError::Version { table: "DT_VERSYM", at: at.unwrap_or(self.start), problem });
        };
        Ok(known.map(|Version { name, file }| SymbolVersion {
            name,
            is_hidden: entry.is_hidden(),
            file,
            index: number,
        }))
    }

    fn set(
        &mut self,
        (table, at): (&'static str, Vaddr),
        index: u16,
        version: Option<Version<'data>>,
    ) -> Result<(), ImageError> {
        // Chains may share entries; without a limit, a small file could make us walk for a long time.
        self.read = self.read.saturating_add(1);
        if self.read > VERSIONS_LIMIT {
            let problem = "there are more entries than version indices";
            return Err(ImageError::Version { table, at, problem });
        }
        let index = usize::from(index);
        if self.versions.len() <= index {
            self.versions.resize(index.saturating_add(1), None);
        }
        if let (Some(place), Some(version)) = (self.versions.get_mut(index), version) {
            *place = Some(version);
        }
        Ok(())
    }

    /// `DT_VERDEF`: a chain of definitions; the first auxiliary entry of each has the name, others its parents.
    fn add_definitions(
        &mut self,
        space: &AddressSpace<'data>,
        strings: &StringTable<'data>,
        start: Vaddr,
        count: u64,
    ) -> Result<(), ImageError> {
        let mut at = start;
        for _ in 0..count {
            let entry: &elf::Verdef<LE> = entry(space, "DT_VERDEF", at)?;
            let index = entry.vd_ndx.get(LE).0 & elf::VERSYM_VERSION;
            if entry.vd_flags.get(LE).0 & elf::VER_FLG_BASE.0 != 0 {
                self.set(("DT_VERDEF", at), index, None)?;
            } else {
                let name_at = following("DT_VERDEF", at, entry.vd_aux.get(LE))?;
                let auxiliary: &elf::Verdaux<LE> = self::entry(space, "DT_VERDEF", name_at)?;
                let name = strings.name("DT_VERDEF", u64::from(auxiliary.vda_name.get(LE)))?;
                self.set(("DT_VERDEF", at), index, Some(Version { name, file: None }))?;
            }
            if entry.vd_next.get(LE) == 0 {
                break;
            }
            at = following("DT_VERDEF", at, entry.vd_next.get(LE))?;
        }
        Ok(())
    }

    /// `DT_VERNEED`: a chain of files, each with a chain of versions.
    fn add_needs(
        &mut self,
        space: &AddressSpace<'data>,
        strings: &StringTable<'data>,
        start: Vaddr,
        count: u64,
    ) -> Result<(), ImageError> {
        let mut at = start;
        for _ in 0..count {
            let needed: &elf::Verneed<LE> = entry(space, "DT_VERNEED", at)?;
            let file = strings.name("DT_VERNEED", u64::from(needed.vn_file.get(LE)))?;
            let mut auxiliary_at = following("DT_VERNEED", at, needed.vn_aux.get(LE))?;
            for _ in 0..needed.vn_cnt.get(LE) {
                let auxiliary: &elf::Vernaux<LE> = entry(space, "DT_VERNEED", auxiliary_at)?;
                let name = strings.name("DT_VERNEED", u64::from(auxiliary.vna_name.get(LE)))?;
                let index = auxiliary.vna_other.get(LE).0 & elf::VERSYM_VERSION;
                self.set(("DT_VERNEED", auxiliary_at), index, Some(Version { name, file: Some(file) }))?;
                if auxiliary.vna_next.get(LE) == 0 {
                    break;
                }
                auxiliary_at = following("DT_VERNEED", auxiliary_at, auxiliary.vna_next.get(LE))?;
            }
            if needed.vn_next.get(LE) == 0 {
                break;
            }
            at = following("DT_VERNEED", at, needed.vn_next.get(LE))?;
        }
        Ok(())
    }
}

/// The count that belongs to a version table.
fn counted(table: &'static str, count_tag: &'static str, count: Option<u64>) -> Result<u64, ImageError> {
    count.ok_or(ImageError::DynamicMissing { present: table, missing: count_tag })
}

/// One entry of a version chain.
fn entry<'data, T: Pod>(space: &AddressSpace<'data>, table: &'static str, at: Vaddr) -> Result<&'data T, ImageError> {
    let problem = "the entry does not lie in the file part of a PT_LOAD";
    space.structure(at).ok_or(ImageError::Version { table, at, problem })
}

/// The address of the next entry. Links go forward only (they are unsigned), so that a chain ends with its segment.
fn following(table: &'static str, at: Vaddr, distance: u32) -> Result<Vaddr, ImageError> {
    let problem = "its link goes beyond the address space";
    at.checked_add(u64::from(distance)).ok_or(ImageError::Version { table, at, problem })
}
