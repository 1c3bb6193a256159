//! `chestnut notes`: what a compiler wrote down about a file's functions.
//!
//! Input: a program, library or object file that `chestnut cc` has made. Output: JSON.

use std::path::Path;

use chestnut_analyzer::limits::Limits;
use chestnut_analyzer::notes::{FunctionNote, Handed, ModuleNote, Notes, SeenFunction, SyscallNote, VariableNote};
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::program;

/// What an ELF file begins with.
const ELF: &[u8] = b"\x7fELF";

/// Does what the arguments say.
pub(crate) fn run(file: &Path, limits: &Limits) -> Result<String, Failure> {
    let bytes = program::read(file, limits)?;
    if !bytes.starts_with(ELF) {
        let source = chestnut_rewriter::Error::NotElf { found: bytes.iter().take(ELF.len()).copied().collect() };
        return Err(Failure::Refused { path: file.to_owned(), source });
    }
    let notes = Notes::read(&bytes).map_err(|source| Failure::Notes { path: file.to_owned(), source })?;
    let value = json!({
        "functions": notes.functions.iter().map(function).collect::<Vec<_>>(),
        "variables": notes.variables.iter().map(variable).collect::<Vec<_>>(),
        "sources": notes.modules.iter().map(source).collect::<Vec<_>>(),
    });
    Ok(format!("{value:#}\n"))
}

fn function(note: &FunctionNote) -> Value {
    let linkage = match (note.is_local, note.is_weak) {
        (true, _) => "local",
        (false, true) => "weak",
        (false, false) => "global",
    };
    json!({
        "name": note.name,
        "type": note.kind,
        "call_targets": note.called,
        "address": note.address,
        "linkage": linkage,
        "is_opaque": note.is_opaque,
        "aliases": note.aliases,
        "resolves": note.resolves,
        "indirect_calls": note.indirect,
        "address_taken": note.taken,
        "passes": note.handed.iter().map(handed).collect::<Vec<_>>(),
        "syscalls": note.syscalls.iter().map(syscall).collect::<Vec<_>>(),
    })
}

fn handed(handed: &Handed) -> Value {
    json!({ "to": handed.callee, "parameter": handed.parameter, "type": handed.kind })
}

fn syscall(note: &SyscallNote) -> Value {
    let by = if note.is_instruction { "instruction" } else { "function" };
    let (number, arguments) = note.values.split_first().map_or((None, &[][..]), |(number, rest)| (*number, rest));
    json!({ "by": by, "number": number, "arguments": arguments })
}

fn variable(note: &VariableNote) -> Value {
    json!({ "name": note.name, "address": note.address, "size": note.size, "address_taken": note.taken })
}

fn source(note: &ModuleNote) -> Value {
    json!({
        "source": note.source,
        "functions_as_values": note.seen.iter().map(seen).collect::<Vec<_>>(),
        "types_cast_into_each_other": note.united,
        "types_from_pointers_to_data": note.from_data,
        "types_to_pointers_to_data": note.to_data,
        "callers": note.callers.iter().map(|caller| json!({ "name": caller.name, "types": caller.kinds })).collect::<Vec<_>>(),
    })
}

fn seen(seen: &SeenFunction) -> Value {
    json!({ "name": seen.name, "types": seen.kinds, "is_data": seen.is_data, "is_number": seen.is_number })
}
