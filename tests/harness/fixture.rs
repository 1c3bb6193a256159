//! One folder of `fixtures/`: its source and the directives in it.

use std::path::PathBuf;

use super::repository;

/// What the main source is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Language {
    C,
    Cxx,
    Assembly,
    Rust,
    Go,
}

/// How many configurations a fixture is built in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Matrix {
    /// The whole product.
    Full,
    /// Each value of each dimension at least once.
    Thin,
    /// The first configuration only; the fixture is about something else.
    One,
}

/// A call that the patched program must die of.
#[derive(Debug)]
pub(crate) struct Killed {
    /// Name or number, as the tracer reports it.
    pub(crate) call: String,
    pub(crate) arguments: Vec<String>,
}

/// A shared library that belongs to a fixture.
#[derive(Clone, Debug)]
pub(crate) struct SharedLibrary {
    pub(crate) source: String,
    pub(crate) flags: Vec<String>,
}

/// A fixture with its expectations. The header of `end_to_end.rs` says what the directives mean.
#[derive(Debug)]
pub(crate) struct Fixture {
    pub(crate) name: String,
    pub(crate) folder: PathBuf,
    pub(crate) source: PathBuf,
    pub(crate) language: Language,
    pub(crate) rules: Vec<(u32, String)>,
    pub(crate) matrix: Matrix,
    pub(crate) not: Vec<String>,
    /// Why the whole fixture is known not to hold yet.
    pub(crate) gap: Option<String>,
    pub(crate) variants: Vec<Vec<String>>,
    pub(crate) flags: Vec<String>,
    pub(crate) with: Vec<String>,
    pub(crate) libraries: Vec<SharedLibrary>,
    pub(crate) plugins: Vec<SharedLibrary>,
    pub(crate) patch: Vec<String>,
    pub(crate) runs: Vec<Vec<String>>,
    pub(crate) killed: Vec<Killed>,
    pub(crate) allow: Vec<String>,
    pub(crate) allow_glibc: Vec<String>,
    pub(crate) allow_musl: Vec<String>,
    pub(crate) block: Vec<String>,
    pub(crate) assume: Vec<String>,
    pub(crate) refuse: Option<String>,
    pub(crate) needs: Vec<String>,
}

/// All fixtures, by name. A folder without a main source, or with a directive that nobody knows, is a bug here.
pub(crate) fn all() -> Vec<Fixture> {
    let folder = repository().join("fixtures");
    let mut fixtures: Vec<Fixture> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.expect("the folder can be read").path())
        .filter(|path| path.is_dir() && path.file_name().is_some_and(|name| name != "include"))
        .map(load)
        .collect();
    fixtures.sort_by(|a, b| a.name.cmp(&b.name));
    fixtures
}

fn load(folder: PathBuf) -> Fixture {
    let kinds = [
        ("main.c", Language::C),
        ("main.cc", Language::Cxx),
        ("main.s", Language::Assembly),
        ("main.rs", Language::Rust),
        ("main.go", Language::Go),
    ];
    let (source, language) = kinds
        .iter()
        .map(|(file, language)| (folder.join(file), *language))
        .find(|(path, _)| path.exists())
        .unwrap_or_else(|| panic!("{}: no main source", folder.display()));
    let text = std::fs::read_to_string(&source).expect("the source can be read");
    let mut fixture = Fixture {
        name: folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
        folder,
        source,
        language,
        rules: Vec::new(),
        matrix: Matrix::Thin,
        not: Vec::new(),
        gap: None,
        variants: Vec::new(),
        flags: Vec::new(),
        with: Vec::new(),
        libraries: Vec::new(),
        plugins: Vec::new(),
        patch: Vec::new(),
        runs: Vec::new(),
        killed: Vec::new(),
        allow: Vec::new(),
        allow_glibc: Vec::new(),
        allow_musl: Vec::new(),
        block: Vec::new(),
        assume: Vec::new(),
        refuse: None,
        needs: Vec::new(),
    };
    for line in text.lines() {
        if let Some(directive) = line.trim_start_matches('#').strip_prefix("//# ") {
            let (key, value) = directive.split_once(':').unwrap_or((directive, ""));
            fixture.apply(key, value.trim());
        }
    }
    if fixture.runs.is_empty() && fixture.killed.is_empty() {
        fixture.runs.push(Vec::new());
    }
    fixture
}

impl Fixture {
    fn apply(&mut self, key: &str, value: &str) {
        let words = || value.split_whitespace().map(String::from).collect::<Vec<_>>();
        let library = || {
            let mut flags = words();
            SharedLibrary { source: flags.remove(0), flags }
        };
        match key {
            "Rule" => {
                let (number, text) = value.split_once(' ').unwrap_or((value, ""));
                self.rules.push((number.parse().expect("a rule is a number"), text.into()));
            }
            "Matrix" => {
                self.matrix = match value {
                    "full" => Matrix::Full,
                    "thin" => Matrix::Thin,
                    "one" => Matrix::One,
                    other => panic!("{}: no matrix {other:?}", self.name),
                }
            }
            "Not" => {
                let (listed, reason) = value.split_once('(').unwrap_or((value, ""));
                assert!(!reason.is_empty(), "{}: `Not` needs a reason in brackets", self.name);
                self.not.extend(listed.split_whitespace().map(String::from));
            }
            "Gap" => self.gap = Some(value.to_owned()),
            "Variant" => self.variants.push(words()),
            "Flags" => self.flags.extend(words()),
            "With" => self.with.extend(words()),
            "Library" => self.libraries.push(library()),
            "Plugin" => self.plugins.push(library()),
            "Patch" => self.patch.extend(words()),
            "Run" => self.runs.push(words()),
            "Killed" => {
                let (call, arguments) = value.split_once(':').unwrap_or((value, ""));
                let arguments = arguments.split_whitespace().map(String::from).collect();
                self.killed.push(Killed { call: call.trim().into(), arguments });
            }
            "Allow" => self.allow.extend(words()),
            "Allow-glibc" => self.allow_glibc.extend(words()),
            "Allow-musl" => self.allow_musl.extend(words()),
            "Block" => self.block.extend(words()),
            "Assume" => self.assume.extend(words()),
            "Refuse" => self.refuse = Some(value.into()),
            "Needs" => self.needs.extend(words()),
            other => panic!("{}: no directive {other:?}", self.name),
        }
    }
}
