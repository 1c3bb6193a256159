//! The ways in which a fixture is built: compiler, C library, linkage, and what is done to the file afterwards.
//!
//! * full (fixtures of the core: a direct call, data tables, signals, threads, jump tables, raw calls): the product
//!   {gcc, clang} x {glibc} + {gcc} x {musl}, each x {static, static-PIE, PIE, non-PIE} x {plain, stripped, no section
//!   headers}: 36. musl-gcc is a gcc; Debian has no clang for musl.
//! * thin (all others): each value of each dimension at least once, six configurations.
//! * `Variant` lines of a fixture add single ones: optimisation levels, CET, linkers, relocation formats.

use super::fixture::{Fixture, Language, Matrix};

/// The compiler driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Compiler {
    Gcc,
    Clang,
    Rustc,
    Go,
}

/// The C library.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Libc {
    Glibc,
    Musl,
}

/// What kind of executable is linked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Linkage {
    Static,
    StaticPie,
    Pie,
    NoPie,
}

/// What is done to the linked file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Finish {
    Plain,
    Stripped,
    NoSections,
}

/// One way to build a fixture.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Config {
    pub(crate) compiler: Compiler,
    pub(crate) libc: Libc,
    pub(crate) linkage: Linkage,
    pub(crate) finish: Finish,
    /// Added behind all other flags.
    pub(crate) flags: Vec<String>,
}

const THIN_C: &[&str] = &[
    "gcc glibc pie plain",
    "clang glibc no-pie stripped",
    "gcc glibc static no-sections",
    "clang glibc static-pie stripped",
    "gcc musl pie no-sections",
    "gcc musl static plain",
];

const THIN_CXX: &[&str] = &[
    "gcc glibc pie plain",
    "clang glibc pie no-sections",
    "gcc glibc no-pie stripped",
    "gcc glibc static stripped",
    "clang glibc static-pie plain",
];

const THIN_RUST: &[&str] = &[
    "rustc glibc pie plain",
    "rustc glibc pie no-sections",
    "rustc glibc no-pie stripped",
    "rustc glibc static-pie stripped",
    "rustc musl static-pie plain",
    "rustc musl static no-sections",
];

/// Static files hold Go alone, the others C too (cgo). Linked by Go's linker, or by GNU ld for the PIE.
const THIN_GO: &[&str] = &[
    "go glibc static plain",
    "go glibc static no-sections",
    "go glibc no-pie stripped",
    "go glibc pie plain",
    "go glibc static-pie stripped",
];

/// All configurations of a fixture, in a stable order, none twice.
pub(crate) fn of(fixture: &Fixture) -> Vec<Config> {
    let thin = match fixture.language {
        Language::C | Language::Assembly => THIN_C,
        Language::Cxx => THIN_CXX,
        Language::Rust => THIN_RUST,
        Language::Go => THIN_GO,
    };
    let parse = |text: &&str| Config::parse(thin[0], text.split_whitespace());
    let mut configs: Vec<Config> = match fixture.matrix {
        Matrix::Full => full(),
        Matrix::Thin => thin.iter().map(parse).collect(),
        Matrix::One => thin.iter().take(1).map(parse).collect(),
    };
    configs.retain(|config| !config.words().iter().any(|word| fixture.not.iter().any(|not| not == word)));
    for variant in &fixture.variants {
        let config = Config::parse(thin[0], variant.iter().map(String::as_str));
        if !configs.contains(&config) {
            configs.push(config);
        }
    }
    assert!(!configs.is_empty(), "{}: no configuration is left", fixture.name);
    configs
}

fn full() -> Vec<Config> {
    let mut configs = Vec::new();
    for (compiler, libc) in [(Compiler::Gcc, Libc::Glibc), (Compiler::Clang, Libc::Glibc), (Compiler::Gcc, Libc::Musl)]
    {
        for linkage in [Linkage::Static, Linkage::StaticPie, Linkage::Pie, Linkage::NoPie] {
            for finish in [Finish::Plain, Finish::Stripped, Finish::NoSections] {
                configs.push(Config { compiler, libc, linkage, finish, flags: Vec::new() });
            }
        }
    }
    configs
}

impl Config {
    /// `base`, changed by `words`; a word that names no value of a dimension is a compiler flag.
    fn parse<'w>(base: &'w str, words: impl Iterator<Item = &'w str>) -> Self {
        let mut config = Self {
            compiler: Compiler::Gcc,
            libc: Libc::Glibc,
            linkage: Linkage::Pie,
            finish: Finish::Plain,
            flags: Vec::new(),
        };
        for word in base.split_whitespace().chain(words) {
            match word {
                "gcc" => config.compiler = Compiler::Gcc,
                "clang" => config.compiler = Compiler::Clang,
                "rustc" => config.compiler = Compiler::Rustc,
                "go" => config.compiler = Compiler::Go,
                "glibc" => config.libc = Libc::Glibc,
                "musl" => config.libc = Libc::Musl,
                "static" => config.linkage = Linkage::Static,
                "static-pie" => config.linkage = Linkage::StaticPie,
                "pie" => config.linkage = Linkage::Pie,
                "no-pie" => config.linkage = Linkage::NoPie,
                "plain" => config.finish = Finish::Plain,
                "stripped" => config.finish = Finish::Stripped,
                "no-sections" => config.finish = Finish::NoSections,
                flag => {
                    assert!(flag.starts_with('-'), "{flag:?} is neither a dimension's value nor a flag");
                    config.flags.push(flag.into());
                }
            }
        }
        config
    }

    fn words(&self) -> [&'static str; 4] {
        [
            match self.compiler {
                Compiler::Gcc => "gcc",
                Compiler::Clang => "clang",
                Compiler::Rustc => "rustc",
                Compiler::Go => "go",
            },
            match self.libc {
                Libc::Glibc => "glibc",
                Libc::Musl => "musl",
            },
            match self.linkage {
                Linkage::Static => "static",
                Linkage::StaticPie => "static-pie",
                Linkage::Pie => "pie",
                Linkage::NoPie => "no-pie",
            },
            match self.finish {
                Finish::Plain => "plain",
                Finish::Stripped => "stripped",
                Finish::NoSections => "no-sections",
            },
        ]
    }

    /// The configuration in a test's name: `gcc-glibc-pie-plain`, flags behind it.
    pub(crate) fn name(&self) -> String {
        let mut name = self.words().join("-");
        for flag in &self.flags {
            name.push('@');
            name.extend(flag.chars().map(|c| if c.is_ascii_alphanumeric() || "-=.+".contains(c) { c } else { '_' }));
        }
        name
    }

    /// The same without the finish: configurations that share one linked file.
    pub(crate) fn linked(&self) -> Self {
        Self { finish: Finish::Plain, ..self.clone() }
    }

    /// No loader at run time.
    pub(crate) fn is_static(&self) -> bool {
        matches!(self.linkage, Linkage::Static | Linkage::StaticPie)
    }
}
