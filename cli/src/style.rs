//! Colour, where a person looks: on a terminal, unless `NO_COLOR` is set (no-color.org) or `--color` says otherwise.
//!
//! Input: words. Output: the same, perhaps between escape sequences (ECMA-48, "SGR").

use std::io::IsTerminal;

use crate::arguments::Colour;

/// How words are shown.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Style {
    is_coloured: bool,
}

impl Style {
    /// The style for a stream, as the command line has it.
    pub(crate) fn of(stream: &impl IsTerminal, colour: Colour) -> Self {
        let is_refused = || std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let is_coloured = match colour {
            Colour::Auto => stream.is_terminal() && !is_refused(),
            Colour::Always => true,
            Colour::Never => false,
        };
        Self { is_coloured }
    }

    /// What the eye looks for: headings and names.
    pub(crate) fn bold(self, text: &str) -> String {
        self.wrap("1", text)
    }

    /// What needs attention.
    pub(crate) fn warning(self, text: &str) -> String {
        self.wrap("33", text)
    }

    /// What can be passed over.
    pub(crate) fn faint(self, text: &str) -> String {
        self.wrap("2", text)
    }

    fn wrap(self, code: &str, text: &str) -> String {
        if self.is_coloured { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::Style;

    #[test]
    fn escape_sequences_only_where_wanted() {
        assert_eq!(Style { is_coloured: false }.bold("read"), "read");
        assert_eq!(Style { is_coloured: true }.bold("read"), "\u{1b}[1mread\u{1b}[0m");
    }
}
