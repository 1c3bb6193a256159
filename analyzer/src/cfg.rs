//! The control-flow graph of one function: its decoded instructions cut into basic blocks.
//!
//! Input: the function's instructions in address order and the targets of its jump tables. Output: [`Cfg`]. Edges are
//! those inside the function; a jump that leaves it ends its block. An indirect jump has an edge to every address of
//! the function that a jump table, a pointer in data or an instruction names, and to every block that nothing else
//! leads to; where there is none it is a tail call.
//!
//! Over-approximates: all tables serve all indirect jumps of which nothing is known. May miss: jumps to addresses that
//! are computed and nowhere written down, edges into an instruction's middle.

use iced_x86::{FlowControl, Instruction, Mnemonic, OpKind};
use rustc_hash::FxHashSet;

use crate::address::Vaddr;
use crate::instruction::fixed_memory_operand;
use crate::table_jumps::TableJumps;

/// Index of a block in its [`Cfg`].
pub type BlockId = usize;

/// Instructions that run one after the other.
#[derive(Debug)]
pub struct Block {
    /// Index range into the function's instructions.
    pub instructions: std::ops::Range<usize>,
    /// Blocks that may follow.
    pub successors: Vec<BlockId>,
}

/// Blocks of one function in address order.
#[derive(Debug)]
pub struct Cfg {
    blocks: Vec<Block>,
    entry: BlockId,
    /// Blocks that control may enter with nothing known.
    orphans: Vec<BlockId>,
    is_followed: bool,
}

/// Where control may enter a function or jump to in it.
#[derive(Clone, Copy, Debug)]
pub struct Labels<'l> {
    /// Where the function is entered.
    pub entry: Vaddr,
    /// Where its indirect jumps may go.
    pub targets: &'l [Vaddr],
    /// Where those go of which it is known.
    pub jumps: &'l TableJumps,
    /// Where others may jump to.
    pub entries: &'l [Vaddr],
    /// Whether all of its code was found by following paths from its entry, so that what no edge leads to is dead.
    pub is_followed: bool,
    /// Whether its bounds are known, so that no code of it can have been overlooked.
    pub is_whole: bool,
}

/// Whether control does not simply go on behind the instruction. System calls and software interrupts come back.
fn ends_block(instruction: &Instruction, comes_back: &impl Fn(&Instruction) -> bool) -> bool {
    match instruction.flow_control() {
        FlowControl::Next | FlowControl::Interrupt => false,
        FlowControl::Call if instruction.mnemonic() != Mnemonic::Call => false,
        FlowControl::Call | FlowControl::IndirectCall => !comes_back(instruction),
        _ => true,
    }
}

fn is_conditional(instruction: &Instruction) -> bool {
    matches!(instruction.flow_control(), FlowControl::ConditionalBranch | FlowControl::XbeginXabortXend)
}

/// Whether control may get right behind the instruction; `comes_back` says whether a call may return.
pub(crate) fn falls_through(instruction: &Instruction, comes_back: impl Fn(&Instruction) -> bool) -> bool {
    is_conditional(instruction) || !ends_block(instruction, &comes_back)
}

/// The address that a direct jump goes to, conditional or not.
#[must_use]
pub fn direct_jump_target(instruction: &Instruction) -> Option<Vaddr> {
    let is_jump = matches!(
        instruction.flow_control(),
        FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch | FlowControl::XbeginXabortXend
    );
    let is_near = matches!(instruction.op0_kind(), OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64);
    (is_jump && is_near).then(|| Vaddr(instruction.near_branch_target()))
}

/// More edges from computed jumps than this are not drawn: what they lead to is entered with nothing known.
pub(crate) const MOST_EDGES: usize = 1 << 22;

/// Sets the flag of each block that another one leads to.
fn mark_successors(blocks: &[Block], flags: &mut [bool]) {
    for &successor in blocks.iter().flat_map(|block| &block.successors) {
        if let Some(flag) = flags.get_mut(successor) {
            *flag = true;
        }
    }
}

/// Makes every computed jump lead to `lost` too; false if there is none.
fn lead_to(blocks: &mut [Block], instructions: &[Instruction], lost: &[BlockId]) -> bool {
    let mut any = false;
    for block in blocks {
        let last = block.instructions.end.checked_sub(1).and_then(|index| instructions.get(index));
        let is_computed =
            |i: &Instruction| i.flow_control() == FlowControl::IndirectBranch && fixed_memory_operand(i).is_none();
        if last.is_some_and(is_computed) {
            any = true;
            block.successors.extend(lost);
            block.successors.sort_unstable();
            block.successors.dedup();
        }
    }
    any
}

/// Whether an instruction only fills space.
fn is_padding(instruction: &Instruction) -> bool {
    matches!(instruction.mnemonic(), Mnemonic::Nop | Mnemonic::Int3)
}

impl Cfg {
    /// Cuts `instructions` into blocks; `comes_back` says whether a call may return.
    #[must_use]
    pub fn new(instructions: &[Instruction], labels: &Labels<'_>, comes_back: impl Fn(&Instruction) -> bool) -> Self {
        let &Labels { entry, targets, jumps, entries, is_followed, is_whole } = labels;
        let ends: Vec<bool> = instructions.iter().map(|i| ends_block(i, &comes_back)).collect();
        let ends_block = |index: usize| ends.get(index).copied().unwrap_or(true);
        let at = |address: Vaddr| instructions.binary_search_by_key(&address.0, Instruction::ip).ok();

        let mut leader = vec![false; instructions.len()];
        let mut mark = |index: Option<usize>| {
            if let Some(flag) = index.and_then(|i| leader.get_mut(i)) {
                *flag = true;
            }
        };
        mark(Some(0));
        mark(at(entry));
        targets.iter().chain(entries).for_each(|&target| mark(at(target)));
        for (index, instruction) in instructions.iter().enumerate() {
            if let Some(target) = direct_jump_target(instruction) {
                mark(at(target));
            }
            let contiguous = instructions.get(index + 1).is_none_or(|next| next.ip() == instruction.next_ip());
            if ends_block(index) || !contiguous {
                mark(Some(index + 1));
            }
        }

        let starts: Vec<usize> = leader.iter().enumerate().filter(|(_, is)| **is).map(|(index, _)| index).collect();
        let block_at = |address: Vaddr| at(address).and_then(|index| starts.binary_search(&index).ok());
        let mut tables: Vec<BlockId> = targets.iter().filter_map(|&target| block_at(target)).collect();
        tables.sort_unstable();
        tables.dedup();
        let computed = instructions.iter().filter(|i| i.flow_control() == FlowControl::IndirectBranch);
        let computed = computed.filter(|i| !jumps.contains_key(&Vaddr(i.ip()))).count();
        let is_too_much = computed.saturating_mul(tables.len()) > MOST_EDGES;
        let hidden = if is_too_much { std::mem::take(&mut tables) } else { Vec::new() };
        let mut blocks = Vec::with_capacity(starts.len());
        for (id, &start) in starts.iter().enumerate() {
            let end = starts.get(id + 1).copied().unwrap_or(instructions.len());
            let mut successors = Vec::new();
            if let Some((index, last)) = end.checked_sub(1).and_then(|index| Some((index, instructions.get(index)?))) {
                let target = direct_jump_target(last);
                if last.flow_control() == FlowControl::IndirectBranch {
                    match jumps.get(&Vaddr(last.ip())) {
                        Some(known) => successors.extend(known.iter().filter_map(|&target| block_at(target))),
                        None => successors.extend(&tables),
                    }
                }
                successors.extend(target.and_then(block_at));
                let falls = !ends_block(index) || is_conditional(last);
                let next_is_behind = instructions.get(end).is_some_and(|next| next.ip() == last.next_ip());
                if falls && next_is_behind {
                    successors.push(id + 1);
                }
            }
            successors.sort_unstable();
            successors.dedup();
            blocks.push(Block { instructions: start..end, successors });
        }

        // Padding behind a jump is not code, though it would run into the block behind it.
        let mut reached = vec![false; blocks.len()];
        mark_successors(&blocks, &mut reached);
        for (id, block) in blocks.iter_mut().enumerate() {
            let is_entered = reached.get(id).copied().unwrap_or(false) || Some(id) == block_at(entry);
            let body = instructions.get(block.instructions.clone()).unwrap_or(&[]);
            if !is_entered && body.iter().all(is_padding) {
                block.successors.clear();
            }
        }
        let mut has_predecessor = vec![false; blocks.len()];
        mark_successors(&blocks, &mut has_predecessor);
        let entry = block_at(entry).unwrap_or(0);
        let entered = entries.iter().filter_map(|&at| block_at(at)).chain(hidden);
        let is_foreign: FxHashSet<BlockId> = entered.collect();
        let is_orphan = |id: BlockId| !has_predecessor.get(id).copied().unwrap_or(false) && id != entry;
        let mut orphans: Vec<BlockId> = (0..blocks.len()).filter(|id| is_foreign.contains(id)).collect();
        if !is_followed {
            let lost: Vec<BlockId> =
                (0..blocks.len()).filter(|id| is_orphan(*id) && !is_foreign.contains(id)).collect();
            // Where a label is known by its distance only, the function's own computed jumps are the way to it.
            let is_too_much = computed.saturating_mul(lost.len()) > MOST_EDGES;
            if !is_whole || is_too_much || !lead_to(&mut blocks, instructions, &lost) {
                orphans.extend(lost);
            }
        }
        Self { blocks, entry, orphans, is_followed }
    }

    /// All blocks in address order.
    #[must_use]
    pub fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// The block that holds the instruction at `at`.
    #[must_use]
    pub fn block_of(&self, instructions: &[Instruction], at: Vaddr) -> Option<BlockId> {
        let index = instructions.binary_search_by_key(&at.0, Instruction::ip).ok()?;
        self.blocks.partition_point(|block| block.instructions.start <= index).checked_sub(1)
    }

    /// For each block, whether it is one of `chosen` or some path leads from it to one of them.
    #[must_use]
    pub fn leading_to(&self, chosen: &[BlockId]) -> Vec<bool> {
        let mut predecessors = vec![Vec::new(); self.blocks.len()];
        for (id, block) in self.blocks.iter().enumerate() {
            for &successor in &block.successors {
                if let Some(list) = predecessors.get_mut(successor) {
                    list.push(id);
                }
            }
        }
        let mut leads = vec![false; self.blocks.len()];
        let mut work = chosen.to_vec();
        while let Some(id) = work.pop() {
            if let Some(flag) = leads.get_mut(id).filter(|flag| !**flag) {
                *flag = true;
                work.extend(predecessors.get(id).into_iter().flatten());
            }
        }
        leads
    }

    /// For each block its place in a reverse post-order from the entry and the orphans; what no path leads to comes
    /// last.
    #[must_use]
    pub fn reverse_postorder(&self) -> Vec<usize> {
        let mut ranks = vec![usize::MAX; self.blocks.len()];
        let mut is_entered = vec![false; self.blocks.len()];
        let mut next = self.blocks.len();
        // Blocks on the way, each with the number of its successors that were looked at.
        let mut path: Vec<(BlockId, usize)> = Vec::new();
        for root in self.orphans().chain([self.entry]) {
            path.push((root, 0));
            while let Some((id, looked_at)) = path.pop() {
                let is_new = is_entered.get_mut(id).is_some_and(|flag| !std::mem::replace(flag, true));
                if looked_at == 0 && !is_new {
                    continue;
                }
                if let Some(&successor) = self.blocks.get(id).and_then(|block| block.successors.get(looked_at)) {
                    path.push((id, looked_at.saturating_add(1)));
                    path.push((successor, 0));
                } else if let Some(rank) = ranks.get_mut(id) {
                    next = next.saturating_sub(1);
                    *rank = next;
                }
            }
        }
        ranks
    }

    /// The block where the function is entered.
    #[must_use]
    pub const fn entry(&self) -> BlockId {
        self.entry
    }

    /// Blocks that no edge leads to, the entry apart (landing pads, targets of tables that were not recognised), and
    /// those that others may jump to.
    pub fn orphans(&self) -> impl Iterator<Item = BlockId> + '_ {
        self.orphans.iter().copied()
    }

    /// Whether blocks that no path leads to are dead, rather than entered in a way that was not recognised.
    #[must_use]
    pub const fn is_followed(&self) -> bool {
        self.is_followed
    }
}
