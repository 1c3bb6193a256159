//! Paths as text of JSON, whatever bytes they have.
//!
//! Input: a path, or what stands for it. Output: the other one. JSON has Unicode only, and a path any bytes but NUL: a byte
//! that is not UTF-8 is `\x` and two hexadecimal digits, and so is then each backslash (`\x5c`), also of a path that has
//! `\x` of its own. All other paths stand for themselves, so that nobody who reads JSON meets this but who has such names.
//! Way and back give the same path.

use std::borrow::Cow;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What begins a byte that is written in digits.
const MARK: &[u8] = b"\\x";

/// The text of a path.
#[must_use]
pub fn text(path: &Path) -> Cow<'_, str> {
    let bytes = path.as_os_str().as_bytes();
    match path.to_str() {
        Some(text) if !bytes.windows(MARK.len()).any(|window| window == MARK) => Cow::Borrowed(text),
        _ => Cow::Owned(digits(bytes)),
    }
}

/// The texts of paths.
pub fn texts<P: AsRef<Path>>(paths: impl IntoIterator<Item = P>) -> Vec<String> {
    paths.into_iter().map(|path| text(path.as_ref()).into_owned()).collect()
}

fn digits(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        text.push_str(&chunk.valid().replace('\\', "\\x5c"));
        for byte in chunk.invalid() {
            // Writing to a string cannot fail.
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// The path of a text.
#[must_use]
pub fn path(text: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, behind)) = rest.split_first() {
        let byte = rest.strip_prefix(MARK).and_then(|behind| behind.split_first_chunk::<2>());
        // `from_str_radix` takes a sign, too.
        let number = byte.filter(|(pair, _)| pair.iter().all(u8::is_ascii_hexdigit)).and_then(|(pair, behind)| {
            let number = u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok()?;
            Some((number, behind))
        });
        let (byte, behind) = number.unwrap_or((first, behind));
        bytes.push(byte);
        rest = behind;
    }
    PathBuf::from(OsString::from_vec(bytes))
}

/// For `#[serde(with)]`.
///
/// # Errors
///
/// Those of the serializer.
pub fn serialize<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    text(path).serialize(serializer)
}

/// For `#[serde(serialize_with)]` of many.
///
/// # Errors
///
/// Those of the serializer.
pub fn serialize_all<S: Serializer>(paths: &[PathBuf], serializer: S) -> Result<S::Ok, S::Error> {
    texts(paths).serialize(serializer)
}

/// For `#[serde(with)]`.
///
/// # Errors
///
/// It is no text.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
    Cow::<'de, str>::deserialize(deserializer).map(|text| path(&text))
}

#[cfg(test)]
mod tests {
    use super::{path, text};
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt as _;
    use std::path::PathBuf;

    fn of(bytes: &[u8]) -> PathBuf {
        PathBuf::from(OsString::from_vec(bytes.to_vec()))
    }

    #[test]
    fn usual_paths_stand_for_themselves() {
        for usual in ["", "/usr/bin/curl", "/Äpfel/🌰", r"a\b", r"C:\Users", "/a b\n\"c\""] {
            assert_eq!(text(&of(usual.as_bytes())), usual);
            assert_eq!(path(usual), of(usual.as_bytes()));
        }
    }

    #[test]
    fn there_and_back() {
        let odd: [(&[u8], &str); 6] = [
            (b"/bin/\xff", r"/bin/\xff"),
            (b"\xe4pfel\\\xfc", r"\xe4pfel\x5c\xfc"),
            (b"\xf0\x9f\x8c", r"\xf0\x9f\x8c"),
            (br"a\xff", r"a\x5cxff"),
            (br"a\x", r"a\x5cx"),
            (br"\\x\", r"\x5c\x5cx\x5c"),
        ];
        for (bytes, expected) in odd {
            assert_eq!(text(&of(bytes)), expected);
            assert_eq!(path(expected), of(bytes), "{expected}");
        }
        for byte in 1..=u8::MAX {
            for around in [&b"/\\x"[..], b"\xc3", b""] {
                let odd = of(&[around, &[byte], around, &[byte, byte]].concat());
                assert_eq!(path(&text(&odd)), odd);
            }
        }
    }

    #[test]
    fn what_is_no_byte_stays() {
        for odd in [r"\x", r"\xf", r"\xfg", r"\x+1", r"\xé1"] {
            assert_eq!(path(odd), of(odd.as_bytes()), "{odd}");
        }
    }
}
