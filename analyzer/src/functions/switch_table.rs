//! The jump table of a `switch` in code whose bounds are not known yet.
//!
//! Input: the instructions of one path, in order. Output: where its indirect jump may go.
//!
//! Over-approximates: entries are read both as distances and as addresses. May miss: tables whose length the code does
//! not state; what they lead to is found by [`crate::jump_table`] if it lies in a known body.

use iced_x86::{FlowControl, Instruction};

use crate::address::Vaddr;
use crate::elf::Image;

/// The jump table of a `switch` that is being decoded: `cmp` or `sub $LAST,INDEX; ja ...; lea TABLE(%rip),BASE; ...; jmp
/// *TARGET`. Only a table whose length the code itself states is read here, since what follows it is not known yet.
#[derive(Debug, Default)]
pub(super) struct SwitchTable {
    table: Option<Vaddr>,
    last_index: Option<u64>,
    /// What the instruction before has subtracted: LLVM compares so without optimisation.
    subtracted: Option<u64>,
}

impl SwitchTable {
    /// Longer tables are not read.
    const LONGEST: u64 = 4096;

    pub(super) fn see(&mut self, instruction: &Instruction) {
        use iced_x86::{ConditionCode, Mnemonic, OpKind};
        let subtracted = self.subtracted.take();
        let compares = instruction.mnemonic() == Mnemonic::Cmp && instruction.op1_kind() != OpKind::Register;
        if compares && instruction.op1_kind() != OpKind::Memory {
            self.last_index = Some(instruction.immediate(1));
        } else if instruction.mnemonic() == Mnemonic::Sub && is_immediate(instruction.op1_kind()) {
            self.subtracted = Some(instruction.immediate(1));
        } else if matches!(instruction.condition_code(), ConditionCode::a | ConditionCode::ae) {
            self.last_index = subtracted.or(self.last_index);
        } else if instruction.mnemonic() == Mnemonic::Lea && instruction.is_ip_rel_memory_operand() {
            self.table = Some(Vaddr(instruction.ip_rel_memory_address()));
        } else if instruction.flow_control() == FlowControl::IndirectBranch {
            self.table = fixed_table(instruction).or(self.table);
        }
    }

    /// The entries: distances from the table, or in position-dependent files addresses.
    pub(super) fn targets(&self, image: &Image<'_>) -> impl Iterator<Item = Vaddr> + use<> {
        let last = self.last_index.filter(|last| *last < Self::LONGEST);
        let mut found = Vec::new();
        if let (Some(table), Some(last)) = (self.table, last) {
            for index in 0..=last {
                let entry = |width: u64| table.checked_add(index.checked_mul(width)?);
                let distance = entry(4).and_then(|at| image.read_i32(at)).map(i64::from);
                let relative = distance.and_then(|distance| table.0.checked_add_signed(distance)).map(Vaddr);
                let absolute = entry(8).and_then(|at| image.read_u64(at)).map(Vaddr);
                let absolute = absolute.filter(|_| !image.is_position_independent());
                found.extend(relative.into_iter().chain(absolute).filter(|at| image.is_code(*at)));
            }
        }
        found.into_iter()
    }
}

const fn is_immediate(kind: iced_x86::OpKind) -> bool {
    !matches!(kind, iced_x86::OpKind::Register | iced_x86::OpKind::Memory)
}

/// The table of `jmp *TABLE(,INDEX,8)`.
fn fixed_table(instruction: &Instruction) -> Option<Vaddr> {
    let has_index = instruction.memory_index() != iced_x86::Register::None;
    let has_base = instruction.memory_base() != iced_x86::Register::None;
    (has_index && !has_base).then(|| Vaddr(instruction.memory_displacement64()))
}
