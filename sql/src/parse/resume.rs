//! `RESUME STREAM stream PAST GAP`.

use super::cursor::{Cursor, Parsed};
use crate::ast::StatementKind;

/// Reads a statement that begins with `RESUME`.
pub(super) fn resume(cursor: &mut Cursor<'_>) -> Parsed<StatementKind> {
    cursor.expect_words(&["RESUME", "STREAM"])?;
    let stream = cursor.object_name("a stream name")?;
    cursor.expect_words(&["PAST", "GAP"])?;
    cursor.expect_end()?;
    Ok(StatementKind::ResumeStream { stream })
}
