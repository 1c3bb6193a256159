//! Which addresses of a file are code, and which are data.
//!
//! Input: an [`Image`]. Output: ranges of addresses. Segments rule: whatever lies in an executable one may be code.
//! Linkers that put read-only data into the executable segment (`-z noseparate-code`) say which is which in section
//! headers only; these serve to tell text from code that merely refers to it, never to leave code out.

use std::ops::Range;

use object::LittleEndian as LE;
use object::elf;

use super::image::Image;
use super::section::Section;
use crate::address::Vaddr;

impl Image<'_> {
    /// The file parts of executable LOADs.
    #[must_use]
    pub fn executable_ranges(&self) -> Vec<Range<Vaddr>> {
        let executable = self.segments().iter().filter(|segment| segment.is_executable());
        executable.filter_map(|s| Some(s.p_vaddr..s.p_vaddr.checked_add(s.p_filesz)?)).collect()
    }

    /// The file parts of LOADs that can hold data: all but those sections that hold code.
    #[must_use]
    pub fn data_ranges(&self) -> Vec<Range<Vaddr>> {
        let mut ranges = Vec::new();
        for segment in self.segments() {
            let Some(end) = segment.p_vaddr.checked_add(segment.p_filesz) else { continue };
            let mut at = segment.p_vaddr;
            for code in self.code_sections().iter().filter(|_| segment.is_executable()) {
                if at < code.start && code.start < end {
                    ranges.push(at..code.start);
                }
                at = at.max(code.end.min(end));
            }
            if at < end {
                ranges.push(at..end);
            }
        }
        ranges
    }

    /// Whether nobody can write at `at` while the program runs: in no writable LOAD, or in `PT_GNU_RELRO`, which the
    /// loader protects when it has relocated it (LSB core, chapter "Program Header").
    #[must_use]
    pub fn is_constant(&self, at: Vaddr) -> bool {
        let Some(segment) = self.segment_at(at) else { return false };
        let relro = self.program_headers().iter().filter(|header| header.p_type.get(LE) == elf::PT_GNU_RELRO);
        let protects = |start: u64, size: u64| at.0.checked_sub(start).is_some_and(|offset| offset < size);
        !segment.is_writable() || relro.into_iter().any(|h| protects(h.p_vaddr.get(LE), h.p_memsz.get(LE)))
    }

    /// Whether section headers say that `at` is code; true where there are none.
    #[must_use]
    pub fn is_in_code_section(&self, at: Vaddr) -> bool {
        let all = self.code_sections();
        let before = all.partition_point(|code| code.start <= at).checked_sub(1).and_then(|index| all.get(index));
        all.is_empty() || before.is_some_and(|code| code.contains(&at))
    }

    /// Addresses where one kind of content ends and another begins: segments, tables that the dynamic section names,
    /// sections. Sorted by nothing.
    #[must_use]
    pub fn layout_boundaries(&self) -> Vec<Vaddr> {
        let mut all: Vec<Vaddr> = self.segments().iter().flat_map(|s| [s.p_vaddr, s.memory_end()]).collect();
        if let Some(dynamic) = self.dynamic() {
            for slots in [&dynamic.preinit_array, &dynamic.init_array, &dynamic.fini_array] {
                all.extend(slots.first());
                all.extend(slots.last().and_then(|last| last.checked_add(8)));
            }
            all.extend(dynamic.plt_got);
        }
        all.extend(self.sections().iter().filter_map(Section::addresses).flat_map(|range| [range.start, range.end]));
        all
    }
}
