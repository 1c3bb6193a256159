//! What each file contributes, as a picture.
//!
//! Input: a policy. Output: a table of bars that grow with the page, so that names and numbers are as large as any text on
//! a narrow screen: a bar for the calls that a file asks for, one for those that it makes, with the numbers as text.

use std::fmt::Write;

use chestnut_analyzer::policy::Policy;

use super::html::{element, escape};
use crate::contribution::{Contribution, contributions};

/// How much of its cell the longest bar takes, in percent; the number stands behind it.
const LONGEST: u32 = 80;

/// The picture, and what it shows.
pub(super) fn html(policy: &Policy) -> String {
    let files = contributions(policy);
    let most = files.iter().map(|file| file.asks.max(file.makes)).max().unwrap_or(1).max(1);
    let bar = |number: u32, class: &str| {
        let width = number.saturating_mul(LONGEST).checked_div(most).unwrap_or(0);
        format!("<td><span class=\"bar {class}\" style=\"width:{width}%\"></span> {number}</td>")
    };
    let mut html = String::from(
        "<p>Calls by the file that asks for them, and by the file that makes them: most leave that to libc. By the way that is \
         shown for each; another way may lead through other files.</p>\n\
         <table class=\"picture\"><thead><tr><th>File</th><th>asks for</th><th>makes</th></tr></thead><tbody>\n",
    );
    for Contribution { name, asks, makes } in &files {
        let name = element("th", "", &escape(name));
        // Writing to a string cannot fail.
        let _ = writeln!(html, "<tr>{name}{}{}</tr>", bar(*asks, "asks"), bar(*makes, "makes"));
    }
    html.push_str("</tbody></table>\n");
    html
}
