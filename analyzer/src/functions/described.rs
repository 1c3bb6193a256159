//! Functions whose bounds are written down: in frame descriptions, and in Go's table.
//!
//! Input: an [`Image`] and one description. Output: the [`Function`] that it bounds.
//!
//! Over-approximates: a body counts up to its end, and on into what it runs into. May miss: nothing that the bounds hold.

use iced_x86::{Code, Instruction, Mnemonic};

use super::{Function, StartEvidence, decode, runs_off, stops};
use crate::address::Vaddr;
use crate::elf::{FrameDescription, GoFunction, Image};
use crate::instruction::{Reference, ReferenceKind, Role, role};

/// Where the next description behind `frame` starts.
pub(super) fn next_start(frames: &[FrameDescription], frame: &FrameDescription) -> Vaddr {
    let index = frames.partition_point(|other| other.start < frame.end);
    frames.get(index).map_or(Vaddr(u64::MAX), |next| next.start)
}

/// How many bytes are decoded for a description, at most: up to where the next one starts, or the file part ends.
pub(super) fn reach(image: &Image<'_>, frame: &FrameDescription, next: Vaddr) -> u64 {
    let available = image.bytes_from(frame.start).map_or(0, |bytes| u64::try_from(bytes.len()).unwrap_or(u64::MAX));
    available.min(next.0.saturating_sub(frame.start.0))
}

/// Decodes the body that a frame description bounds, and what it runs on into: where unwinding is impossible (around
/// the system call of a `clone`), assembly leaves code between two descriptions. `next` is where the next one starts.
pub(super) fn described_function(
    image: &Image<'_>,
    frame: &FrameDescription,
    next: Vaddr,
    buffer: &mut Vec<Reference>,
) -> Function {
    // The description of a signal trampoline begins one byte early, so that an unwinder that looks up the return
    // address minus one finds it (glibc: sysdeps/unix/sysv/linux/x86_64/libc_sigaction.c).
    let start = if frame.is_signal_frame { frame.start.checked_add(1).unwrap_or(frame.start) } else { frame.start };
    let mut function = Function::new(start, StartEvidence::FrameDescription, !image.is_position_independent());
    function.references = std::mem::take(buffer);
    let (mut last, mut last_at_work) = (None, None);
    function.undecodable = decode(image, start, frame.end, |instruction| {
        function.note(instruction, image);
        last = Some(*instruction);
        if instruction.mnemonic() != Mnemonic::Nop {
            last_at_work = last;
        }
        true
    });
    let mut end = last.map_or(frame.end, |last: Instruction| frame.end.max(Vaddr(last.next_ip())));
    if last.is_some_and(|last| falls_through(&last)) && end < next {
        decode(image, end, next, |instruction| {
            let goes_on = instruction.code() != Code::INVALID;
            if goes_on {
                function.note(instruction, image);
                end = Vaddr(instruction.next_ip());
                last_at_work = Some(*instruction).filter(|i| i.mnemonic() != Mnemonic::Nop).or(last_at_work);
            }
            goes_on && !stops(instruction)
        });
    }
    // Behind a call that does not return compilers may put padding.
    if end == next && last_at_work.is_some_and(|last| runs_off(&last)) {
        function.references.push(Reference { target: next, kind: ReferenceKind::Jump, from: 0 });
    }
    function.extents.push((start, end));
    if let Some(lsda) = frame.lsda {
        let pads = image.landing_pads(lsda, frame.start).unwrap_or_default().into_iter();
        let pads = pads.map(|pad| Reference { target: pad.target, kind: ReferenceKind::LandingPad, from: 0 });
        function.references.extend(pads);
    }
    function.finish(buffer);
    function
}

/// Whether control goes on behind the last instruction of a description.
fn falls_through(last: &Instruction) -> bool {
    runs_off(last) || (!stops(last) && role(last) == Role::Syscall)
}

/// Whether a frame description covers `at`.
pub(super) fn is_described(image: &Image<'_>, at: Vaddr) -> bool {
    image.frame_before(at).is_some_and(|frame| at < frame.end)
}

/// Decodes the body that Go's function table bounds.
pub(super) fn listed_function(image: &Image<'_>, listed: &GoFunction<'_>, buffer: &mut Vec<Reference>) -> Function {
    let has_absolute = !listed.is_go && !image.is_position_independent();
    let mut function = Function::new(listed.start, StartEvidence::GoTable, has_absolute);
    function.references = std::mem::take(buffer);
    function.undecodable = decode(image, listed.start, listed.end, |instruction| {
        function.note(instruction, image);
        true
    });
    function.extents.push((listed.start, listed.end));
    function.finish(buffer);
    function
}

/// Whether the description covers a procedure linkage table: stubs that have nothing to do with each other, under one
/// description. Each begins with a jump through memory, or the first pushes the link map for the resolver.
pub(super) fn is_linkage_table(image: &Image<'_>, frame: &FrameDescription) -> bool {
    let Some(len) = frame.end.checked_offset_from(frame.start) else { return false };
    if len % 8 != 0 {
        return false;
    }
    let mut count = 0_u8;
    let mut verdict = false;
    decode(image, frame.start, frame.end, |instruction| {
        use iced_x86::Mnemonic::{Endbr64, Jmp, Push};
        count = count.saturating_add(1);
        let through_memory = instruction.is_ip_rel_memory_operand();
        match instruction.mnemonic() {
            Endbr64 => count < 2,
            Jmp | Push if through_memory => {
                verdict = true;
                false
            }
            _ => false,
        }
    });
    verdict
}
