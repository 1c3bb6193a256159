//! What each file contributes, as a picture.
//!
//! Input: a policy. Output: an SVG inside the page: a bar for each file, as long as the number of calls whose place in the
//! policy lies in it, with the numbers as text. A call that several files make is counted where the policy shows it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use chestnut_analyzer::policy::{AllowedCall, Evidence, Policy};

use super::html::escape;

const WIDTH: u32 = 720;
const LINE: u32 = 22;
/// Where bars begin, and how much is left for the numbers behind them.
const LABELS: u32 = 250;
const NUMBERS: u32 = 60;
/// The longest name that fits before the bars.
const LONGEST: usize = 34;

/// The file in which the policy shows a call, or who wants it.
pub(super) fn origin(evidence: &Evidence) -> String {
    match evidence {
        Evidence::Site { site, .. } => name(&site.file),
        Evidence::Executed { program, .. } => format!("executed: {}", name(program)),
        Evidence::Always { .. } => "always allowed".to_owned(),
        Evidence::Requested { .. } => "requested".to_owned(),
        Evidence::Observed { .. } => "seen in a trace".to_owned(),
    }
}

fn name(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}

/// Numbers of calls by origin, the greatest first.
pub(super) fn contributions(policy: &Policy) -> Vec<(String, u32)> {
    let mut numbers: BTreeMap<String, u32> = BTreeMap::new();
    for AllowedCall { evidence, .. } in policy.allowed.values() {
        let number = numbers.entry(origin(evidence)).or_default();
        *number = number.saturating_add(1);
    }
    let mut numbers: Vec<_> = numbers.into_iter().collect();
    numbers.sort_by_key(|(name, number)| (std::cmp::Reverse(*number), name.clone()));
    numbers
}

/// The picture.
pub(super) fn svg(policy: &Policy) -> String {
    let bars = contributions(policy);
    let most = bars.iter().map(|(_, number)| *number).max().unwrap_or(1).max(1);
    let lines = u32::try_from(bars.len()).unwrap_or(u32::MAX);
    let height = lines.saturating_mul(LINE).saturating_add(4);
    let room = WIDTH.saturating_sub(LABELS).saturating_sub(NUMBERS);
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"Allowed calls by the file that makes them\">\n"
    );
    for ((name, number), line) in bars.iter().zip(0_u32..) {
        let top = line.saturating_mul(LINE).saturating_add(2);
        let text = top.saturating_add(15);
        let length = number.saturating_mul(room).checked_div(most).unwrap_or(0).max(2);
        let end = LABELS.saturating_add(length).saturating_add(6);
        let short: String = if name.chars().count() > LONGEST {
            name.chars().take(LONGEST.saturating_sub(1)).chain(['…']).collect()
        } else {
            name.clone()
        };
        // Writing to a string cannot fail.
        let _ = writeln!(
            svg,
            "<g><title>{title}: {number}</title><text x=\"{label}\" y=\"{text}\" text-anchor=\"end\">{short}</text>\
             <rect x=\"{LABELS}\" y=\"{top}\" width=\"{length}\" height=\"18\" rx=\"2\"/>\
             <text x=\"{end}\" y=\"{text}\">{number}</text></g>",
            title = escape(name),
            label = LABELS.saturating_sub(8),
            short = escape(&short),
        );
    }
    svg.push_str("</svg>\n");
    svg
}
