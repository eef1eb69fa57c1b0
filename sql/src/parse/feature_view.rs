//! `CREATE [OR REPLACE] FEATURE [VIEW] name ENTITY (...) [WITH (...)] AS query`.

use super::create_stream::check_unique;
use super::cursor::{Cursor, Parsed};
use super::options::with_options;
use super::{embedded, for_entity};
use crate::ast::{CreateFeatureView, StatementKind};
use crate::codes::E0503;
use crate::diagnostic::Diagnostic;

/// Reads what stands behind `CREATE [OR REPLACE] FEATURE [VIEW]`.
pub(super) fn create_feature_view(cursor: &mut Cursor<'_>, or_replace: bool) -> Parsed<StatementKind> {
    let if_not_exists = cursor.if_not_exists()?;
    let name = cursor.object_name("a feature view name")?;
    let missing_entity = "The entity stands behind the name: CREATE FEATURE VIEW name ENTITY (user_id) AS SELECT ....";
    cursor.expect_words(&["ENTITY"]).map_err(|error| error.help(missing_entity))?;
    let entity = cursor.names("an entity column").map_err(|error| error.help(missing_entity))?;
    check_unique(cursor, "entity column", &entity.names);
    let options = with_options(cursor)?;
    cursor.expect_words(&["AS"])?;
    if let Some(at) = for_entity::find(cursor) {
        let span = cursor.span_of(at).to(cursor.span_of(at + 1));
        return Err(Diagnostic::error(E0503, span, "FOR ENTITY does not stand in a feature view")
            .help("A view has a value for every entity at every instant; FOR ENTITY asks for one of them."));
    }
    let (query, query_span) = embedded::query(cursor, cursor.tokens().len())?;
    Ok(StatementKind::CreateFeatureView(CreateFeatureView { or_replace, if_not_exists, name, entity, options, query, query_span }))
}
