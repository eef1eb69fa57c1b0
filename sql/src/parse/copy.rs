//! `COPY stream FROM 'path' [(FORMAT f, TOKEN 't')]` and `COPY (query) TO 'path' [(FORMAT f)]`.

use datafusion::sql::sqlparser::tokenizer::Token;

use super::cursor::{Cursor, Parsed};
use super::embedded;
use crate::ast::{CopyFrom, CopyTo, FileFormat, StatementKind};
use crate::codes::{E0106, E0601, E0602, E0703};
use crate::diagnostic::Diagnostic;
use crate::span::Span;

/// Reads a statement that begins with `COPY`.
pub(super) fn copy(cursor: &mut Cursor<'_>) -> Parsed<StatementKind> {
    cursor.expect_words(&["COPY"])?;
    if cursor.peek() == Some(&Token::LParen) { copy_to(cursor) } else { copy_from(cursor) }
}

fn copy_to(cursor: &mut Cursor<'_>) -> Parsed<StatementKind> {
    let (query, query_span) = embedded::parenthesised_query(cursor)?;
    cursor.expect_words(&["TO"])?;
    let (path, path_span) = cursor.string("a path in quotes")?;
    let Settings { format, token: _ } = settings(cursor, &["format"])?;
    cursor.expect_end()?;
    Ok(StatementKind::CopyTo(CopyTo { query, query_span, path, path_span, format }))
}

fn copy_from(cursor: &mut Cursor<'_>) -> Parsed<StatementKind> {
    let stream = cursor.object_name("a stream name or a query in parentheses")?;
    if cursor.sees(&["TO"]) {
        let help = format!("Write COPY (SELECT * FROM {}) TO 'path'.", crate::ast::quote(&stream.value));
        return Err(cursor.unexpected("FROM").help(help));
    }
    if cursor.peek() == Some(&Token::LParen) {
        let error = cursor.unexpected("FROM");
        return Err(error.help("COPY reads columns by their names in the file; a list of columns is not supported."));
    }
    cursor.expect_words(&["FROM"])?;
    let (path, path_span) = cursor.string("a path in quotes")?;
    let Settings { format, token } = settings(cursor, &["format", "token"])?;
    cursor.expect_end()?;
    Ok(StatementKind::CopyFrom(CopyFrom { stream, path, path_span, format, token }))
}

#[derive(Default)]
struct Settings {
    format: Option<(FileFormat, Span)>,
    token: Option<(String, Span)>,
}

/// `(FORMAT f, TOKEN 't')`, either way round, if it is next.
fn settings(cursor: &mut Cursor<'_>, known: &[&str]) -> Parsed<Settings> {
    let mut settings = Settings::default();
    if cursor.sees(&["WITH"]) {
        return Err(cursor
            .unexpected("the end of the statement")
            .help("Options of COPY stand in parentheses without WITH: (FORMAT parquet)."));
    }
    if cursor.is_at_end() {
        return Ok(settings);
    }
    cursor.parenthesised(|cursor| setting(cursor, known, &mut settings))?;
    Ok(settings)
}

fn setting(cursor: &mut Cursor<'_>, known: &[&str], settings: &mut Settings) -> Parsed<()> {
    let key_span = cursor.span();
    let key = match cursor.peek() {
        Some(Token::Word(word)) => word.value.to_ascii_lowercase(),
        _ => return Err(cursor.unexpected("an option of COPY")),
    };
    if !known.contains(&key.as_str()) {
        let error = Diagnostic::error(E0601, key_span, format!("unknown option \"{key}\" of COPY"));
        let names: Vec<String> = known.iter().map(|name| name.to_uppercase()).collect();
        return Err(error.help(format!("COPY takes {} here.", names.join(" and "))));
    }
    cursor.advance();
    cursor.eat_token(&Token::Eq);
    let first = match key.as_str() {
        "format" => settings.format.replace(format(cursor)?).map(|(_, span)| span),
        _ => settings.token.replace(token(cursor)?).map(|(_, span)| span),
    };
    if let Some(first) = first {
        let error = Diagnostic::error(E0106, key_span, format!("option \"{key}\" is given twice"));
        cursor.report(error.note(first, "It is given first here."));
    }
    Ok(())
}

fn format(cursor: &mut Cursor<'_>) -> Parsed<(FileFormat, Span)> {
    let (format, span) = file_format(cursor)?;
    if format == FileFormat::Delta {
        let error = Diagnostic::error(E0703, span, "COPY does not read or write Delta tables");
        return Err(error.help("A stream's history is a Delta table already; read others with CREATE EXTERNAL TABLE."));
    }
    Ok((format, span))
}

fn token(cursor: &mut Cursor<'_>) -> Parsed<(String, Span)> {
    let (token, span) = cursor.string("a token in quotes")?;
    if token.is_empty() {
        return Err(Diagnostic::error(E0602, span, "a token cannot be empty"));
    }
    Ok((token, span))
}

/// Reads a file format, as a word or in quotes.
pub(super) fn file_format(cursor: &mut Cursor<'_>) -> Parsed<(FileFormat, Span)> {
    let span = cursor.span();
    let name = match cursor.peek() {
        Some(Token::Word(word)) if word.quote_style.is_none() => word.value.clone(),
        Some(Token::SingleQuotedString(text)) => text.clone(),
        _ => return Err(cursor.unexpected("a file format")),
    };
    cursor.advance();
    // Delta SQL writes DELTATABLE in other tools.
    let found = if name.eq_ignore_ascii_case("deltatable") { Some(FileFormat::Delta) } else { FileFormat::find(&name) };
    found.map(|format| (format, span)).ok_or_else(|| {
        Diagnostic::error(E0703, span, format!("unknown file format \"{name}\"")).help("The formats are parquet, csv, json and delta.")
    })
}
