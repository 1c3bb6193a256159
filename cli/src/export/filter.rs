//! The filter itself, as text.
//!
//! `bpf_asm` is the kernel's assembler for classic BPF (tools/bpf); C is for a program that calls seccomp(2).

use std::fmt::Write as _;

use chestnut_rewriter::bpf::disassemble;

use super::Profile;

/// Input for the kernel's `bpf_asm`.
pub(super) fn assembly(profile: &Profile<'_>) -> String {
    let mut text = format!("; {}\n", profile.title());
    text.push_str(&labelled(&disassemble(profile.filter.program())));
    text
}

/// Jump targets of the disassembly are numbers of instructions; the assembler wants labels.
fn labelled(listing: &str) -> String {
    let mut text = String::new();
    for line in listing.lines() {
        let Some((number, rest)) = line.split_once(": ") else { continue };
        let (code, comment) = rest.split_once(';').unwrap_or((rest, ""));
        let mut words = code.split([' ', ',']).filter(|word| !word.is_empty());
        let operation = words.next().unwrap_or("");
        let operands: Vec<String> = words
            .enumerate()
            .map(|(at, word)| if is_target(operation, at) { format!("L{word}") } else { word.to_owned() })
            .collect();
        // Writing to a string cannot fail.
        let _ = write!(text, "L{}: {operation} {}", number.trim(), operands.join(", "));
        let _ = if comment.is_empty() { writeln!(text) } else { writeln!(text, " ;{comment}") };
    }
    text
}

/// Whether an operand of an instruction is an instruction.
fn is_target(operation: &str, at: usize) -> bool {
    operation == "ja" || operation.starts_with('j') && at > 0
}

/// A `struct sock_fprog` as source.
pub(super) fn c(profile: &Profile<'_>) -> String {
    let instructions = profile.filter.program().instructions();
    let mut text = format!(
        "/* {}\n * prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);\n * syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, \
         SECCOMP_FILTER_FLAG_TSYNC, &chestnut_program);\n */\n#include <linux/filter.h>\n\n\
         static struct sock_filter chestnut_filter[{}] = {{\n",
        profile.title(),
        instructions.len(),
    );
    // Writing to a string cannot fail.
    for instruction in instructions {
        let _ = writeln!(
            text,
            "\t{{ 0x{:02x}, {}, {}, 0x{:08x} }},",
            instruction.code, instruction.jt, instruction.jf, instruction.k
        );
    }
    text.push_str(
        "};\n\nstatic const struct sock_fprog chestnut_program = {\n\
         \t.len = sizeof chestnut_filter / sizeof chestnut_filter[0],\n\t.filter = chestnut_filter,\n};\n",
    );
    text
}
