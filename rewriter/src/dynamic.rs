//! The few entries of the dynamic section that tell a program from a library.
//!
//! Input: an executable and its PT_DYNAMIC. Output: [`Dynamic`]. Follows gABI chapter 5, "Dynamic Section".

use object::LittleEndian as LE;
use object::elf::{DF_1_PIE, DT_FLAGS_1, DT_NEEDED, DT_NULL, DT_SONAME, DT_STRTAB, Dyn64};
use object::pod::slice_from_bytes;

use crate::elf::{Segment, slice};
use crate::executable::Executable;

/// Size of `Elf64_Dyn`.
const ENTRY_LENGTH: usize = 16;

/// What a file says about itself to the loader.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Dynamic {
    /// DF_1_PIE: a linker made it as a program.
    pub(crate) is_pie: bool,
    /// DT_SONAME: its name as a library.
    pub(crate) soname: Option<String>,
    /// DT_NEEDED: whether it asks for libraries.
    pub(crate) needs_libraries: bool,
}

impl Dynamic {
    /// Reads the section; entries that lead nowhere are as good as absent here, the loader would not start the file.
    pub(crate) fn parse(executable: &Executable<'_>, segment: &Segment) -> Self {
        let bytes = slice(executable.bytes, segment.p_offset, segment.p_filesz).unwrap_or_default();
        let count = bytes.len().checked_div(ENTRY_LENGTH).unwrap_or(0);
        let entries = slice_from_bytes::<Dyn64<LE>>(bytes, count).map_or(&[][..], |(entries, _)| entries);
        let entries = entries.iter().map(|entry| (entry.d_tag.get(LE), entry.d_val.get(LE)));
        let entries: Vec<_> = entries.take_while(|(tag, _)| *tag != DT_NULL).collect();
        let value = |wanted| entries.iter().find(|(tag, _)| *tag == wanted).map(|(_, value)| *value);
        let soname = value(DT_SONAME).map(|at| {
            let name = value(DT_STRTAB).and_then(|table| string(executable, table.checked_add(at)?));
            name.unwrap_or_default()
        });
        Self {
            is_pie: value(DT_FLAGS_1).is_some_and(|flags| flags & DF_1_PIE.0 != 0),
            soname,
            needs_libraries: value(DT_NEEDED).is_some(),
        }
    }
}

/// The string at an address.
fn string(executable: &Executable<'_>, address: u64) -> Option<String> {
    const LONGEST: usize = 256;
    let (offset, length) = executable.loads().find_map(|segment| {
        let skipped = address.checked_sub(segment.p_vaddr)?;
        let length = segment.p_filesz.checked_sub(skipped).filter(|length| *length > 0)?;
        Some((segment.p_offset.checked_add(skipped)?, length))
    })?;
    let bytes = slice(executable.bytes, offset, length)?;
    let name = bytes.iter().take(LONGEST).take_while(|byte| **byte != 0).copied().collect::<Vec<_>>();
    Some(String::from_utf8_lossy(&name).into_owned())
}
