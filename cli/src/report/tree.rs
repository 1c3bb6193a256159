//! The filter as a tree of questions.
//!
//! Input: a filter's program. Output: nested lists: what is asked, and what follows from yes and no; at the ends what
//! becomes of which calls.

use std::collections::BTreeSet;

use chestnut_analyzer::syscall::SyscallNr;
use chestnut_rewriter::bpf::{Comparison, Operand, Operation, Program, disassemble};

use super::html::{element, escape};

/// Numbers that can be here, both ends included.
#[derive(Clone, Copy)]
struct Range(u32, u32);

impl Range {
    /// Those for which the test holds, and the others.
    fn split(self, test: Comparison, k: u32) -> (Self, Self) {
        let Self(low, high) = self;
        match test {
            Comparison::Equal => (Self(k, k), self),
            Comparison::Greater => (Self(low.max(k.saturating_add(1)), high), Self(low, high.min(k))),
            Comparison::GreaterOrEqual => (Self(low.max(k), high), Self(low, high.min(k.saturating_sub(1)))),
            Comparison::AnyBit => (self, self),
        }
    }

    /// The calls in it, at most some of them by name.
    fn names(self) -> String {
        let calls: Vec<_> = SyscallNr::all_known().filter(|call| (self.0..=self.1).contains(&call.0)).collect();
        let shown: Vec<_> = calls.iter().take(MOST_NAMES).map(ToString::to_string).collect();
        let hidden = calls.len().saturating_sub(shown.len());
        let more = if hidden > 0 { format!(" and {hidden} more") } else { String::new() };
        format!("{}{more}", shown.join(" "))
    }
}

/// More names than these make an end hard to read.
const MOST_NAMES: usize = 8;

struct Tree<'p> {
    operations: &'p [Operation],
    /// The program's text, by instruction.
    lines: Vec<String>,
    /// Questions that were shown; another way to one is a link.
    shown: BTreeSet<usize>,
}

/// The tree as HTML.
pub(super) fn html(program: &Program) -> String {
    let lines = disassemble(program).lines().map(str::to_owned).collect();
    let mut tree = Tree { operations: program.operations(), lines, shown: BTreeSet::new() };
    element("ul", "tree", &tree.node("", 0, Range(0, u32::MAX), false))
}

impl Tree<'_> {
    /// What happens from an instruction on, as items of a list.
    fn node(&mut self, answer: &str, at: usize, range: Range, is_number: bool) -> String {
        let mut at = at;
        let mut is_number = is_number;
        loop {
            let Some(&operation) = self.operations.get(at) else { return String::new() };
            let next = at.saturating_add(1);
            match operation {
                Operation::LoadData(offset) => {
                    is_number = offset == 0;
                    at = next;
                }
                Operation::Jump(skipped) => at = next.saturating_add(usize::try_from(skipped).unwrap_or(usize::MAX)),
                Operation::JumpIf { test, operand, jt, jf } => {
                    if !self.shown.insert(at) {
                        return item(answer, &format!("<a href=\"#i{at}\">as above</a>"));
                    }
                    let constant = match operand {
                        Operand::Constant(k) if is_number => Some(k),
                        _ => None,
                    };
                    let (yes, no) = constant.map_or((range, range), |k| range.split(test, k));
                    let question = format!("<span id=\"i{at}\">{}</span>", escape(&self.question(at, test, constant)));
                    let yes = self.node("yes", next.saturating_add(usize::from(jt)), yes, is_number);
                    let no = self.node("no", next.saturating_add(usize::from(jf)), no, is_number);
                    return item(answer, &format!("{question}<ul>{yes}{no}</ul>"));
                }
                Operation::Return(_) => {
                    let action = self.comment(at).unwrap_or_default();
                    let class = if action == "allow" { "allowed" } else { "blocked" };
                    let names = if is_number { range.names() } else { String::new() };
                    let end = format!("{} <small>{}</small>", element("b", class, &escape(&action)), escape(&names));
                    return item(answer, &end);
                }
                _ => return item(answer, &escape(self.line(at))),
            }
        }
    }

    fn question(&self, at: usize, test: Comparison, number: Option<u32>) -> String {
        let comment = self.comment(at).map_or_else(String::new, |comment| format!(" ({comment})"));
        match (number, test) {
            (Some(k), Comparison::Equal) => format!("number = {k}{comment}?"),
            (Some(k), Comparison::Greater) => format!("number > {k}{comment}?"),
            (Some(k), Comparison::GreaterOrEqual) => format!("number ≥ {k}{comment}?"),
            (None, Comparison::Equal) if comment == " (x86-64)" => "architecture is x86-64?".to_owned(),
            _ => format!("{}?", self.line(at)),
        }
    }

    fn line(&self, at: usize) -> &str {
        self.lines.get(at).map_or("", String::as_str)
    }

    /// What the text says behind the semicolon.
    fn comment(&self, at: usize) -> Option<String> {
        self.line(at).split_once(';').map(|(_, comment)| comment.trim().to_owned())
    }
}

fn item(answer: &str, html: &str) -> String {
    let answer = if answer.is_empty() { String::new() } else { format!("{}: ", element("i", "", answer)) };
    format!("<li>{answer}{html}</li>\n")
}
