//! What the dynamic section tells about a file: libraries, search paths, constructors, the GOT.
//!
//! Input: [`DynamicTags`] and the address space. Output: [`Dynamic`], with names resolved and every address checked to
//! lie where its tag says. Spec: gABI chapter 5 "Dynamic Section", "Initialization and Termination Functions";
//! psABI x86-64 5.2.

use object::elf;

use super::dynamic_tags::{DynamicTags, table_range};
use super::error::ImageError;
use super::segment::AddressSpace;
use super::string_table::StringTable;
use crate::address::Vaddr;

/// The dynamic section. Names are bytes of the file, without their NUL.
#[derive(Clone, Debug)]
pub struct Dynamic<'data> {
    /// `DT_NEEDED`, in order.
    pub needed: Vec<&'data [u8]>,
    /// `DT_AUXILIARY` and `DT_FILTER`: libraries that ld.so loads too, and searches in this one's place.
    pub filters: Vec<&'data [u8]>,
    /// `DT_SONAME`.
    pub soname: Option<&'data [u8]>,
    /// `DT_RPATH`, unsplit.
    pub rpath: Option<&'data [u8]>,
    /// `DT_RUNPATH`, unsplit.
    pub runpath: Option<&'data [u8]>,
    /// Whether all symbols are bound before the program starts (`DT_BIND_NOW`, `DF_BIND_NOW`, `DF_1_NOW`).
    pub bind_now: bool,
    /// Whether symbols are looked up in the file itself first (`DT_SYMBOLIC`, `DF_SYMBOLIC`).
    pub is_symbolic: bool,
    /// `DT_FLAGS_1`, zero if absent.
    pub flags_1: u64,
    /// `DT_INIT`: a function.
    pub init: Option<Vaddr>,
    /// `DT_FINI`: a function.
    pub fini: Option<Vaddr>,
    /// Addresses of the slots of `DT_INIT_ARRAY`, each of which holds a pointer to a function.
    pub init_array: Vec<Vaddr>,
    /// Addresses of the slots of `DT_FINI_ARRAY`.
    pub fini_array: Vec<Vaddr>,
    /// Addresses of the slots of `DT_PREINIT_ARRAY`.
    pub preinit_array: Vec<Vaddr>,
    /// `DT_PLTGOT`: slots 1 and 2 are ld.so's own for lazy binding.
    pub plt_got: Option<Vaddr>,
}

impl<'data> Dynamic<'data> {
    /// Resolves what the tags point to.
    pub(super) fn parse(
        space: &AddressSpace<'data>,
        tags: &DynamicTags,
        strings: &StringTable<'data>,
    ) -> Result<Self, ImageError> {
        let names = |what, offsets: &[u64]| {
            offsets.iter().map(|offset| strings.name(what, *offset)).collect::<Result<Vec<_>, _>>()
        };
        let name = |what, offset: Option<u64>| offset.map(|offset| strings.name(what, offset)).transpose();
        Ok(Self {
            needed: names("DT_NEEDED", &tags.needed)?,
            filters: names("DT_AUXILIARY or DT_FILTER", &tags.filters)?,
            soname: name("DT_SONAME", tags.soname)?,
            rpath: name("DT_RPATH", tags.rpath)?,
            runpath: name("DT_RUNPATH", tags.runpath)?,
            bind_now: tags.bind_now || tags.flags & elf::DF_BIND_NOW.0 != 0 || tags.flags_1 & elf::DF_1_NOW.0 != 0,
            is_symbolic: tags.symbolic || tags.flags & elf::DF_SYMBOLIC.0 != 0,
            flags_1: tags.flags_1,
            init: function(space, "DT_INIT", tags.init)?,
            fini: function(space, "DT_FINI", tags.fini)?,
            init_array: slots(space, ("DT_INIT_ARRAY", tags.init_array), ("DT_INIT_ARRAYSZ", tags.init_arraysz))?,
            fini_array: slots(space, ("DT_FINI_ARRAY", tags.fini_array), ("DT_FINI_ARRAYSZ", tags.fini_arraysz))?,
            preinit_array: slots(
                space,
                ("DT_PREINIT_ARRAY", tags.preinit_array),
                ("DT_PREINIT_ARRAYSZ", tags.preinit_arraysz),
            )?,
            plt_got: plt_got(space, tags.pltgot)?,
        })
    }
}

/// The string table of the dynamic section. A dynamic section without names needs none.
pub(super) fn string_table<'data>(
    space: &AddressSpace<'data>,
    tags: &DynamicTags,
) -> Result<StringTable<'data>, ImageError> {
    let range = table_range(("DT_STRTAB", tags.strtab), ("DT_STRSZ", tags.strsz))?;
    let Some((start, size)) = range else { return Ok(StringTable::default()) };
    Ok(StringTable::new(space.table("DT_STRTAB", start, size)?))
}

/// A tag that points to a function.
fn function(space: &AddressSpace<'_>, tag: &'static str, value: Option<u64>) -> Result<Option<Vaddr>, ImageError> {
    let Some(found) = value.map(Vaddr) else { return Ok(None) };
    if !space.segment_at(found).is_some_and(|segment| segment.is_executable()) {
        return Err(ImageError::DynamicAddress { tag, found, expected: "an address in an executable PT_LOAD" });
    }
    Ok(Some(found))
}

/// A GOT address. Linkers may leave a zero where there is no PLT.
fn plt_got(space: &AddressSpace<'_>, value: Option<u64>) -> Result<Option<Vaddr>, ImageError> {
    let Some(found) = value.map(Vaddr).filter(|found| *found != Vaddr(0)) else { return Ok(None) };
    if space.segment_at(found).is_none() {
        let expected = "an address in a PT_LOAD";
        return Err(ImageError::DynamicAddress { tag: "DT_PLTGOT", found, expected });
    }
    Ok(Some(found))
}

/// The slots of an array of function pointers. Bounded: the array lies in the file part of one segment.
fn slots(
    space: &AddressSpace<'_>,
    address: (&'static str, Option<u64>),
    size: (&'static str, Option<u64>),
) -> Result<Vec<Vaddr>, ImageError> {
    let Some((start, bytes)) = table_range(address, size)? else { return Ok(Vec::new()) };
    if bytes % 8 != 0 {
        return Err(ImageError::DynamicValue { tag: size.0, found: bytes, expected: "a multiple of 8" });
    }
    let array: &[[u8; 8]] = space.table(address.0, start, bytes)?;
    Ok((0_u64..).step_by(8).zip(array).filter_map(|(offset, _)| start.checked_add(offset)).collect())
}
