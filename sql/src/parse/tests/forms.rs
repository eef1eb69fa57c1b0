//! Every form of the dialect, and what it parses to, written short.

use std::fmt::Write as _;

use super::super::{check_scalar_calls, interval_of, is_reserved, parse};
use super::parsed;
use crate::ast::{
    AlterAction, ColumnDef, ExplainTarget, FileFormat, Instant, Interval, KeyLiteral, KeyRow, Name, Names, OptionEntry, OptionValue,
    SqlType, Statement, StatementKind, fold, quote, render_sql_type,
};
use datafusion::sql::sqlparser::ast::{Expr, SelectItem, SetExpr};

/// Parses one statement and compares it, written short.
fn check(text: &str, expected: &str) {
    let statements = parsed(text);
    let shown: Vec<String> = statements.iter().map(show).collect();
    assert_eq!(shown.join("; "), expected, "{text}");
}

fn show(statement: &Statement) -> String {
    let parameters = if statement.parameters > 0 { format!(" [{} parameters]", statement.parameters) } else { String::new() };
    format!("{}{parameters}", show_kind(&statement.kind))
}

fn show_kind(kind: &StatementKind) -> String {
    let unless = |present: bool, text: &str| if present { text.to_owned() } else { String::new() };
    match kind {
        StatementKind::CreateStream(stream) => format!(
            "stream{} {} ({}){} watermark {} {}us{}",
            unless(stream.if_not_exists, "?"),
            stream.name,
            columns(&stream.columns),
            stream.primary_key.as_ref().map_or(String::new(), |key| format!(" key {}", names(key))),
            stream.watermark.column,
            stream.watermark.disorder_us,
            options(&stream.options),
        ),
        StatementKind::CreateFeatureView(view) => format!(
            "view{}{} {} entity {}{} as {}",
            unless(view.or_replace, "!"),
            unless(view.if_not_exists, "?"),
            view.name,
            names(&view.entity),
            options(&view.options),
            view.query,
        ),
        StatementKind::CreateExternalTable(table) => format!(
            "table{} {} ({}) {} at {}{}",
            unless(table.if_not_exists, "?"),
            table.name,
            columns(&table.columns),
            table.format,
            table.location,
            options(&table.options),
        ),
        StatementKind::Query(query) => query.to_string(),
        StatementKind::ForEntity(serve) => {
            let columns = serve.keys.columns.as_ref().map_or("?".to_owned(), |columns| list(columns.iter()));
            let rows: Vec<String> = serve.keys.rows.iter().map(row).collect();
            let at = match &serve.at {
                Instant::Now => String::new(),
                Instant::AsOf { expr, .. } => format!(" as of {expr}"),
                Instant::Before { expr, .. } => format!(" before {expr}"),
            };
            format!("{} for {columns} in {}{at}", serve.query, rows.join(" "))
        }
        StatementKind::Insert(insert) => {
            let columns = insert.columns.as_ref().map_or(String::new(), names);
            format!("insert {}{columns} {}", insert.stream, insert.source)
        }
        StatementKind::CopyFrom(copy) => format!(
            "copy {} from {}{}{}",
            copy.stream,
            copy.path,
            copy.format.map_or(String::new(), |(format, _)| format!(" {format}")),
            copy.token.as_ref().map_or(String::new(), |(token, _)| format!(" token {token}")),
        ),
        StatementKind::CopyTo(copy) => {
            format!("copy {} to {}{}", copy.query, copy.path, copy.format.map_or(String::new(), |(format, _)| format!(" {format}")))
        }
        StatementKind::Reprocess { stream } => format!("reprocess {stream}"),
        StatementKind::ResumeStream { stream } => format!("resume {stream}"),
        StatementKind::ShowStreamStatus { stream } => {
            format!("show status{}", stream.as_ref().map_or(String::new(), |stream| format!(" {stream}")))
        }
        StatementKind::Show(list) => format!("show {list:?}"),
        StatementKind::Describe { name } => format!("describe {name}"),
        StatementKind::ShowCreate { name, kind } => {
            format!("show create {}{name}", kind.map_or(String::new(), |kind| format!("{kind} ")))
        }
        StatementKind::Drop(drop) => format!("drop {}{} {}", drop.kind, unless(drop.if_exists, "?"), drop.name),
        StatementKind::AlterStream(alter) => match &alter.action {
            AlterAction::SetOptions(entries) => format!("alter {} set{}", alter.name, options(entries)),
            AlterAction::AddColumn(column) => format!("alter {} add {}", alter.name, columns(std::slice::from_ref(column))),
        },
        StatementKind::Explain(explain) => {
            let target = match &explain.target {
                ExplainTarget::FeatureView(name) => format!("view {name}"),
                ExplainTarget::Statement(statement) => format!("<{}> {}", statement.text, show(statement)),
            };
            format!("explain{}{} {target}", unless(explain.analyze, " analyze"), unless(explain.verbose, " verbose"))
        }
    }
}

fn list<'a>(names: impl Iterator<Item = &'a Name>) -> String {
    names.map(|name| name.value.as_str()).collect::<Vec<_>>().join(", ")
}

fn names(names: &Names) -> String {
    format!("({})", list(names.names.iter()))
}

fn columns(columns: &[ColumnDef]) -> String {
    let one = |column: &ColumnDef| format!("{} {}{}", column.name, column.data_type, if column.not_null { "!" } else { "" });
    columns.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn options(entries: &[OptionEntry]) -> String {
    entries.iter().fold(String::new(), |mut out, entry| {
        let value = match &entry.value {
            OptionValue::String(text) => format!("'{text}'"),
            OptionValue::Number(text) => text.clone(),
            OptionValue::Boolean(value) => value.to_string(),
            OptionValue::Interval(Interval { months, micros }) => format!("{months}mon {micros}us"),
        };
        let _ = write!(out, " {}={value}", entry.key);
        out
    })
}

fn row(row: &KeyRow) -> String {
    let value = |literal: &KeyLiteral| match literal {
        KeyLiteral::String(text) => format!("'{text}'"),
        KeyLiteral::Number(text) => text.clone(),
        KeyLiteral::Boolean(value) => value.to_string(),
        KeyLiteral::Null => "null".to_owned(),
        KeyLiteral::Date(text) => format!("date {text}"),
        KeyLiteral::Timestamp(text) => format!("timestamp {text}"),
        KeyLiteral::Parameter(number) => format!("${number}"),
    };
    format!("({})", row.values.iter().map(|key| value(&key.literal)).collect::<Vec<_>>().join(", "))
}

#[test]
fn streams() {
    check(
        "CREATE STREAM transactions (
          txn_id      VARCHAR,
          user_id     VARCHAR NOT NULL,
          amount      DOUBLE,
          ts          TIMESTAMP NOT NULL,
          PRIMARY KEY (txn_id),
          WATERMARK FOR ts AS ts - INTERVAL '30 seconds'
        ) WITH (
          connector = 'kafka', topic = 'transactions', brokers = 'localhost:9092', format = 'json'
        );",
        "stream transactions (txn_id VARCHAR, user_id VARCHAR!, amount DOUBLE, ts TIMESTAMP!) key (txn_id) watermark ts 30000000us \
         connector='kafka' topic='transactions' brokers='localhost:9092' format='json'",
    );
    check("CREATE STREAM s (ts TIMESTAMP, WATERMARK FOR ts AS ts)", "stream s (ts TIMESTAMP) watermark ts 0us");
    check(
        "create stream if not exists S (watermark for TS as ts - interval '2' minute, A int null, Ts timestamp(6), primary key (a, TS))",
        "stream? s (a INT, ts TIMESTAMP) key (a, ts) watermark ts 120000000us",
    );
    check(
        "CREATE STREAM s (id BIGINT NOT NULL PRIMARY KEY, ts TIMESTAMP, WATERMARK FOR ts AS ts - INTERVAL 90 SECOND)",
        "stream s (id BIGINT!, ts TIMESTAMP) key (id) watermark ts 90000000us",
    );
    check(
        "CREATE STREAM \"S x\" (\"T s\" TIMESTAMP, WATERMARK FOR \"T s\" AS \"T s\" - INTERVAL '0' SECOND)",
        "stream S x (T s TIMESTAMP) watermark T s 0us",
    );
    check(
        "CREATE STREAM s (ts TIMESTAMP, primary INT, watermark INT, date DATE, timestamp TIMESTAMP, index INT, WATERMARK FOR ts AS ts)",
        "stream s (ts TIMESTAMP, primary INT, watermark INT, date DATE, timestamp TIMESTAMP, index INT) watermark ts 0us",
    );
}

#[test]
fn column_types() {
    let types = "a BOOLEAN, b BOOL, c TINYINT, d SMALLINT, e INT, f INTEGER, g BIGINT, h REAL, i FLOAT4, j DOUBLE, k DOUBLE PRECISION, \
                 l FLOAT, m FLOAT8, n DECIMAL(10, 2), o NUMERIC(5), p DECIMAL, q VARCHAR, r TEXT, s STRING, t VARBINARY, u BYTEA, v DATE, \
                 w TIMESTAMP, x DECIMAL(38, 38)";
    check(
        &format!("CREATE STREAM s ({types}, WATERMARK FOR w AS w)"),
        "stream s (a BOOLEAN, b BOOLEAN, c TINYINT, d SMALLINT, e INT, f INT, g BIGINT, h REAL, i REAL, j DOUBLE, k DOUBLE, l DOUBLE, \
         m DOUBLE, n DECIMAL(10, 2), o DECIMAL(5, 0), p DECIMAL(38, 10), q VARCHAR, r VARCHAR, s VARCHAR, t VARBINARY, u VARBINARY, \
         v DATE, w TIMESTAMP, x DECIMAL(38, 38)) watermark w 0us",
    );
}

#[test]
fn a_rendered_type_parses_to_itself() {
    let all = [
        SqlType::Boolean,
        SqlType::TinyInt,
        SqlType::SmallInt,
        SqlType::Int,
        SqlType::BigInt,
        SqlType::Real,
        SqlType::Double,
        SqlType::Decimal { precision: 10, scale: 2 },
        SqlType::Varchar,
        SqlType::Varbinary,
        SqlType::Date,
        SqlType::Timestamp,
    ];
    for data_type in all {
        let text = format!("CREATE STREAM s (c {}, ts TIMESTAMP, WATERMARK FOR ts AS ts)", render_sql_type(&data_type));
        match &parsed(&text).first().expect("one statement").kind {
            StatementKind::CreateStream(stream) => assert_eq!(stream.columns.first().map(|column| column.data_type), Some(data_type)),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn options_of_every_kind() {
    check(
        "CREATE STREAM s (ts TIMESTAMP, WATERMARK FOR ts AS ts)
         WITH (A = 'x', n = 5, m = -2.5, b = true, c = FALSE, d = INTERVAL '1 day', \"kafka.Group.Id\" = 'it''s', 'quoted key' = 'v', x.y.Z = 1)",
        "stream s (ts TIMESTAMP) watermark ts 0us a='x' n=5 m=-2.5 b=true c=false d=0mon 86400000000us kafka.Group.Id='it's' \
         quoted key='v' x.y.z=1",
    );
}

#[test]
fn feature_views() {
    check(
        "CREATE FEATURE VIEW user_spend ENTITY (user_id)
         WITH (owner = 'risk', freshness = '5 seconds', ttl = '90 days')
         AS
         SELECT
           count(*)                                       OVER hour AS txn_count_1h,
           avg(amount) FILTER (WHERE status = 'declined') OVER week AS declined_avg_7d,
           count(DISTINCT merchant_id)                    OVER day  AS merchants_24h,
           coalesce(sum(amount) OVER hour / nullif(count(*) OVER hour, 0), 0) AS ticket_1h
         FROM transactions
         WHERE status <> 'test'
         WINDOW hour AS (RANGE INTERVAL '1 hour' PRECEDING),
                day  AS (RANGE BETWEEN INTERVAL '24 hours' PRECEDING AND CURRENT ROW),
                week AS (ROWS BETWEEN 5 PRECEDING AND 1 PRECEDING);",
        "view user_spend entity (user_id) owner='risk' freshness='5 seconds' ttl='90 days' as \
         SELECT count(*) OVER hour AS txn_count_1h, avg(amount) FILTER (WHERE status = 'declined') OVER week AS declined_avg_7d, \
         count(DISTINCT merchant_id) OVER day AS merchants_24h, \
         coalesce(sum(amount) OVER hour / nullif(count(*) OVER hour, 0), 0) AS ticket_1h FROM transactions WHERE status <> 'test' \
         WINDOW hour AS (RANGE INTERVAL '1 hour' PRECEDING), \
         day AS (RANGE BETWEEN INTERVAL '24 hours' PRECEDING AND CURRENT ROW), week AS (ROWS BETWEEN 5 PRECEDING AND 1 PRECEDING)",
    );
    check(
        "CREATE FEATURE V ENTITY (a, \"B\") AS SELECT tier, country FROM profiles",
        "view v entity (a, B) as SELECT tier, country FROM profiles",
    );
    check("CREATE OR REPLACE FEATURE VIEW v ENTITY (a) AS SELECT b FROM s", "view! v entity (a) as SELECT b FROM s");
    check("CREATE FEATURE IF NOT EXISTS v ENTITY (a) AS SELECT b FROM s", "view? v entity (a) as SELECT b FROM s");
    check("CREATE FEATURE view ENTITY (a) AS SELECT b FROM s", "view view entity (a) as SELECT b FROM s");
    check("CREATE FEATURE VIEW entity ENTITY (a) AS SELECT b FROM s", "view entity entity (a) as SELECT b FROM s");
    for body in [
        "SELECT sum(a) AS x FROM s GROUP BY u, TUMBLE(ts, INTERVAL '1 hour')",
        "SELECT sum(a) AS x FROM s GROUP BY u, HOP(ts, INTERVAL '5 minutes', INTERVAL '1 hour')",
        "SELECT sum(a) AS x, window_start() AS w FROM s GROUP BY u, SESSION(ts, INTERVAL '30 minutes')",
        "SELECT sum(a * exp(-EXTRACT(EPOCH FROM as_of() - ts) / 3600)) OVER (RANGE INTERVAL '1 day' PRECEDING) AS x FROM s",
        "SELECT sum(t.a * r.rate) OVER w AS x FROM t ASOF JOIN r MATCH_CONDITION (t.ts >= r.ts) ON t.c = r.c WINDOW w AS (ROWS 3 PRECEDING)",
        "SELECT count(*) OVER (RANGE UNBOUNDED PRECEDING) AS x FROM (SELECT a, ts FROM s UNION ALL SELECT b, ts FROM r) AS u",
        "WITH x AS (SELECT * FROM s WHERE a > 1) SELECT last_value(b) OVER (PARTITION BY u ORDER BY ts RANGE UNBOUNDED PRECEDING) AS l FROM x",
        "SELECT percentile_cont(a, 0.5) OVER w AS p, first_n(a, 3) OVER w AS f FROM s WINDOW w AS (RANGE INTERVAL '1 month' PRECEDING)",
    ] {
        check(&format!("CREATE FEATURE VIEW v ENTITY (u) AS {body}"), &format!("view v entity (u) as {body}"));
    }
}

#[test]
fn queries() {
    for query in [
        "SELECT t.*, r.rate FROM transactions AS t ASOF JOIN fx_rates AS r MATCH_CONDITION (t.ts >= r.ts) ON t.currency = r.currency",
        "SELECT * FROM a ASOF JOIN b MATCH_CONDITION (b.t < a.t) USING(k, l)",
        "SELECT * FROM a ASOF JOIN b MATCH_CONDITION (a.t > b.t)",
        "SELECT l.label, u.*, m.r FROM labels AS l ASOF JOIN u MATCH_CONDITION (l.ts > u.ts) ON l.a = u.a \
         ASOF JOIN m MATCH_CONDITION (l.ts >= m.ts) ON l.b = m.b",
        "SELECT * FROM \"transactions$late\"",
        "WITH x AS (SELECT 1 AS a) SELECT a FROM x UNION ALL SELECT a FROM y ORDER BY a LIMIT 3 OFFSET 1",
        "VALUES (1, 'a'), (2, 'b')",
        "(SELECT 1) UNION (SELECT 2)",
        "SELECT DISTINCT ON (a) a, b FROM t ORDER BY a NULLS LAST",
        "SELECT * EXCLUDE (a) FROM t",
        "SELECT CASE WHEN a THEN 'b' ELSE 'c' END, a::DOUBLE, ARRAY[1, 2], a[1], INTERVAL '1' DAY FROM t",
        "SELECT * FROM t WHERE a IN (SELECT b FROM u) AND EXISTS (SELECT 1) AND c BETWEEN 1 AND 2",
        "SELECT sum(a) OVER (PARTITION BY b ORDER BY c) FROM t QUALIFY row_number() OVER (ORDER BY a) = 1",
        "SELECT * FROM t CROSS JOIN u LEFT JOIN v ON u.a = v.a, LATERAL (SELECT 1) AS w",
        "SELECT substring(a FROM 1 FOR entity), TRIM(BOTH ' ' FROM b) FROM generate_series(1, 10)",
        "SELECT * FROM information_schema.tables",
    ] {
        let normal = query.replace("substring", "SUBSTRING");
        check(query, &normal);
        check(&format!("EXPLAIN {query}"), &format!("explain <{query}> {normal}"));
    }
    check("SELECT 1 -- one\n; /* two; */ SELECT 'a;b' ;; -- end", "SELECT 1; SELECT 'a;b'");
    check(" \n-- nothing\n", "");
    check("\u{feff}SELECT 1", "SELECT 1");
}

#[test]
fn clauses_of_scalar_calls_are_refused() {
    let check = |text: &str, expected: &[&str]| {
        let statements = parsed(text);
        let Some(StatementKind::Query(query)) = statements.first().map(|statement| &statement.kind) else { panic!("a query") };
        let found = check_scalar_calls(query, |name| name == "abs");
        assert_eq!(found.iter().map(|error| error.message.as_str()).collect::<Vec<_>>(), expected, "{text}");
    };
    check("SELECT abs(a), sum(DISTINCT a) FILTER (WHERE b) OVER () FROM t", &[]);
    check("SELECT ABS(DISTINCT a) FROM t", &["DISTINCT or ALL is not supported with the scalar function \"abs\""]);
    check(
        "SELECT 1 FROM (SELECT abs(a ORDER BY b) FILTER (WHERE c) OVER () FROM t) AS x",
        &[
            "ORDER BY is not supported with the scalar function \"abs\"",
            "FILTER is not supported with the scalar function \"abs\"",
            "OVER is not supported with the scalar function \"abs\"",
        ],
    );
    check("SELECT abs(a) IGNORE NULLS FROM t", &["IGNORE or RESPECT NULLS is not supported with the scalar function \"abs\""]);
}

#[test]
fn serving() {
    check("SELECT * FROM user_spend FOR ENTITY 'u42'", "SELECT * FROM user_spend for ? in ('u42')");
    check(
        "SELECT a, b FROM u, m FOR ENTITY (user_id = 'u42', Merchant_Id = 7)",
        "SELECT a, b FROM u, m for user_id, merchant_id in ('u42', 7)",
    );
    check("SELECT * FROM u FOR ENTITY user_id IN ('u1', 'u2', 'u1')", "SELECT * FROM u for user_id in ('u1') ('u2') ('u1')");
    check(
        "SELECT * FROM u, m FOR ENTITY (user_id, merchant_id) IN (('u1','m1'), ('u2', NULL))",
        "SELECT * FROM u, m for user_id, merchant_id in ('u1', 'm1') ('u2', null)",
    );
    check("SELECT * FROM u FOR ENTITY (user_id) IN (('u1'), 'u2')", "SELECT * FROM u for user_id in ('u1') ('u2')");
    check("SELECT * FROM u FOR ENTITY ('u1', 'm1')", "SELECT * FROM u for ? in ('u1', 'm1')");
    check("SELECT * FROM u FOR ENTITY ('u1')", "SELECT * FROM u for ? in ('u1')");
    check("SELECT * FROM u FOR ENTITY (user_id = 'u1')", "SELECT * FROM u for user_id in ('u1')");
    check("SELECT * FROM u FOR ENTITY user_id = $1", "SELECT * FROM u for user_id in ($1) [1 parameters]");
    check("SELECT * FROM u FOR ENTITY (a, b) IN ((?, ?), (?, 1))", "SELECT * FROM u for a, b in ($1, $2) ($3, 1) [3 parameters]");
    check("SELECT * FROM u FOR ENTITY -1.5", "SELECT * FROM u for ? in (-1.5)");
    check(
        "SELECT * FROM u FOR ENTITY (k = +3, l = true, m = DATE '2024-01-01')",
        "SELECT * FROM u for k, l, m in (3, true, date 2024-01-01)",
    );
    check("SELECT * FROM u FOR ENTITY date = DATE '2024-01-01'", "SELECT * FROM u for date in (date 2024-01-01)");
    check("SELECT * FROM u FOR ENTITY TIMESTAMP '2024-01-01 00:00:00'", "SELECT * FROM u for ? in (timestamp 2024-01-01 00:00:00)");
    check("SELECT * FROM u FOR ENTITY false", "SELECT * FROM u for ? in (false)");
    check("SELECT * FROM u FOR ENTITY NULL", "SELECT * FROM u for ? in (null)");
    check(
        "SELECT s / 60 AS x, u.* FROM user_spend AS u FOR ENTITY 'u' AS OF TIMESTAMP '2026-03-01 12:00:00'",
        "SELECT s / 60 AS x, u.* FROM user_spend AS u for ? in ('u') as of TIMESTAMP '2026-03-01 12:00:00'",
    );
    check(
        "SELECT * FROM u FOR ENTITY 'u' BEFORE TIMESTAMP '2026-03-01 12:00:00' + INTERVAL '1 day'",
        "SELECT * FROM u for ? in ('u') before TIMESTAMP '2026-03-01 12:00:00' + INTERVAL '1 day'",
    );
    check("SELECT * FROM u FOR ENTITY k = ? AS OF ?", "SELECT * FROM u for k in ($1) as of $2 [2 parameters]");
    check(
        "EXPLAIN SELECT * FROM u FOR ENTITY k = $2",
        "explain <SELECT * FROM u FOR ENTITY k = $2> SELECT * FROM u for k in ($2) [2 parameters] [2 parameters]",
    );
    check("SELECT \"for\" FROM u FOR ENTITY 1", "SELECT \"for\" FROM u for ? in (1)");
}

#[test]
fn data_in_and_out() {
    check(
        "INSERT INTO s VALUES (1, 'a', NULL, TIMESTAMP '2024-01-01'), (-2, ?, ?, now())",
        "insert s VALUES (1, 'a', NULL, TIMESTAMP '2024-01-01'), (-2, $1, $2, now()) [2 parameters]",
    );
    check("INSERT INTO s (a, \"B\") SELECT a, b FROM t", "insert s(a, B) SELECT a, b FROM t");
    check("INSERT INTO s (SELECT a FROM t)", "insert s (SELECT a FROM t)");
    check("INSERT INTO s WITH x AS (SELECT 1) SELECT * FROM x", "insert s WITH x AS (SELECT 1) SELECT * FROM x");
    check("COPY s FROM 'p'", "copy s from p");
    check("COPY s FROM 'p/*.parquet' (FORMAT parquet)", "copy s from p/*.parquet parquet");
    check("COPY s FROM 'p' (token 'x', format 'JSON')", "copy s from p json token x");
    check("COPY s FROM 'p' (FORMAT = csv, TOKEN = 'x')", "copy s from p csv token x");
    check("COPY (SELECT (a) FROM t) TO 'p' (FORMAT csv)", "copy SELECT (a) FROM t to p csv");
    check("COPY (SELECT 1) TO 'p'", "copy SELECT 1 to p");
    check("REPROCESS LATE EVENTS FOR s", "reprocess s");
    check("CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION 'x/'", "table t () parquet at x/");
    check(
        "CREATE EXTERNAL TABLE IF NOT EXISTS t (a INT NOT NULL, b TEXT) STORED AS csv LOCATION 'x' OPTIONS ('format.has_header' 'true', format.delimiter ';')",
        "table? t (a INT!, b VARCHAR) csv at x format.has_header='true' format.delimiter=';'",
    );
    check("CREATE EXTERNAL TABLE t LOCATION 's3://b/t' STORED AS DELTATABLE OPTIONS (a = 1)", "table t () delta at s3://b/t a=1");
}

#[test]
fn the_rest() {
    check("SHOW STREAMS; show feature views; SHOW FEATURES", "show Streams; show FeatureViews; show Features");
    check(
        "SHOW STREAM STATUS; show stream status for \"S\"; SHOW STREAM STATUS FOR status",
        "show status; show status S; show status status",
    );
    check("RESUME STREAM s PAST GAP; resume stream past past gap", "resume s; resume past");
    check("DESCRIBE \"S$late\"; DESC t", "describe S$late; describe t");
    check(
        "SHOW CREATE s; SHOW CREATE STREAM s; SHOW CREATE FEATURE VIEW v",
        "show create s; show create stream s; show create feature view v",
    );
    check("SHOW CREATE TABLE t; SHOW CREATE stream", "show create table t; show create stream");
    check("DROP STREAM s; DROP FEATURE VIEW IF EXISTS v", "drop stream s; drop feature view? v");
    check("DROP FEATURE v; DROP TABLE IF EXISTS t; DROP FEATURE view", "drop feature view v; drop table? t; drop feature view view");
    check("ALTER STREAM s SET (topic = 'x', n = 1)", "alter s set topic='x' n=1");
    check("ALTER STREAM s ADD COLUMN c DECIMAL(4,1)", "alter s add c DECIMAL(4, 1)");
    check("EXPLAIN FEATURE VIEW v; EXPLAIN FEATURE v; EXPLAIN FEATURE view", "explain view v; explain view v; explain view view");
    check("SHOW CREATE FEATURE v; SHOW CREATE feature", "show create feature view v; show create feature");
    check("EXPLAIN ANALYZE VERBOSE SELECT 1", "explain analyze verbose <SELECT 1> SELECT 1");
}

#[test]
fn a_statement_keeps_its_text_and_place() {
    let text = "  SELECT 1 ;\n\n-- note\nDROP STREAM\n  \"É\" ; ";
    let statements = parsed(text);
    let kept: Vec<(&str, u32, u32)> =
        statements.iter().map(|statement| (statement.text.as_str(), statement.span.start.line, statement.span.end.line)).collect();
    assert_eq!(kept, [("SELECT 1", 1, 1), ("DROP STREAM\n  \"É\"", 4, 5)]);
}

#[test]
fn embedded_sql_has_the_places_of_the_whole_text() {
    let statements = parsed("SELECT 1;\nCREATE FEATURE VIEW v ENTITY (u) AS\n  SELECT amount FROM s");
    let Some(StatementKind::CreateFeatureView(view)) = statements.get(1).map(|statement| &statement.kind) else { panic!("a view") };
    assert_eq!((view.query_span.start.line, view.query_span.start.column), (3, 3));
    let SetExpr::Select(select) = view.query.body.as_ref() else { panic!("a select") };
    let Some(SelectItem::UnnamedExpr(Expr::Identifier(ident))) = select.projection.first() else { panic!("a column") };
    assert_eq!((ident.span.start.line, ident.span.start.column, ident.span.end.column), (3, 10, 16));
}

#[test]
fn names_fold_and_quote() {
    assert_eq!(fold("UserId", false), "userid");
    assert_eq!(fold("UserId", true), "UserId");
    assert_eq!(fold("É", false), "É");
    for (name, written) in [
        ("user_id", "user_id"),
        ("s$late", "s$late"),
        ("UserId", "\"UserId\""),
        ("a b", "\"a b\""),
        ("select", "\"select\""),
        ("a\"b", "\"a\"\"b\""),
        ("1a", "\"1a\""),
        ("", "\"\""),
    ] {
        assert_eq!(quote(name), written);
        if !name.is_empty() {
            check(&format!("DESCRIBE {written}"), &format!("describe {name}"));
        }
    }
    assert!(is_reserved("from"));
    assert_eq!(FileFormat::find("Parquet"), Some(FileFormat::Parquet));
}

#[test]
fn intervals_of_expressions() {
    let of = |text: &str| {
        let statements = parse(text, "test.sql").ok()?;
        let StatementKind::Query(query) = &statements.first()?.kind else { return None };
        let SetExpr::Select(select) = query.body.as_ref() else { return None };
        let Some(SelectItem::UnnamedExpr(Expr::Interval(interval))) = select.projection.first() else { return None };
        Some(interval_of(interval).map(|value| (value.months, value.micros)).map_err(|error| error.message))
    };
    assert_eq!(of("SELECT INTERVAL '1 hour'"), Some(Ok((0, 3_600_000_000))));
    assert_eq!(of("SELECT INTERVAL '2' DAY"), Some(Ok((0, 172_800_000_000))));
    assert_eq!(of("SELECT INTERVAL 3 MONTH"), Some(Ok((3, 0))));
    assert_eq!(of("SELECT INTERVAL '-1 day'"), Some(Ok((0, -86_400_000_000))));
    assert_eq!(
        of("SELECT INTERVAL '1-2' YEAR TO MONTH"),
        Some(Err("interval is not valid: ranges and precisions of fields are not read".to_owned()))
    );
    assert_eq!(of("SELECT INTERVAL 'x' DAY"), Some(Err("interval is not valid: \"x\" is not a number".to_owned())));
}
