//! The entries of the dynamic section as they stand, before their values are followed.
//!
//! Input: the address range of `PT_DYNAMIC`. Output: [`DynamicTags`], one value per tag. Spec: gABI chapter 5 "Dynamic
//! Section". As in ld.so, the last entry of a tag counts; only `DT_NEEDED`, `DT_AUXILIARY` and `DT_FILTER` add up.

use object::LittleEndian as LE;
use object::elf;

use super::error::ImageError;
use super::segment::AddressSpace;
use crate::address::Vaddr;

/// Raw values by tag. Only tags that lead to something are kept; addresses are unchecked.
#[derive(Clone, Debug, Default)]
pub(super) struct DynamicTags {
    /// String offsets of `DT_NEEDED`, in order.
    pub(super) needed: Vec<u64>,
    /// String offsets of `DT_AUXILIARY` and `DT_FILTER`, in order.
    pub(super) filters: Vec<u64>,
    pub(super) soname: Option<u64>,
    pub(super) rpath: Option<u64>,
    pub(super) runpath: Option<u64>,
    pub(super) strtab: Option<u64>,
    pub(super) strsz: Option<u64>,
    pub(super) symtab: Option<u64>,
    pub(super) syment: Option<u64>,
    pub(super) hash: Option<u64>,
    pub(super) gnu_hash: Option<u64>,
    pub(super) versym: Option<u64>,
    pub(super) verdef: Option<u64>,
    pub(super) verdefnum: Option<u64>,
    pub(super) verneed: Option<u64>,
    pub(super) verneednum: Option<u64>,
    pub(super) rela: Option<u64>,
    pub(super) relasz: Option<u64>,
    pub(super) relaent: Option<u64>,
    pub(super) rel: Option<u64>,
    pub(super) jmprel: Option<u64>,
    pub(super) pltrelsz: Option<u64>,
    pub(super) pltrel: Option<u64>,
    pub(super) relr: Option<u64>,
    pub(super) relrsz: Option<u64>,
    pub(super) relrent: Option<u64>,
    pub(super) pltgot: Option<u64>,
    pub(super) init: Option<u64>,
    pub(super) fini: Option<u64>,
    pub(super) init_array: Option<u64>,
    pub(super) init_arraysz: Option<u64>,
    pub(super) fini_array: Option<u64>,
    pub(super) fini_arraysz: Option<u64>,
    pub(super) preinit_array: Option<u64>,
    pub(super) preinit_arraysz: Option<u64>,
    pub(super) flags: u64,
    pub(super) flags_1: u64,
    pub(super) bind_now: bool,
    pub(super) symbolic: bool,
}

impl DynamicTags {
    /// Reads the entries up to `DT_NULL`.
    pub(super) fn parse(space: &AddressSpace<'_>, start: Vaddr, size: u64) -> Result<Self, ImageError> {
        let entries: &[elf::Dyn64<LE>] = space.table("PT_DYNAMIC", start, size)?;
        let mut tags = Self::default();
        for entry in entries {
            let tag = entry.d_tag.get(LE);
            if tag == elf::DT_NULL {
                return Ok(tags);
            }
            tags.set(tag, entry.d_val.get(LE));
        }
        // ld.so would read on behind the segment: whatever it found there, we would not know it.
        Err(ImageError::DynamicUnterminated { start, size })
    }

    fn set(&mut self, tag: elf::DynamicTag, value: u64) {
        let field = match tag {
            elf::DT_NEEDED => return self.needed.push(value),
            elf::DT_AUXILIARY | elf::DT_FILTER => return self.filters.push(value),
            elf::DT_FLAGS => {
                self.flags = value;
                return;
            }
            elf::DT_FLAGS_1 => {
                self.flags_1 = value;
                return;
            }
            elf::DT_BIND_NOW => {
                self.bind_now = true;
                return;
            }
            elf::DT_SYMBOLIC => {
                self.symbolic = true;
                return;
            }
            _ => self.field(tag),
        };
        if let Some(field) = field {
            *field = Some(value);
        }
    }

    /// The place of a tag that counts once. Tags without a place say nothing about calls (`DT_DEBUG`, counts that only
    /// speed ld.so up, what prelink left).
    fn field(&mut self, tag: elf::DynamicTag) -> Option<&mut Option<u64>> {
        Some(match tag {
            elf::DT_SONAME => &mut self.soname,
            elf::DT_RPATH => &mut self.rpath,
            elf::DT_RUNPATH => &mut self.runpath,
            elf::DT_STRTAB => &mut self.strtab,
            elf::DT_STRSZ => &mut self.strsz,
            elf::DT_SYMTAB => &mut self.symtab,
            elf::DT_SYMENT => &mut self.syment,
            elf::DT_HASH => &mut self.hash,
            elf::DT_GNU_HASH => &mut self.gnu_hash,
            elf::DT_VERSYM => &mut self.versym,
            elf::DT_VERDEF => &mut self.verdef,
            elf::DT_VERDEFNUM => &mut self.verdefnum,
            elf::DT_VERNEED => &mut self.verneed,
            elf::DT_VERNEEDNUM => &mut self.verneednum,
            elf::DT_RELA => &mut self.rela,
            elf::DT_RELASZ => &mut self.relasz,
            elf::DT_RELAENT => &mut self.relaent,
            elf::DT_REL => &mut self.rel,
            elf::DT_JMPREL => &mut self.jmprel,
            elf::DT_PLTRELSZ => &mut self.pltrelsz,
            elf::DT_PLTREL => &mut self.pltrel,
            elf::DT_RELR => &mut self.relr,
            elf::DT_RELRSZ => &mut self.relrsz,
            elf::DT_RELRENT => &mut self.relrent,
            elf::DT_PLTGOT => &mut self.pltgot,
            elf::DT_INIT => &mut self.init,
            elf::DT_FINI => &mut self.fini,
            elf::DT_INIT_ARRAY => &mut self.init_array,
            elf::DT_INIT_ARRAYSZ => &mut self.init_arraysz,
            elf::DT_FINI_ARRAY => &mut self.fini_array,
            elf::DT_FINI_ARRAYSZ => &mut self.fini_arraysz,
            elf::DT_PREINIT_ARRAY => &mut self.preinit_array,
            elf::DT_PREINIT_ARRAYSZ => &mut self.preinit_arraysz,
            _ => return None,
        })
    }
}

/// A table that two tags describe: `None` if neither is there; its address may only be missing if its size is zero.
pub(super) fn table_range(
    (address_tag, address): (&'static str, Option<u64>),
    (size_tag, size): (&'static str, Option<u64>),
) -> Result<Option<(Vaddr, u64)>, ImageError> {
    match (address, size) {
        (Some(address), Some(size)) => Ok(Some((Vaddr(address), size))),
        (Some(_), None) => Err(ImageError::DynamicMissing { present: address_tag, missing: size_tag }),
        (None, Some(0) | None) => Ok(None),
        (None, Some(_)) => Err(ImageError::DynamicMissing { present: size_tag, missing: address_tag }),
    }
}
