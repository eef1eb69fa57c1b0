//! `ALTER STREAM name SET (...)` and `ALTER STREAM name ADD COLUMN column type`.

use datafusion::sql::sqlparser::tokenizer::Token;

use super::create_stream::column;
use super::cursor::{Cursor, Parsed};
use super::options::{Assignment, options};
use crate::ast::{AlterAction, AlterStream, StatementKind};
use crate::codes::{E0104, E0105};
use crate::diagnostic::Diagnostic;

/// Reads a statement that begins with `ALTER`.
pub(super) fn alter(cursor: &mut Cursor<'_>) -> Parsed<StatementKind> {
    cursor.expect_words(&["ALTER"])?;
    if cursor.sees(&["FEATURE"]) {
        return Err(Diagnostic::error(E0104, cursor.span(), "a feature view cannot be altered")
            .help("CREATE OR REPLACE FEATURE VIEW adds features and changes owner, description and freshness."));
    }
    if !cursor.eat("STREAM") {
        return Err(cursor.unexpected("STREAM"));
    }
    let name = cursor.object_name("a stream name")?;
    let action = if cursor.eat("SET") {
        AlterAction::SetOptions(options(cursor, Assignment::Equals)?)
    } else if cursor.eats(&["ADD", "COLUMN"]) {
        add_column(cursor)?
    } else {
        return Err(cursor
            .unexpected("SET (...) or ADD COLUMN")
            .help("Nothing else of a stream can be altered: its events are stored as declared."));
    };
    cursor.expect_end()?;
    Ok(StatementKind::AlterStream(AlterStream { name, action }))
}

fn add_column(cursor: &mut Cursor<'_>) -> Parsed<AlterAction> {
    let (column, key) = column(cursor)?;
    if column.not_null || key.is_some() {
        return Err(Diagnostic::error(E0105, column.span, format!("added column \"{}\" cannot be NOT NULL or a key", column.name))
            .help("Events that are stored already have NULL in it."));
    }
    if cursor.peek() == Some(&Token::Comma) {
        return Err(cursor.unexpected("the end of the statement").help("Add one column with each statement."));
    }
    Ok(AlterAction::AddColumn(column))
}
