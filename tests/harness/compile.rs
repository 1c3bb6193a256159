//! Builds a fixture in one configuration. Configurations that differ only in what is done to the linked file share it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, LazyLock, Mutex, OnceLock};

use super::config::{Compiler, Config, Finish, Libc, Linkage};
use super::fixture::{Fixture, Language, SharedLibrary};
use super::{Trouble, process, repository, scratch, section_headers, wrong};

/// A fixture that stands ready to be patched.
#[derive(Debug)]
pub(crate) struct Built {
    /// Holds the program and its libraries.
    pub(crate) folder: PathBuf,
    pub(crate) program: PathBuf,
}

type Linked = Arc<OnceLock<Result<PathBuf, (bool, String)>>>;

/// Linked files by fixture and configuration; the first test that needs one builds it.
static LINKED: LazyLock<Mutex<HashMap<(String, Config), Linked>>> = LazyLock::new(Mutex::default);

/// Builds `fixture`; the result lies in a folder that no other configuration writes to.
pub(crate) fn build(fixture: &Fixture, config: &Config) -> Result<Built, Trouble> {
    let key = (fixture.name.clone(), config.linked());
    let slot = Arc::clone(LINKED.lock().expect("no test panics with the lock").entry(key).or_default());
    let linked = slot.get_or_init(|| {
        link(fixture, &config.linked()).map_err(|trouble| match trouble {
            Trouble::Missing(text) => (true, text),
            Trouble::Wrong(text) => (false, text),
        })
    });
    let linked = match linked {
        Ok(path) => path,
        Err((true, text)) => return Err(Trouble::Missing(text.clone())),
        Err((false, text)) => return wrong(text),
    };
    let folder = fresh_folder(fixture, &format!("{}.run", config.name()))?;
    let program = folder.join("main");
    if let Some(libraries) = linked.parent() {
        for entry in std::fs::read_dir(libraries)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "so") {
                std::fs::copy(&path, folder.join(path.file_name().unwrap_or_default()))?;
            }
        }
    }
    std::fs::copy(linked, &program)?;
    match config.finish {
        Finish::Plain => {}
        Finish::Stripped => succeed(Command::new("strip").arg(&program))?,
        Finish::NoSections => std::fs::write(&program, section_headers::remove(&std::fs::read(linked)?))?,
    }
    Ok(Built { folder, program })
}

fn fresh_folder(fixture: &Fixture, name: &str) -> Result<PathBuf, Trouble> {
    let folder = scratch().join(&fixture.name).join(name);
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}

fn link(fixture: &Fixture, config: &Config) -> Result<PathBuf, Trouble> {
    let folder = fresh_folder(fixture, &config.name())?;
    let out = folder.join("main");
    if fixture.language == Language::Rust {
        succeed(rustc(fixture, config)?.arg("-o").arg(&out).arg(&fixture.source))?;
        return Ok(out);
    }
    if fixture.language == Language::Go {
        succeed(go(fixture, config)?.arg("-o").arg(&out).arg("."))?;
        return Ok(out);
    }
    for library in &fixture.libraries {
        shared_library(fixture, config, library, &folder.join(format!("lib{}.so", stem(library))))?;
    }
    for plugin in &fixture.plugins {
        shared_library(fixture, config, plugin, &folder.join(format!("{}.so", stem(plugin))))?;
    }
    let mut command = driver(fixture, config);
    let start_files = linkage_flags(&mut command, config);
    command.args(start_files.before);
    command.arg("-o").arg(&out).args(&fixture.flags).args(&config.flags).arg(&fixture.source);
    command.args(fixture.with.iter().map(|file| fixture.folder.join(file)));
    let has_libraries = !fixture.libraries.is_empty() || !fixture.plugins.is_empty();
    if has_libraries && !config.is_static() {
        command.arg("-L").arg(&folder).arg("-Wl,--no-as-needed,-rpath,$ORIGIN");
        command.args(fixture.libraries.iter().map(|library| format!("-l{}", stem(library))));
    }
    command.args(start_files.behind);
    succeed(&mut command)?;
    Ok(out)
}

fn stem(library: &SharedLibrary) -> String {
    Path::new(&library.source).file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default()
}

fn shared_library(fixture: &Fixture, config: &Config, library: &SharedLibrary, out: &Path) -> Result<(), Trouble> {
    let mut command = driver(fixture, config);
    command.args(["-shared", "-fPIC", "-o"]).arg(out).args(&library.flags).arg(fixture.folder.join(&library.source));
    if let Some(name) = out.file_name() {
        command.arg(format!("-Wl,-soname,{}", name.display()));
    }
    succeed(&mut command)
}

fn driver(fixture: &Fixture, config: &Config) -> Command {
    let mut command = Command::new(match (config.compiler, config.libc, fixture.language) {
        (Compiler::Clang, _, Language::Cxx) => "clang++",
        (Compiler::Clang, ..) => "clang",
        (_, Libc::Musl, _) => "musl-gcc",
        (_, _, Language::Cxx) => "g++",
        _ => "gcc",
    });
    command.current_dir(&fixture.folder);
    command.args(["-O2", "-pthread", "-Wall", "-Werror"]).arg("-I").arg(repository().join("fixtures/include"));
    if config.compiler == Compiler::Clang {
        // `-pthread` is given to all, and clang minds when it is not used; fixtures use gcc's names of attributes.
        command.args(["-Wno-unused-command-line-argument", "-Wno-unknown-attributes"]);
    }
    if fixture.language == Language::Cxx {
        command.arg("-std=c++17");
    }
    command
}

/// Start files that the driver does not know itself.
#[derive(Debug, Default)]
struct StartFiles {
    before: Vec<PathBuf>,
    behind: Vec<PathBuf>,
}

fn linkage_flags(command: &mut Command, config: &Config) -> StartFiles {
    match (config.linkage, config.libc) {
        (Linkage::Static, _) => drop(command.args(["-static", "-fno-pie", "-no-pie"])),
        (Linkage::Pie, _) => drop(command.args(["-fPIE", "-pie"])),
        (Linkage::NoPie, _) => drop(command.args(["-fno-pie", "-no-pie"])),
        (Linkage::StaticPie, Libc::Glibc) => drop(command.args(["-fPIE", "-static-pie"])),
        (Linkage::StaticPie, Libc::Musl) => {
            // musl-gcc passes `-static-pie` on as a plain PIE; its parts are put together by hand.
            command.args(["-fPIE", "-static", "-nostartfiles", "-Wl,-pie,--no-dynamic-linker,-z,text"]);
            let musl = Path::new("/usr/lib/x86_64-linux-musl");
            let gcc = libgcc_folder();
            return StartFiles {
                before: vec![musl.join("rcrt1.o"), musl.join("crti.o"), gcc.join("crtbeginS.o")],
                behind: vec![gcc.join("crtendS.o"), musl.join("crtn.o")],
            };
        }
    }
    StartFiles::default()
}

fn libgcc_folder() -> PathBuf {
    let output = Command::new("gcc").arg("-print-file-name=crtbeginS.o").output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
    Path::new(&text).parent().map(PathBuf::from).unwrap_or_default()
}

fn rustc(fixture: &Fixture, config: &Config) -> Result<Command, Trouble> {
    let mut command = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    command.args(["--edition=2024", "-O", "-Cstrip=none", "--crate-name=main", "-Dwarnings"]);
    if config.libc == Libc::Musl {
        let target = "x86_64-unknown-linux-musl";
        let folder = Command::new("rustc").args(["--print=target-libdir", "--target", target]).output()?;
        if !Path::new(String::from_utf8_lossy(&folder.stdout).trim()).exists() {
            return Err(Trouble::Missing(format!(
                "the Rust target {target} is not installed: rustup target add {target}"
            )));
        }
        command.args(["--target", target]);
    }
    command.args(match config.linkage {
        Linkage::Static => ["-Crelocation-model=static", "-Ctarget-feature=+crt-static"],
        Linkage::StaticPie => ["-Crelocation-model=pie", "-Ctarget-feature=+crt-static"],
        Linkage::Pie => ["-Crelocation-model=pie", "-Ctarget-feature=-crt-static"],
        Linkage::NoPie => ["-Crelocation-model=static", "-Ctarget-feature=-crt-static"],
    });
    command.args(&fixture.flags).args(&config.flags);
    Ok(command)
}

fn go(fixture: &Fixture, config: &Config) -> Result<Command, Trouble> {
    let has_go = Command::new("go").arg("version").output().is_ok_and(|output| output.status.success());
    if !has_go {
        return Err(Trouble::Missing("there is no go".into()));
    }
    let mut command = Command::new("go");
    // Without the network: the program is one folder, and all that it imports comes with the compiler.
    command.envs([("GOPROXY", "off"), ("GOFLAGS", ""), ("GO111MODULE", "off"), ("GOTOOLCHAIN", "local")]);
    command.env("CGO_ENABLED", if config.is_static() { "0" } else { "1" });
    command.env("GOCACHE", scratch().join("go-cache")).env("GOPATH", scratch().join("go-path"));
    command.current_dir(&fixture.folder).args(["build", "-trimpath"]);
    command.arg(match config.linkage {
        Linkage::Static | Linkage::NoPie => "-buildmode=exe",
        Linkage::Pie | Linkage::StaticPie => "-buildmode=pie",
    });
    let flags = fixture.flags.iter().chain(&config.flags);
    // Flags of the C compiler are for the link, which it then does.
    let (of_link, others): (Vec<_>, Vec<_>) = flags.partition(|flag| flag.starts_with("-Wl,"));
    if !of_link.is_empty() {
        let words: Vec<&str> = of_link.into_iter().map(String::as_str).collect();
        command.arg(format!("-ldflags=-linkmode=external '-extldflags={}'", words.join(" ")));
    }
    command.args(others);
    Ok(command)
}

fn succeed(command: &mut Command) -> Result<(), Trouble> {
    let shown = format!("{command:?}");
    let ending = process::wait(command)?;
    if ending.status.success() { Ok(()) } else { wrong(format!("{shown}: {ending}")) }
}
