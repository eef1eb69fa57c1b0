//! What is wrong with a piece of SQL, where, and what to do instead; and the one way it is printed.
//!
//! A message is lower case without a full stop; notes and help are sentences. Nothing here knows what can go wrong: that is said
//! where it is found, with a [`Code`] of the table.

use std::fmt::Write as _;

use crate::codes::Code;
use crate::span::{Position, Source, Span};

/// One thing that is wrong with a piece of SQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// The kind of error.
    pub code: Code,
    /// What is wrong, in lower case, the user's names in quotes.
    pub message: String,
    /// The text that is wrong; [`Span::NONE`] where no text is to blame.
    pub span: Span,
    /// Facts that explain it, each with the text that it speaks of.
    pub notes: Vec<(Option<Span>, String)>,
    /// What to do instead.
    pub help: Option<String>,
}

impl Diagnostic {
    /// An error at a place.
    pub fn error(code: Code, span: impl Into<Span>, message: impl Into<String>) -> Diagnostic {
        Diagnostic { code, message: message.into(), span: span.into(), notes: Vec::new(), help: None }
    }

    /// Adds a fact with the place that it speaks of.
    #[must_use]
    pub fn note(mut self, span: impl Into<Span>, text: impl Into<String>) -> Diagnostic {
        self.notes.push((Some(span.into()).filter(|span| !span.is_none()), text.into()));
        self
    }

    /// Adds a fact that has no place in the text.
    #[must_use]
    pub fn remark(mut self, text: impl Into<String>) -> Diagnostic {
        self.notes.push((None, text.into()));
        self
    }

    /// Says what to do instead.
    #[must_use]
    pub fn help(mut self, text: impl Into<String>) -> Diagnostic {
        self.help = Some(text.into());
        self
    }

    /// Says which known name is nearest to the one that is not known, if one is near.
    #[must_use]
    pub fn help_nearest<'a>(self, name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Diagnostic {
        match nearest(name, candidates) {
            Some(known) => self.help(format!("The nearest known name is \"{known}\".")),
            None => self,
        }
    }

    /// The diagnostic as a user reads it, with the line of the text and a caret under what is wrong. Ends with a line feed.
    ///
    /// - A tab is printed as four spaces; of a long line only the part around the place is printed.
    /// - A place of several lines underlines the first of them.
    pub fn render(&self, source_name: &str, text: &str) -> String {
        render_one(self, source_name, &Source::new(text))
    }
}

/// Several diagnostics of one text, an empty line between them.
pub fn render_all(diagnostics: &[Diagnostic], source_name: &str, text: &str) -> String {
    let source = Source::new(text);
    let rendered: Vec<String> = diagnostics.iter().map(|d| render_one(d, source_name, &source)).collect();
    rendered.join("\n")
}

/// The candidate nearest to `name` by edit distance (insert, delete, replace, swap of neighbours), if it is near enough to be meant.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wanted: Vec<char> = name.chars().flat_map(char::to_lowercase).take(NAME_CHARS_MAX).collect();
    let limit = if wanted.len() < 2 { 0 } else { (wanted.len() / 3).max(1) };
    let distances = candidates.into_iter().map(|candidate| {
        let chars: Vec<char> = candidate.chars().flat_map(char::to_lowercase).take(NAME_CHARS_MAX).collect();
        (edit_distance(&wanted, &chars), candidate)
    });
    // The least distance, then the least name, so that the answer does not depend on the order of the catalog.
    distances.filter(|(distance, _)| *distance <= limit).min().map(|(_, candidate)| candidate)
}

/// Names longer than this are compared by their beginning.
const NAME_CHARS_MAX: usize = 64;
/// How much of a long line is printed around the place.
const LINE_CHARS_MAX: usize = 160;
const TAB: &str = "    ";

fn render_one(diagnostic: &Diagnostic, source_name: &str, source: &Source<'_>) -> String {
    let mut out = format!("error[{}]: {}\n", diagnostic.code, clean(&diagnostic.message));
    let Position { line, column } = diagnostic.span.start;
    if let Some(text) = source.line(line) {
        let gutter = line.to_string().len();
        let last = if diagnostic.span.end.line == line { diagnostic.span.end.column } else { u32::MAX };
        let (shown, before, under) = excerpt(text, column, last);
        let pad = " ".repeat(gutter);
        let _ = writeln!(out, "{pad}--> {source_name}:{line}:{column}");
        let _ = writeln!(out, "{pad} |");
        let _ = writeln!(out, "{}", format!("{line} | {shown}").trim_end());
        let _ = writeln!(out, "{pad} | {}{}", " ".repeat(before), "^".repeat(under));
    }
    for (span, note) in &diagnostic.notes {
        let place = span.map(|span| format!(" ({source_name}:{}:{})", span.start.line, span.start.column));
        let _ = writeln!(out, "note: {}{}", clean(note), place.unwrap_or_default());
    }
    if let Some(help) = &diagnostic.help {
        let _ = writeln!(out, "help: {}", clean(help));
    }
    out
}

/// The part of a line to print, how many cells stand before the carets, and how many carets.
fn excerpt(line: &str, first_column: u32, last_column: u32) -> (String, usize, usize) {
    let chars: Vec<char> = line.chars().collect();
    let first = (first_column.saturating_sub(1) as usize).min(chars.len());
    let last = (last_column.saturating_sub(1) as usize).clamp(first, chars.len());
    let (from, to) = if chars.len() <= LINE_CHARS_MAX {
        (0, chars.len())
    } else {
        let from = first.saturating_sub(LINE_CHARS_MAX / 3);
        (from, (from + LINE_CHARS_MAX).min(chars.len()))
    };
    let part = |from: usize, to: usize| chars.get(from..to.max(from)).unwrap_or(&[]);
    let head = if from > 0 { "..." } else { "" };
    let tail = if to < chars.len() { "..." } else { "" };
    let shown = format!("{head}{}{tail}", printable(part(from, to)));
    let before = head.len() + cells(part(from, first));
    (shown, before, cells(part(first, last.min(to))).max(1))
}

/// The characters as a terminal may show them: tabs as spaces, other control characters as a mark.
fn printable(chars: &[char]) -> String {
    chars.iter().fold(String::new(), |mut out, c| {
        match c {
            '\t' => out.push_str(TAB),
            c if c.is_control() || is_bidi_control(*c) => out.push('\u{fffd}'),
            c => out.push(*c),
        }
        out
    })
}

/// Messages quote the user's text: none of it may move the cursor.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || is_bidi_control(c) { '\u{fffd}' } else { c }).collect()
}

fn is_bidi_control(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn cells(chars: &[char]) -> usize {
    chars.iter().map(|c| if *c == '\t' { TAB.len() } else { cell_width(*c) }).sum()
}

/// How many terminal cells a character takes: none for combining marks, two for wide scripts and emoji, else one.
fn cell_width(c: char) -> usize {
    match u32::from(c) {
        0x0300..=0x036f
        | 0x0483..=0x0489
        | 0x0591..=0x05bd
        | 0x064b..=0x065f
        | 0x200b..=0x200d
        | 0x20d0..=0x20f0
        | 0xfe00..=0xfe0f
        | 0xfe20..=0xfe2f => 0,
        0x1100..=0x115f
        | 0x2e80..=0x303e
        | 0x3041..=0x33ff
        | 0x3400..=0x4dbf
        | 0x4e00..=0x9fff
        | 0xa000..=0xa4cf
        | 0xac00..=0xd7a3
        | 0xf900..=0xfaff
        | 0xfe30..=0xfe6f
        | 0xff00..=0xff60
        | 0xffe0..=0xffe6
        | 0x1f300..=0x1f64f
        | 0x1f680..=0x1f6ff
        | 0x1f900..=0x1f9ff
        | 0x20000..=0x3fffd => 2,
        _ => 1,
    }
}

/// Optimal string alignment: Levenshtein's distance with swaps of neighbours. Cost: the product of the lengths.
fn edit_distance(a: &[char], b: &[char]) -> usize {
    let mut two_back: Vec<usize> = Vec::new();
    let mut back: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let cost = usize::from(x != y);
            let mut best = (back[j] + cost).min(back[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                best = best.min(two_back[j - 1] + 1);
            }
            row.push(best);
        }
        two_back = std::mem::replace(&mut back, row);
    }
    back.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codes::E0304;

    fn at(line: u32, from: u32, to: u32) -> Span {
        Span::new(Position::new(line, from), Position::new(line, to))
    }

    #[test]
    fn the_rendering_is_the_documented_one() {
        let mut text = "CREATE STREAM payments (\n".to_owned();
        text.push_str(&"\n".repeat(10));
        text.push_str("  sum(amount) OVER last_7d AS spend_7d\n");
        let diagnostic = Diagnostic::error(E0304, at(12, 15, 27), "window has no event time to order by")
            .note(at(1, 15, 23), "Stream \"payments\" declares no WATERMARK.")
            .help("Add WATERMARK FOR <column> to the stream, or ORDER BY a timestamp.");
        assert_eq!(
            diagnostic.render("features.sql", &text),
            "error[E0304]: window has no event time to order by
  --> features.sql:12:15
   |
12 |   sum(amount) OVER last_7d AS spend_7d
   |               ^^^^^^^^^^^^
note: Stream \"payments\" declares no WATERMARK. (features.sql:1:15)
help: Add WATERMARK FOR <column> to the stream, or ORDER BY a timestamp.
"
        );
    }

    #[test]
    fn carets_stand_under_tabs_wide_characters_and_line_ends() {
        let check = |text: &str, span: Span, shown: &str| {
            let rendered = Diagnostic::error(E0304, span, "m").render("f", text);
            let lines: Vec<&str> = rendered.lines().skip(3).collect();
            assert_eq!(lines.join("\n"), shown, "{text:?}");
        };
        check("\ta b", at(1, 4, 5), "1 |     a b\n  |       ^");
        check("'é' x\r\ny", at(1, 5, 6), "1 | 'é' x\n  |     ^");
        check("'日本' x", at(1, 6, 7), "1 | '日本' x\n  |        ^");
        check("abc", at(1, 4, 4), "1 | abc\n  |    ^");
        check("abc\ndef", Span::new(Position::new(1, 2), Position::new(2, 2)), "1 | abc\n  |  ^^");
        check("a\x1b[2Jb", at(1, 1, 2), "1 | a\u{fffd}[2Jb\n  | ^");
        check("abc", at(1, 90, 95), "1 | abc\n  |    ^");
    }

    #[test]
    fn a_long_line_is_cut_around_the_place() {
        let text = format!("{}bad{}", "x".repeat(5000), "y".repeat(5000));
        let rendered = Diagnostic::error(E0304, at(1, 5001, 5004), "m").render("f", &text);
        let lines: Vec<&str> = rendered.lines().collect();
        assert!(lines[3].len() < 200);
        let caret = lines[4].find('^').expect("a caret is drawn");
        assert_eq!(lines[3].get(caret..caret + 3), Some("bad"));
        assert_eq!(lines[4].matches('^').count(), 3);
    }

    #[test]
    fn without_a_place_no_text_is_shown() {
        let diagnostic = Diagnostic::error(E0304, Span::NONE, "m").remark("A fact.");
        assert_eq!(diagnostic.render("f", "text"), "error[E0304]: m\nnote: A fact.\n");
    }

    #[test]
    fn the_nearest_name_is_offered_only_when_near() {
        let names = ["transactions", "merchant_id", "user_id", "amount"];
        assert_eq!(nearest("transaction", names), Some("transactions"));
        assert_eq!(nearest("usre_id", names), Some("user_id"));
        assert_eq!(nearest("AMOUNT", names), Some("amount"));
        assert_eq!(nearest("weather", names), None);
        assert_eq!(nearest("x", []), None);
        assert_eq!(nearest("ab", ["ba", "aa"]), Some("aa"));
        assert_eq!(edit_distance(&['a', 'b', 'c'], &[]), 3);
    }
}
