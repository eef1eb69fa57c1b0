//! Places in SQL text: what a diagnostic points at.
//!
//! A [`Span`] counts lines and characters as the tokenizer does (both from 1, a line ends at `\n`), so that the spans of our own
//! nodes and those of embedded SQL expressions are one thing. [`Source`] turns them into byte ranges of the text.

use std::ops::Range;

use datafusion::sql::sqlparser::tokenizer;

/// A place between two characters: line and column, both counted from 1; the column counts characters, not bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position {
    /// The line, from 1; 0 where the place is not known.
    pub line: u32,
    /// The column in characters, from 1; 0 where the place is not known.
    pub column: u32,
}

/// A stretch of SQL text, its end excluded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Span {
    /// The place before the first character.
    pub start: Position,
    /// The place after the last character.
    pub end: Position,
}

impl Position {
    /// A place by line and column, both from 1.
    pub const fn new(line: u32, column: u32) -> Position {
        Position { line, column }
    }
}

impl Span {
    /// No place at all: a diagnostic at it shows no text.
    pub const NONE: Span = Span { start: Position::new(0, 0), end: Position::new(0, 0) };

    /// The stretch from `start` to before `end`.
    pub const fn new(start: Position, end: Position) -> Span {
        Span { start, end }
    }

    /// Whether this is [`Span::NONE`].
    pub fn is_none(&self) -> bool {
        self.start.line == 0
    }

    /// The smallest span that holds both; [`Span::NONE`] adds nothing.
    pub fn to(self, other: Span) -> Span {
        match (self.is_none(), other.is_none()) {
            (true, _) => other,
            (_, true) => self,
            _ => Span { start: self.start.min(other.start), end: self.end.max(other.end) },
        }
    }

    /// The empty span right after this one, where something is missing.
    pub fn after(self) -> Span {
        Span { start: self.end, end: self.end }
    }
}

impl From<tokenizer::Location> for Position {
    fn from(location: tokenizer::Location) -> Position {
        let narrow = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        Position { line: narrow(location.line), column: narrow(location.column) }
    }
}

impl From<tokenizer::Span> for Span {
    fn from(span: tokenizer::Span) -> Span {
        Span { start: span.start.into(), end: span.end.into() }
    }
}

impl From<Span> for tokenizer::Span {
    fn from(span: Span) -> tokenizer::Span {
        let widen = |p: Position| tokenizer::Location::new(p.line.into(), p.column.into());
        tokenizer::Span::new(widen(span.start), widen(span.end))
    }
}

/// SQL text with the starts of its lines, to find the bytes of a [`Span`].
#[derive(Debug, Clone)]
pub struct Source<'a> {
    text: &'a str,
    lines: Vec<LineStart>,
    /// The byte of every [`MARK_CHARS`]th character: a line may be as long as the text.
    marks: Vec<usize>,
}

#[derive(Debug, Clone, Copy)]
struct LineStart {
    byte: usize,
    char: usize,
}

const MARK_CHARS: usize = 256;

impl<'a> Source<'a> {
    /// Indexes the lines of `text`. Cost: one pass.
    pub fn new(text: &'a str) -> Source<'a> {
        let mut lines = vec![LineStart { byte: 0, char: 0 }];
        let mut marks = Vec::new();
        for (char, (byte, c)) in text.char_indices().enumerate() {
            if char % MARK_CHARS == 0 {
                marks.push(byte);
            }
            if c == '\n' {
                lines.push(LineStart { byte: byte + 1, char: char + 1 });
            }
        }
        Source { text, lines, marks }
    }

    /// The whole text.
    pub fn text(&self) -> &'a str {
        self.text
    }

    /// The text of a line (from 1) without its line end; `None` past the last line.
    pub fn line(&self, line: u32) -> Option<&'a str> {
        let index = usize::try_from(line).ok()?.checked_sub(1)?;
        let start = self.lines.get(index)?.byte;
        let end = self.lines.get(index + 1).map_or(self.text.len(), |next| next.byte);
        let text = self.text.get(start..end)?;
        let text = text.strip_suffix('\n').unwrap_or(text);
        Some(text.strip_suffix('\r').unwrap_or(text))
    }

    /// The byte at which a place lies, at most the length of the text.
    pub fn offset(&self, position: Position) -> usize {
        let index = (position.line as usize).saturating_sub(1);
        let Some(start) = self.lines.get(index) else { return self.text.len() };
        let char = start.char + (position.column as usize).saturating_sub(1);
        let Some(&mark) = self.marks.get(char / MARK_CHARS) else { return self.text.len() };
        let rest = self.text.get(mark..).unwrap_or("");
        rest.char_indices().nth(char % MARK_CHARS).map_or(self.text.len(), |(byte, _)| mark + byte)
    }

    /// The bytes of a span.
    pub fn range(&self, span: Span) -> Range<usize> {
        let start = self.offset(span.start);
        start..self.offset(span.end).max(start)
    }

    /// The text of a span.
    pub fn slice(&self, span: Span) -> &'a str {
        self.text.get(self.range(span)).unwrap_or("")
    }

    /// The place after the last character.
    pub fn end(&self) -> Position {
        let line = u32::try_from(self.lines.len()).unwrap_or(u32::MAX);
        let start = self.lines.last().map_or(0, |last| last.byte);
        let column = self.text.get(start..).unwrap_or("").chars().count() + 1;
        Position { line, column: u32::try_from(column).unwrap_or(u32::MAX) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_finds_its_bytes_in_any_line_ending_and_alphabet() {
        let text = "SELECT 'é',\r\n\t\"ключ\"\nFROM t";
        let source = Source::new(text);
        let span = |a: (u32, u32), b: (u32, u32)| Span::new(Position::new(a.0, a.1), Position::new(b.0, b.1));
        assert_eq!(source.slice(span((1, 8), (1, 11))), "'é'");
        assert_eq!(source.slice(span((2, 2), (2, 8))), "\"ключ\"");
        assert_eq!(source.slice(span((3, 1), (3, 7))), "FROM t");
        assert_eq!(source.line(1), Some("SELECT 'é',"));
        assert_eq!(source.line(4), None);
        assert_eq!(source.line(0), None);
        assert_eq!(source.end(), Position::new(3, 7));
        assert_eq!(source.slice(span((9, 1), (9, 7))), "");
        let long = format!("{}\n{}x", "é".repeat(1000), "é".repeat(700));
        assert_eq!(Source::new(&long).slice(span((2, 700), (2, 702))), "éx");
    }

    #[test]
    fn joining_spans_ignores_none() {
        let a = Span::new(Position::new(1, 4), Position::new(1, 9));
        let b = Span::new(Position::new(2, 1), Position::new(2, 2));
        assert_eq!(a.to(b), Span::new(Position::new(1, 4), Position::new(2, 2)));
        assert_eq!(a.to(Span::NONE), a);
        assert_eq!(Span::NONE.to(b), b);
    }
}
