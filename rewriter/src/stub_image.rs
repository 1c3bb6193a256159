//! The embedded stub.
//!
//! Input: the ELF file that `build.rs` has made from `stub/`. Output: [`image`], the bytes that go into a patched file,
//! checked against the contract in `chestnut_stub::payload`.

use chestnut_stub::payload::{LEAVE_LENGTH, LEAVE_OPCODE};
use object::LittleEndian as LE;
use object::elf::{PF_R, PF_X, PT_LOAD};
use object::pod::from_bytes;

use crate::bpf::Action;
use crate::elf::{FileHeader, Segment, slice};
use crate::error::Error;

/// What `build.rs` has made: the stub, and that with a handler of SIGSYS.
static FILE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/stub.elf"));
static FILE_WITH_HANDLER: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/stub-trap.elf"));

/// Longest image that the linker script lets through.
pub(crate) const LONGEST: usize = 8192;

/// `endbr64`.
const LANDING_PAD: &[u8] = &[0xf3, 0x0f, 0x1e, 0xfa];

/// The image for an action; the displacement of its last jump is still zero.
pub(crate) fn image(action: Action) -> Result<&'static [u8], Error> {
    parse(if action == Action::Trap { FILE_WITH_HANDLER } else { FILE })
        .ok_or_else(|| Error::Verification { what: "the embedded stub".to_owned() })
}

fn parse(file: &[u8]) -> Option<&[u8]> {
    let (header, _) = from_bytes::<FileHeader>(file).ok()?;
    let table = file.get(usize::try_from(header.e_phoff.get(LE)).ok()?..)?;
    let segments = Segment::decode_table(table, usize::from(header.e_phnum.get(LE)))?;
    let mut loads = segments.iter().filter(|segment| segment.p_type == PT_LOAD);
    let (Some(load), None) = (loads.next(), loads.next()) else {
        return None;
    };
    let image = slice(file, load.p_offset, load.p_filesz)?;
    let (body, leave) = image.split_last_chunk::<LEAVE_LENGTH>()?;
    let good = load.p_flags == PF_R | PF_X
        && load.p_filesz == load.p_memsz
        && load.p_vaddr == header.e_entry.get(LE)
        && body.starts_with(LANDING_PAD)
        && *leave == [LEAVE_OPCODE, 0, 0, 0, 0]
        && image.len() <= LONGEST;
    good.then_some(image)
}
