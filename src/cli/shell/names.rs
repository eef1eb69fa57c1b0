//! What the editor asks: how a word goes on, and whether the input is whole.

use rustyline::completion::{Completer, Pair};
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Context, Helper, Highlighter, Hinter};

use super::input::{Input, read};

/// The words of the dialect that are worth a Tab, sorted.
const KEYWORDS: &[&str] = &[
    "ADD",
    "ALTER",
    "AND",
    "AS",
    "ASOF",
    "BEFORE",
    "BETWEEN",
    "BY",
    "CASE",
    "CAST",
    "COLUMN",
    "COPY",
    "CREATE",
    "CURRENT",
    "DESC",
    "DESCRIBE",
    "DISTINCT",
    "DROP",
    "ELSE",
    "END",
    "ENTITY",
    "EVENTS",
    "EXISTS",
    "EXPLAIN",
    "EXTERNAL",
    "FALSE",
    "FEATURE",
    "FEATURES",
    "FILTER",
    "FOR",
    "FORMAT",
    "FROM",
    "GROUP",
    "HAVING",
    "IN",
    "INSERT",
    "INTERVAL",
    "INTO",
    "IS",
    "JOIN",
    "KEY",
    "LATE",
    "LEFT",
    "LIKE",
    "LIMIT",
    "LOCATION",
    "MATCH_CONDITION",
    "NOT",
    "NULL",
    "ON",
    "OR",
    "ORDER",
    "OVER",
    "PARTITION",
    "PRECEDING",
    "PRIMARY",
    "RANGE",
    "REPLACE",
    "REPROCESS",
    "RESUME",
    "ROW",
    "ROWS",
    "SELECT",
    "SET",
    "SHOW",
    "STATUS",
    "STORED",
    "STREAM",
    "STREAMS",
    "TABLE",
    "THEN",
    "TIMESTAMP",
    "TO",
    "TRUE",
    "UNBOUNDED",
    "UNION",
    "USING",
    "VALUES",
    "VIEW",
    "VIEWS",
    "WATERMARK",
    "WHEN",
    "WHERE",
    "WINDOW",
    "WITH",
];

/// The names of the warehouse, as the editor's helper.
#[derive(Debug, Helper, Highlighter, Hinter)]
pub(super) struct Names {
    names: Vec<String>,
}

impl Names {
    pub(super) fn new(mut names: Vec<String>) -> Self {
        names.sort();
        Self { names }
    }

    /// Where the word before the cursor begins, and how it may go on: names first, then keywords in the case that was begun.
    fn candidates(&self, text: &str) -> (usize, Vec<Pair>) {
        let start = text.rfind(|c: char| !is_word(c)).map_or(0, |at| at + text[at..].chars().next().map_or(1, char::len_utf8));
        let word = &text[start..];
        // Behind an open quote only names stand, and the closing quote belongs to them.
        let quoted = text[..start].ends_with('"');
        if word.is_empty() && !quoted {
            return (start, Vec::new());
        }
        let begins = |name: &str| name.get(..word.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(word));
        let pair = |text: String| Pair { display: text.clone(), replacement: text };
        let name = |name: &String| match () {
            () if quoted => Pair { display: name.clone(), replacement: format!("{}\"", name.replace('"', "\"\"")) },
            () if is_plain(name) => pair(name.clone()),
            () => pair(format!("\"{}\"", name.replace('"', "\"\""))),
        };
        let mut found: Vec<Pair> = self.names.iter().filter(|n| begins(n)).map(name).collect();
        if !quoted {
            let lower = word.starts_with(|c: char| c.is_lowercase());
            let keyword = |k: &&str| pair(if lower { k.to_lowercase() } else { (*k).to_owned() });
            found.extend(KEYWORDS.iter().filter(|k| begins(k)).map(keyword));
        }
        (start, found)
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '$'
}

/// Whether a name means itself without quotes.
fn is_plain(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    name.chars().all(plain) && !name.starts_with(|c: char| c.is_ascii_digit()) && !KEYWORDS.contains(&name.to_uppercase().as_str())
}

impl Completer for Names {
    type Candidate = Pair;

    fn complete(&self, line: &str, pos: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        Ok(self.candidates(line.get(..pos).unwrap_or(line)))
    }
}

impl Validator for Names {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        Ok(match read(context.input()) {
            Input::Unfinished => ValidationResult::Incomplete,
            _ => ValidationResult::Valid(None),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, start: usize, expected: &[&str]) {
        let names = Names::new(["user_spend", "users", "Odd Name", "group"].map(str::to_owned).to_vec());
        let (at, found) = names.candidates(text);
        let found: Vec<&str> = found.iter().map(|p| p.replacement.as_str()).collect();
        assert_eq!((at, found.as_slice()), (start, expected), "{text}");
    }

    #[test]
    fn words_go_on() {
        check("SELECT * FROM us", 14, &["user_spend", "users", "using"]);
        check("SELECT * FROM US", 14, &["user_spend", "users", "USING"]);
        check("sel", 0, &["select"]);
        check("x MATCH", 2, &["MATCH_CONDITION"]);
        check("odd", 0, &["\"Odd Name\""]);
        check("FROM \"Od", 6, &["Odd Name\""]);
        check("gro", 0, &["\"group\"", "group"]);
        check("a.", 2, &[]);
        check("é", 0, &[]);
        check("", 0, &[]);
    }

    #[test]
    fn keywords_are_sorted() {
        assert!(KEYWORDS.is_sorted());
    }
}
