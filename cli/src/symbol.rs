//! Names of functions as a person wrote them.
//!
//! Input: a symbol as the linker has it, perhaps with a distance behind: `_ZN3foo3barEv+0x10`. Output: the same as text:
//! `foo::bar+0x10`. Parameters, types of results and Rust's hashes are left out: the address beside the name tells apart what
//! they would. Itanium C++ ABI 5.1; Rust RFC 2603. Whatever is not such a name stays as it is, and so does one that a hostile
//! file made to become too long.

use std::fmt::{self, Write};

use cpp_demangle::{DemangleOptions, Symbol};

/// Longer texts help nobody.
const LONGEST: usize = 400;

/// A text that takes no more than fits.
struct Bounded(String);

impl Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.0.len().saturating_add(text.len()) > LONGEST {
            return Err(fmt::Error);
        }
        self.0.push_str(text);
        Ok(())
    }
}

/// The name as it is read best.
pub(crate) fn readable(symbol: &str) -> String {
    let (name, distance) = match symbol.rfind("+0x") {
        Some(at) => symbol.split_at(at),
        None => (symbol, ""),
    };
    match demangled(name) {
        Some(text) => format!("{text}{distance}"),
        None => symbol.to_owned(),
    }
}

fn demangled(name: &str) -> Option<String> {
    if !name.starts_with("_Z") && !name.starts_with("_R") {
        return None;
    }
    let mut text = Bounded(String::new());
    // Rust's older names are names of C++ with a hash at the end.
    if let Ok(symbol) = rustc_demangle::try_demangle(name) {
        write!(text, "{symbol:#}").ok()?;
        return Some(text.0);
    }
    let options = DemangleOptions::new().no_params().no_return_type();
    Symbol::new(name).ok()?.structured_demangle(&mut text, &options).ok()?;
    Some(text.0)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Of binutils, which knows all of them.
    fn by_cxxfilt(name: &str) -> String {
        let output = Command::new("c++filt").args(["--no-params", name]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    #[test]
    fn binutils_reads_the_same() {
        for name in [
            "_ZN12pkgCacheFile11BuildCachesEP10OpProgressb",
            "_Z9DoInstallR11CommandLine",
            "_ZNSt6vectorIiSaIiEE9push_backERKi",
            "_ZN3foo3barEv.cold",
            "main",
            "_Zthis_is_none",
        ] {
            assert_eq!(readable(name), by_cxxfilt(name), "{name}");
        }
    }

    #[test]
    fn distances_stay_and_hashes_go() {
        assert_eq!(readable("_ZN3foo3barEv+0x10"), "foo::bar+0x10");
        assert_eq!(readable("read+0x10"), "read+0x10");
        assert_eq!(readable("_ZN3std2io5stdio6_print17h0123456789abcdefE"), "std::io::stdio::_print");
        assert_eq!(readable("_RNvCs1234_7mycrate3foo+0x2"), "mycrate::foo+0x2");
    }

    /// Substitutions that double: gigabytes of text from a name of some hundred letters.
    #[test]
    fn what_grows_without_end_stays_as_it_is() {
        let mut name = String::from("_Z1fISt4pairIiiE");
        for digit in b"0123456789ABCDEFGHIJKLMNOPQRSTUVWX" {
            let digit = char::from(*digit);
            name.push_str(&format!("S_IS{digit}_S{digit}_E"));
        }
        name.push_str("EvT_");
        assert!(Symbol::new(&name).is_ok(), "it can be read");
        assert_eq!(readable(&name), name);
    }
}
