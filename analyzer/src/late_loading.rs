//! Libraries and symbols that come by name while the program runs: `dlopen`, `dlsym`, NSS, gconv (DESIGN section 3,
//! rule 6).
//!
//! Input: what is reached so far. Output: [`Request`]s for more libraries, and names that may be looked up. A name is
//! known if some reached code or data points to its text. Names that the C library composes are modelled: the modules
//! of `nsswitch.conf` (nsswitch.conf(5), glibc `nss/nss_module.c`), the character set converters of `gconv` (glibc
//! `iconv/gconv_dl.c`).
//!
//! Over-approximates: any text that names a library counts, wherever it is used. May miss: names that the program reads
//! from its configuration or composes itself; each place where a name is not known is an assumption of the policy.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::reachability::Reachable;

/// Which exports of a library that is loaded by name may be looked up.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Exports {
    /// Those whose name stands in a text that is reached.
    Named,
    /// Those that begin so: the C library composes the rest.
    Prefixed(&'static str),
    /// All.
    All,
    /// All, if it is there: the name was put together from texts of the program and its configuration.
    PlugIn,
    /// The name is that of a folder of character set converters.
    Converters,
}

/// A library to load.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Request {
    /// As given to `dlopen`.
    pub name: String,
    /// What may be looked up in it.
    pub exports: Exports,
}

/// Libraries that reached texts name.
#[must_use]
pub fn named_libraries(reached: &Reachable<'_>) -> BTreeSet<String> {
    // Few texts have these three bytes.
    let likely = reached.strings().filter(|(text, _)| text.windows(3).any(|bytes| bytes == b".so"));
    let texts = likely.filter_map(|(text, _)| std::str::from_utf8(text).ok());
    texts.filter(|text| is_library_name(text)).map(str::to_owned).collect()
}

/// Whether a text can only be meant as a library's file name.
fn is_library_name(text: &str) -> bool {
    let file = text.rsplit('/').next().unwrap_or(text);
    let ends = file.ends_with(".so") || file.contains(".so.");
    ends && file.len() > 4 && !file.starts_with('.') && !text.contains(['%', '$', '*', ':', '=', '<', '"'])
}

/// Whether the C library may load modules for name services.
#[must_use]
pub fn loads_name_services(reached: &Reachable<'_>) -> bool {
    reached.strings().any(|(text, _)| text.starts_with(b"libnss_%s.so"))
}

/// The list of converters, in their folder.
const CONVERTERS: &[u8] = b"gconv-modules.cache";

/// The folder from which the C library may load character set converters.
#[must_use]
pub fn converter_folder(reached: &Reachable<'_>) -> Option<PathBuf> {
    let mut likely =
        reached.strings().filter(|(text, _)| text.windows(CONVERTERS.len()).any(|part| part == CONVERTERS));
    likely.find_map(|(text, _)| {
        let path = Path::new(std::str::from_utf8(text).ok()?);
        (path.is_absolute() && path.ends_with("gconv/gconv-modules.cache"))
            .then(|| path.parent().map(Path::to_owned))?
    })
}

/// The services that `nsswitch.conf` names, in no order; those of glibc's own default if there is no such file.
#[must_use]
pub fn configured_services(configuration: Option<&str>) -> BTreeSet<String> {
    let Some(text) = configuration else { return ["files", "dns"].map(str::to_owned).into() };
    let lines = text.lines().filter_map(|line| line.split('#').next()?.split_once(':'));
    let mut services = BTreeSet::new();
    for (_, list) in lines {
        let mut inside_action = false;
        for word in list.replace('[', " [ ").replace(']', " ] ").split_whitespace() {
            match word {
                "[" => inside_action = true,
                "]" => inside_action = false,
                service if !inside_action => {
                    services.insert(service.to_owned());
                }
                _ => {}
            }
        }
    }
    services
}

/// The module of a name service.
#[must_use]
pub fn name_service_module(service: &str) -> Request {
    Request { name: format!("libnss_{service}.so.2"), exports: Exports::Prefixed("_nss_") }
}
