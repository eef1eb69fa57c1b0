//! Errors that point into the text of a request.

use crate::status::Failure;

/// The longest part of a line that is shown.
const SHOWN_CHARS: usize = 120;

/// Line and column, from 1, of a place in a text.
pub(super) fn place(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or_default();
    (before.matches('\n').count() + 1, before.rsplit('\n').next().unwrap_or_default().chars().count() + 1)
}

/// A text in JSON with nothing but ASCII, as many writers make it.
fn ascii(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        match c.is_ascii() {
            true => out.push(c),
            false => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| out.push_str(&format!("\\u{unit:04x}"))),
        }
    }
    out
}

/// An error with a caret under a word: in quotes as JSON writes it, else bare; under the first place where it is not found.
pub fn pointed_at(message: &str, source: &str, text: &str, word: &str, help: Option<&str>) -> Failure {
    let quoted = serde_json::to_string(word).unwrap_or_default();
    let found = [&quoted, &ascii(&quoted)].into_iter().find_map(|q| Some((text.find(q.as_str())? + 1, q.chars().count() - 2)));
    let (at, width) = found.or_else(|| Some((text.find(word)?, word.chars().count()))).unwrap_or((0, 1));
    pointed(message, source, text, place(text, at), width, help)
}

/// An error with the line it is in and a caret under it.
pub(super) fn pointed(message: &str, source: &str, text: &str, place: (usize, usize), width: usize, help: Option<&str>) -> Failure {
    let (line, column) = (place.0.max(1), place.1.max(1));
    let whole: Vec<char> = text.lines().nth(line - 1).unwrap_or_default().chars().map(|c| if c == '\t' { ' ' } else { c }).collect();
    // Of a long line, what stands around the place.
    let from = if whole.len() > SHOWN_CHARS { (column - 1).saturating_sub(SHOWN_CHARS / 2).min(whole.len()) } else { 0 };
    let shown: String = whole.iter().skip(from).take(SHOWN_CHARS).collect();
    let (number, indent) = (line.to_string(), column - 1 - from.min(column - 1));
    let gutter = " ".repeat(number.len());
    let width = width.clamp(1, SHOWN_CHARS.saturating_sub(indent).max(1));
    let prefix = if message.starts_with("error") { "" } else { "error: " };
    let mut out = format!(
        "{prefix}{message}\n{gutter}--> <{source}>:{line}:{column}\n{gutter} |\n{number} | {shown}\n{gutter} | {}{}",
        " ".repeat(indent),
        "^".repeat(width)
    );
    if let Some(help) = help {
        out.push_str(&format!("\nhelp: {help}"));
    }
    Failure::invalid(out)
}
