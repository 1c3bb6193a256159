//! Code that a program can change while it runs.
//!
//! Input: a program. Output: an assumption for each segment that is loaded writable and executable: that no code is
//! written there which makes calls that are not in the file. Code that is mapped or made executable later (just-in-time
//! compilers) is not looked for: it makes its calls through functions that are, or a filter stops it.

use std::collections::BTreeSet;

use crate::elf::Segment;
use crate::policy::{Assumption, AssumptionKind};
use crate::program::{Module, Program};

/// What is assumed of all modules.
#[must_use]
pub(crate) fn find(program: &Program<'_>) -> BTreeSet<Assumption> {
    let of_module = |module: &Module<'_>| {
        let segments = module.image.segments().iter();
        let writable =
            segments.filter(|segment| segment.is_writable() && segment.is_executable() && segment.p_memsz > 0);
        let text = |segment: &Segment| {
            let (path, start, end) = (module.path.display(), segment.p_vaddr, segment.memory_end());
            format!(
                "code that {path} writes at run time makes no other calls: {start} to {end} is writable and executable"
            )
        };
        writable.map(text).collect::<Vec<_>>()
    };
    let texts = program.modules().flat_map(|(_, module)| of_module(module));
    texts.map(|text| Assumption { kind: AssumptionKind::WritableCode, text, site: None, flag: None }).collect()
}
