//! What the kernel's audit log says of refused calls.
//!
//! Input: text with records of type 1326 (`AUDIT_SECCOMP`; `kernel/auditsc.c`, `audit_seccomp`), as dmesg, the journal
//! or audit.log have them. Output: which call, from where, and what would allow it.
//!
//! The log has an address of a process that may be gone. If it still runs, `/proc` says what lies there. If not: the
//! kernel places files by whole pages, so that the last twelve bits are those in the file, and the program's own files
//! hold few `syscall` instructions with these. All that fit are named.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};

use chestnut_analyzer::limits::Limits;
use chestnut_analyzer::loader::{LoadOptions, load_closure};
use chestnut_analyzer::regular_file;
use chestnut_analyzer::syscall::SyscallNr;
use object::elf::PF_X;
use object::{Object, ObjectSegment, SegmentFlags};

use crate::architecture::Architecture;
use crate::maps;
use crate::module::Module;

/// Bits of an address that are the same wherever a file is placed.
const PAGE_OFFSET: u64 = 0xfff;

/// How many places are named.
const MOST_PLACES: usize = 4;

/// How the kernel answered: `SECCOMP_RET_*` without its data, as the log has it.
const ACTIONS: [(u32, &str); 6] = [
    (libc::SECCOMP_RET_KILL_PROCESS, "the process was killed"),
    (libc::SECCOMP_RET_KILL_THREAD, "the thread was killed"),
    (libc::SECCOMP_RET_TRAP, "the process got SIGSYS"),
    (libc::SECCOMP_RET_ERRNO, "the call failed"),
    (libc::SECCOMP_RET_TRACE, "the call was passed to a tracer"),
    (libc::SECCOMP_RET_LOG, "the call was made, and only logged"),
];

/// A refused call.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Violation {
    program: PathBuf,
    pid: i32,
    arch: u32,
    number: u64,
    ip: u64,
    code: u32,
}

/// Explains all refused calls in a text; equal ones once.
#[must_use]
pub fn explain(text: &str) -> String {
    let mut seen: BTreeMap<(PathBuf, u32, u64, u64), (Violation, usize)> = BTreeMap::new();
    for violation in text.lines().filter_map(parse) {
        let key = (violation.program.clone(), violation.arch, violation.number, violation.ip & PAGE_OFFSET);
        let count = seen.entry(key).or_insert((violation, 0));
        count.1 = count.1.saturating_add(1);
    }
    if seen.is_empty() {
        return "no refused call is in the text: lines with type=1326 or type=SECCOMP are looked for\n".to_owned();
    }
    seen.values().map(|(violation, count)| explain_one(violation, *count)).collect()
}

fn explain_one(violation: &Violation, count: usize) -> String {
    let (architecture, number) = Architecture::of(violation.arch, violation.number);
    let name = architecture.name(number);
    let action = ACTIONS.iter().find(|(code, _)| *code == violation.code & libc::SECCOMP_RET_ACTION_FULL);
    let action = action.map_or_else(|| format!("action {:#x}", violation.code), |(_, text)| (*text).to_owned());
    let times = if count == 1 { String::new() } else { format!(", {count} times") };
    let program = violation.program.display();
    // Writing to a string cannot fail.
    let mut text = format!("{program}: {name} (number {number}){times}: {action}\n");
    let places = places(violation);
    if places.is_empty() {
        let _ =
            writeln!(text, "  from address {:#x}, which is in no file that the program loads at start", violation.ip);
    }
    let or = if places.len() > 1 { "  from one of these: " } else { "  from " };
    for (index, place) in places.iter().take(MOST_PLACES).enumerate() {
        let _ = writeln!(text, "{}{place}", if index == 0 { or } else { "    or " });
    }
    if let Some(more) = places.len().checked_sub(MOST_PLACES).filter(|more| *more > 0) {
        let _ = writeln!(text, "    or one of {more} more");
    }
    if architecture.is_native() {
        if let Some(why) = decision(&violation.program, number) {
            let _ = writeln!(text, "  {why}");
        }
        let _ = writeln!(text, "  to allow it: chestnut-patch --repatch --allow {name} {program} NEW");
        let _ = writeln!(
            text,
            "  or in the policy, below \"allowed\": \"{number}\": {{\"name\": \"{name}\", \"evidence\": {{\"kind\": \
             \"requested\", \"by\": \"WHO AND WHY\"}}}}"
        );
    } else {
        let _ = writeln!(text, "  no policy can allow it: it is a call of another table");
    }
    text
}

/// The bytes of a file that the log names, and nothing else: what stands there may be a pipe.
fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    regular_file::read(path, &Limits::default())
}

/// What a person decided about a call when the program was patched, or since.
fn decision(program: &Path, number: u64) -> Option<&'static str> {
    let call = u32::try_from(number).ok().map(SyscallNr)?;
    let found = chestnut_rewriter::inspect(&read(program).ok()?).ok()?;
    if found.filter.specification().allowed().contains(&call) {
        return Some("the file that is there now allows it: this was before, or by a filter that it inherited");
    }
    found.made_with.deny.contains(&call).then_some("it was denied by --deny when the file was patched")
}

/// `type=1326 audit(...): ... pid=1 comm="a" exe="/a" sig=31 arch=c000003e syscall=110 compat=0 ip=0x7f... code=0x...`
fn parse(line: &str) -> Option<Violation> {
    if !["type=1326", "type=SECCOMP"].iter().any(|kind| line.contains(kind)) {
        return None;
    }
    let field = |name: &str| {
        let value = line.split_once(&format!(" {name}="))?.1;
        match value.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').map(|(text, _)| text),
            None => value.split([' ', '\u{1d}']).next(),
        }
    };
    let hexadecimal = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16).ok();
    let arch = u32::try_from(hexadecimal(field("arch")?)?).ok()?;
    let code = field("code").and_then(hexadecimal).and_then(|code| u32::try_from(code).ok()).unwrap_or(0);
    Some(Violation {
        program: path(line, field("exe")?),
        pid: field("pid")?.parse().ok()?,
        arch,
        number: field("syscall")?.parse().ok()?,
        ip: hexadecimal(field("ip")?)?,
        code,
    })
}

/// A path with unusual characters stands there in hexadecimal digits, without quotes.
fn path(line: &str, text: &str) -> PathBuf {
    let is_plain = line.contains(&format!(" exe=\"{text}\""));
    let pairs = text.as_bytes().as_chunks::<2>().0.iter();
    let bytes: Option<Vec<u8>> = pairs.map(|pair| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok()).collect();
    match bytes.filter(|_| !is_plain) {
        Some(bytes) => PathBuf::from(<std::ffi::OsString as std::os::unix::ffi::OsStringExt>::from_vec(bytes)),
        None => PathBuf::from(text),
    }
}

/// Where the call may come from.
fn places(violation: &Violation) -> Vec<String> {
    if let Some(place) = living_place(violation) {
        return vec![place];
    }
    let mut places = Vec::new();
    for path in files(&violation.program) {
        let Ok(bytes) = read(&path) else { continue };
        let module = Module::parse(&bytes);
        for address in instructions(&bytes, violation.ip) {
            places.push(place(&path, &module, address));
        }
    }
    places
}

/// The place, if the process still runs.
fn living_place(violation: &Violation) -> Option<String> {
    let exe = std::fs::read_link(format!("/proc/{}/exe", violation.pid)).ok()?;
    if exe != violation.program {
        return None;
    }
    let address = violation.ip.checked_sub(2)?;
    let maps = maps::executable(violation.pid).ok()?;
    let mapping = maps.iter().find(|mapping| mapping.offset_of(address).is_some() && mapping.is_file())?;
    let module = Module::parse(&read(&mapping.path).ok()?);
    Some(place(&mapping.path, &module, module.address(mapping.offset_of(address)?)?))
}

fn place(path: &Path, module: &Module, address: u64) -> String {
    let symbol = module.symbol(address).map_or_else(String::new, |symbol| format!(" ({symbol})"));
    format!("{}+{address:#x}{symbol}", path.display())
}

/// The program and what it loads at start: what the record of a patched one lists, else the usual ones.
fn files(program: &Path) -> BTreeSet<PathBuf> {
    let mut files = BTreeSet::from([program.to_owned()]);
    let Ok(bytes) = read(program) else { return files };
    if let Ok(found) = chestnut_rewriter::inspect(&bytes) {
        files.extend(found.files.into_iter().skip(1).map(|file| file.path));
        return files;
    }
    let loaded = load_closure(program, &LoadOptions::default());
    files.extend(loaded.iter().flat_map(|set| set.files()).map(|file| file.path().to_owned()));
    files
}

/// Addresses of instructions that enter the kernel and that the address behind them may be that of, but for the page.
fn instructions(bytes: &[u8], ip: u64) -> Vec<u64> {
    let Ok(file) = object::File::parse(bytes) else { return Vec::new() };
    let mut found = Vec::new();
    for segment in file.segments() {
        let is_code = matches!(segment.flags(), SegmentFlags::Elf { p_flags, .. } if p_flags.0 & PF_X.0 != 0);
        let Ok(data) = segment.data() else { continue };
        for (at, code) in data.windows(2).enumerate().filter(|_| is_code) {
            let is_entry = matches!(code, [0x0f, 0x05] | [0xcd, 0x80] | [0x0f, 0x34]);
            let address = u64::try_from(at).ok().and_then(|at| segment.address().checked_add(at));
            let fits = |address: &u64| address.wrapping_add(2) & PAGE_OFFSET == ip & PAGE_OFFSET;
            found.extend(address.filter(|address| is_entry && fits(address)));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "[22706.08] audit: type=1326 audit(1795432858.542:307532): auid=4294967295 uid=0 gid=0 ses=4294967295 \
                        pid=999999999 comm=\"patched\" exe=\"/tmp/none\" sig=31 arch=c000003e syscall=110 compat=0 \
                        ip=0x5573396d61f8 code=0x80000000";

    #[test]
    fn the_fields_of_a_line_are_read() {
        let violation = parse(LINE).unwrap();
        let Violation { program, number, ip, code, .. } = violation;
        assert_eq!((program.to_str(), number, ip, code), (Some("/tmp/none"), 110, 0x5573_396d_61f8, 0x8000_0000));
        let coded = LINE.replace("\"/tmp/none\"", "2F612062");
        assert_eq!(parse(&coded).unwrap().program, Path::new("/a b"));
        let daemon = LINE.replace("type=1326 audit", "type=SECCOMP msg=audit");
        assert!(parse(&daemon).is_some());
        assert_eq!(parse("type=1300 syscall=1"), None);
    }

    #[test]
    fn equal_lines_are_explained_once() {
        let text = explain(&format!("{LINE}\nother\n{LINE}\n"));
        assert!(text.starts_with("/tmp/none: getppid (number 110), 2 times: the process was killed\n"), "{text}");
        assert!(text.contains("chestnut-patch --repatch --allow getppid"), "{text}");
        assert!(explain("nothing").starts_with("no refused call"));
    }
}
