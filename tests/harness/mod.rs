//! From the folders of `fixtures/` to named tests: `fixture/configuration`.

pub(crate) mod compile;
pub(crate) mod config;
pub(crate) mod expect;
pub(crate) mod fixture;
pub(crate) mod process;
pub(crate) mod rules;
pub(crate) mod section_headers;
pub(crate) mod supervisor;

use std::path::PathBuf;
use std::sync::Arc;

use libtest_mimic::{Completion, Failed, Trial};

use fixture::Fixture;

/// Why a test has no result.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// The machine lacks something: named, ignored, or a failure with `CHESTNUT_REQUIRE_ALL=1`.
    Missing(String),
    /// It does not do what the fixture expects.
    Wrong(String),
}

impl From<std::io::Error> for Trouble {
    fn from(error: std::io::Error) -> Self {
        Self::Wrong(error.to_string())
    }
}

/// Shorthand for a failed expectation.
pub(crate) fn wrong<T>(text: impl Into<String>) -> Result<T, Trouble> {
    Err(Trouble::Wrong(text.into()))
}

/// All tests: each fixture in each of its configurations, and one for each rule.
pub(crate) fn trials() -> Vec<Trial> {
    let fixtures: Vec<Arc<Fixture>> = fixture::all().into_iter().map(Arc::new).collect();
    let mut trials = rules::trials(&fixtures);
    trials.push(rules::readme_names_every_flag());
    for fixture in &fixtures {
        for config in config::of(fixture) {
            let fixture = Arc::clone(fixture);
            let name = format!("{}/{}", fixture.name, config.name());
            trials.push(Trial::ignorable_test(name, move || match &fixture.gap {
                Some(reason) => Ok(Completion::ignored_with(format!("known gap: {reason}"))),
                None => outcome(expect::check(&fixture, &config)),
            }));
        }
    }
    trials
}

fn outcome(result: Result<(), Trouble>) -> Result<Completion, Failed> {
    match result {
        Ok(()) => Ok(Completion::Completed),
        Err(Trouble::Wrong(text)) => Err(Failed::from(text)),
        Err(Trouble::Missing(text)) if std::env::var_os("CHESTNUT_REQUIRE_ALL").is_some_and(|value| value == "1") => {
            Err(Failed::from(format!("not run, and all tests are required: {text}")))
        }
        Err(Trouble::Missing(text)) => Ok(Completion::ignored_with(text)),
    }
}

/// The root of the repository.
pub(crate) fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().map(PathBuf::from).unwrap_or_default()
}

/// Where everything that is built goes.
pub(crate) fn scratch() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("end_to_end")
}

/// The program under test.
pub(crate) fn chestnut_patch() -> PathBuf {
    std::env::var_os("CHESTNUT_PATCH")
        .map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_chestnut-patch")), PathBuf::from)
}
