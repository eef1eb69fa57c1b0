//! Random worlds through the engine: stream == batch == oracle, bit for bit.
//!
//! Each seed is one world ([`oracle::generate`]). It is taken in call by call, with counts compared; views come before, between or after the
//! events; the engine may be restarted in the middle. Then every question is answered three times over: by the online state, by history, and as
//! a row of a training query. Every other seed runs again as a variant: arrivals shuffled and duplicated, or a state that evicts.
//!
//! `ASOF_RANDOM_CASES` (20,000) is how many (view, entity, instant) to compare, `ASOF_RANDOM_SEED` runs one seed alone, and
//! `ASOF_RANDOM_FIRST` moves the range of seeds. For a long run, `ASOF_RANDOM_PER_SEED` (150) asks more of each world, and
//! `ASOF_RANDOM_HISTORY=n` asks history by FOR ENTITY only n questions of a seed (training queries still ask them all, of the same history). A failure prints its seed and the smallest script found that still fails.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, new_null_array};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, DurationMicrosecondType, Field, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type,
    Int64Type, IntervalMonthDayNanoType, IntervalUnit, Schema, TimeUnit, TimestampMicrosecondType,
};
use asof::{Durability, Engine, IngestCounts, Output, ReadPath, Settings};
use futures::StreamExt;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::oracle::value::order_rows;
use crate::oracle::{Call, CallKind, Case, Cell, Counts, History, Question, Record, Type, Value, View, civil, generate, render};
use crate::slt::StillClock;

/// (view, entity, instant) of one seed.
const CASES_PER_SEED: u64 = 150;
/// 2200-01-01: no generated event is of the future, whatever the day of the run.
const NOW_US: i64 = 7_258_118_400_000_000;
/// A look-back and a disorder that cover every generated instant.
const EVER_US: i64 = 36_500 * civil::DAY;
/// Runs that are spent on making a failure smaller.
const SHRINK_RUNS_MAX: usize = 200;

/// How a world is run. What a plan says never changes a value.
#[derive(Debug, Clone)]
struct Plan {
    read_path: ReadPath,
    look_back_us: i64,
    /// Before which call each view is created.
    create_before: Vec<usize>,
    /// Before which calls the engine is closed and opened again.
    restart_before: Vec<usize>,
    /// Whether the engine leaves checkpoints when it is first closed; later states then begin from these and what came since.
    checkpoints: bool,
    /// The streams whose small files are rewritten whenever the engine is closed.
    compact: Vec<String>,
    /// After which call some questions are asked already.
    ask_after: Option<usize>,
    /// Ask history and training queries as well.
    batch: bool,
    spine_as_parquet: bool,
}

/// A difference, or a refusal of what should be accepted.
#[derive(Debug)]
struct Failure {
    text: String,
    /// The question and the feature, where it is one value.
    at: Option<(Question, Option<usize>)>,
}

impl Failure {
    fn new(text: String) -> Failure {
        Failure { text, at: None }
    }
}

type Outcome<T> = Result<T, Failure>;

#[tokio::test(flavor = "multi_thread")]
async fn stream_batch_and_oracle_agree() {
    let cases = variable("ASOF_RANDOM_CASES").unwrap_or(20_000);
    let first = variable("ASOF_RANDOM_FIRST").unwrap_or(1);
    let seeds = match variable("ASOF_RANDOM_SEED") {
        Some(seed) => seed..seed + 1,
        None => first..first + cases.div_ceil(cases_per_seed()),
    };
    let total = seeds.end - seeds.start;
    let workers = std::thread::available_parallelism().map_or(2, usize::from);
    let mut runs =
        futures::stream::iter(seeds).map(|seed| async move { (seed, tokio::spawn(run_seed(seed)).await) }).buffer_unordered(workers);
    let (mut compared, mut done, mut failed) = (0_u64, 0_u64, Vec::new());
    while let Some((seed, outcome)) = runs.next().await {
        done += 1;
        match outcome {
            Ok(Ok(count)) => compared += count,
            Ok(Err(report)) => {
                eprintln!("{report}");
                failed.push(seed);
            }
            Err(panic) => {
                eprintln!("seed {seed}: {panic}");
                failed.push(seed);
            }
        }
        if done % 100 == 0 {
            eprintln!("{done} of {total} seeds, {compared} cases, {} failed", failed.len());
        }
        // One failure is enough to look at; a few show whether it is one cause.
        if failed.len() >= 5 {
            break;
        }
    }
    assert!(failed.is_empty(), "seeds {failed:?} differ; ASOF_RANDOM_SEED=<seed> runs one alone");
    println!("{compared} (view, entity, instant) cases over {done} seeds: stream == batch == oracle");
}

fn cases_per_seed() -> u64 {
    variable("ASOF_RANDOM_PER_SEED").unwrap_or(CASES_PER_SEED)
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|value| value.parse().ok())
}

/// All runs of one seed; the number of cases, or a report of what differs.
async fn run_seed(seed: u64) -> Result<u64, String> {
    let case = generate::case(seed, cases_per_seed() as usize);
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0x5eed);
    let plan = plan(&case, &mut rng);
    let answers = attempt("as it comes", &case, &plan).await?;
    let again = match seed % 4 {
        0 => {
            let shuffled = shuffled(&case, &mut rng);
            let plan = Plan { create_before: vec![0; case.views.len()], batch: false, ask_after: None, restart_before: vec![], ..plan };
            attempt("shuffled", &shuffled, &plan).await?
        }
        2 => {
            // The state holds no more than it must; older instants come from history.
            let restart_before =
                if plan.restart_before.is_empty() { vec![case.calls.len() / 2, case.calls.len()] } else { plan.restart_before };
            let create_before = vec![0; case.views.len()];
            let plan = Plan { read_path: ReadPath::Auto, look_back_us: 0, create_before, restart_before, batch: false, ..plan };
            attempt("evicting", &case, &plan).await?
        }
        _ => return Ok(case.questions.len() as u64),
    };
    // Sketches too depend on the set of events alone.
    same_answers(&case, &answers, &again).map_err(|failure| format!("seed {seed}, one run against the other: {}", failure.text))?;
    Ok(case.questions.len() as u64)
}

fn plan(case: &Case, rng: &mut ChaCha8Rng) -> Plan {
    let calls = case.calls.len();
    let create_before = case.views.iter().map(|_| if rng.random_bool(0.6) { 0 } else { rng.random_range(0..=calls) }).collect();
    Plan {
        read_path: ReadPath::Online,
        look_back_us: EVER_US,
        create_before,
        restart_before: (0..if rng.random_bool(0.5) { rng.random_range(1..=3) } else { 0 }).map(|_| rng.random_range(0..=calls)).collect(),
        checkpoints: case.seed.is_multiple_of(2),
        compact: case.streams.iter().filter(|_| case.seed % 3 == 1).map(|s| s.name.clone()).collect(),
        ask_after: rng.random_bool(0.3).then(|| rng.random_range(0..=calls)),
        batch: true,
        spine_as_parquet: rng.random_bool(0.5),
    }
}

/// The accepted events alone, in any order, in other calls, some twice; nothing is late under so wide a disorder.
fn shuffled(case: &Case, rng: &mut ChaCha8Rng) -> Case {
    let history = case.history(case.calls.len());
    let mut variant = Case { calls: Vec::new(), ..case.clone() };
    for (index, stream) in variant.streams.iter_mut().enumerate() {
        stream.disorder_us = EVER_US;
        let mut rows = history.streams[index].rows.clone();
        if !stream.primary_key.is_empty() {
            let again: Vec<Vec<Value>> = rows.iter().filter(|_| rng.random_bool(0.1)).cloned().collect();
            rows.extend(again);
        }
        rows.shuffle(rng);
        let mut rows = rows.into_iter();
        loop {
            let size = rng.random_range(1..=200);
            let record = |row: Vec<Value>| Record::Row { cells: row.into_iter().map(Cell::Value).collect(), style: 0 };
            let records: Vec<Record> = rows.by_ref().take(size).map(record).collect();
            if records.is_empty() {
                break;
            }
            let kind = if rng.random_bool(0.2) { CallKind::Copy } else { CallKind::Push };
            variant.calls.push(Call { stream: index, kind, records });
        }
    }
    variant.calls.shuffle(rng);
    let (before, after) = (history, variant.history(variant.calls.len()));
    for stream in 0..case.streams.len() {
        let (a, b) = (before.visible(&case.streams, stream), after.visible(&variant.streams, stream));
        assert!(
            a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| order_rows(a, b).is_eq()),
            "the order of arrival changes nothing visible"
        );
    }
    variant
}

/// One run; where it fails, the smallest world found that still fails, as a report.
async fn attempt(name: &str, case: &Case, plan: &Plan) -> Result<Answers, String> {
    let failure = match run(case, plan).await {
        Ok(answers) => return Ok(answers),
        Err(failure) => failure,
    };
    let (small, failure, plan) = shrink(case, plan, failure).await;
    let question = failure.at.as_ref().map_or_else(|| small.questions.first().cloned(), |(question, _)| Some(question.clone()));
    let mut report = format!("seed {}, run {name:?} differs: {}\nplan: {plan:?}\n", case.seed, failure.text);
    if let Some(question) = question {
        report += &render::script(&small, &question);
        report += &events(&small, &question);
    }
    Err(report)
}

/// The events that the oracle sees for a question, in order.
fn events(case: &Case, question: &Question) -> String {
    let history = case.history(case.calls.len());
    let relation = &case.relations(&history)[question.view];
    let mut text =
        format!("-- the view has {} events up to the instant:\n", relation.events.iter().filter(|event| event.at <= question.at).count());
    for event in relation.events.iter().filter(|event| event.at <= question.at).rev().take(40) {
        let _ = writeln!(text, "--   {} {:?}", civil::timestamp_text(event.at, ' '), event.cells);
    }
    text
}

// ---- one run

async fn open(warehouse: &Path, read_path: ReadPath, plan: &Plan) -> Outcome<Engine> {
    let checkpoint_interval_us = if plan.checkpoints { 60_000_000 } else { 0 };
    let settings = Settings { read_path, look_back_default_us: plan.look_back_us, checkpoint_interval_us, ..Settings::default() };
    let built = Engine::builder()
        .durability(Durability::Process)
        .warehouse(warehouse.to_str().expect("a temporary path is UTF-8"))
        .settings(settings)
        .clock(Arc::new(StillClock(NOW_US)))
        .build()
        .await;
    built.map_err(|error| Failure::new(format!("open: {error}")))
}

async fn execute(engine: &Engine, sql: &str) -> Outcome<Vec<Output>> {
    engine.execute(sql, &[]).await.map_err(|error| Failure::new(format!("{error}\nin: {sql}")))
}

/// The one result of a query.
async fn query(engine: &Engine, sql: &str) -> Outcome<Vec<RecordBatch>> {
    match execute(engine, sql).await?.pop() {
        Some(Output::Rows { batches, .. }) => Ok(batches),
        _ => Err(Failure::new(format!("no rows from: {sql}"))),
    }
}

async fn run(case: &Case, plan: &Plan) -> Outcome<Answers> {
    let folder = tempfile::tempdir().map_err(|error| Failure::new(format!("temporary folder: {error}")))?;
    let warehouse = folder.path().join("warehouse");
    let mut engine = open(&warehouse, plan.read_path, plan).await?;
    for stream in &case.streams {
        execute(&engine, &render::create_stream(stream)).await?;
    }
    let mut history = History::new(&case.streams);
    for (i, call) in case.calls.iter().enumerate() {
        create_views(&engine, case, plan, i).await?;
        if let Some(n) = plan.restart_before.iter().position(|before| *before == i) {
            engine = restart(engine, &warehouse, case, plan, n).await?;
        }
        if call.records.is_empty() && call.kind != CallKind::Reprocess {
            // What a smaller failure has left of a call.
            continue;
        }
        history.apply(&case.streams, call);
        let counts = send(&engine, case, call, &folder.path().join(format!("call{i}.json"))).await?;
        let expected = *history.counts.last().expect("one a call");
        // What REPROCESS replies is not defined; what it did is read below.
        if counts.is_some_and(|counts| counts != expected) {
            return Err(Failure::new(format!("call {i} ({:?}) counts {counts:?}, expected {expected:?}", call.kind)));
        }
        if plan.ask_after == Some(i) {
            let made = |question: &&Question| plan.create_before[question.view] <= i;
            let some: Vec<Question> = case.questions.iter().filter(made).take(30).cloned().collect();
            serve(&engine, case, &history, &some, "online, between the calls").await?;
        }
    }
    create_views(&engine, case, plan, case.calls.len()).await?;
    if let Some(n) = plan.restart_before.iter().position(|before| *before == case.calls.len()) {
        engine = restart(engine, &warehouse, case, plan, n).await?;
    }
    let online = serve(&engine, case, &history, &case.questions, "online").await?;
    serve_together(&engine, case, &history).await?;
    if plan.batch {
        engine = reopen(engine, &warehouse, ReadPath::History, plan).await?;
        let asked = variable("ASOF_RANDOM_HISTORY").map_or(usize::MAX, |n| n as usize).min(case.questions.len());
        let offline = serve(&engine, case, &history, &case.questions[..asked], "history").await?;
        same_answers(case, &online, &offline)?;
        let trained = train(&engine, case, &history, plan, folder.path()).await?;
        same_answers(case, &online, &trained)?;
        read_streams(&engine, case, &history).await?;
    }
    engine.close().await.map_err(|error| Failure::new(format!("close: {error}")))?;
    Ok(online)
}

async fn reopen(engine: Engine, warehouse: &Path, read_path: ReadPath, plan: &Plan) -> Outcome<Engine> {
    for stream in &plan.compact {
        engine.compact(stream, 2).await.map_err(|error| Failure::new(format!("compaction of {stream}: {error}")))?;
    }
    engine.close().await.map_err(|error| Failure::new(format!("close: {error}")))?;
    open(warehouse, read_path, plan).await
}

/// Closed and opened again; every second time all states are there from the start, and every third engine leaves no checkpoints.
async fn restart(engine: Engine, warehouse: &Path, case: &Case, plan: &Plan, n: usize) -> Outcome<Engine> {
    let next = Plan { checkpoints: plan.checkpoints && n != 1, ..plan.clone() };
    let engine = reopen(engine, warehouse, plan.read_path, &next).await?;
    if (case.seed / 4 + n as u64).is_multiple_of(2) {
        engine.warm().await.map_err(|error| Failure::new(format!("states after a restart: {error}")))?;
    }
    Ok(engine)
}

async fn create_views(engine: &Engine, case: &Case, plan: &Plan, before: usize) -> Outcome<()> {
    for (view, _) in case.views.iter().zip(&plan.create_before).filter(|(_, at)| **at == before) {
        execute(engine, &render::create_view(view, &case.streams)).await?;
    }
    Ok(())
}

async fn send(engine: &Engine, case: &Case, call: &Call, file: &Path) -> Outcome<Option<Counts>> {
    let stream = &case.streams[call.stream];
    let counts = match call.kind {
        CallKind::Push => {
            let lines = render::json_lines(stream, call);
            engine
                .push_json(&stream.name, lines.as_bytes(), None)
                .await
                .map_err(|error| Failure::new(format!("push into {}: {error}\n{lines}", stream.name)))?
        }
        CallKind::Reprocess => {
            execute(engine, &render::reprocess(stream)).await?;
            return Ok(None);
        }
        CallKind::Insert => counted(execute(engine, &render::insert(stream, call)).await?)?,
        CallKind::Copy => {
            std::fs::write(file, render::json_lines(stream, call))
                .map_err(|error| Failure::new(format!("write {}: {error}", file.display())))?;
            counted(execute(engine, &format!("COPY {} FROM '{}' (FORMAT json)", stream.name, file.display())).await?)?
        }
    };
    let IngestCounts { read, accepted, duplicate, late, rejected, conflicts, .. } = counts;
    Ok(Some(Counts { read, accepted, duplicate, late, rejected, conflicts }))
}

fn counted(mut outputs: Vec<Output>) -> Outcome<IngestCounts> {
    match outputs.pop() {
        Some(Output::Done { counts: Some(counts), .. }) => Ok(counts),
        _ => Err(Failure::new("an INSERT or COPY replied with no counts".into())),
    }
}

/// Answers by question, compared with the oracle.
type Answers = Vec<Vec<Value>>;

/// Asks the questions by FOR ENTITY: neighbours of one view, instant and match in one statement.
async fn serve(engine: &Engine, case: &Case, history: &History, questions: &[Question], path: &str) -> Outcome<Answers> {
    let relations = case.relations(history);
    let mut answers = Vec::new();
    for group in questions.chunk_by(|a, b| (a.view, a.at, a.strict) == (b.view, b.at, b.strict)) {
        let (view, first) = (&case.views[group[0].view], &group[0]);
        let entities: Vec<&[Value]> = group.iter().map(|question| question.entity.as_slice()).collect();
        let sql = render::serve(view, &case.streams, &entities, first.at, first.strict);
        let at = |failure: Failure| Failure { at: Some((first.clone(), None)), ..failure };
        let batches = query(engine, &sql).await.map_err(at)?;
        let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
        if rows != group.len() {
            return Err(at(Failure::new(format!("{path}: {rows} rows for {} entities\nin: {sql}", group.len()))));
        }
        let types = view.feature_types(&case.streams);
        let columns: Vec<Vec<Value>> = view
            .features
            .iter()
            .zip(&types)
            .map(|(feature, ty)| column(&batches, &feature.name, ty).map_err(at))
            .collect::<Outcome<_>>()?;
        // `*` begins with the entity columns, in the order asked for.
        for (i, (name, ty)) in render::entity_names(view, &case.streams).iter().zip(view.entity_types(&case.streams)).enumerate() {
            let keys = column(&batches, name, &ty).map_err(at)?;
            if let Some((key, question)) = keys.iter().zip(group).find(|(key, question)| !key.same(&question.entity[i])) {
                return Err(at(Failure::new(format!("{path}: entity {key:?} in the place of {:?}\nin: {sql}", question.entity))));
            }
        }
        for (row, question) in group.iter().enumerate() {
            let got: Vec<Value> = columns.iter().map(|column| column[row].clone()).collect();
            let expected = view.value(&relations[question.view], &question.entity, question.at, question.strict);
            agree(case, question, path, &got, &expected)?;
            answers.push(got);
        }
    }
    Ok(answers)
}

/// Some questions asked of all the views that share their entity, in one statement.
async fn serve_together(engine: &Engine, case: &Case, history: &History) -> Outcome<()> {
    let relations = case.relations(history);
    for question in case.questions.iter().step_by(15) {
        let entity = &case.views[question.view].entity;
        let together: Vec<usize> = (0..case.views.len()).filter(|&i| case.views[i].entity == *entity).collect();
        let views: Vec<&View> = together.iter().map(|&i| &case.views[i]).collect();
        let at = |failure: Failure| Failure { at: Some((question.clone(), None)), ..failure };
        let sql = render::serve_together(&views, &case.streams, &[&question.entity], question.at, question.strict);
        let batches = query(engine, &sql).await.map_err(at)?;
        for i in together {
            let view = &case.views[i];
            let mut got = Vec::new();
            for (feature, ty) in view.features.iter().zip(view.feature_types(&case.streams)) {
                let mut column = column(&batches, &format!("{}_{}", view.name, feature.name), &ty).map_err(at)?;
                if column.len() != 1 {
                    return Err(at(Failure::new(format!("{} rows for one entity\nin: {sql}", column.len()))));
                }
                got.append(&mut column);
            }
            let expected = view.value(&relations[i], &question.entity, question.at, question.strict);
            agree(case, &Question { view: i, ..question.clone() }, "several views", &got, &expected)?;
        }
    }
    Ok(())
}

fn agree(case: &Case, question: &Question, path: &str, got: &[Value], expected: &[Value]) -> Outcome<()> {
    let Some(feature) = (0..expected.len()).find(|&i| !got[i].same(&expected[i])) else { return Ok(()) };
    let (view, name) = (&case.views[question.view], &case.views[question.view].features[feature].name);
    let when = if question.strict { "before" } else { "as of" };
    let text = format!(
        "{path}: {}.{name} of {:?} {when} {} is {:?}, expected {:?}",
        view.name,
        question.entity,
        civil::timestamp_text(question.at, ' '),
        got[feature],
        expected[feature]
    );
    Err(Failure { text, at: Some((question.clone(), Some(feature))) })
}

/// The two paths against each other: what the oracle leaves open (sketches) is compared here.
fn same_answers(case: &Case, online: &Answers, offline: &Answers) -> Outcome<()> {
    for ((question, online), offline) in case.questions.iter().zip(online).zip(offline) {
        agree(case, question, "second answer against the first", offline, online)?;
    }
    Ok(())
}

/// Every question as a row of one spine, joined with all views at once: by `>=`, by `>`, and once mixed.
async fn train(engine: &Engine, case: &Case, history: &History, plan: &Plan, folder: &Path) -> Outcome<Answers> {
    let relations = case.relations(history);
    // All keys of the world: a view that uses one of them leaves the other free.
    let declared = &case.streams[0];
    let key_types: Vec<Type> =
        declared.columns.iter().filter(|column| column.name.starts_with('k')).map(|column| column.ty.clone()).collect();
    let key_of = |question: &Question| {
        let mut key = vec![Value::Null; key_types.len()];
        for (&column, value) in case.views[question.view].entity.iter().zip(&question.entity) {
            key[column] = value.clone();
        }
        key
    };
    let mut spine: Vec<(Vec<Value>, Option<i64>)> = case.questions.iter().map(|question| (key_of(question), Some(question.at))).collect();
    // A NULL instant gives NULL in every feature.
    spine.extend(case.questions.first().map(|question| (key_of(question), None)));
    let common = if plan.spine_as_parquet {
        let file = folder.join("spine.parquet");
        write_spine(&file, &key_types, &spine)?;
        execute(engine, &format!("CREATE EXTERNAL TABLE spine STORED AS PARQUET LOCATION '{}'", file.display())).await?;
        String::new()
    } else {
        spine_values(&key_types, &spine)
    };
    let mut answers: Answers = vec![Vec::new(); case.questions.len()];
    for pass in 0..3 {
        let is_strict = |view: usize| match pass {
            0 => false,
            1 => true,
            _ => view.is_multiple_of(2),
        };
        let mut list = vec!["s.n".to_owned()];
        let mut joins = String::new();
        for (i, view) in case.views.iter().enumerate() {
            let names = render::entity_names(view, &case.streams);
            let on: Vec<String> =
                view.entity.iter().zip(&names).map(|(column, name)| format!("s.e{column} = {}.{name}", view.name)).collect();
            let op = if is_strict(i) { ">" } else { ">=" };
            let time = render::time_name(view, &case.streams);
            let _ = write!(joins, "\nASOF JOIN {0} MATCH_CONDITION (s.t {op} {0}.{time}) ON {1}", view.name, on.join(" AND "));
            list.extend(view.features.iter().map(|feature| format!("{0}.{1} AS {0}_{1}", view.name, feature.name)));
        }
        let sql = format!("{common}SELECT {} FROM spine AS s{joins}", list.join(", "));
        let batches = query(engine, &sql).await?;
        let numbers: Vec<Value> = column(&batches, "n", &Type::I64)?;
        if numbers.len() != spine.len() {
            return Err(Failure::new(format!("training: {} rows from a spine of {}\nin: {sql}", numbers.len(), spine.len())));
        }
        for (i, view) in case.views.iter().enumerate() {
            let types = view.feature_types(&case.streams);
            let columns: Vec<Vec<Value>> = view
                .features
                .iter()
                .zip(&types)
                .map(|(feature, ty)| column(&batches, &format!("{}_{}", view.name, feature.name), ty))
                .collect::<Outcome<_>>()?;
            for (row, number) in numbers.iter().enumerate() {
                let Value::Int(number) = number else { return Err(Failure::new("training: a spine row lost its number".into())) };
                let number = usize::try_from(*number).expect("numbers are ours");
                let got: Vec<Value> = columns.iter().map(|column| column[row].clone()).collect();
                let (key, at) = &spine[number];
                let entity: Vec<Value> = view.entity.iter().map(|&column| key[column].clone()).collect();
                let question = Question { view: i, entity, at: at.unwrap_or(0), strict: is_strict(i) };
                let expected = match at {
                    Some(at) => view.value(&relations[i], &question.entity, *at, question.strict),
                    None => vec![Value::Null; columns.len()],
                };
                agree(case, &question, "training", &got, &expected)?;
                if case.questions.get(number).is_some_and(|asked| asked.view == i && asked.strict == question.strict) {
                    answers[number] = got;
                }
            }
        }
    }
    Ok(answers)
}

fn spine_values(types: &[Type], spine: &[(Vec<Value>, Option<i64>)]) -> String {
    let rows: Vec<String> = spine
        .iter()
        .enumerate()
        .map(|(n, (key, at))| {
            let mut cells = vec![n.to_string()];
            cells.extend(key.iter().zip(types).map(|(value, ty)| render::literal(value, ty)));
            cells.push(render::literal(&at.map_or(Value::Null, Value::Ts), &Type::Ts));
            format!("({})", cells.join(", "))
        })
        .collect();
    let keys: String = (0..types.len()).map(|i| format!("e{i}, ")).collect();
    format!("WITH spine (n, {keys}t) AS (VALUES {})\n", rows.join(", "))
}

fn write_spine(file: &Path, types: &[Type], spine: &[(Vec<Value>, Option<i64>)]) -> Outcome<()> {
    let numbers: Vec<Value> = (0..spine.len()).map(|n| Value::Int(n as i64)).collect();
    let times: Vec<Value> = spine.iter().map(|(_, at)| at.map_or(Value::Null, Value::Ts)).collect();
    let mut fields = vec![("n".to_owned(), array(&numbers, &Type::I64))];
    for (i, ty) in types.iter().enumerate() {
        let values: Vec<Value> = spine.iter().map(|(key, _)| key[i].clone()).collect();
        fields.push((format!("e{i}"), array(&values, ty)));
    }
    fields.push(("t".to_owned(), array(&times, &Type::Ts)));
    let schema = Schema::new(fields.iter().map(|(name, array)| Field::new(name, array.data_type().clone(), true)).collect::<Vec<_>>());
    let batch =
        RecordBatch::try_new(Arc::new(schema), fields.into_iter().map(|(_, array)| array).collect()).expect("columns of one length");
    let error = |error: &dyn std::fmt::Display| Failure::new(format!("write {}: {error}", file.display()));
    let out = std::fs::File::create(file).map_err(|e| error(&e))?;
    let mut writer = parquet::arrow::ArrowWriter::try_new(out, batch.schema(), None).map_err(|e| error(&e))?;
    writer.write(&batch).map_err(|e| error(&e))?;
    writer.close().map_err(|e| error(&e))?;
    Ok(())
}

/// Every stream as a table: the visible events, and how many were late and rejected.
async fn read_streams(engine: &Engine, case: &Case, history: &History) -> Outcome<()> {
    for (index, stream) in case.streams.iter().enumerate() {
        let batches = query(engine, &format!("SELECT * FROM {}", stream.name)).await?;
        let columns: Vec<Vec<Value>> =
            stream.columns.iter().map(|declared| column(&batches, &declared.name, &declared.ty)).collect::<Outcome<_>>()?;
        let rows = batches.iter().map(RecordBatch::num_rows).sum::<usize>();
        let mut got: Vec<Vec<Value>> = (0..rows).map(|row| columns.iter().map(|column| column[row].clone()).collect()).collect();
        got.sort_by(|a, b| order_rows(&stream.order_key(a), &stream.order_key(b)));
        let expected = history.visible(&case.streams, index);
        let same = |a: &Vec<Value>, b: &Vec<Value>| a.iter().zip(b).all(|(a, b)| a.same(b));
        if got.len() != expected.len() || !got.iter().zip(&expected).all(|(a, b)| same(a, b)) {
            let first =
                (0..got.len().max(expected.len())).find(|&i| !matches!((got.get(i), expected.get(i)), (Some(a), Some(b)) if same(a, b)));
            let first = first.expect("something differs");
            let text = format!(
                "{}: {} rows, expected {}; row {first} is {:?}, expected {:?}",
                stream.name,
                got.len(),
                expected.len(),
                got.get(first),
                expected.get(first)
            );
            return Err(Failure::new(text));
        }
        for (suffix, expected) in [("late", history.streams[index].late.len() as i64), ("rejected", history.streams[index].rejected as i64)]
        {
            let batches = query(engine, &format!("SELECT count(*) AS n FROM \"{}${suffix}\"", stream.name)).await?;
            let got = column(&batches, "n", &Type::I64)?;
            if !matches!(got[..], [Value::Int(n)] if n == expected) {
                return Err(Failure::new(format!("{}${suffix} holds {got:?}, expected {expected}", stream.name)));
            }
        }
    }
    Ok(())
}

// ---- Arrow to values and back

/// A named column of a result, its type checked.
fn column(batches: &[RecordBatch], name: &str, ty: &Type) -> Outcome<Vec<Value>> {
    let mut values = Vec::new();
    for batch in batches {
        let array = batch.column_by_name(name).ok_or_else(|| Failure::new(format!("no column {name:?} in {:?}", batch.schema())))?;
        if !is_of(array.data_type(), ty) {
            return Err(Failure::new(format!("column {name:?} is {:?}, expected {ty:?}", array.data_type())));
        }
        values.extend((0..array.len()).map(|row| value(array, row)));
    }
    Ok(values)
}

fn is_of(actual: &DataType, ty: &Type) -> bool {
    match (ty, actual) {
        (Type::Bool, DataType::Boolean)
        | (Type::I8, DataType::Int8)
        | (Type::I16, DataType::Int16)
        | (Type::I32, DataType::Int32)
        | (Type::I64, DataType::Int64)
        | (Type::F32, DataType::Float32)
        | (Type::F64, DataType::Float64)
        | (Type::Text, DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8)
        | (Type::Date, DataType::Date32)
        | (Type::Duration, DataType::Duration(TimeUnit::Microsecond) | DataType::Interval(IntervalUnit::MonthDayNano)) => true,
        (Type::Ts, DataType::Timestamp(TimeUnit::Microsecond, zone)) => {
            zone.as_deref().is_none_or(|zone| matches!(zone, "UTC" | "+00:00" | "Z"))
        }
        (Type::Dec(precision, scale), DataType::Decimal128(p, s)) => (precision, scale) == (p, s),
        (Type::List(item), DataType::List(field) | DataType::LargeList(field)) => is_of(field.data_type(), item),
        _ => false,
    }
}

fn value(array: &ArrayRef, row: usize) -> Value {
    if array.is_null(row) {
        return Value::Null;
    }
    match array.data_type() {
        DataType::Boolean => Value::Bool(array.as_boolean().value(row)),
        DataType::Int8 => Value::Int(array.as_primitive::<Int8Type>().value(row).into()),
        DataType::Int16 => Value::Int(array.as_primitive::<Int16Type>().value(row).into()),
        DataType::Int32 => Value::Int(array.as_primitive::<Int32Type>().value(row).into()),
        DataType::Int64 => Value::Int(array.as_primitive::<Int64Type>().value(row)),
        // The bits as they are: a NaN that is not the canonical one must be seen.
        DataType::Float32 => Value::F32(array.as_primitive::<Float32Type>().value(row)),
        DataType::Float64 => Value::F64(array.as_primitive::<Float64Type>().value(row)),
        DataType::Decimal128(_, scale) => Value::Dec(array.as_primitive::<Decimal128Type>().value(row), *scale),
        DataType::Utf8 => Value::text(array.as_string::<i32>().value(row)),
        DataType::LargeUtf8 => Value::text(array.as_string::<i64>().value(row)),
        DataType::Utf8View => Value::text(array.as_string_view().value(row)),
        DataType::Date32 => Value::Date(array.as_primitive::<Date32Type>().value(row)),
        DataType::Timestamp(TimeUnit::Microsecond, _) => Value::Ts(array.as_primitive::<TimestampMicrosecondType>().value(row)),
        DataType::Duration(TimeUnit::Microsecond) => Value::Duration(array.as_primitive::<DurationMicrosecondType>().value(row)),
        DataType::Interval(IntervalUnit::MonthDayNano) => {
            let interval = array.as_primitive::<IntervalMonthDayNanoType>().value(row);
            assert_eq!(interval.months, 0, "a difference of timestamps has no months");
            Value::Duration(i64::from(interval.days) * civil::DAY + interval.nanoseconds / 1_000)
        }
        DataType::List(_) => list(&array.as_list::<i32>().value(row)),
        DataType::LargeList(_) => list(&array.as_list::<i64>().value(row)),
        other => panic!("no value of {other:?}"),
    }
}

fn list(items: &ArrayRef) -> Value {
    Value::List((0..items.len()).map(|i| value(items, i)).collect())
}

/// A column of keys or instants.
fn array(values: &[Value], ty: &Type) -> ArrayRef {
    use arrow::array::{BooleanArray, Date32Array, Decimal128Array, Int64Array, StringArray, TimestampMicrosecondArray};
    fn only<T>(values: &[Value], pick: impl Fn(&Value) -> Option<T>) -> Vec<Option<T>> {
        values.iter().map(pick).collect()
    }
    let integers = || Int64Array::from(only(values, |v| if let Value::Int(x) = v { Some(*x) } else { None }));
    let narrow = |to: DataType| arrow::compute::cast(&integers(), &to).expect("keys fit their type");
    match ty {
        Type::Bool => Arc::new(BooleanArray::from(only(values, |v| if let Value::Bool(x) = v { Some(*x) } else { None }))),
        Type::I64 => Arc::new(integers()),
        Type::I32 => narrow(DataType::Int32),
        Type::I16 => narrow(DataType::Int16),
        Type::Text => Arc::new(StringArray::from(only(values, |v| if let Value::Text(x) = v { Some(x.clone()) } else { None }))),
        Type::Date => Arc::new(Date32Array::from(only(values, |v| if let Value::Date(x) = v { Some(*x) } else { None }))),
        Type::Ts => Arc::new(
            TimestampMicrosecondArray::from(only(values, |v| if let Value::Ts(x) = v { Some(*x) } else { None })).with_timezone("UTC"),
        ),
        Type::Dec(precision, scale) => {
            let digits = Decimal128Array::from(only(values, |v| if let Value::Dec(x, _) = v { Some(*x) } else { None }));
            Arc::new(digits.with_precision_and_scale(*precision, *scale).expect("a decimal type"))
        }
        _ => new_null_array(&DataType::Null, values.len()),
    }
}

// ---- smaller failures

/// Takes away what the failure does not need: other views, features and questions, then calls and records by halves, then the plan's turns.
async fn shrink(case: &Case, plan: &Plan, failure: Failure) -> (Case, Failure, Plan) {
    let mut best = (case.clone(), failure, plan.clone());
    let mut runs = 0;
    if let Some((question, feature)) = best.1.at.clone() {
        let (small, small_plan) = alone(&best.0, &best.2, &question, feature);
        if let Err(failure) = run(&small, &small_plan).await {
            best = (small, failure, small_plan);
        }
    }
    let straight = Plan { create_before: vec![0; best.0.views.len()], restart_before: vec![], ask_after: None, ..best.2.clone() };
    if let Err(failure) = run(&best.0, &straight).await {
        best = (best.0, failure, straight);
    }
    let mut size = records(&best.0).div_ceil(2);
    while size > 0 && runs < SHRINK_RUNS_MAX {
        let mut from = 0;
        while from < records(&best.0) && runs < SHRINK_RUNS_MAX {
            let small = without(&best.0, from, size);
            runs += 1;
            match run(&small, &best.2).await {
                Err(failure) => best = (small, failure, best.2),
                Ok(_) => from += size,
            }
        }
        size /= 2;
    }
    best
}

/// One view, one feature and one question.
fn alone(case: &Case, plan: &Plan, question: &Question, feature: Option<usize>) -> (Case, Plan) {
    let mut view = case.views[question.view].clone();
    if let Some(feature) = feature {
        view.features = vec![view.features[feature].clone()];
    }
    let small = Case { views: vec![view], questions: vec![Question { view: 0, ..question.clone() }], ..case.clone() };
    (small, Plan { create_before: vec![plan.create_before[question.view]], ..plan.clone() })
}

fn records(case: &Case) -> usize {
    case.calls.iter().map(|call| call.records.len()).sum()
}

/// The case without `size` records from the `from`th on. Calls stay, so that a plan's places stay.
fn without(case: &Case, from: usize, size: usize) -> Case {
    let mut seen = 0;
    let mut small = case.clone();
    for call in &mut small.calls {
        call.records.retain(|_| {
            seen += 1;
            !(from..from + size).contains(&(seen - 1))
        });
    }
    small
}

/// The comparison itself can fail.
#[test]
fn bits_are_compared() {
    let floats: ArrayRef =
        Arc::new(arrow::array::Float64Array::from(vec![Some(0.0), Some(-0.0), None, Some(f64::from_bits(0x7ff8_0000_0000_0001))]));
    let values: Vec<Value> = (0..4).map(|row| value(&floats, row)).collect();
    assert!(values[0].same(&Value::F64(0.0)) && !values[0].same(&values[1]) && !values[1].same(&values[2]));
    assert!(!values[3].same(&Value::float(f64::NAN)), "a NaN that is not the canonical one differs");
    assert!(is_of(&DataType::Decimal128(38, 2), &Type::Dec(38, 2)) && !is_of(&DataType::Decimal128(38, 3), &Type::Dec(38, 2)));
}
