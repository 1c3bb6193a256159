//! Names and bounds of functions and objects, from `.symtab` and the dynamic symbols, or else Go's function table.
//!
//! Input: section headers and both symbol tables. Output: [`FunctionHint`]s and [`ObjectHint`]s sorted by address. A
//! stripped file has few or none of them: they make a report readable and bounds tighter, and nothing may be missed
//! for lack of them. Spec: gABI chapter 4 "Symbol Table".

use object::LittleEndian as LE;
use object::elf;

use super::go_table::GoFunction;
use super::section::Section;
use super::segment::AddressSpace;
use super::string_table::StringTable;
use super::symbol::{Symbol, SymbolKind};
use super::tls::TlsImage;
use crate::address::Vaddr;

/// A function, as a symbol describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FunctionHint<'data> {
    /// First instruction, if the symbol is right.
    pub address: Vaddr,
    /// Size in bytes; zero if not known.
    pub size: u64,
    /// Name, mangled.
    pub name: &'data [u8],
}

/// A data object, as a symbol describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectHint<'data> {
    /// First byte; for a thread-local object in the file's TLS image.
    pub address: Vaddr,
    /// Size in bytes; zero if not known.
    pub size: u64,
    /// Name, mangled.
    pub name: &'data [u8],
}

/// Both kinds, sorted by address, then size, then name; equal ones once.
#[derive(Debug, Default)]
pub(super) struct Hints<'data> {
    pub(super) functions: Vec<FunctionHint<'data>>,
    pub(super) objects: Vec<ObjectHint<'data>>,
}

impl<'data> Hints<'data> {
    /// Collects what both tables have.
    pub(super) fn collect(
        data: &'data [u8],
        space: &AddressSpace<'_>,
        tls: Option<TlsImage>,
        sections: &[Section<'data>],
        dynamic: &[Symbol<'data>],
        go: &[GoFunction<'data>],
    ) -> Self {
        let mut hints = Self::default();
        for symbol in dynamic.iter().filter(|symbol| symbol.is_defined) {
            hints.add(space, tls, symbol.kind, (symbol.value, symbol.size, symbol.name));
        }
        // A file has at most one such table; more of them could only serve to make us read the same bytes often.
        let table = sections.iter().find(|section| section.header.sh_type.get(LE) == elf::SHT_SYMTAB);
        if let Some(section) = table {
            hints.add_table(data, space, tls, sections, section);
        }
        hints.functions.sort_unstable();
        let is_new = |f: &&GoFunction<'_>| hints.functions.binary_search_by_key(&f.start, |hint| hint.address).is_err();
        let unnamed = go.iter().filter(is_new).filter_map(|f| {
            let size = f.end.checked_offset_from(f.start)?;
            Some(FunctionHint { address: f.start, size, name: f.name })
        });
        let unnamed: Vec<_> = unnamed.collect();
        hints.functions.extend(unnamed);
        hints.functions.sort_unstable();
        hints.functions.dedup();
        hints.objects.sort_unstable();
        hints.objects.dedup();
        hints
    }

    /// `.symtab`, as far as it is whole.
    fn add_table(
        &mut self,
        data: &'data [u8],
        space: &AddressSpace<'_>,
        tls: Option<TlsImage>,
        sections: &[Section<'data>],
        section: &Section<'data>,
    ) {
        let names = usize::try_from(section.header.sh_link.get(LE)).ok();
        let names = names.and_then(|index| sections.get(index)).and_then(|section| section.bytes(data));
        let names = StringTable::new(names.unwrap_or_default());
        let bytes = section.bytes(data).unwrap_or_default();
        let (records, _) = bytes.as_chunks::<{ size_of::<elf::Sym64<LE>>() }>();
        for record in records {
            let Ok((entry, _)) = object::pod::from_bytes::<elf::Sym64<LE>>(record) else { continue };
            if entry.st_shndx.get(LE) == elf::SHN_UNDEF {
                continue;
            }
            let name = names.hint(u64::from(entry.st_name.get(LE))).unwrap_or_default();
            let place = (Vaddr(entry.st_value.get(LE)), entry.st_size.get(LE), name);
            self.add(space, tls, SymbolKind::from_raw(entry.st_type()), place);
        }
    }

    fn add(
        &mut self,
        space: &AddressSpace<'_>,
        tls: Option<TlsImage>,
        kind: SymbolKind,
        (value, size, name): (Vaddr, u64, &'data [u8]),
    ) {
        // A symbol outside its kind of segment describes something else (absolute values, discarded sections).
        let segment = space.segment_at(value);
        match kind {
            SymbolKind::Function | SymbolKind::IndirectFunction if segment.is_some_and(|at| at.is_executable()) => {
                self.functions.push(FunctionHint { address: value, size, name });
            }
            SymbolKind::Object if segment.is_some() => {
                self.objects.push(ObjectHint { address: value, size, name });
            }
            // `st_value` of a thread-local symbol is an offset in the TLS image. What lies behind its file part
            // (`.tbss`) has no place of its own: other data stands at those addresses.
            SymbolKind::Tls => {
                let in_file = tls.filter(|image| value.0 < image.p_filesz);
                if let Some(address) = in_file.and_then(|image| image.p_vaddr.checked_add(value.0)) {
                    self.objects.push(ObjectHint { address, size, name });
                }
            }
            _ => {}
        }
    }
}
