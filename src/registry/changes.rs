//! Streams of changed rows, as format `debezium` feeds them: what they have beside what they declare.
//!
//! Two columns come behind the declared ones, `_position` and `_op`, and the position comes first in the primary key: changes of one row at
//! one time are events of their own, in the order of the log. What these columns mean for views is `asof_sql::bind`'s to say. Since a
//! delete may carry no more of its row than the key, no other column can be NOT NULL; else deletes would be rejected and rows would stay.

use arrow::datatypes::DataType;
use asof_sql::Diagnostic;
use asof_sql::ast::CreateStream;
use asof_sql::catalog::{OPERATION, POSITION, StreamColumn};
use asof_sql::codes;

/// Adds what a stream of changes has to what it declares.
pub(super) fn with_changes(
    c: &CreateStream,
    columns: &mut Vec<StreamColumn>,
    primary_key: &mut Vec<usize>,
    event_time: usize,
    errors: &mut Vec<Diagnostic>,
) {
    if primary_key.is_empty() {
        errors.push(
            Diagnostic::error(codes::E0702, c.name.span, "a stream of format \"debezium\" needs the primary key of its table")
                .help("Add PRIMARY KEY (...)."),
        );
    }
    for (i, declared) in c.columns.iter().enumerate() {
        if declared.not_null && i != event_time && !primary_key.contains(&i) {
            let what = format!("column \"{}\" cannot be NOT NULL: a delete may carry the key only", declared.name.value);
            errors.push(Diagnostic::error(codes::E0105, declared.span, what).help("Leave NOT NULL out."));
        }
    }
    let key = primary_key.contains(&event_time).then(|| &columns[event_time].name);
    if let Some(name) = key {
        // A delete's time is the database's, so its key would be another row's.
        let what = format!("event time \"{name}\" cannot be part of the primary key in format \"debezium\"");
        errors.push(Diagnostic::error(codes::E0702, c.name.span, what));
    }
    primary_key.insert(0, columns.len());
    columns.extend([POSITION, OPERATION].map(|name| StreamColumn {
        name: name.to_owned(),
        data_type: DataType::Utf8View,
        nullable: false,
    }));
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use asof_sql::ast::StatementKind;
    use asof_sql::bind::bind_feature_view;
    use asof_sql::catalog::{Catalog, StreamInfo};
    use asof_sql::plan::FeaturePlan;

    use super::super::replay::arrow_type;
    use super::*;

    fn statement(sql: &str) -> StatementKind {
        asof_sql::parse::parse(sql, "test").unwrap().remove(0).kind
    }

    /// The stream that a statement creates in format `debezium`.
    fn stream(sql: &str) -> Result<StreamInfo, Vec<String>> {
        let StatementKind::CreateStream(c) = statement(sql) else { panic!("{sql}") };
        let find = |name: &str| c.columns.iter().position(|x| x.name.value == name).unwrap();
        let event_time = find(&c.watermark.column.value);
        let mut primary_key: Vec<usize> = c.primary_key.iter().flat_map(|k| &k.names).map(|n| find(&n.value)).collect();
        let columns = c.columns.iter();
        let mut columns: Vec<_> = columns
            .map(|x| StreamColumn { name: x.name.value.clone(), data_type: arrow_type(&x.data_type), nullable: !x.not_null })
            .collect();
        let mut errors = Vec::new();
        with_changes(&c, &mut columns, &mut primary_key, event_time, &mut errors);
        if !errors.is_empty() {
            return Err(errors.into_iter().map(|e| e.message).collect());
        }
        Ok(StreamInfo { name: c.name.value.clone(), columns, primary_key, event_time, disorder: 0 })
    }

    struct Streams(Vec<StreamInfo>);

    impl Catalog for Streams {
        fn stream(&self, name: &str) -> Option<Arc<StreamInfo>> {
            self.0.iter().find(|s| s.name == name).map(|s| Arc::new(s.clone()))
        }
        fn view(&self, _: &str) -> Option<Arc<FeaturePlan>> {
            None
        }
        fn stream_names(&self) -> Vec<String> {
            self.0.iter().map(|s| s.name.clone()).collect()
        }
        fn view_names(&self) -> Vec<String> {
            Vec::new()
        }
    }

    const CUSTOMERS: &str = "CREATE STREAM customers (id BIGINT, tier VARCHAR, ts TIMESTAMP, PRIMARY KEY (id), \
                             WATERMARK FOR ts AS ts - INTERVAL '1 minute')";

    #[test]
    fn a_stream_of_changes_is_identified_by_its_position_first() {
        let info = stream(CUSTOMERS).unwrap();
        let names: Vec<_> = info.columns.iter().map(|c| c.name.as_str()).collect();
        assert_eq!((names, info.primary_key), (vec!["id", "tier", "ts", "_position", "_op"], vec![3, 0]));
        let (head, tail) = ("CREATE STREAM s (id BIGINT, tier VARCHAR", ", WATERMARK FOR ts AS ts - INTERVAL '1 minute')");
        for (rest, expected) in [
            (", ts TIMESTAMP", "a stream of format \"debezium\" needs the primary key of its table"),
            (" NOT NULL, ts TIMESTAMP NOT NULL, PRIMARY KEY (id)", "column \"tier\" cannot be NOT NULL: a delete may carry the key only"),
            (", ts TIMESTAMP, PRIMARY KEY (id, ts)", "event time \"ts\" cannot be part of the primary key in format \"debezium\""),
        ] {
            assert_eq!(stream(&format!("{head}{rest}{tail}")).unwrap_err(), [expected]);
        }
    }

    #[test]
    fn only_the_current_row_of_each_key_is_a_view_of_changes() {
        let plain = "CREATE STREAM payments (id BIGINT, ts TIMESTAMP, WATERMARK FOR ts AS ts - INTERVAL '1 minute')";
        let mut payments = stream(&plain.replace("(id BIGINT, ", "(id BIGINT PRIMARY KEY, ")).unwrap();
        payments.columns.truncate(2);
        payments.primary_key.clear();
        let catalog = Streams(vec![stream(CUSTOMERS).unwrap(), payments]);
        let bind = |sql: &str| {
            let StatementKind::CreateFeatureView(view) = statement(&format!("CREATE FEATURE VIEW v {sql}")) else { panic!("{sql}") };
            bind_feature_view(&view, &catalog).map_err(|errors| errors.into_iter().map(|e| e.message).collect::<Vec<_>>())
        };
        let plan = bind("ENTITY (id) AS SELECT *, upper(tier) AS upper FROM customers").unwrap();
        let features: Vec<_> = plan.features.iter().map(|f| f.name.as_str()).collect();
        assert_eq!(features, ["tier", "upper"]);
        assert_eq!(plan.masks.len(), 1);
        assert!(plan.aggregates.iter().all(|call| call.mask == Some(0)) && !plan.aggregates.is_empty());
        // One that is named is a feature like any other.
        assert_eq!(bind("ENTITY (id) AS SELECT _op AS op FROM customers c").unwrap().features.len(), 1);
        let alone = "a view of stream \"customers\" reads it alone and whole: no WHERE, join, UNION or subquery";
        let aggregate = "an aggregate over stream \"customers\" would take changes for events";
        for (sql, expected) in [
            ("ENTITY (id) AS SELECT count(*) AS n FROM customers GROUP BY id", aggregate),
            ("ENTITY (id) AS SELECT count(*) OVER w AS n FROM customers WINDOW w AS (RANGE INTERVAL '1 day' PRECEDING)", aggregate),
            ("ENTITY (id) AS SELECT tier FROM customers WHERE tier <> 'x'", alone),
            ("ENTITY (id) AS SELECT tier FROM (SELECT id, tier, ts FROM customers) c", alone),
            ("ENTITY (id) AS SELECT c.tier FROM payments p ASOF JOIN customers c MATCH_CONDITION (p.ts >= c.ts) ON p.id = c.id", alone),
            ("ENTITY (tier) AS SELECT id FROM customers", "the entity of a view of stream \"customers\" is the primary key of its table"),
        ] {
            assert_eq!(bind(sql).unwrap_err(), [expected], "{sql}");
        }
        assert!(bind("ENTITY (id) AS SELECT ts AS at FROM payments").unwrap().masks.is_empty());
    }
}
