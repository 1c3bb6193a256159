//! Programs of this machine: which files, in which order.

use std::collections::BTreeSet;
use std::ffi::OsStr;

use super::*;

/// What ldd prints as found, as canonical paths.
fn ldd(program: &Path) -> BTreeSet<PathBuf> {
    let output = Command::new("ldd").env("LC_ALL", "C").arg(program).output().expect("ldd runs");
    let text = String::from_utf8(output.stdout).unwrap();
    let paths = text.split_whitespace().filter(|word| word.starts_with('/'));
    paths.map(|path| fs::canonicalize(path).unwrap()).collect()
}

#[test]
fn closure_equals_that_of_ldd() {
    let mut compared = 0;
    for program in ["/bin/ls", "/usr/bin/ffmpeg", "/usr/bin/redis-server", "/usr/bin/gdb", "/bin/bash", "/usr/bin/curl"]
    {
        let program = Path::new(program);
        if !program.exists() {
            println!("skipped: no {}", program.display());
            continue;
        }
        let set = load_closure(program, &LoadOptions::default()).unwrap();
        let loaded: BTreeSet<_> =
            set.files()[1..].iter().map(|file| file.host_path().canonicalize().unwrap()).collect();
        assert_eq!(loaded, ldd(program), "{}", program.display());
        assert!(set.relative_search_paths().is_empty());
        compared += 1;
    }
    assert!(compared > 0);
}

/// The scope in which ld.so looks up the program's symbols, as it tells with `LD_DEBUG=scopes`.
fn scope_of_ld_so(program: &Path, argument: &str) -> Vec<String> {
    let output = Command::new(program).arg(argument).env("LD_DEBUG", "scopes").output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let first = text.lines().find_map(|line| line.split_once("scope 0: ")).unwrap_or_else(|| panic!("{text}")).1;
    first.split(' ').map(|path| path.rsplit('/').next().unwrap().to_owned()).collect()
}

#[test]
fn scope_has_the_order_of_ld_so() {
    for (program, argument) in
        [("/bin/ls", "--version"), ("/usr/bin/ffmpeg", "-version"), ("/usr/bin/gdb", "--version")]
    {
        let program = Path::new(program);
        if !program.exists() {
            println!("skipped: no {}", program.display());
            continue;
        }
        let set = load_closure(program, &LoadOptions::default()).unwrap();
        assert_eq!(names(&set, set.scope()), scope_of_ld_so(program, argument), "{}", program.display());
        // libc needs the interpreter by name, so that it has a place in the scope, and is one file.
        let interpreter = set.interpreter().unwrap();
        assert!(set.scope().contains(&interpreter) && set.file(interpreter).unwrap().is_interpreter());
        assert_eq!(set.files().iter().filter(|file| file.is_interpreter()).count(), 1);
    }
}

#[test]
fn dlopen_adds_a_library_with_its_own_scope() {
    let mut set = load_closure(Path::new("/bin/ls"), &LoadOptions::default()).unwrap();
    let (before, scope) = (set.files().len(), set.scope().to_vec());
    let program = set.program();
    // One that is there keeps its index, whatever it is called.
    let libc = set.load_library(OsStr::new("libc.so.6"), program).unwrap();
    assert!(set.scope().contains(&libc[0]) && set.files().len() == before);
    let by_path = set.load_library(OsStr::new("/lib/x86_64-linux-gnu/libc.so.6"), program).unwrap();
    assert_eq!(by_path[0], libc[0]);
    let Ok(local) = set.load_library(OsStr::new("libcrypto.so.3"), program) else {
        println!("skipped: no libcrypto.so.3");
        return;
    };
    assert_eq!(local[0].0, before);
    assert_eq!(names(&set, &local)[..2], ["libcrypto.so.3", "libc.so.6"]);
    assert_eq!(set.file(local[0]).unwrap().loaded_by(), Some(program));
    // The global scope stays as it was.
    assert_eq!(set.scope(), scope);
    let error = set.load_library(OsStr::new("libnot-there.so.9"), program).unwrap_err();
    assert!(matches!(&error, LoadError::MissingLibrary { name, .. } if name == "libnot-there.so.9"), "{error}");
}

#[test]
fn identity_is_that_of_sha256sum() {
    let set = load_closure(Path::new("/bin/ls"), &LoadOptions::default()).unwrap();
    for file in set.files() {
        let identity = file.identity();
        let output = Command::new("sha256sum").arg(file.host_path()).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(Some(identity.sha256.as_str()), text.split(' ').next());
        assert_eq!(identity.path, file.path());
        assert_eq!(identity.build_id.as_ref().map(String::len), Some(40), "{}", file.path().display());
    }
}

#[test]
fn a_file_that_changes_is_noticed() {
    let folder = tempfile::TempDir::new().unwrap();
    let program = folder.path().join("true");
    fs::copy("/bin/true", &program).unwrap();
    let read = || load_closure(&program, &LoadOptions::default()).unwrap();
    let set = read();
    assert!(set.files().iter().all(LoadedFile::is_as_read));
    std::thread::sleep(std::time::Duration::from_millis(20));
    // The same bytes once more: the time alone tells.
    fs::write(&program, fs::read("/bin/true").unwrap()).unwrap();
    assert!(!set.file(set.program()).unwrap().is_as_read());
    assert!(read().files().iter().all(LoadedFile::is_as_read));
    fs::remove_file(&program).unwrap();
    assert!(!set.file(set.program()).unwrap().is_as_read());
}

#[test]
fn musl_libraries_are_the_interpreter() {
    let folder = tempfile::TempDir::new().unwrap();
    let source = "#include <math.h>\nint main(int c, char **v) { return (int)sin(c); }";
    let program = match try_compile("musl-gcc", folder.path(), "main", source, &["-lm", "-lpthread"]) {
        Ok(program) => program,
        Err(problem) => return println!("skipped: {problem}"),
    };
    let mut set = load_closure(&program, &LoadOptions::default()).unwrap();
    assert_eq!(set.loader_kind(), LoaderKind::Musl);
    assert_eq!(set.files().len(), 2, "{:?}", set.files());
    let interpreter = set.interpreter().unwrap();
    assert_eq!(set.scope(), [FileIndex(0), interpreter]);
    // musl's loader stands in for these names, whatever their number.
    for name in ["libc.musl-x86_64.so.1", "libm.so.6", "libpthread.so.0", "libc.so"] {
        assert_eq!(set.load_library(OsStr::new(name), FileIndex(0)).unwrap(), [interpreter], "{name}");
    }
}

#[test]
fn static_program_is_alone() {
    let folder = tempfile::TempDir::new().unwrap();
    for flag in ["-static", "-static-pie"] {
        let program = compile(folder.path(), "main", "int main(void) { return 0; }", &[flag]);
        let set = load_closure(&program, &LoadOptions::default()).unwrap();
        assert_eq!((set.files().len(), set.interpreter(), set.scope()), (1, None, [FileIndex(0)].as_slice()));
    }
}
