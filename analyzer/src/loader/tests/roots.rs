//! Systems below a folder (`--root`).

use std::os::unix::fs::symlink;

use tempfile::TempDir;

use super::*;

/// Copies `/bin/ls` with all its files into a root of another layout: absolute links, folders from `ld.so.conf`.
fn other_system() -> TempDir {
    let folder = TempDir::new().unwrap();
    let root = folder.path();
    for directory in ["usr/bin", "usr/lib64", "opt/deep/libs", "etc/conf.d"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    // An absolute link, one that climbs above the top, and one through another link.
    symlink("/usr/lib64", root.join("lib64")).unwrap();
    symlink("../../../opt/deep", root.join("opt/climb")).unwrap();
    symlink("/opt/climb/libs", root.join("opt/libs")).unwrap();
    let set = load_closure(Path::new("/bin/ls"), &LoadOptions::default()).unwrap();
    for file in set.files() {
        let name = file.path().file_name().unwrap();
        let place = match file {
            file if file.is_interpreter() => root.join("usr/lib64/ld-linux-x86-64.so.2"),
            file if file.loaded_by().is_none() => root.join("usr/bin/ls"),
            _ => root.join("opt/deep/libs").join(name),
        };
        fs::copy(file.host_path(), place).unwrap();
    }
    fs::write(root.join("etc/ld.so.conf"), "# folders\ninclude conf.d/*.conf\ninclude /etc/ld.so.conf\n").unwrap();
    fs::write(root.join("etc/conf.d/a.conf"), "/nowhere\t/opt/libs=libc6 # ours\nhwcap 0 old\n").unwrap();
    fs::write(root.join("etc/conf.d/b.conf.bak"), "/etc\n").unwrap();
    folder
}

fn options(root: &TempDir) -> LoadOptions {
    LoadOptions { root: root.path().to_path_buf(), ..LoadOptions::default() }
}

#[test]
fn everything_is_found_below_the_root() {
    let root = other_system();
    let set = load_closure(&root.path().join("usr/bin/ls"), &options(&root)).unwrap();
    let directory = root.path().canonicalize().unwrap();
    for file in set.files() {
        assert!(file.host_path().starts_with(&directory), "{:?}", file.host_path());
        assert!(!file.path().starts_with(&directory) && file.path().is_absolute(), "{:?}", file.path());
    }
    assert_eq!(set.files()[0].path(), Path::new("/usr/bin/ls"));
    assert_eq!(set.files()[1].path(), Path::new("/lib64/ld-linux-x86-64.so.2"));
    assert!(set.files()[2].path().starts_with("/opt/libs"));
    assert!(set.files()[2].host_path().starts_with(directory.join("opt/deep/libs")));
}

#[test]
fn program_outside_the_root_takes_its_libraries_from_the_root() {
    let root = other_system();
    let set = load_closure(Path::new("/bin/ls"), &options(&root)).unwrap();
    let directory = root.path().canonicalize().unwrap();
    assert!(set.files()[1..].iter().all(|file| file.host_path().starts_with(&directory)));
    assert_eq!(set.files()[0].host_path(), Path::new("/bin/ls").canonicalize().unwrap());
}

#[test]
fn what_the_root_lacks_is_not_taken_from_this_machine() {
    let root = other_system();
    fs::remove_file(root.path().join("opt/deep/libs/libc.so.6")).unwrap();
    let error = load_closure(&root.path().join("usr/bin/ls"), &options(&root)).unwrap_err();
    let LoadError::MissingLibrary { name, searched, .. } = error else { panic!("{error:?}") };
    assert_eq!(name, "libc.so.6");
    assert_eq!(searched[..2], [PathBuf::from("/nowhere"), PathBuf::from("/opt/libs")]);
    fs::remove_file(root.path().join("usr/lib64/ld-linux-x86-64.so.2")).unwrap();
    let error = load_closure(&root.path().join("usr/bin/ls"), &options(&root)).unwrap_err();
    assert!(matches!(error, LoadError::Interpreter { .. }), "{error:?}");
    assert!(error.to_string().contains("--root DIR"), "{error}");
}

#[test]
fn links_in_a_circle_end() {
    let root = other_system();
    let libs = root.path().join("opt/libs");
    fs::remove_file(&libs).unwrap();
    symlink("/opt/round", &libs).unwrap();
    symlink("libs", root.path().join("opt/round")).unwrap();
    assert!(load_closure(&root.path().join("usr/bin/ls"), &options(&root)).is_err());
}
