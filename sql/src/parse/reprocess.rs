//! `REPROCESS LATE EVENTS FOR stream`.

use super::cursor::{Cursor, Parsed};
use crate::ast::StatementKind;

/// Reads a statement that begins with `REPROCESS`.
pub(super) fn reprocess(cursor: &mut Cursor<'_>) -> Parsed<StatementKind> {
    cursor.expect_words(&["REPROCESS", "LATE", "EVENTS", "FOR"])?;
    let stream = cursor.object_name("a stream name")?;
    cursor.expect_end()?;
    Ok(StatementKind::Reprocess { stream })
}
