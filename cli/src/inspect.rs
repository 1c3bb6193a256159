//! `chestnut inspect`: what a patched program holds.
//!
//! Input: a patched file. Output: text for a person, or JSON. Everything comes from the file itself: the allowed calls
//! are those that its filter lets through.

use std::fmt::Write;

use chestnut_analyzer::path_text;
use chestnut_analyzer::policy::hexadecimal;
use chestnut_analyzer::syscall::SyscallNr;
use chestnut_rewriter::bpf::{Action, Specification, disassemble};
use chestnut_rewriter::{DigestKind, Inspection, RecordedFile};
use serde_json::{Map, Value, json};

use crate::arguments::Inspect;
use crate::failure::Failure;
use crate::program;
use crate::style::Style;

/// Does what the arguments say.
pub(crate) fn run(command: &Inspect, style: Style) -> Result<String, Failure> {
    let bytes = program::read(&command.file, &command.limits.limits())?;
    let found =
        chestnut_rewriter::inspect(&bytes).map_err(|source| Failure::Refused { path: command.file.clone(), source })?;
    if command.json {
        return Ok(format!("{:#}\n", json(&found)));
    }
    let mut text = format!("{}: patched by {}\n", style.bold(&command.file.display().to_string()), found.tool);
    text.push_str(&origin(&found));
    text.push_str(&decisions(found.filter.specification(), style));
    text.push_str(&evidence(&found, style));
    let program = found.filter.program();
    let heading = format!("Filter, {} instructions:", program.instructions().len());
    let _ = write!(text, "\n{}\n{}", style.bold(&heading), disassemble(program));
    Ok(text)
}

fn origin(found: &Inspection) -> String {
    format!(
        "Original: {} bytes, SHA-256 {}\nEntry: the stub at {:#x}, then the program at {:#x}\n",
        found.old_length,
        hexadecimal(&found.old_sha256),
        found.stub_address,
        found.entry,
    )
}

fn decisions(specification: &Specification, style: Style) -> String {
    let allowed = specification.allowed();
    let blocked = specification.blocked();
    let mut text = format!(
        "Other calls: {}; those above number {}: {}; other architectures and x32: {}\n",
        specification.action(),
        specification.ceiling().0,
        Action::Errno(ENOSYS),
        Action::KillProcess,
    );
    for (call, number) in specification.failing() {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{call}: {}", Action::Errno(*number));
    }
    let heading =
        format!("{} system calls allowed, {blocked} of {} blocked:", allowed.len(), SyscallNr::all_known().count());
    let _ = writeln!(text, "\n{}", style.bold(&heading));
    for call in allowed {
        let _ = writeln!(text, "  {call}");
    }
    text
}

fn evidence(found: &Inspection, style: Style) -> String {
    let mut text = format!("\n{}\n", style.bold("Files that were analyzed:"));
    for RecordedFile { path, kind, digest } in &found.files {
        let identity = format!("{} {digest}...", digest_name(*kind));
        let _ = writeln!(text, "  {}  {}", path.display(), style.faint(&identity));
    }
    if let Some(rest) = &found.rest {
        let rest = format!("and {} more, SHA-256 of what identifies them: {}...", rest.count, rest.digest);
        let _ = writeln!(text, "  {}", style.faint(&rest));
    }
    if found.unresolved > 0 {
        let warning = format!("Let pass: {} system calls with a number that is not known", found.unresolved);
        let _ = writeln!(text, "\n{}", style.warning(&warning));
    }
    if !found.assumptions.is_empty() || found.more_assumptions > 0 {
        let _ = writeln!(text, "\n{}", style.bold("Assumed:"));
        for assumption in &found.assumptions {
            let _ = writeln!(text, "  {assumption}");
        }
        if found.more_assumptions > 0 {
            let _ = writeln!(text, "  {}", style.faint(&format!("and {} more, not recorded", found.more_assumptions)));
        }
    }
    text
}

fn json(found: &Inspection) -> Value {
    let specification = found.filter.specification();
    let failing =
        specification.failing().iter().map(|(call, number)| (call.to_string(), json!(Action::Errno(*number))));
    let files = found
        .files
        .iter()
        .map(|file| json!({ "path": path_text::text(&file.path), digest_key(file.kind): file.digest }));
    json!({
        "tool": found.tool,
        "action": specification.action(),
        "ceiling": specification.ceiling(),
        "allowed": specification.allowed().iter().map(ToString::to_string).collect::<Vec<_>>(),
        "failing": failing.collect::<Map<_, _>>(),
        "files": files.collect::<Vec<_>>(),
        "more_files": found.rest.as_ref().map(|rest| json!({ "count": rest.count, "sha256_prefix": rest.digest })),
        "assumptions": found.assumptions,
        "more_assumptions": found.more_assumptions,
        "unresolved": found.unresolved,
        "stub_address": found.stub_address,
        "entry": found.entry,
        "original": { "bytes": found.old_length, "sha256": hexadecimal(&found.old_sha256) },
        "filter": disassemble(found.filter.program()).lines().collect::<Vec<_>>(),
    })
}

fn digest_name(kind: DigestKind) -> &'static str {
    match kind {
        DigestKind::BuildId => "build-id",
        DigestKind::Sha256 => "SHA-256",
    }
}

fn digest_key(kind: DigestKind) -> &'static str {
    match kind {
        DigestKind::BuildId => "build_id_prefix",
        DigestKind::Sha256 => "sha256_prefix",
    }
}

const ENOSYS: u16 = 38;
