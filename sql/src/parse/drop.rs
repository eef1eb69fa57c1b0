//! `DROP STREAM | FEATURE [VIEW] | TABLE [IF EXISTS] name`.

use super::cursor::{Cursor, Parsed};
use crate::ast::{Drop, ObjectKind, StatementKind};
use crate::codes::E0105;
use crate::diagnostic::Diagnostic;

/// Reads a statement that begins with `DROP`.
pub(super) fn drop(cursor: &mut Cursor<'_>) -> Parsed<StatementKind> {
    cursor.expect_words(&["DROP"])?;
    let kind = if cursor.eat("STREAM") {
        ObjectKind::Stream
    } else if cursor.eats_feature_view() {
        ObjectKind::FeatureView
    } else if cursor.eat("TABLE") {
        ObjectKind::Table
    } else {
        return Err(cursor.unexpected("STREAM, FEATURE VIEW or TABLE"));
    };
    let if_exists = cursor.eat("IF");
    if if_exists {
        cursor.expect_words(&["EXISTS"])?;
    }
    let name = cursor.object_name(&format!("a {kind} name"))?;
    if cursor.sees(&["CASCADE"]) || cursor.sees(&["RESTRICT"]) {
        return Err(Diagnostic::error(E0105, cursor.span(), format!("{} is not supported", cursor.clause()))
            .help("An object that others depend on is never dropped: drop those first."));
    }
    cursor.expect_end()?;
    Ok(StatementKind::Drop(Drop { kind, if_exists, name }))
}
