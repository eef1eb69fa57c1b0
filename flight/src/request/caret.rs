//! Errors that point into the text of a request.

use crate::status::Failure;

/// The longest part of a line that is shown.
const SHOWN_CHARS: usize = 120;

/// Line and column, from 1, of a name in quotes, else of the word itself; the first place where it is not found.
pub fn place_of(text: &str, word: &str) -> (usize, usize) {
    let quoted = serde_json::to_string(word).unwrap_or_default();
    let at = text.find(&quoted).map(|at| at + 1).or_else(|| text.find(word)).unwrap_or(0);
    let before = text.get(..at).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    (line, before.rsplit('\n').next().unwrap_or_default().chars().count() + 1)
}

/// An error with the line it is in and a caret under it.
pub fn pointed(message: &str, source: &str, text: &str, place: (usize, usize), width: usize, help: Option<&str>) -> Failure {
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
