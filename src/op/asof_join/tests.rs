//! The join against its definition: nested loops over rows of scalars, on random tables, every way the operator can go.

use std::cmp::Ordering;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use datafusion::arrow::util::pretty::pretty_format_batches;
use datafusion::catalog::Session;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Result, ScalarValue, TableReference};
use datafusion::datasource::MemTable;
use datafusion::execution::context::QueryPlanner;
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::{ExecutionPlan, collect};
use datafusion::physical_planner::{DefaultPhysicalPlanner, PhysicalPlanner};
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion::sql::parser::Statement;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;

#[derive(Debug)]
struct Planner;

#[async_trait]
impl QueryPlanner for Planner {
    async fn create_physical_plan(&self, plan: &LogicalPlan, state: &dyn Session) -> Result<Arc<dyn ExecutionPlan>> {
        DefaultPhysicalPlanner::with_extension_planners(vec![Arc::new(AsofExtensionPlanner)]).create_physical_plan(plan, state).await
    }
}

#[derive(Debug, Clone, Copy)]
struct Way {
    partitions: usize,
    batch_rows: usize,
    memory: Option<usize>,
    build: Option<Build>,
}

const PLAIN: Way = Way { partitions: 2, batch_rows: 8192, memory: None, build: None };

fn context(way: Way, sides: Arc<dyn RightSides>) -> SessionContext {
    let config = SessionConfig::new().with_target_partitions(way.partitions).with_batch_size(way.batch_rows);
    let mut runtime = RuntimeEnvBuilder::new();
    if let Some(bytes) = way.memory {
        runtime = runtime.with_memory_pool(Arc::new(FairSpillPool::new(bytes)));
    }
    let state = SessionStateBuilder::new()
        .with_config(config)
        .with_runtime_env(runtime.build_arc().unwrap())
        .with_default_features()
        .with_query_planner(Arc::new(Planner))
        .with_relation_planners(vec![Arc::new(AsofRelationPlanner::new(sides))])
        .with_optimizer_rule(Arc::new(PushLeftFilters))
        .build();
    SessionContext::new_with_state(state)
}

async fn plan(ctx: &SessionContext, sql: &str) -> Result<LogicalPlan> {
    let state = ctx.state();
    let mut statement = state.sql_to_statement(sql, &state.config_options().sql_parser.dialect)?;
    match &mut statement {
        Statement::Statement(s) => rewrite_asof(s.as_mut()),
        Statement::Explain(e) => {
            if let Statement::Statement(s) = e.statement.as_mut() {
                rewrite_asof(s.as_mut());
            }
        }
        _ => {}
    }
    state.statement_to_plan(statement).await
}

async fn run(ctx: &SessionContext, sql: &str, build: Option<Build>) -> Result<Vec<RecordBatch>> {
    let logical = plan(ctx, sql).await?;
    if matches!(logical, LogicalPlan::Explain(_)) {
        return ctx.execute_logical_plan(logical).await?.collect().await;
    }
    collect(physical(ctx, sql, build).await?, ctx.task_ctx()).await
}

async fn physical(ctx: &SessionContext, sql: &str, build: Option<Build>) -> Result<Arc<dyn ExecutionPlan>> {
    let logical = plan(ctx, sql).await?;
    let mut physical = ctx.state().create_physical_plan(&logical).await?;
    if let Some(build) = build {
        physical = physical
            .transform_up(|p| {
                Ok(match p.downcast_ref::<AsofJoinExec>() {
                    Some(join) => Transformed::yes(Arc::new(join.with_build(build)) as Arc<dyn ExecutionPlan>),
                    None => Transformed::no(p),
                })
            })?
            .data;
    }
    Ok(physical)
}

type Row = Vec<ScalarValue>;

#[derive(Debug, Clone)]
struct Table {
    schema: Arc<Schema>,
    rows: Vec<Row>,
}

impl Table {
    fn register(&self, ctx: &SessionContext, name: &str, partitions: usize, batch_rows: usize) {
        let mut parts: Vec<Vec<RecordBatch>> = vec![Vec::new(); partitions];
        for (i, rows) in self.rows.chunks(batch_rows.max(1)).enumerate() {
            let columns =
                (0..self.schema.fields().len()).map(|c| ScalarValue::iter_to_array(rows.iter().map(|r| r[c].clone())).unwrap()).collect();
            parts[i % partitions].push(RecordBatch::try_new(Arc::clone(&self.schema), columns).unwrap());
        }
        let table = MemTable::try_new(Arc::clone(&self.schema), parts).unwrap();
        ctx.register_table(TableReference::bare(name), Arc::new(table)).unwrap();
    }
}

fn rows_of(batches: &[RecordBatch]) -> Vec<Row> {
    let row = |b: &RecordBatch, i: usize| b.columns().iter().map(|c| ScalarValue::try_from_array(c, i).unwrap()).collect();
    batches.iter().flat_map(|b| (0..b.num_rows()).map(move |i| row(b, i))).collect()
}

/// The order of section 4: NULLs first, strings by bytes, floats by value with -0 before +0 and NaN last.
fn order(a: &ScalarValue, b: &ScalarValue) -> Ordering {
    match (a.is_null(), b.is_null()) {
        (true, true) => return Ordering::Equal,
        (true, false) => return Ordering::Less,
        (false, true) => return Ordering::Greater,
        _ => {}
    }
    match (a, b) {
        (ScalarValue::Float64(Some(x)), ScalarValue::Float64(Some(y))) => match (x.is_nan(), y.is_nan()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            _ => x.partial_cmp(y).unwrap().then(y.is_sign_negative().cmp(&x.is_sign_negative())),
        },
        _ => a.partial_cmp(b).unwrap(),
    }
}

/// The join's definition, written to be read. Every fast path agrees with it.
fn naive(left: &Table, right: &Table, keys: &[(usize, usize)], matched: (usize, usize), op: MatchOp) -> Vec<Row> {
    let mut out = Vec::new();
    for l in &left.rows {
        let mut best: Option<&Row> = None;
        for r in &right.rows {
            let equal = |(i, j): &(usize, usize)| !l[*i].is_null() && !r[*j].is_null() && order(&l[*i], &r[*j]).is_eq();
            let (lv, rv) = (&l[matched.0], &r[matched.1]);
            if lv.is_null() || rv.is_null() || !keys.iter().all(equal) {
                continue;
            }
            let at = order(lv, rv);
            let holds = match op {
                MatchOp::AtOrBefore => at.is_ge(),
                MatchOp::Before => at.is_gt(),
                MatchOp::AtOrAfter => at.is_le(),
                MatchOp::After => at.is_lt(),
            };
            let better = |b: &Row| {
                let time = order(rv, &b[matched.1]);
                let time = if op.is_forward() { time.reverse() } else { time };
                let row = || r.iter().zip(b).map(|(x, y)| order(x, y)).find(|o| o.is_ne()).unwrap_or(Ordering::Equal);
                time.then_with(row).is_gt()
            };
            if holds && best.is_none_or(better) {
                best = Some(r);
            }
        }
        let nulls = || right.schema.fields().iter().map(|f| ScalarValue::try_from(f.data_type()).unwrap()).collect();
        let mut row = l.clone();
        row.extend(best.cloned().unwrap_or_else(nulls));
        out.push(row);
    }
    out
}

fn shown(mut rows: Vec<Row>) -> Vec<String> {
    let cell = |v: &ScalarValue| match v {
        ScalarValue::Float64(Some(x)) if x.is_nan() => "NaN".into(),
        ScalarValue::Float64(Some(x)) => format!("{x:?}"),
        v => format!("{v}"),
    };
    let mut lines: Vec<String> = rows.drain(..).map(|r| r.iter().map(cell).collect::<Vec<_>>().join("|")).collect();
    lines.sort();
    lines
}

/// The n-th value of a small domain; some strings are longer than a view holds inline.
fn value(t: &DataType, n: i64) -> ScalarValue {
    let text = || if n % 3 == 0 { format!("a string beyond twelve bytes {n}") } else { format!("s{n}") };
    match t {
        DataType::Boolean => ScalarValue::Boolean(Some(n % 2 == 0)),
        DataType::Int8 => ScalarValue::Int8(Some(n as i8 - 3)),
        DataType::Int32 => ScalarValue::Int32(Some(n as i32 - 3)),
        DataType::Int64 => ScalarValue::Int64(Some(n - 3)),
        DataType::UInt64 => ScalarValue::UInt64(Some(if n == 5 { u64::MAX } else { n as u64 })),
        DataType::Float64 => ScalarValue::Float64(Some(match n % 8 {
            0 => -0.0,
            1 => 0.0,
            2 => f64::NAN,
            3 => -f64::NAN,
            4 => f64::NEG_INFINITY,
            5 => f64::INFINITY,
            _ => n as f64 - 6.5,
        })),
        DataType::Date32 => ScalarValue::Date32(Some(n as i32 * 400)),
        DataType::Timestamp(TimeUnit::Microsecond, z) => ScalarValue::TimestampMicrosecond(Some(n * 1_000_003), z.clone()),
        DataType::Decimal128(p, s) => {
            let wide = if *p > 18 { i128::from(n) * 10i128.pow(20) - 7 } else { i128::from(n) - 7 };
            ScalarValue::Decimal128(Some(wide), *p, *s)
        }
        DataType::Utf8 => ScalarValue::Utf8(Some(text())),
        DataType::Utf8View => ScalarValue::Utf8View(Some(text())),
        DataType::LargeUtf8 => ScalarValue::LargeUtf8(Some(text())),
        DataType::Binary => ScalarValue::Binary(Some(text().into_bytes())),
        other => panic!("no values of type {other}"),
    }
}

fn table(rng: &mut ChaCha8Rng, columns: &[(&str, DataType, i64)], rows: usize, nulls: f64) -> Table {
    let schema = Schema::new(columns.iter().map(|(n, t, _)| Field::new(*n, t.clone(), true)).collect::<Vec<_>>());
    let row = |rng: &mut ChaCha8Rng| {
        let cell = |(_, t, domain): &(&str, DataType, i64)| match rng.random_bool(nulls) {
            true => ScalarValue::try_from(t).unwrap(),
            false => value(t, rng.random_range(0..*domain)),
        };
        columns.iter().map(cell).collect()
    };
    Table { schema: Arc::new(schema), rows: (0..rows).map(|_| row(rng)).collect() }
}

const OPS: [(MatchOp, &str); 4] = [(MatchOp::AtOrBefore, ">="), (MatchOp::Before, ">"), (MatchOp::AtOrAfter, "<="), (MatchOp::After, "<")];

fn micros() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

async fn check_random(seed: u64, way: Way, rows: (usize, usize)) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let key_types = [
        DataType::Utf8View,
        DataType::Utf8,
        DataType::LargeUtf8,
        DataType::Int64,
        DataType::Int32,
        DataType::Boolean,
        DataType::Float64,
        DataType::Decimal128(30, 2),
        DataType::Binary,
        DataType::Date32,
    ];
    let match_types = [
        DataType::Int64,
        micros(),
        DataType::Date32,
        DataType::Float64,
        DataType::Utf8View,
        DataType::Decimal128(30, 2),
        DataType::Decimal128(12, 2),
        DataType::UInt64,
        DataType::Int8,
        DataType::Boolean,
    ];
    let keys = rng.random_range(0..=2usize);
    let k1 = key_types[rng.random_range(0..key_types.len())].clone();
    let k2 = key_types[rng.random_range(0..key_types.len())].clone();
    let m = match_types[rng.random_range(0..match_types.len())].clone();
    let (domain, times) = (rng.random_range(1..12), rng.random_range(1..30));
    let nulls = [0.0, 0.1][rng.random_range(0..2)];
    let left_columns = [("id", DataType::Int64, 1_000_000), ("k1", k1.clone(), domain), ("m", m.clone(), times), ("k2", k2.clone(), 3)];
    let left = table(&mut rng, &left_columns, rows.0, nulls);
    let right_columns = [
        ("a", DataType::Float64, 8),
        ("k1", k1, domain),
        ("b", DataType::Utf8View, 6),
        ("k2", k2, 3),
        ("m", m, times),
        ("c", DataType::Int64, 5),
    ];
    let right = table(&mut rng, &right_columns, rows.1, nulls);
    let ctx = context(way, Arc::new(OrdinaryTables));
    let parts = rng.random_range(1..4);
    left.register(&ctx, "l", parts, rng.random_range(1..40));
    right.register(&ctx, "r", rng.random_range(1..4), rng.random_range(1..40));
    let (op, sign) = OPS[rng.random_range(0..4)];
    let flipped = rng.random_bool(0.3);
    let condition = match flipped {
        false => format!("l.m {sign} r.m"),
        true => format!("r.m {} l.m", OPS.iter().find(|o| o.0 == op.flip()).unwrap().1),
    };
    let on = ["", "ON l.k1 = r.k1", "ON r.k1 = l.k1 AND (l.k2 = r.k2)"][keys];
    let sql = format!("SELECT * FROM l ASOF JOIN r MATCH_CONDITION ({condition}) {on}");
    let pairs = [(1, 1), (3, 3)];
    let expected = shown(naive(&left, &right, &pairs[..keys], (2, 4), op));
    let context = format!("seed {seed}, {way:?}, {sql}, {} {}", left.schema, right.schema);
    let actual = run(&ctx, &sql, way.build).await.unwrap_or_else(|e| panic!("{context}: {e}"));
    assert_eq!(shown(rows_of(&actual)), expected, "{context}");
}

/// Sums a metric over the joins of an executed plan.
fn spilled_files(plan: &Arc<dyn ExecutionPlan>) -> usize {
    let own = plan.downcast_ref::<AsofJoinExec>().and_then(|j| j.metrics()).and_then(|m| m.spill_count()).unwrap_or_default();
    own + plan.children().into_iter().map(spilled_files).sum::<usize>()
}

#[tokio::test]
async fn spills_when_the_pool_refuses_and_only_then() {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let left = table(&mut rng, &[("id", DataType::Int64, 1_000_000), ("k", DataType::Int64, 500), ("t", micros(), 1000)], 4000, 0.01);
    let right = table(&mut rng, &[("k", DataType::Int64, 500), ("t", micros(), 1000), ("x", DataType::Utf8View, 1000)], 4000, 0.01);
    let expected = shown(naive(&left, &right, &[(1, 0)], (2, 1), MatchOp::AtOrBefore));
    for build in [Build::Left, Build::Right] {
        for (memory, spills) in [(None, false), (Some(50_000_000), false), (Some(200_000), true), (Some(30_000), true)] {
            let ctx = context(Way { partitions: 2, batch_rows: 256, memory, build: Some(build) }, Arc::new(OrdinaryTables));
            left.register(&ctx, "l", 2, 256);
            right.register(&ctx, "r", 2, 256);
            let sql = "SELECT * FROM l ASOF JOIN r MATCH_CONDITION (l.t >= r.t) ON l.k = r.k";
            let physical = physical(&ctx, sql, Some(build)).await.unwrap();
            let actual = collect(Arc::clone(&physical), ctx.task_ctx()).await.unwrap();
            assert!(shown(rows_of(&actual)) == expected, "{build:?} with {memory:?}");
            assert_eq!(spilled_files(&physical) > 0, spills, "{build:?} with {memory:?}");
            drop(physical);
            assert_eq!(ctx.runtime_env().memory_pool.reserved(), 0, "{build:?} with {memory:?}");
        }
    }
}

/// The left side fits and the rows that lead do not: what was streamed so far goes to disk as rows of the right side.
#[tokio::test]
async fn spills_leading_rows() {
    let mut rng = ChaCha8Rng::seed_from_u64(8);
    let left = table(&mut rng, &[("k", DataType::Utf8View, 300), ("t", DataType::Int64, 1000)], 1500, 0.01);
    let names: Vec<String> = (0..10).map(|i| format!("x{i}")).collect();
    let mut columns = vec![("k", DataType::Utf8View, 300), ("t", DataType::Int64, 1000)];
    columns.extend(names.iter().map(|n| (n.as_str(), DataType::Utf8View, 1000)));
    let right = table(&mut rng, &columns, 6000, 0.01);
    let way = Way { partitions: 2, batch_rows: 256, memory: Some(700_000), build: Some(Build::Left) };
    let ctx = context(way, Arc::new(OrdinaryTables));
    left.register(&ctx, "l", 1, 256);
    right.register(&ctx, "r", 3, 256);
    for (op, sign) in OPS {
        let expected = shown(naive(&left, &right, &[(0, 0)], (1, 1), op));
        let shown_columns = names.iter().map(|n| format!("r.{n}")).collect::<Vec<_>>().join(", ");
        let sql = format!("SELECT l.k, l.t, r.k, r.t, {shown_columns} FROM l ASOF JOIN r MATCH_CONDITION (l.t {sign} r.t) ON l.k = r.k");
        let physical = physical(&ctx, &sql, way.build).await.unwrap();
        let actual = collect(Arc::clone(&physical), ctx.task_ctx()).await.unwrap();
        assert!(shown(rows_of(&actual)) == expected, "{sign}");
        // More than 16 pieces of each side: several tasks of the right side had begun.
        assert!(spilled_files(&physical) > 32, "{sign}: {}", spilled_files(&physical));
    }
}

#[tokio::test]
async fn empty_sides() {
    let mut rng = ChaCha8Rng::seed_from_u64(6);
    let columns = [("k", DataType::Utf8View, 5), ("t", micros(), 9), ("x", DataType::Float64, 9)];
    for (l, r) in [(0, 5), (5, 0), (0, 0)] {
        let (left, right) = (table(&mut rng, &columns, l, 0.0), table(&mut rng, &columns, r, 0.0));
        for build in [Build::Left, Build::Right] {
            let ctx = context(PLAIN, Arc::new(OrdinaryTables));
            left.register(&ctx, "l", 1, 8);
            right.register(&ctx, "r", 2, 8);
            let batches = run(&ctx, "SELECT * FROM l ASOF JOIN r MATCH_CONDITION (l.t > r.t) ON l.k = r.k", Some(build)).await.unwrap();
            assert_eq!(shown(rows_of(&batches)), shown(naive(&left, &right, &[(0, 0)], (1, 1), MatchOp::Before)));
        }
    }
}

/// A right side that is no ordinary table: seen as it is written, and again once its names are resolved.
#[derive(Debug)]
struct Views;

impl RightSides for Views {
    fn plan_written(
        &self,
        join: &AsofSyntax<'_>,
        _context: &mut dyn datafusion::logical_expr::planner::RelationPlannerContext,
    ) -> Result<Option<LogicalPlan>> {
        Ok((join.right.to_string() == "view v").then(|| join.left.clone()))
    }

    fn plan_resolved(&self, join: &AsofJoin) -> Result<Option<LogicalPlan>> {
        let columns = join.right.schema().columns();
        Ok(columns.iter().any(|c| c.name == "rate" && c.relation.as_ref().is_some_and(|r| r.table() == "m")).then(|| join.left.clone()))
    }
}

#[tokio::test]
async fn a_catalog_takes_over_its_own_right_sides() {
    let ctx = context(PLAIN, Arc::new(Views));
    fixture(&ctx);
    for right in ["view v MATCH_CONDITION (t.ts >= v.ts) ON t.cur = v.cur", "rates m MATCH_CONDITION (t.ts >= m.ts) ON t.cur = m.cur"] {
        let plan = plan(&ctx, &format!("SELECT * FROM trades t ASOF JOIN {right}")).await.unwrap();
        assert!(!plan.display_indent().to_string().contains("AsofJoin"), "{plan}");
    }
    let plan = plan(&ctx, "SELECT * FROM trades t ASOF JOIN rates r MATCH_CONDITION (t.ts >= r.ts)").await.unwrap();
    assert!(plan.display_indent().to_string().contains("AsofJoin: match=[t.ts >= r.ts], ties=[r.cur, r.rate, r.source]"), "{plan}");
}

/// A text of bounded size must not overflow the stack, which in a debug build is used up fastest.
#[tokio::test]
async fn a_long_chain_is_planned_or_refused() {
    let asof = |i: usize| format!(" ASOF JOIN rates r{i} MATCH_CONDITION (t.ts >= r{i}.ts) ON t.cur = r{i}.cur");
    let ordinary = |i: usize| format!(" JOIN trades u{i} ON t.id = u{i}.id");
    for (joins, mixed, planned) in
        [(64, false, true), (12, true, true), (65, false, false), (13, true, false), (3000, false, false), (3000, true, false)]
    {
        let mut sql = "SELECT t.id FROM trades t".to_string();
        for i in 0..joins {
            sql += &asof(i);
            if mixed {
                sql += &ordinary(i);
            }
        }
        let ctx = context(PLAIN, Arc::new(OrdinaryTables));
        fixture(&ctx);
        match plan(&ctx, &sql).await {
            Ok(plan) => {
                assert!(planned, "{joins}");
                ctx.state().create_physical_plan(&plan).await.unwrap();
            }
            Err(e) => assert!(!planned && e.to_string().contains("chains"), "{joins}: {e}"),
        }
    }
}

fn ways() -> Vec<Way> {
    let mut all = Vec::new();
    for build in [Build::Left, Build::Right] {
        for memory in [None, Some(6_000), Some(60_000)] {
            for (partitions, batch_rows) in [(1, 8192), (3, 16)] {
                all.push(Way { partitions, batch_rows, memory, build: Some(build) });
            }
        }
    }
    all
}

#[tokio::test]
async fn agrees_with_nested_loops() {
    for seed in 0..400 {
        let all = ways();
        check_random(seed, all[seed as usize % all.len()], (40, 60)).await;
    }
}

#[tokio::test]
async fn agrees_with_nested_loops_when_pieces_do_not_fit() {
    for seed in 1000..1012 {
        let build = if seed % 2 == 0 { Build::Left } else { Build::Right };
        let way = Way { partitions: 2, batch_rows: 64, memory: Some(40_000), build: Some(build) };
        check_random(seed, way, (3000, 400)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_right_side_with_many_ties() {
    for build in [Build::Left, Build::Right] {
        for memory in [None, Some(400_000)] {
            let way = Way { partitions: 2, batch_rows: 1024, memory, build: Some(build) };
            check_random(77, way, (300, 20_000)).await;
        }
    }
}

fn fixture(ctx: &SessionContext) {
    let ts = |s: i64| ScalarValue::TimestampMicrosecond(Some(s * 1_000_000), Some("UTC".into()));
    let text = |s: &str| ScalarValue::Utf8View(Some(s.into()));
    let f = |x: f64| ScalarValue::Float64(Some(x));
    let trades = Table {
        schema: Arc::new(Schema::new(vec![
            Field::new("id", DataType::Int64, false),
            Field::new("cur", DataType::Utf8View, true),
            Field::new("ts", micros(), true),
        ])),
        rows: [(1, "EUR", 10), (2, "EUR", 20), (3, "USD", 5), (4, "GBP", 50), (5, "EUR", 20)]
            .into_iter()
            .map(|(i, c, s)| vec![ScalarValue::Int64(Some(i)), text(c), ts(s)])
            .collect(),
    };
    trades.register(ctx, "trades", 1, 2);
    let rates = Table {
        schema: Arc::new(Schema::new(vec![
            Field::new("cur", DataType::Utf8View, false),
            Field::new("ts", micros(), false),
            Field::new("rate", DataType::Float64, false),
            Field::new("source", DataType::Utf8View, false),
        ])),
        rows: [("EUR", 10, 1.1, "b"), ("EUR", 10, 1.1, "a"), ("EUR", 15, 1.2, "a"), ("USD", 6, 1.0, "a"), ("GBP", 1, 0.8, "z")]
            .into_iter()
            .map(|(c, s, r, w)| vec![text(c), ts(s), f(r), text(w)])
            .collect(),
    };
    rates.register(ctx, "rates", 1, 2);
}

async fn text(sql: &str) -> String {
    let ctx = context(PLAIN, Arc::new(OrdinaryTables));
    fixture(&ctx);
    match run(&ctx, sql, None).await {
        Ok(batches) => pretty_format_batches(&batches).unwrap().to_string(),
        Err(e) => e.strip_backtrace(),
    }
}

async fn check(sql: &str, expected: &[&str]) {
    let actual = text(sql).await;
    let lines: Vec<&str> = actual.lines().filter(|l| !l.starts_with('+')).skip(1).collect();
    let cells = |l: &str| l.split('|').map(str::trim).filter(|c| !c.is_empty()).collect::<Vec<_>>().join(" ");
    assert_eq!(lines.iter().map(|l| cells(l)).collect::<Vec<_>>(), expected, "{sql}\n{actual}");
}

#[tokio::test]
async fn joins_inside_any_sql() {
    // Unmatched columns are NULL, which prints as nothing.
    check(
        "SELECT t.id, r.rate, r.source FROM trades t ASOF JOIN rates r MATCH_CONDITION (t.ts >= r.ts) ON t.cur = r.cur ORDER BY id",
        &["1 1.1 b", "2 1.2 a", "3", "4 0.8 z", "5 1.2 a"],
    )
    .await;
    check(
        "SELECT t.id, r.rate FROM trades t ASOF JOIN rates r MATCH_CONDITION (t.ts > r.ts) ON r.cur = t.cur ORDER BY id",
        &["1", "2 1.2", "3", "4 0.8", "5 1.2"],
    )
    .await;
    check(
        "SELECT id, cur, rate FROM trades ASOF JOIN rates MATCH_CONDITION (trades.ts <= rates.ts) USING (cur) ORDER BY id",
        &["1 EUR 1.1", "2 EUR", "3 USD 1.0", "4 GBP", "5 EUR"],
    )
    .await;
    check(
        "SELECT * FROM trades t ASOF JOIN rates r MATCH_CONDITION (t.ts >= r.ts) USING (cur) WHERE t.id = 4",
        &["4 GBP 1970-01-01T00:00:50Z 1970-01-01T00:00:01Z 0.8 z"],
    )
    .await;
    check(
        "SELECT id, rate FROM trades t ASOF JOIN (SELECT ts AS at, rate FROM rates) r MATCH_CONDITION (at <= ts) ORDER BY id",
        &["1 1.1", "2 1.2", "3 0.8", "4 1.2", "5 1.2"],
    )
    .await;
    check(
        "WITH late AS (SELECT * FROM rates WHERE ts > TIMESTAMP '1970-01-01 00:00:12'), t AS (SELECT * FROM trades)
         SELECT t.id, late.rate FROM t ASOF JOIN late MATCH_CONDITION (t.ts >= late.ts) ON t.cur = late.cur ORDER BY 1",
        &["1", "2 1.2", "3", "4", "5 1.2"],
    )
    .await;
    check(
        "SELECT t.id, a.rate, b.rate AS next FROM trades t
         ASOF JOIN rates a MATCH_CONDITION (t.ts >= a.ts) ON t.cur = a.cur
         ASOF JOIN rates b MATCH_CONDITION (t.ts < b.ts) ON t.cur = b.cur
         JOIN (SELECT DISTINCT cur FROM rates) d ON d.cur = t.cur ORDER BY 1",
        &["1 1.1 1.2", "2 1.2", "3 1.0", "4 0.8", "5 1.2"],
    )
    .await;
    check(
        "SELECT t.id, u.id AS other, r.rate FROM trades t JOIN trades u ON t.id = u.id - 1
         ASOF JOIN rates r MATCH_CONDITION (u.ts >= r.ts) ON t.cur = r.cur ORDER BY 1",
        &["1 2 1.2", "2 3", "3 4 1.0", "4 5 0.8"],
    )
    .await;
    check(
        "SELECT r.source, count(*) AS n, sum(rate) AS s FROM trades t ASOF JOIN rates r MATCH_CONDITION (t.ts >= r.ts) ON t.cur = r.cur
         GROUP BY r.source ORDER BY 1",
        &["a 2 2.4", "b 1 1.1", "z 1 0.8", "1"],
    )
    .await;
    check("SELECT count(*) FROM trades t ASOF JOIN rates r MATCH_CONDITION (t.ts >= r.ts) ON t.cur = r.cur", &["5"]).await;
    check(
        "SELECT id FROM trades WHERE id IN (SELECT t.id FROM trades t ASOF JOIN rates r MATCH_CONDITION (t.ts >= r.ts) ON t.cur = r.cur
         WHERE r.rate > 1.15) ORDER BY id",
        &["2", "5"],
    )
    .await;
    check(
        "SELECT id FROM (trades t ASOF JOIN rates r MATCH_CONDITION (t.ts >= r.ts) ON t.cur = r.cur) WHERE rate IS NULL ORDER BY id",
        &["3"],
    )
    .await;
    check(
        "SELECT t.id, j.rate FROM trades t LEFT JOIN (trades x ASOF JOIN rates r MATCH_CONDITION (x.ts >= r.ts) ON x.cur = r.cur) AS j
         ON j.id = t.id WHERE t.id < 3 ORDER BY 1",
        &["1 1.1", "2 1.2"],
    )
    .await;
    check(
        "SELECT t.id, r.rate FROM trades t ASOF JOIN rates r MATCH_CONDITION (CAST(t.ts AS DATE) >= r.ts) ON lower(t.cur) = lower(r.cur)
         ORDER BY 1",
        &["1", "2", "3", "4", "5"],
    )
    .await;
}

#[tokio::test]
async fn refuses_what_it_cannot_mean() {
    let join = |rest: &str| format!("SELECT * FROM trades t ASOF JOIN rates r {rest}");
    let cases = [
        ("MATCH_CONDITION (t.ts = r.ts)", "compares by =; use one of >=, >, <=, <"),
        ("MATCH_CONDITION (t.ts >= r.ts AND t.id > 3)", "joins comparisons by AND"),
        ("MATCH_CONDITION (t.ts >= t.ts)", "both sides of MATCH_CONDITION (t.ts >= t.ts) are over the left side"),
        ("MATCH_CONDITION (t.ts >= now())", "which names no column"),
        ("MATCH_CONDITION (t.ts)", "not a comparison"),
        ("MATCH_CONDITION (t.ts >= r.rate)", "which have no common type"),
        ("MATCH_CONDITION (t.ts >= r.ts) ON t.cur = r.cur OR t.id = 1", "it takes equalities joined by AND"),
        ("MATCH_CONDITION (t.ts >= r.ts) ON t.cur = r.cur AND t.id > 1", "ON of an ASOF JOIN holds t.id > 1"),
        ("MATCH_CONDITION (t.ts >= r.ts) ON t.cur = 'EUR'", "which names no column"),
        ("MATCH_CONDITION (t.ts >= r.ts) ON t.cur = t.cur", "both sides of t.cur = t.cur in ON are over the left side"),
        ("MATCH_CONDITION (t.ts >= (SELECT max(ts) FROM rates))", "holds a subquery"),
        ("MATCH_CONDITION (t.ts >= r.ts) ON cur = r.cur", "mbiguous"),
        ("MATCH_CONDITION (t.ts >= r.time)", "time"),
        ("MATCH_CONDITION (t.ts >= r.ts) USING (id)", "id"),
    ];
    for (rest, expected) in cases {
        let message = text(&join(rest)).await;
        assert!(message.contains(expected), "{rest}: {message}");
    }
    let lateral = text("SELECT * FROM trades t ASOF JOIN LATERAL (SELECT * FROM rates) r MATCH_CONDITION (t.ts >= r.ts)").await;
    assert!(lateral.contains("LATERAL"), "{lateral}");
    let ambiguous = text("SELECT ts FROM trades t ASOF JOIN rates r MATCH_CONDITION (t.ts >= r.ts) USING (cur)").await;
    assert!(ambiguous.contains("mbiguous"), "{ambiguous}");
}

#[derive(Debug)]
struct Keyed;

impl RightSides for Keyed {
    fn tie_order(&self, table: &TableReference) -> Option<TieOrder> {
        let identity = Some(Identity { time: 1, columns: 1 });
        (table.table() == "rates").then(|| TieOrder { columns: vec![3, 0, 2], identity })
    }
}

async fn explained(sql: &str, sides: Arc<dyn RightSides>) -> String {
    let ctx = context(PLAIN, sides);
    fixture(&ctx);
    let batches = run(&ctx, &format!("EXPLAIN {sql}"), None).await.unwrap();
    pretty_format_batches(&batches).unwrap().to_string()
}

#[tokio::test]
async fn reads_only_the_columns_that_decide() {
    let sql = "SELECT t.id, r.rate FROM trades t ASOF JOIN rates r MATCH_CONDITION (t.ts >= r.ts) ON t.cur = r.cur";
    let all = explained(sql, Arc::new(OrdinaryTables)).await;
    // rate decides ties alone: what comes after it cannot change it, what comes before it is a key or the match value.
    assert!(all.contains("ties=[r.rate]") && all.contains("TableScan: rates projection=[cur, ts, rate]"), "{all}");
    let source = explained(&sql.replace("r.rate", "r.source"), Arc::new(OrdinaryTables)).await;
    assert!(source.contains("ties=[r.rate, r.source]"), "{source}");
    let key = explained(sql, Arc::new(Keyed)).await;
    assert!(key.contains("ties=[r.source]") && key.contains("TableScan: rates projection=[cur, ts, rate, source]"), "{key}");
    let none = explained(&sql.replace("r.rate", "r.ts"), Arc::new(Keyed)).await;
    assert!(none.contains("TableScan: rates projection=[cur, ts]") && !none.contains("ties="), "{none}");
    assert!(all.contains("AsofJoinExec: match=[ts@2 >= ts@1], on=[cur@1 = cur@0], ties=[rate@2], index="), "{all}");
}

#[tokio::test]
async fn pushes_filters_of_the_left_side_only() {
    let sql = "SELECT t.id, r.rate FROM trades t ASOF JOIN rates r MATCH_CONDITION (t.ts >= r.ts) ON t.cur = r.cur
               WHERE t.id > 1 AND r.rate > 1 AND t.id + r.rate < 100";
    let plan = explained(sql, Arc::new(OrdinaryTables)).await;
    let logical = plan.split("physical_plan").next().unwrap_or_default();
    let join = logical.find("AsofJoin").unwrap();
    assert!(logical[..join].contains("r.rate > Float64(1)"), "{plan}");
    assert!(!logical[..join].contains("t.id > Int64(1)") && logical[join..].contains("id > Int64(1)"), "{plan}");
}

#[tokio::test]
async fn a_plan_runs_again() {
    let ctx = context(PLAIN, Arc::new(OrdinaryTables));
    fixture(&ctx);
    let sql = "SELECT t.id, r.rate FROM trades t ASOF JOIN rates r MATCH_CONDITION (t.ts >= r.ts) ON t.cur = r.cur";
    let logical = plan(&ctx, sql).await.unwrap();
    let physical = ctx.state().create_physical_plan(&logical).await.unwrap();
    let (a, b) = (collect(Arc::clone(&physical), ctx.task_ctx()), collect(Arc::clone(&physical), ctx.task_ctx()));
    let (a, b) = futures::join!(a, b);
    assert_eq!(shown(rows_of(&a.unwrap())), shown(rows_of(&b.unwrap())));
    assert_eq!(rows_of(&collect(physical, ctx.task_ctx()).await.unwrap()).len(), 5);
}

#[test]
fn rewriting_twice_changes_nothing_more() {
    let sql = "WITH c AS (SELECT * FROM a ASOF JOIN b MATCH_CONDITION (a.t >= b.t)) SELECT * FROM (SELECT * FROM x JOIN y ON x.i = y.i \
               ASOF JOIN z MATCH_CONDITION (x.t >= z.t) USING (k) LEFT JOIN w ON true ASOF JOIN c MATCH_CONDITION (x.t > c.t)) AS s, \
               (p ASOF JOIN q MATCH_CONDITION (p.t < q.t)) AS n";
    let dialect = datafusion::sql::sqlparser::dialect::GenericDialect {};
    let mut parsed = datafusion::sql::sqlparser::parser::Parser::parse_sql(&dialect, sql).unwrap();
    rewrite_asof(&mut parsed);
    let once = parsed.clone();
    rewrite_asof(&mut parsed);
    assert_eq!(once, parsed);
    let expected = "FROM (x JOIN y ON x.i = y.i ASOF JOIN z MATCH_CONDITION (x.t >= z.t) USING(k) LEFT JOIN w ON true \
                    ASOF JOIN c MATCH_CONDITION (x.t > c.t))";
    assert!(once[0].to_string().contains(expected), "{}", once[0]);
}
