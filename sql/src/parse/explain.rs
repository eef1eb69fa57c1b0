//! `EXPLAIN FEATURE VIEW name` and `EXPLAIN [ANALYZE] [VERBOSE] query`.

use super::cursor::{Cursor, Parsed};
use crate::ast::{Explain, ExplainTarget, Statement, StatementKind};
use crate::codes::{E0104, E0105};
use crate::diagnostic::Diagnostic;

/// Reads a statement that begins with `EXPLAIN`, of so many parameters.
pub(super) fn explain(cursor: &mut Cursor<'_>, parameters: usize) -> Parsed<StatementKind> {
    cursor.expect_words(&["EXPLAIN"])?;
    let flags = cursor.index();
    let analyze = cursor.eat("ANALYZE");
    let verbose = cursor.eat("VERBOSE");
    if cursor.eats_feature_view() {
        if analyze || verbose {
            return Err(Diagnostic::error(E0105, cursor.span_of(flags), "EXPLAIN FEATURE VIEW takes neither ANALYZE nor VERBOSE"));
        }
        let name = cursor.object_name("a feature view name")?;
        cursor.expect_end()?;
        return Ok(StatementKind::Explain(Explain { analyze, verbose, target: ExplainTarget::FeatureView(name) }));
    }
    if cursor.sees(&["FORMAT"]) || cursor.sees(&["ANALYZE"]) || cursor.sees(&["EXTENDED"]) {
        return Err(Diagnostic::error(E0105, cursor.span(), format!("EXPLAIN {} is not supported", cursor.clause())));
    }
    let start = cursor.index();
    if !super::opens_query(cursor) {
        let error = Diagnostic::error(E0104, cursor.span(), format!("EXPLAIN takes a query, found {}", cursor.describe_next()));
        return Err(error.help("Write EXPLAIN SELECT ..., or EXPLAIN FEATURE VIEW name."));
    }
    let kind = super::query(cursor)?;
    let span = cursor.span_from(start);
    let statement = Box::new(Statement { kind, span, text: cursor.text(span).to_owned(), parameters });
    Ok(StatementKind::Explain(Explain { analyze, verbose, target: ExplainTarget::Statement(statement) }))
}
