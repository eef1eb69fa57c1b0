//! `(key = value, ...)` behind WITH, SET and OPTIONS.

use std::collections::HashMap;

use datafusion::sql::sqlparser::tokenizer::Token;

use super::cursor::{Cursor, Parsed};
use super::interval::interval;
use crate::ast::{OptionEntry, OptionValue, fold};
use crate::codes::{E0106, E0602};
use crate::diagnostic::Diagnostic;
use crate::span::Span;

/// Whether a value stands behind `=` or directly behind its key, as in DataFusion's `OPTIONS ('k' 'v')`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Assignment {
    Equals,
    Optional,
}

/// Reads `(key = value, ...)`; a key that comes twice is reported.
pub(super) fn options(cursor: &mut Cursor<'_>, assignment: Assignment) -> Parsed<Vec<OptionEntry>> {
    let entries = cursor.parenthesised(|cursor| entry(cursor, assignment))?;
    let mut seen: HashMap<&str, Span> = HashMap::new();
    for entry in &entries {
        if let Some(first) = seen.insert(&entry.key, entry.key_span) {
            let error = Diagnostic::error(E0106, entry.key_span, format!("option \"{}\" is given twice", entry.key));
            cursor.report(error.note(first, "It is given first here."));
        }
    }
    Ok(entries)
}

/// Reads `WITH (key = value, ...)` if it is next.
pub(super) fn with_options(cursor: &mut Cursor<'_>) -> Parsed<Vec<OptionEntry>> {
    if cursor.eat("WITH") { options(cursor, Assignment::Equals) } else { Ok(Vec::new()) }
}

fn entry(cursor: &mut Cursor<'_>, assignment: Assignment) -> Parsed<OptionEntry> {
    let (key, key_span) = key(cursor)?;
    if !cursor.eat_token(&Token::Eq) && assignment == Assignment::Equals {
        return Err(cursor.unexpected(&format!("\"=\" behind the option \"{key}\"")));
    }
    let (value, value_span) = value(cursor, &key)?;
    Ok(OptionEntry { key, key_span, value, value_span })
}

/// A word, several words with dots between, or all of it in quotes.
fn key(cursor: &mut Cursor<'_>) -> Parsed<(String, Span)> {
    let start = cursor.index();
    if let Some(Token::SingleQuotedString(text)) = cursor.peek() {
        cursor.advance();
        return Ok((text.clone(), cursor.last_span()));
    }
    let mut key = String::new();
    loop {
        let Some(Token::Word(word)) = cursor.peek() else {
            return Err(cursor.unexpected("an option's name"));
        };
        key.push_str(&fold(&word.value, word.quote_style.is_some()));
        cursor.advance();
        if !cursor.eat_token(&Token::Period) {
            return Ok((key, cursor.span_from(start)));
        }
        key.push('.');
    }
}

fn value(cursor: &mut Cursor<'_>, key: &str) -> Parsed<(OptionValue, Span)> {
    let start = cursor.index();
    let sign = if cursor.eat_token(&Token::Minus) { "-" } else { "" };
    let value = match cursor.peek() {
        Some(Token::Number(text, _)) => OptionValue::Number(format!("{sign}{text}")),
        Some(Token::SingleQuotedString(text)) if sign.is_empty() => OptionValue::String(text.clone()),
        _ if sign.is_empty() && cursor.sees(&["TRUE"]) => OptionValue::Boolean(true),
        _ if sign.is_empty() && cursor.sees(&["FALSE"]) => OptionValue::Boolean(false),
        _ if sign.is_empty() && cursor.sees(&["INTERVAL"]) => {
            let (value, span) = interval(cursor)?;
            return Ok((OptionValue::Interval(value), span));
        }
        Some(Token::Word(word)) if sign.is_empty() => {
            let error =
                Diagnostic::error(E0602, cursor.span(), format!("option \"{key}\" needs a literal, found {}", cursor.describe_next()));
            return Err(error.help(format!("A text stands in single quotes: {key} = '{}'.", word.value)));
        }
        _ => return Err(cursor.unexpected(&format!("a value of the option \"{key}\""))),
    };
    cursor.advance();
    Ok((value, cursor.span_from(start)))
}
