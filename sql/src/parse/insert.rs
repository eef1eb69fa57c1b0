//! `INSERT INTO stream [(columns)] VALUES ... | query`.

use datafusion::sql::sqlparser::tokenizer::Token;

use super::create_stream::check_unique;
use super::cursor::{Cursor, Parsed};
use super::embedded;
use crate::ast::{Insert, StatementKind};
use crate::codes::E0105;
use crate::diagnostic::Diagnostic;

/// Reads a statement that begins with `INSERT`.
pub(super) fn insert(cursor: &mut Cursor<'_>) -> Parsed<StatementKind> {
    cursor.expect_words(&["INSERT"])?;
    if cursor.sees(&["OVERWRITE"]) || cursor.sees(&["OR"]) || cursor.sees(&["IGNORE"]) {
        return Err(Diagnostic::error(E0105, cursor.span(), format!("INSERT {} is not supported", cursor.clause()))
            .help("Events are only added: INSERT INTO stream VALUES (...)."));
    }
    cursor.expect_words(&["INTO"])?;
    let stream = cursor.object_name("a stream name")?;
    let has_columns = cursor.peek() == Some(&Token::LParen) && !opens_query(cursor);
    let columns = if has_columns { Some(cursor.names("a column name")?) } else { None };
    if let Some(columns) = &columns {
        check_unique(cursor, "column", &columns.names);
    }
    if cursor.sees(&["DEFAULT", "VALUES"]) {
        return Err(Diagnostic::error(E0105, cursor.span(), "DEFAULT VALUES is not supported"));
    }
    let (source, source_span) = embedded::query(cursor, cursor.tokens().len())?;
    Ok(StatementKind::Insert(Insert { stream, columns, source, source_span }))
}

/// Whether the parenthesis that is next holds a query and not columns.
fn opens_query(cursor: &Cursor<'_>) -> bool {
    match cursor.peek_at(1) {
        Some(Token::LParen) => true,
        Some(Token::Word(word)) if word.quote_style.is_none() => {
            ["SELECT", "WITH", "VALUES"].iter().any(|head| word.value.eq_ignore_ascii_case(head))
        }
        _ => false,
    }
}
