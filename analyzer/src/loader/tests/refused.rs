//! Files that are no programs: each must be told what it is.

use tempfile::TempDir;

use super::*;
use crate::elf::{HeaderField, ImageError};

fn error(path: &Path) -> LoadError {
    load_closure(path, &LoadOptions::default()).unwrap_err()
}

#[test]
fn files_that_are_not_programs() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name);
    let write = |name: &str, content: &[u8]| {
        fs::write(path(name), content).unwrap();
        path(name)
    };
    assert!(matches!(error(&path("absent")), LoadError::Read { .. }));
    assert!(matches!(error(folder.path()), LoadError::NotRegular { kind: "a directory", .. }));
    assert!(matches!(error(Path::new("/dev/null")), LoadError::NotRegular { .. }));
    assert!(matches!(error(&write("empty", b"")), LoadError::Empty { .. }));
    let script = error(&write("script", b"#! /bin/sh -e\necho\n"));
    assert!(matches!(&script, LoadError::Script { interpreter, .. } if interpreter == "/bin/sh -e"), "{script:?}");
    assert!(script.to_string().contains("/bin/sh -e"));
    let text = error(&write("text", b"hello\n"));
    assert!(matches!(text, LoadError::Image { source: ImageError::NotElf { .. }, .. }));
    let object = compile(folder.path(), "object.o", "int x;", &["-c"]);
    let object = error(&object);
    let LoadError::Image { source: ImageError::Header { field, .. }, .. } = object else { panic!("{object:?}") };
    assert_eq!(field, HeaderField::Type);
}

#[test]
fn damaged_library_is_named() {
    let folder = TempDir::new().unwrap();
    let library = library(folder.path(), "libx.so", &[]);
    let arguments = ["-Wl,--no-as-needed", library.to_str().unwrap(), "-Wl,-rpath,$ORIGIN"];
    let program = compile(folder.path(), "main", "int main(void) { return 0; }", &arguments);
    let content = fs::read(&library).unwrap();
    fs::write(&library, &content[..content.len() / 8]).unwrap();
    let error = error(&program);
    assert!(matches!(&error, LoadError::Image { path, .. } if path.ends_with("libx.so")), "{error:?}");
}

#[test]
fn root_that_does_not_exist_is_named() {
    let options = LoadOptions { root: PathBuf::from("/not/there"), ..LoadOptions::default() };
    let error = load_closure(Path::new("/bin/ls"), &options).unwrap_err();
    assert!(matches!(&error, LoadError::Read { path, .. } if path == Path::new("/not/there")), "{error:?}");
}
