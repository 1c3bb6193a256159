//! Reads a finished file again, by other code than that which wrote it, before it gets its name.
//!
//! Input: old bytes, new bytes, [`Layout`] and [`Specification`]. Output: nothing, or what is wrong. Five opinions:
//! `object` and `goblin` must read the headers that the layout meant; what the kernel and loaders rely on (gABI
//! chapter 5) must hold in them; what was loaded must be loaded still (`preserved.rs`); the payload must be found as a
//! reader finds it, with a filter that decides as specified; and undoing the change must give back the old file, byte
//! for byte.

use goblin::container::{Container, Ctx, Endian};
use object::LittleEndian as LE;
use object::elf::{FileHeader64, PT_LOAD, PT_PHDR};
use object::read::elf::FileHeader as _;

use crate::bpf::{Filter, Program, Specification};
use crate::elf::{PAGE, Segment, align_up, page_floor};
use crate::error::Error;
use crate::executable::Executable;
use crate::layout::{Layout, SECTION_NAMES};
use crate::payload;
use crate::preserved::is_preserved;
use crate::{record, unpatch};

/// Compares a new file with everything that it should be.
pub(crate) fn verify(old: &[u8], new: &[u8], layout: &Layout, specification: &Specification) -> Result<(), Error> {
    let check = |what: &str, good: Option<()>| good.ok_or_else(|| Error::Verification { what: what.to_owned() });
    check("headers, as the crate object reads them", by_object(new, layout))?;
    check("headers, as the crate goblin reads them", by_goblin(new, layout))?;
    check("the order of segments", segments_are_sound(layout))?;
    let before = Executable::parse_headers(old)?;
    check("what is loaded of the old file", is_preserved(&before, new, layout))?;
    let executable = Executable::parse_headers(new)?;
    let found = payload::find(&executable).ok_or(Error::NotPatched)?;
    check("the place of the stub", same(found.address, layout.stub_address()))?;
    check("the old entry point", same(found.entry(), before.entry()))?;
    check("the jump to the old entry point", jump_leads_to(&found, before.entry()))?;
    let program = Program::decode(found.filter).map_err(crate::bpf::CompileError::from)?;
    Filter::from_program(specification.clone(), program).map_err(crate::bpf::CompileError::from)?;
    record::decode(found.note)?;
    check("the way back to the old file", same(unpatch(new)?.as_slice(), old))
}

fn same<T: PartialEq>(found: T, expected: T) -> Option<()> {
    (found == expected).then_some(())
}

fn by_object(new: &[u8], layout: &Layout) -> Option<()> {
    let header = FileHeader64::<LE>::parse(new).ok()?;
    let segments = header.program_headers(LE, new).ok()?;
    same(header.e_entry.get(LE), layout.stub_address())?;
    let found = segments.iter().flat_map(|raw| object::pod::bytes_of(raw).to_vec()).collect();
    same(Segment::encode_table(&layout.segments), found)?;
    if let Some(sections) = &layout.sections {
        let table = header.sections(LE, new).ok()?;
        same(table.len(), sections.headers.len())?;
        let first_own = sections.headers.len().checked_sub(SECTION_NAMES.len())?;
        for (raw, name) in table.iter().skip(first_own).zip(SECTION_NAMES) {
            same(table.section_name(LE, raw).ok()?, name.as_bytes())?;
        }
    }
    Some(())
}

fn by_goblin(new: &[u8], layout: &Layout) -> Option<()> {
    use goblin::elf::{ProgramHeader, SectionHeader};
    let context = Ctx::new(Container::Big, Endian::Little);
    let header = goblin::elf::Elf::parse_header(new).ok()?;
    same(header.e_entry, layout.stub_address())?;
    let place = usize::try_from(header.e_phoff).ok()?;
    let segments = ProgramHeader::parse(new, place, usize::from(header.e_phnum), context).ok()?;
    same(segments.len(), layout.segments.len())?;
    for (found, expected) in segments.iter().zip(&layout.segments) {
        let fields = (found.p_type, found.p_flags, found.p_offset, found.p_vaddr, found.p_filesz, found.p_memsz);
        let Segment { p_type, p_flags, p_offset, p_vaddr, p_filesz, p_memsz, .. } = *expected;
        same(fields, (p_type.0, p_flags.0, p_offset, p_vaddr, p_filesz, p_memsz))?;
    }
    if let Some(sections) = &layout.sections {
        let place = usize::try_from(header.e_shoff).ok()?;
        let found = SectionHeader::parse(new, place, usize::from(header.e_shnum), context).ok()?;
        same(found.len(), sections.headers.len())?;
        for (found, expected) in found.iter().zip(&sections.headers) {
            let fields = (found.sh_addr, found.sh_offset, found.sh_size);
            same(fields, (expected.sh_addr, expected.sh_offset, expected.sh_size))?;
        }
    }
    Some(())
}

/// PT_PHDR first, agreeing and covered; PT_LOADs ascending, the added one on pages of its own and highest; the table at
/// the first segment's distance, wherever it lies.
fn segments_are_sound(layout: &Layout) -> Option<()> {
    let loads: Vec<_> = layout.segments.iter().filter(|segment| segment.p_type == PT_LOAD).collect();
    let (last, before) = loads.split_last()?;
    same(**last, layout.added)?;
    for pair in loads.windows(2) {
        let [lower, higher] = pair else { return None };
        (lower.memory_end()? <= higher.p_vaddr).then_some(())?;
    }
    for load in before {
        (align_up(load.memory_end()?, PAGE)? <= page_floor(last.p_vaddr)).then_some(())?;
    }
    let table_length = u64::try_from(Segment::encode_table(&layout.segments).len()).ok()?;
    let table_end = layout.table_offset.checked_add(table_length)?;
    let bias = loads.first()?.bias();
    let covers = |load: &&&Segment| load.p_offset <= layout.table_offset && load.file_end() >= Some(table_end);
    let cover = loads.iter().find(covers);
    if let Some(phdr) = layout.segments.iter().find(|segment| segment.p_type == PT_PHDR) {
        same((phdr.p_offset, phdr.p_filesz, phdr.bias()), (layout.table_offset, table_length, bias))?;
        same(cover?.bias(), bias)?;
        let position = |wanted| layout.segments.iter().position(|segment| segment.p_type == wanted);
        (position(PT_PHDR)? < position(PT_LOAD)?).then_some(())?;
    }
    // A table that stayed where it was may always have been outside of memory; one that moved must not be.
    match cover {
        Some(cover) => same(cover.bias(), bias),
        None => (layout.placement.keeps_place()).then_some(()),
    }
}

fn jump_leads_to(found: &payload::Found<'_>, entry: u64) -> Option<()> {
    let displacement = found.stub.last_chunk::<4>().copied().map(i32::from_le_bytes)?;
    let end = found.address.checked_add(u64::try_from(found.stub.len()).ok()?)?;
    same(end.wrapping_add_signed(i64::from(displacement)), entry)
}
