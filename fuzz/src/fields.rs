//! Valid ELF files, changed field by field.
//!
//! Input: bytes of a fuzzer. The first one chooses a seed; what follows is a list of edits: which table, which entry of
//! it, and what becomes of it. Output: the seed with these edits. So a fuzzer changes one thing and leaves all the rest
//! right, and comes past checks that random bytes never pass.

use goblin::elf::Elf;

/// Small programs, a library and a loader that belong together (the first three), and others; `fuzz/seeds/build` makes
/// them.
pub const SEEDS: [&[u8]; 6] = [
    include_bytes!("../seeds/dynamic"),
    include_bytes!("../seeds/libx.so"),
    include_bytes!("../seeds/loader"),
    include_bytes!("../seeds/static"),
    include_bytes!("../seeds/static-pie"),
    include_bytes!("../seeds/go"),
];

/// Places of one table: offset and width of each field, and the address of its first byte.
struct Table {
    address: u64,
    fields: Vec<(usize, usize)>,
}

/// Widths of the fields of an entry, by what holds it.
const FILE_HEADER: &[usize] = &[1, 1, 1, 1, 1, 1, 1, 1, 8, 2, 2, 4, 8, 8, 8, 4, 2, 2, 2, 2, 2, 2];
const PROGRAM_HEADER: &[usize] = &[4, 4, 8, 8, 8, 8, 8, 8];
const SECTION_HEADER: &[usize] = &[4, 4, 8, 8, 8, 8, 4, 4, 8, 8];

/// The fields of a section's entries, by its name.
fn widths(name: &str) -> &'static [usize] {
    match name {
        ".dynamic" | ".relr.dyn" | ".data.rel.ro" | ".init_array" | ".fini_array" | ".got" => &[8],
        ".rela.dyn" | ".rela.plt" => &[8, 4, 4, 8],
        ".dynsym" | ".symtab" => &[4, 1, 1, 2, 8, 8],
        ".hash" | ".gnu.hash" | ".eh_frame_hdr" | ".eh_frame" | ".rodata" | ".data" | ".note.chestnut.calls" => &[4],
        ".gnu.version" => &[2],
        ".gnu.version_r" | ".gnu.version_d" => &[2, 2, 4, 4, 4],
        _ => &[1],
    }
}

fn table(address: u64, start: usize, end: usize, widths: &[usize]) -> Table {
    let mut fields = Vec::new();
    let mut at = start;
    for &width in widths.iter().cycle() {
        if at + width > end {
            break;
        }
        fields.push((at, width));
        at += width;
    }
    Table { address, fields }
}

/// The tables of a seed: headers, then sections.
fn tables(seed: &[u8]) -> Vec<Table> {
    let elf = Elf::parse(seed).expect("a seed is whole");
    let headers = usize::from(elf.header.e_phnum) * 56;
    let sections_at = elf.header.e_shoff as usize;
    let sections_end = sections_at + usize::from(elf.header.e_shnum) * 64;
    let mut tables = vec![
        table(elf.header.e_entry, 0, 64, FILE_HEADER),
        table(elf.header.e_phoff, 64, 64 + headers, PROGRAM_HEADER),
        table(seed.len() as u64, sections_at, sections_end, SECTION_HEADER),
    ];
    for section in elf.section_headers.iter().filter(|section| section.sh_type != 8 && section.sh_size > 0) {
        let name = elf.shdr_strtab.get_at(section.sh_name).unwrap_or_default();
        let start = section.sh_offset as usize;
        // Bytes of code, and the first ones of a section as bytes, too.
        tables.push(table(section.sh_addr, start, start + section.sh_size as usize, widths(name)));
    }
    tables.retain(|table| !table.fields.is_empty());
    tables
}

const NUMBERS: [u64; 24] = [
    0,
    1,
    2,
    7,
    8,
    0x7f,
    0x80,
    0xff,
    0xfff,
    0x1000,
    0x1001,
    0x7fff,
    0xffff,
    0x1_0000,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x1_0000_0000,
    0x7fff_ffff_f000,
    0x8000_0000_0000,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    0xffff_ffff_ffff_f000,
    0xffff_ffff_ffff_ffff,
];

fn read(bytes: &[u8], (at, width): (usize, usize)) -> u64 {
    let stored = bytes.get(at..at + width).unwrap_or_default();
    stored.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte))
}

fn write(bytes: &mut [u8], (at, width): (usize, usize), value: u64) {
    if let Some(place) = bytes.get_mut(at..at + width) {
        place.copy_from_slice(&value.to_le_bytes()[..width]);
    }
}

/// Takes numbers from the front of a fuzzer's input; zeros behind its end.
pub struct Input<'i>(pub &'i [u8]);

impl Input<'_> {
    /// The next bytes as a number.
    pub fn number<const N: usize>(&mut self) -> u64 {
        let (taken, rest) = self.0.split_at(N.min(self.0.len()));
        self.0 = rest;
        taken.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte))
    }
}

/// A seed with the edits that `input` asks for.
pub fn edited(seed: &[u8], input: &mut Input<'_>) -> Vec<u8> {
    let tables = tables(seed);
    let mut bytes = seed.to_vec();
    let mut left = 64;
    while !input.0.is_empty() && left > 0 {
        left -= 1;
        let table = &tables[input.number::<1>() as usize % tables.len()];
        let field = table.fields[input.number::<2>() as usize % table.fields.len()];
        let old = read(&bytes, field);
        let how = input.number::<1>();
        let other = |input: &mut Input<'_>| {
            let table = &tables[input.number::<1>() as usize % tables.len()];
            (table.address, table.fields[input.number::<2>() as usize % table.fields.len()])
        };
        let new = match how % 8 {
            0 => input.number::<8>(),
            1 => NUMBERS[input.number::<1>() as usize % NUMBERS.len()],
            2 => old.wrapping_add_signed(i64::from((input.number::<1>() as u8).cast_signed())),
            3 => old ^ 1 << (input.number::<1>() % 64),
            4 => read(&bytes, other(input).1),
            5 => {
                let (address, (at, _)) = other(input);
                let first = tables.iter().find(|table| table.address == address).map_or(0, |table| table.fields[0].0);
                address.wrapping_add(at as u64).wrapping_sub(first as u64)
            }
            6 => (seed.len() as u64).wrapping_add_signed(i64::from((input.number::<1>() as u8).cast_signed())),
            _ => {
                // One stretch of bytes where another one was.
                let (_, (from, _)) = other(input);
                let length = (input.number::<1>() as usize + 1).min(bytes.len() - from).min(bytes.len() - field.0);
                bytes.copy_within(from..from + length, field.0);
                continue;
            }
        };
        write(&mut bytes, field, new);
    }
    bytes
}
