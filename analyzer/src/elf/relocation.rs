//! Dynamic relocations: where the loader writes which address.
//!
//! Input: `DT_RELA`, `DT_JMPREL`, `DT_RELR`, or the records of a static executable. Output: [`Relocation`]s sorted by
//! slot. In a position-independent file these are all pointers in data that exist. Spec: psABI x86-64 4.4 "Relocation"
//! (types and what they compute), gABI chapter 4 "Relative Relocation Table".

use object::LittleEndian as LE;
use object::elf;

use super::dynamic_tags::{DynamicTags, table_range};
use super::error::ImageError;
use super::relr;
use super::segment::AddressSpace;
use crate::address::Vaddr;

/// One write of the loader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relocation {
    /// Where it writes.
    pub slot: Vaddr,
    /// What it writes.
    pub target: RelocationTarget,
}

/// What the loader writes. An `index` is one of the dynamic symbol table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelocationTarget {
    /// The address itself, moved with the file (`R_X86_64_RELATIVE`, `DT_RELR`, `R_X86_64_64` without symbol).
    Relative(Vaddr),
    /// What the resolver function at this address returns (`R_X86_64_IRELATIVE`).
    Irelative(Vaddr),
    /// Something of a symbol.
    Symbol {
        /// Index in the dynamic symbol table.
        index: u32,
        /// Added to the symbol's value.
        addend: i64,
        /// What of the symbol.
        kind: SymbolRelocationKind,
    },
    /// The number of the module that defines a thread-local symbol (index 0: this file).
    TlsModule {
        /// Index in the dynamic symbol table.
        index: u32,
    },
    /// The offset of a symbol in its module's TLS block.
    TlsOffset {
        /// Index in the dynamic symbol table.
        index: u32,
        /// Added to the offset.
        addend: i64,
    },
    /// The offset of a symbol from the thread pointer.
    TlsThreadOffset {
        /// Index in the dynamic symbol table.
        index: u32,
        /// Added to the offset.
        addend: i64,
    },
    /// A descriptor of two words; ld.so writes the address of one of its own functions into the first.
    TlsDescriptor {
        /// Index in the dynamic symbol table.
        index: u32,
        /// Added to the offset.
        addend: i64,
    },
    /// A type that no linker writes into an executable or shared object.
    Other(u32),
}

/// What a relocation takes of a symbol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SymbolRelocationKind {
    /// `R_X86_64_64`: its address, 8 bytes.
    Absolute64,
    /// `R_X86_64_32` and `R_X86_64_32S`: its address, 4 bytes.
    Absolute32,
    /// `R_X86_64_GLOB_DAT`: its address, without addend.
    GlobDat,
    /// `R_X86_64_JUMP_SLOT`: its address, without addend, perhaps only at the first call.
    JumpSlot,
    /// `R_X86_64_COPY`: the bytes of another file's object.
    Copy,
    /// `R_X86_64_PC32` and `R_X86_64_PLT32`: the distance to it, 4 bytes.
    Pc32,
    /// `R_X86_64_PC64`: the distance to it, 8 bytes.
    Pc64,
    /// `R_X86_64_SIZE32` and `R_X86_64_SIZE64`.
    Size,
}

impl RelocationTarget {
    /// The dynamic symbol that it names.
    #[must_use]
    pub const fn symbol_index(&self) -> Option<u32> {
        match *self {
            Self::Relative(_) | Self::Irelative(_) | Self::Other(_) => None,
            Self::Symbol { index, .. }
            | Self::TlsModule { index }
            | Self::TlsOffset { index, .. }
            | Self::TlsThreadOffset { index, .. }
            | Self::TlsDescriptor { index, .. } => Some(index),
        }
    }
}

/// All relocations that the dynamic section names, sorted by slot.
pub(super) fn parse(space: &AddressSpace<'_>, tags: &DynamicTags) -> Result<Vec<Relocation>, ImageError> {
    // x86-64 uses records with addend only; the others would be read wrongly, so they are refused.
    if let Some(found) = tags.rel {
        return Err(ImageError::DynamicValue { tag: "DT_REL", found, expected: "absent: x86-64 has DT_RELA only" });
    }
    if let Some(found) = tags.relaent.filter(|size| *size != 24) {
        return Err(ImageError::DynamicValue { tag: "DT_RELAENT", found, expected: "24" });
    }
    if let Some(found) = tags.pltrel.filter(|tag| i64::try_from(*tag) != Ok(elf::DT_RELA.0)) {
        return Err(ImageError::DynamicValue { tag: "DT_PLTREL", found, expected: "7 (DT_RELA)" });
    }
    if let Some(found) = tags.relrent.filter(|size| *size != 8) {
        return Err(ImageError::DynamicValue { tag: "DT_RELRENT", found, expected: "8" });
    }
    let mut found = Vec::new();
    if let Some(range) = table_range(("DT_RELA", tags.rela), ("DT_RELASZ", tags.relasz))? {
        add_table(space, "DT_RELA", range, &mut found)?;
    }
    if let Some(range) = table_range(("DT_JMPREL", tags.jmprel), ("DT_PLTRELSZ", tags.pltrelsz))? {
        add_table(space, "DT_JMPREL", range, &mut found)?;
    }
    if let Some(range) = table_range(("DT_RELR", tags.relr), ("DT_RELRSZ", tags.relrsz))? {
        relr::add(space, range, &mut found)?;
    }
    sort(&mut found);
    Ok(found)
}

/// Sorts by slot. Some linkers count the PLT's relocations into `DT_RELA` too: those must not appear twice.
pub(super) fn sort(relocations: &mut Vec<Relocation>) {
    // Stable: two different writes to one slot keep the order in which ld.so makes them.
    relocations.sort_by_key(|relocation| relocation.slot);
    relocations.dedup();
}

/// A table of records with addend.
fn add_table(
    space: &AddressSpace<'_>,
    table: &'static str,
    (start, size): (Vaddr, u64),
    found: &mut Vec<Relocation>,
) -> Result<(), ImageError> {
    if !size.is_multiple_of(24) {
        return Err(ImageError::DynamicValue { tag: size_tag(table), found: size, expected: "a multiple of 24" });
    }
    let records: &[elf::Rela64<LE>] = space.table(table, start, size)?;
    found.reserve(records.len());
    for (index, record) in records.iter().enumerate() {
        let slot = Vaddr(record.r_offset.get(LE));
        let Some(target) = target(record) else { continue };
        if space.segment_at(slot).is_none() {
            return Err(ImageError::RelocationSlot { table, index, slot });
        }
        found.push(Relocation { slot, target });
    }
    Ok(())
}

const fn size_tag(table: &'static str) -> &'static str {
    match table.as_bytes() {
        b"DT_RELA" => "DT_RELASZ",
        _ => "DT_PLTRELSZ",
    }
}

/// What a record writes; `None` for `R_X86_64_NONE`, which linkers leave where they deleted one.
pub(super) fn target(record: &elf::Rela64<LE>) -> Option<RelocationTarget> {
    use RelocationTarget::{Irelative, Other, Relative, Symbol, TlsDescriptor, TlsModule, TlsOffset, TlsThreadOffset};
    use SymbolRelocationKind as Kind;
    let index = record.r_sym(LE, false);
    let addend = record.r_addend.get(LE);
    let symbol = |kind| Symbol { index, addend, kind };
    let address = Vaddr(addend.cast_unsigned());
    Some(match record.r_type(LE, false) {
        elf::R_X86_64_NONE => return None,
        elf::R_X86_64_RELATIVE | elf::R_X86_64_RELATIVE64 => Relative(address),
        elf::R_X86_64_IRELATIVE => Irelative(address),
        // Symbol 0 has value 0 and moves with the file, so that ld.so computes the same as for RELATIVE.
        elf::R_X86_64_64 if index == 0 => Relative(address),
        elf::R_X86_64_64 => symbol(Kind::Absolute64),
        elf::R_X86_64_32 | elf::R_X86_64_32S => symbol(Kind::Absolute32),
        elf::R_X86_64_GLOB_DAT => symbol(Kind::GlobDat),
        elf::R_X86_64_JUMP_SLOT => symbol(Kind::JumpSlot),
        elf::R_X86_64_COPY => symbol(Kind::Copy),
        elf::R_X86_64_PC32 | elf::R_X86_64_PLT32 => symbol(Kind::Pc32),
        elf::R_X86_64_PC64 => symbol(Kind::Pc64),
        elf::R_X86_64_SIZE32 | elf::R_X86_64_SIZE64 => symbol(Kind::Size),
        elf::R_X86_64_DTPMOD64 => TlsModule { index },
        elf::R_X86_64_DTPOFF64 => TlsOffset { index, addend },
        elf::R_X86_64_TPOFF64 => TlsThreadOffset { index, addend },
        elf::R_X86_64_TLSDESC => TlsDescriptor { index, addend },
        other => Other(other.0),
    })
}

/// The highest symbol index that a relocation uses.
pub(super) fn highest_symbol(relocations: &[Relocation]) -> Option<u32> {
    relocations.iter().filter_map(|relocation| relocation.target.symbol_index()).max()
}
