//! Text as HTML, so that nothing that a file says becomes markup.
//!
//! Input: any text: names of symbols and paths are what the maker of a file wanted. Output: HTML of character data only,
//! fit for elements and quoted attributes. Characters that would not be seen, or that change the order of others
//! (Unicode, "bidirectional formatting characters"), are shown by their numbers.

use chestnut_analyzer::plain_text::is_hidden;

/// Escapes text.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\n' => escaped.push('\n'),
            _ if is_hidden(character) => escaped.push_str(&format!("\\u{{{:x}}}", u32::from(character))),
            _ => escaped.push(character),
        }
    }
    escaped
}

/// An element with a class, around HTML.
pub(super) fn element(name: &str, class: &str, html: &str) -> String {
    if class.is_empty() {
        format!("<{name}>{html}</{name}>")
    } else {
        format!("<{name} class=\"{class}\">{html}</{name}>")
    }
}

/// Something that opens, without JavaScript.
pub(super) fn details(summary: &str, html: &str, is_open: bool) -> String {
    let open = if is_open { " open" } else { "" };
    format!("<details{open}><summary>{summary}</summary>{html}</details>\n")
}

/// A table; `rows` are cells of HTML. Each cell has its column's name, for screens where a row does not fit in a line.
pub(super) fn table(heads: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let names: Vec<String> = heads.iter().map(|head| escape(head)).collect();
    let heads: String = names.iter().map(|name| element("th", "", name)).collect();
    let cell = |(cell, name): (&String, &String)| format!("<td data-head=\"{name}\">{cell}</td>");
    let row = |row: Vec<String>| format!("<tr>{}</tr>\n", row.iter().zip(&names).map(cell).collect::<String>());
    let rows: String = rows.into_iter().map(row).collect();
    format!("<table><thead><tr>{heads}</tr></thead><tbody>\n{rows}</tbody></table>\n")
}

#[cfg(test)]
mod tests {
    use super::escape;

    #[test]
    fn nothing_becomes_markup_and_nothing_is_hidden() {
        assert_eq!(escape("<script>'\"&"), "&lt;script&gt;&#39;&quot;&amp;");
        assert_eq!(escape("a\u{202e}b\u{1b}[1m\u{0}"), "a\\u{202e}b\\u{1b}[1m\\u{0}");
        assert_eq!(escape("größe 大"), "größe 大");
    }
}
