//! `SHOW STREAMS | FEATURE VIEWS | FEATURES`, `SHOW STREAM STATUS [FOR name]`, `SHOW CREATE name` and `DESCRIBE name`.

use super::cursor::{Cursor, Parsed};
use crate::ast::{ObjectKind, Show, StatementKind};
use crate::codes::E0104;
use crate::diagnostic::Diagnostic;

/// Reads a statement that begins with `SHOW`.
pub(super) fn show(cursor: &mut Cursor<'_>) -> Parsed<StatementKind> {
    cursor.expect_words(&["SHOW"])?;
    let list = if cursor.eat("STREAMS") {
        Show::Streams
    } else if cursor.eats(&["FEATURE", "VIEWS"]) {
        Show::FeatureViews
    } else if cursor.eat("FEATURES") {
        Show::Features
    } else if cursor.eat("STREAM") {
        cursor.expect_words(&["STATUS"])?;
        let stream = if cursor.eat("FOR") { Some(cursor.object_name("a stream name")?) } else { None };
        cursor.expect_end()?;
        return Ok(StatementKind::ShowStreamStatus { stream });
    } else if cursor.eat("CREATE") {
        let kind = object_kind(cursor);
        let name = cursor.object_name("the name of a stream, view or table")?;
        cursor.expect_end()?;
        return Ok(StatementKind::ShowCreate { name, kind });
    } else {
        return Err(unknown(cursor));
    };
    cursor.expect_end()?;
    Ok(StatementKind::Show(list))
}

/// Reads a statement that begins with `DESCRIBE` or `DESC`.
pub(super) fn describe(cursor: &mut Cursor<'_>) -> Parsed<StatementKind> {
    cursor.advance();
    let name = cursor.object_name("the name of a stream, view or table")?;
    cursor.expect_end()?;
    Ok(StatementKind::Describe { name })
}

/// Reads the kind of an object if a name stands behind it: an object may be named "stream".
fn object_kind(cursor: &mut Cursor<'_>) -> Option<ObjectKind> {
    if cursor.eats_feature_view() {
        return Some(ObjectKind::FeatureView);
    }
    let kinds = [("STREAM", ObjectKind::Stream), ("TABLE", ObjectKind::Table)];
    let named = cursor.peek_at(1).is_some();
    kinds.into_iter().find(|(word, _)| named && cursor.eat(word)).map(|(_, kind)| kind)
}

fn unknown(cursor: &Cursor<'_>) -> Diagnostic {
    let tables = [("TABLES", "SELECT * FROM information_schema.tables"), ("COLUMNS", "SELECT * FROM information_schema.columns")];
    let known = "SHOW lists STREAMS, FEATURE VIEWS or FEATURES; SHOW STREAM STATUS says how far each stream is; SHOW CREATE name prints a \
                 definition.";
    if let Some((_, instead)) = tables.iter().find(|(word, _)| cursor.sees(&[word])) {
        return Diagnostic::error(E0104, cursor.span(), format!("SHOW {} is not supported", cursor.clause()))
            .help(format!("Write {instead}."));
    }
    cursor.unexpected("STREAMS, FEATURE VIEWS, FEATURES, STREAM STATUS or CREATE").help(known)
}
