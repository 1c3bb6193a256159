//! Names that others gave, as a person can read them.
//!
//! Input: text in which symbols, libraries and paths have the names that the maker of a file wanted. Output: the same, in
//! which characters that a terminal obeys, that are not seen, or that change the order of others (Unicode,
//! "bidirectional formatting characters") stand by their numbers: nothing of it can erase, forge or reorder what else is
//! said.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Whether a character is not seen as what it is.
#[must_use]
pub fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{61c}' | '\u{feff}')
}

/// A name, or all else that is one line.
#[must_use]
pub fn line(text: &str) -> Cow<'_, str> {
    if !text.contains(is_hidden) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    text.chars().for_each(|character| push(&mut shown, character));
    Cow::Owned(shown)
}

/// Lines, with colours of our own (ECMA-48, "SGR").
#[must_use]
pub fn page(text: &str) -> Cow<'_, str> {
    if !text.contains(|character| is_hidden(character) && character != '\n') {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        let length = colour(rest).unwrap_or_else(|| character.len_utf8());
        let (next, behind) = rest.split_at_checked(length).unwrap_or((rest, ""));
        if length > 1 && character == '\u{1b}' || matches!(character, '\n' | '\t') {
            shown.push_str(next);
        } else {
            push(&mut shown, character);
        }
        rest = behind;
    }
    Cow::Owned(shown)
}

/// How many bytes the sequence has that text begins with, if it is one of colour.
fn colour(text: &str) -> Option<usize> {
    let parameters = text.strip_prefix("\u{1b}[")?;
    let end = parameters.find(|character: char| !character.is_ascii_digit() && character != ';')?;
    parameters.get(end..)?.starts_with('m').then(|| end.saturating_add("\u{1b}[m".len()))
}

fn push(shown: &mut String, character: char) {
    if is_hidden(character) {
        // Writing to a string cannot fail.
        let _ = write!(shown, "\\u{{{:x}}}", u32::from(character));
    } else {
        shown.push(character);
    }
}

#[cfg(test)]
mod tests {
    use super::{line, page};

    #[test]
    fn what_a_terminal_obeys_is_shown() {
        for plain in ["", "read+0x10", "größe 大 🌰", r"C:\u{7}"] {
            assert_eq!((&*line(plain), &*page(plain)), (plain, plain));
        }
        assert_eq!(line("a\u{1b}[2Jb\nc\u{202e}d\u{7f}\u{9b}"), r"a\u{1b}[2Jb\u{a}c\u{202e}d\u{7f}\u{9b}");
        assert_eq!(page("a\u{1b}[2Jb\nc\u{202e}d\r\0"), "a\\u{1b}[2Jb\nc\\u{202e}d\\u{d}\\u{0}");
    }

    #[test]
    fn colours_and_lines_stay_on_a_page() {
        let text = "\u{1b}[1mread\u{1b}[0m\n\t\u{1b}[33;1mexecve\u{1b}[m\n";
        assert_eq!(page(text), text);
        assert_eq!(page("\u{1b}[1\u{1b}[1m\u{7}\u{1b}"), "\\u{1b}[1\u{1b}[1m\\u{7}\\u{1b}");
    }
}
