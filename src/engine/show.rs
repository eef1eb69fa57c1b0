//! `SHOW`, `DESCRIBE` and `SHOW CREATE`: the definitions as rows.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use asof_sql::Diagnostic;
use asof_sql::ast::{Name, ObjectKind, Show};
use asof_sql::codes;
use asof_sql::plan::display::duration_text;

use super::{Inner, Output};
use crate::error::Result;
use crate::registry::Connector;
use crate::stream::schema::sql_name;

type Checked<T> = std::result::Result<T, Vec<Diagnostic>>;

/// Rows of text under the given column names.
pub(super) fn text_rows(names: &[&str], rows: Vec<Vec<Option<String>>>) -> Result<Output> {
    let fields: Vec<Field> = names.iter().map(|n| Field::new(*n, DataType::Utf8, true)).collect();
    let column = |i: usize| -> ArrayRef { Arc::new(rows.iter().map(|r| r.get(i).cloned().flatten()).collect::<StringArray>()) };
    let schema = Arc::new(Schema::new(fields));
    let batch = RecordBatch::try_new(schema.clone(), (0..names.len()).map(column).collect())?;
    Ok(Output::Rows { schema, batches: vec![batch], note: None })
}

impl Inner {
    pub(super) fn show(&self, what: Show) -> Result<Output> {
        let registry = self.registry();
        match what {
            Show::Streams => text_rows(
                &["stream", "event_time", "disorder", "primary_key", "connector"],
                registry
                    .streams
                    .iter()
                    .map(|(name, s)| {
                        let column = |i: &usize| s.info.columns[*i].name.clone();
                        let key: Vec<_> = s.info.primary_key.iter().map(column).collect();
                        let connector = match s.options.connector {
                            Connector::Push => "push",
                            Connector::File { .. } => "file",
                            Connector::Kafka(_) => "kafka",
                        };
                        let cell = |t: String| Some(t);
                        vec![
                            cell(name.clone()),
                            cell(column(&s.info.event_time)),
                            cell(duration_text(s.info.disorder)),
                            (!key.is_empty()).then(|| key.join(", ")),
                            cell(connector.into()),
                        ]
                    })
                    .collect(),
            ),
            Show::FeatureViews => text_rows(
                &["feature_view", "entity", "features", "streams", "owner", "description", "fingerprint"],
                registry
                    .views
                    .iter()
                    .map(|(name, v)| {
                        let plan = &v.view.plan;
                        vec![
                            Some(name.clone()),
                            Some(plan.entity.iter().map(|e| e.name.as_str()).collect::<Vec<_>>().join(", ")),
                            Some(plan.features.len().to_string()),
                            Some(plan.streams().join(", ")),
                            plan.options.owner.clone(),
                            plan.options.description.clone(),
                            Some(plan.fingerprint.to_string()),
                        ]
                    })
                    .collect(),
            ),
            Show::Features => text_rows(
                &["feature_view", "feature", "type", "definition", "fingerprint"],
                registry
                    .views
                    .iter()
                    .flat_map(|(name, v)| {
                        v.view.plan.features.iter().map(|f| {
                            vec![
                                Some(name.clone()),
                                Some(f.name.clone()),
                                Some(sql_name(&f.data_type)),
                                Some(f.text.clone()),
                                Some(f.fingerprint.to_string()),
                            ]
                        })
                    })
                    .collect(),
            ),
        }
    }

    pub(super) async fn describe(&self, name: &Name) -> Result<Checked<Output>> {
        let registry = self.registry();
        let cell = |t: &str| Some(t.to_owned());
        let rows = if let Some(s) = registry.streams.get(&name.value) {
            s.info
                .columns
                .iter()
                .enumerate()
                .map(|(i, c)| {
                    let role = match (i == s.info.event_time, s.info.primary_key.contains(&i)) {
                        (true, true) => cell("event time, primary key"),
                        (true, false) => cell("event time"),
                        (false, true) => cell("primary key"),
                        (false, false) => None,
                    };
                    vec![Some(c.name.clone()), Some(sql_name(&c.data_type)), cell(if c.nullable { "YES" } else { "NO" }), role]
                })
                .collect()
        } else if let Some(v) = registry.views.get(&name.value) {
            let plan = &v.view.plan;
            let entity = plan.entity.iter().map(|e| vec![Some(e.name.clone()), Some(sql_name(&e.data_type)), cell("NO"), cell("entity")]);
            let features =
                plan.features.iter().map(|f| vec![Some(f.name.clone()), Some(sql_name(&f.data_type)), cell("YES"), Some(f.text.clone())]);
            let time = vec![Some(plan.time_column.clone()), cell("TIMESTAMP"), cell("NO"), cell("instant")];
            entity.chain(features).chain([time]).collect()
        } else if let Some(t) = registry.tables.get(&name.value) {
            let schema = self.external_table(t).await?.schema();
            let row = |f: &Arc<Field>| {
                vec![Some(f.name().clone()), Some(f.data_type().to_string()), cell(if f.is_nullable() { "YES" } else { "NO" }), None]
            };
            schema.fields().iter().map(row).collect()
        } else {
            return Ok(Err(vec![registry.unknown(&name.value, "stream, feature view or table", name.span)]));
        };
        text_rows(&["column", "type", "nullable", "role"], rows).map(Ok)
    }

    pub(super) fn show_create(&self, name: &Name, kind: Option<ObjectKind>) -> Checked<Output> {
        let registry = self.registry();
        let found = registry.kind(&name.value);
        if let (Some(wanted), Some(found)) = (kind, found)
            && wanted != found
        {
            return Err(vec![Diagnostic::error(
                codes::E0206,
                name.span,
                format!("\"{}\" is a {}, not a {}", name.value, found.noun(), wanted.noun()),
            )]);
        }
        let sql = match found {
            Some(ObjectKind::Stream) => registry.streams[&name.value].sql.join(";\n"),
            Some(ObjectKind::FeatureView) => registry.views[&name.value].sql.clone(),
            Some(ObjectKind::Table) => registry.tables[&name.value].sql.clone(),
            None => return Err(vec![registry.unknown(&name.value, "stream, feature view or table", name.span)]),
        };
        text_rows(&["name", "sql"], vec![vec![Some(name.value.clone()), Some(sql)]])
            .map_err(|e| vec![Diagnostic::error(codes::E0104, name.span, e.to_string())])
    }
}
