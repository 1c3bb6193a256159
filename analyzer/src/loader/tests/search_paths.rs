//! DT_RPATH, DT_RUNPATH, tokens, variants for newer processors, `--lib`.

use tempfile::TempDir;

use super::*;

const MAIN: &str = "int main(void) { return 0; }";

/// `main` needs `liba.so` in `a/`, which needs `libb.so` in `b/` without saying where.
fn chain(folder: &Path, flags: &[&str]) -> PathBuf {
    let b = library(folder, "b/libb.so", &[]);
    let a = library(folder, "a/liba.so", &[b.to_str().unwrap()]);
    let arguments = [&["-Wl,--no-as-needed", a.to_str().unwrap(), "-Wl,-rpath-link,b"], flags].concat();
    compile(folder, "main", MAIN, &arguments)
}

#[test]
fn rpath_counts_for_the_libraries_of_libraries() {
    let folder = TempDir::new().unwrap();
    let flags = ["-Wl,--disable-new-dtags", "-Wl,-rpath,$ORIGIN/a:${ORIGIN}/b"];
    let program = chain(folder.path(), &flags);
    // ld.so agrees.
    assert!(Command::new(&program).status().unwrap().success());
    let set = load_closure(&program, &LoadOptions::default()).unwrap();
    assert_eq!(names(&set, set.scope()), ["main", "liba.so", "libc.so.6", "libb.so", "ld-linux-x86-64.so.2"]);
}

#[test]
fn runpath_counts_for_direct_needs_only() {
    let folder = TempDir::new().unwrap();
    let flags = ["-Wl,--enable-new-dtags", "-Wl,-rpath,$ORIGIN/a:$ORIGIN/b:relative"];
    let program = chain(folder.path(), &flags);
    assert!(!Command::new(&program).status().unwrap().success());
    let error = load_closure(&program, &LoadOptions::default()).unwrap_err();
    let text = error.to_string();
    let LoadError::MissingLibrary { name, needed_by, searched, .. } = error else { panic!("{error:?}") };
    assert_eq!(name, "libb.so");
    assert!(needed_by.ends_with("a/liba.so"));
    assert!(!searched.iter().any(|path| path.starts_with(folder.path())));
    assert!(searched.contains(&PathBuf::from("/usr/lib/x86_64-linux-gnu")));
    for part in ["libb.so", "a/liba.so", "/usr/lib/x86_64-linux-gnu", "--lib FILE", "--root DIR"] {
        assert!(text.contains(part), "{text}");
    }
    // The flag helps.
    let libraries = vec![folder.path().join("b/libb.so")];
    let set = load_closure(&program, &LoadOptions { libraries, ..LoadOptions::default() }).unwrap();
    assert!(names(&set, set.scope()).contains(&"libb.so".to_owned()));
    // What depends on the working directory is not followed, and told.
    assert_eq!(set.relative_search_paths(), [(FileIndex(0), PathBuf::from("relative"))]);
}

#[test]
fn given_library_counts_before_any_folder_and_by_its_soname() {
    let folder = TempDir::new().unwrap();
    let program = chain(folder.path(), &["-Wl,--disable-new-dtags", "-Wl,-rpath,$ORIGIN/a:$ORIGIN/b"]);
    let other = folder.path().join("renamed");
    fs::copy(folder.path().join("b/libb.so"), &other).unwrap();
    let options = LoadOptions { libraries: vec![other.clone()], ..LoadOptions::default() };
    let set = load_closure(&program, &options).unwrap();
    let found = set.files().iter().find(|file| file.soname() == Some(b"libb.so")).unwrap();
    assert_eq!(found.host_path().canonicalize().unwrap(), other.canonicalize().unwrap());
}

#[test]
fn same_file_under_two_names_is_loaded_once() {
    let folder = TempDir::new().unwrap();
    let b = library(folder.path(), "libb.so", &[]);
    std::os::unix::fs::symlink("libb.so", folder.path().join("libalias.so")).unwrap();
    let alias = folder.path().join("libalias.so");
    // Without a soname the linker notes the path as it was given.
    let arguments = ["-Wl,--no-as-needed", b.to_str().unwrap(), "-Wl,-rpath,$ORIGIN"];
    let program = compile(folder.path(), "main", MAIN, &arguments);
    let mut set = load_closure(&program, &LoadOptions::default()).unwrap();
    let count = set.files().len();
    let again = set.load_library(alias.as_os_str(), FileIndex(0)).unwrap();
    assert_eq!((set.files().len(), again[0]), (count, set.scope()[1]));
}

#[test]
fn variants_for_newer_processors_stand_behind_their_file() {
    let folder = TempDir::new().unwrap();
    let plain = library(folder.path(), "lib/libfast.so", &[]);
    library(folder.path(), "lib/glibc-hwcaps/x86-64-v3/libfast.so", &["-lm"]);
    let arguments = ["-Wl,--no-as-needed", plain.to_str().unwrap(), "-Wl,-rpath,$ORIGIN/lib"];
    let program = compile(folder.path(), "main", MAIN, &arguments);
    let set = load_closure(&program, &LoadOptions::default()).unwrap();
    assert_eq!(names(&set, &set.scope()[..3]), ["main", "libfast.so", "libfast.so"]);
    let [_, base, variant, ..] = *set.scope() else { panic!() };
    assert_eq!(set.file(base).unwrap().alternative_of(), None);
    assert_eq!(set.file(variant).unwrap().alternative_of(), Some(base));
    // What only the variant needs is loaded too.
    assert!(names(&set, set.scope()).contains(&"libm.so.6".to_owned()));
}

#[test]
fn files_for_other_machines_are_skipped() {
    let folder = TempDir::new().unwrap();
    let library_path = library(folder.path(), "right/libx.so", &[]);
    let mut foreign = fs::read(&library_path).unwrap();
    foreign[18..20].copy_from_slice(&183_u16.to_le_bytes());
    fs::create_dir(folder.path().join("wrong")).unwrap();
    fs::write(folder.path().join("wrong/libx.so"), foreign).unwrap();
    let arguments = ["-Wl,--no-as-needed", library_path.to_str().unwrap(), "-Wl,-rpath,$ORIGIN/wrong:$ORIGIN/right"];
    let program = compile(folder.path(), "main", MAIN, &arguments);
    let set = load_closure(&program, &LoadOptions::default()).unwrap();
    assert!(set.files().iter().any(|file| file.path().ends_with("right/libx.so")));
    fs::remove_file(&library_path).unwrap();
    let error = load_closure(&program, &LoadOptions::default()).unwrap_err();
    assert!(error.to_string().contains("wrong/libx.so is for another machine"), "{error}");
    // One that is no ELF file at all is an error for ld.so, and for us.
    fs::write(&library_path, "INPUT(libc.so.6)").unwrap();
    let error = load_closure(&program, &LoadOptions::default()).unwrap_err();
    assert!(matches!(error, LoadError::Image { .. }), "{error:?}");
}

#[test]
fn filters_bring_their_filtees_first() {
    let folder = TempDir::new().unwrap();
    library(folder.path(), "libreal.so", &["-lm"]);
    let filter = library(folder.path(), "libfilter.so", &["-Wl,--filter=libreal.so", "-Wl,-rpath,$ORIGIN"]);
    let missing = library(folder.path(), "libother.so", &["-Wl,--auxiliary=libnot-there.so"]);
    let libraries = [filter.to_str().unwrap(), missing.to_str().unwrap()];
    let arguments = [&["-Wl,--no-as-needed"], &libraries[..], &["-Wl,-rpath,$ORIGIN"]].concat();
    let program = compile(folder.path(), "main", MAIN, &arguments);
    let set = load_closure(&program, &LoadOptions::default()).unwrap();
    assert_eq!(names(&set, &set.scope()[..4]), ["main", "libreal.so", "libfilter.so", "libother.so"]);
    assert!(names(&set, set.scope()).contains(&"libm.so.6".to_owned()));
}
