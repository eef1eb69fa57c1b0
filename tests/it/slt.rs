//! SQL scripts under `tests/slt`, each run in every mode against one expected answer.
//!
//! A script is a sequence of records, with an empty line behind each; `#` begins a comment. Words in brackets may be left out.
//! ```text
//! # run: batch, stream                 (first lines: the modes of this script, by default all; a reason stands behind a semicolon)
//! # clock: 2026-03-01 12:00:00         (first lines: the time of day, by default 2030-01-01 00:00:00)
//! statement ok [accepted 2 duplicate 1 late 0 rejected 0 conflicts 0]
//! statement error E0302 [text that the message holds]          (- for any error)
//! events stream [accepted 2 ...]       then JSON lines: one call
//! file name                            then lines: written to $TMP/name
//! query [rowsort]                      then SQL, a line ----, and the rows
//! query error E0502 [text]
//! query contains text                  then SQL whose rows hold the text
//! ```
//! Values stand two spaces apart: floats as Rust's `{:?}` writes them, strings bare where they are one word, `NULL`, `[1, 2]`, instants as
//! `2026-03-01T12:00:00`. `$TMP` is a folder of the run. `ASOF_SLT=text` runs the scripts whose path holds the text;
//! `ASOF_SLT_MODE=batch` one mode; `ASOF_SLT_BLESS=1` rewrites expected rows with those of the first mode.
//!
//! What a script says once is checked in every mode, and in some modes twice: an entity asked for at an instant is asked for again as a
//! training query. Not here: random cases (`random`), the texts of errors (`diagnostics`).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes as at;
use arrow::datatypes::{DataType, TimeUnit};
use asof::{Clock, Engine, Error, IngestCounts, Kind, Output, ReadPath, Settings, WallTime};
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// How a script is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Every answer by the batch path over history.
    Batch,
    /// Every answer from the online state, which holds everything.
    Stream,
    /// The same, with the engine closed and opened again behind every write and before queries: from a checkpoint of this very state, from
    /// an older one and what came since, and from history.
    Restart,
    /// The same, with the arrivals of neighbouring `events` records shuffled, cut into other calls and, with a primary key, repeated.
    Shuffle,
    /// The default settings, and a disorder of one hour where the script has `INTERVAL '3650 days'`: state is evicted, and earlier
    /// instants are answered from history.
    Evict,
}

impl Mode {
    const ALL: [Mode; 5] = [Mode::Batch, Mode::Stream, Mode::Restart, Mode::Shuffle, Mode::Evict];

    fn name(self) -> &'static str {
        match self {
            Mode::Batch => "batch",
            Mode::Stream => "stream",
            Mode::Restart => "stream+restart",
            Mode::Shuffle => "stream+shuffle",
            Mode::Evict => "stream+evict",
        }
    }

    /// The mode that shuffles also cuts spines into pieces of two rows and works with more threads.
    fn settings(self) -> Settings {
        const AGES_US: i64 = 12_000 * 366 * 86_400_000_000;
        let (read_path, look_back_default_us) = match self {
            Mode::Batch => (ReadPath::History, 0),
            Mode::Evict => (ReadPath::Auto, 0),
            Mode::Stream | Mode::Restart | Mode::Shuffle => (ReadPath::Online, AGES_US),
        };
        let usual = Settings { read_path, look_back_default_us, threads: 2, ..Settings::default() };
        if self == Mode::Shuffle { Settings { spine_rows_max: 2, threads: 3, ..usual } } else { usual }
    }
}

/// A time of day that stands still.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StillClock(pub(crate) i64);

impl Clock for StillClock {
    fn now(&self) -> WallTime {
        WallTime(self.0)
    }
}

/// 2030-01-01 00:00:00.
pub(crate) const USUAL_NOW: i64 = 1_893_456_000_000_000;

// ---------------------------------------------------------------------------------------------------------------------- the script

#[derive(Debug, Clone, PartialEq, Eq)]
enum Expected {
    Ok(Counts),
    /// A code, or `None` for any error, and a text that the message holds.
    Error(Option<String>, String),
    Rows {
        sorted: bool,
        rows: Vec<String>,
    },
    /// A text that the rows hold.
    Text(String),
}

/// Counts that a record names.
type Counts = BTreeMap<String, u64>;

#[derive(Debug, Clone)]
enum Action {
    Sql(String),
    Events { stream: String, lines: Vec<String> },
    File { name: String, lines: Vec<String> },
}

#[derive(Debug, Clone)]
struct Record {
    line: usize,
    action: Action,
    expected: Expected,
    /// The lines of the file that hold expected rows, for blessing.
    rows_at: (usize, usize),
}

#[derive(Debug)]
struct Script {
    modes: Vec<Mode>,
    now: i64,
    records: Vec<Record>,
}

fn parse_script(text: &str) -> Result<Script, String> {
    let mut script = Script { modes: Mode::ALL.to_vec(), now: USUAL_NOW, records: Vec::new() };
    let lines: Vec<&str> = text.lines().collect();
    let mut i = 0;
    while i < lines.len() {
        let line = lines[i];
        let at = |message: &str| format!("line {}: {message}", i + 1);
        if let Some(comment) = line.strip_prefix('#') {
            if let Some(list) = comment.trim().strip_prefix("run:") {
                let names = list.split(';').next().unwrap_or_default().split(',').map(str::trim);
                let modes: Option<Vec<Mode>> = names.map(|n| Mode::ALL.into_iter().find(|m| m.name() == n)).collect();
                script.modes = modes.ok_or_else(|| at("unknown mode"))?;
            } else if let Some(time) = comment.trim().strip_prefix("clock:") {
                let time = chrono::NaiveDateTime::parse_from_str(time.trim(), "%Y-%m-%d %H:%M:%S").map_err(|e| at(&e.to_string()))?;
                script.now = time.and_utc().timestamp_micros();
            }
            i += 1;
            continue;
        }
        if line.trim().is_empty() {
            i += 1;
            continue;
        }
        let head = i;
        let mut body = Vec::new();
        i += 1;
        while i < lines.len() && !lines[i].trim().is_empty() {
            body.push(lines[i]);
            i += 1;
        }
        script.records.push(record(lines[head], &body, head).map_err(|e| format!("line {}: {e}", head + 1))?);
    }
    Ok(script)
}

fn record(head: &str, body: &[&str], line: usize) -> Result<Record, String> {
    let words: Vec<&str> = head.split_whitespace().collect();
    let owned = |lines: &[&str]| lines.iter().map(|l| (*l).to_owned()).collect::<Vec<_>>();
    let error = |words: &[&str]| {
        let (code, text) = words.split_first().ok_or("an error needs a code, or -")?;
        let known = *code == "-" || (code.len() == 5 && code.starts_with('E'));
        let code = (*code != "-").then(|| (*code).to_owned());
        if known { Ok(Expected::Error(code, text.join(" "))) } else { Err("an error needs a code, or -".to_owned()) }
    };
    let (action, expected, rows_at) = match words.as_slice() {
        ["statement", "ok", counts @ ..] => (Action::Sql(body.join("\n")), Expected::Ok(parse_counts(counts)?), (0, 0)),
        ["statement" | "query", "error", rest @ ..] => (Action::Sql(body.join("\n")), error(rest)?, (0, 0)),
        ["events", stream, counts @ ..] => {
            (Action::Events { stream: (*stream).to_owned(), lines: owned(body) }, Expected::Ok(parse_counts(counts)?), (0, 0))
        }
        ["file", name] => (Action::File { name: (*name).to_owned(), lines: owned(body) }, Expected::Ok(Counts::new()), (0, 0)),
        ["query", "contains", ..] => {
            let text = head.split_once("contains ").map_or("", |(_, text)| text);
            (Action::Sql(body.join("\n")), Expected::Text(text.to_owned()), (0, 0))
        }
        ["query", rest @ ..] if rest.is_empty() || rest == ["rowsort"] => {
            let cut = body.iter().position(|l| *l == "----").ok_or("a query needs a line ----")?;
            let rows = body[cut + 1..].iter().map(|row| spaced(row)).collect();
            let rows_at = (line + 1 + cut + 1, line + 1 + body.len());
            (Action::Sql(body[..cut].join("\n")), Expected::Rows { sorted: !rest.is_empty(), rows }, rows_at)
        }
        _ => return Err(format!("unknown record \"{head}\"")),
    };
    Ok(Record { line: line + 1, action, expected, rows_at })
}

fn parse_counts(words: &[&str]) -> Result<Counts, String> {
    let mut counts = Counts::new();
    for pair in words.chunks(2) {
        let [name, n] = pair else { return Err("counts are pairs of a name and a number".into()) };
        if !["read", "accepted", "duplicate", "late", "rejected", "conflicts"].contains(name) {
            return Err(format!("unknown count \"{name}\""));
        }
        counts.insert((*name).to_owned(), n.parse().map_err(|_| format!("\"{n}\" is no number"))?);
    }
    Ok(counts)
}

/// A line of values with exactly two spaces between them.
fn spaced(line: &str) -> String {
    let (mut out, mut blanks, mut quoted) = (String::new(), 0, false);
    for c in line.trim().chars() {
        if !quoted && c.is_whitespace() {
            blanks += if c == '\t' { 2 } else { 1 };
            continue;
        }
        out.push_str(&" ".repeat(blanks.min(2)));
        blanks = 0;
        quoted ^= c == '\'';
        out.push(c);
    }
    out
}

// ----------------------------------------------------------------------------------------------------------------------- rendering

/// The rows of an answer as text, every value exact.
pub(crate) fn render_rows(batches: &[RecordBatch]) -> Vec<String> {
    let rows = batches.iter().flat_map(|batch| (0..batch.num_rows()).map(move |row| (batch, row)));
    rows.map(|(batch, row)| batch.columns().iter().map(|c| render(c.as_ref(), row)).collect::<Vec<_>>().join("  ")).collect()
}

fn render(array: &dyn Array, row: usize) -> String {
    if array.is_null(row) {
        return "NULL".into();
    }
    match array.data_type() {
        DataType::Null => "NULL".into(),
        DataType::Boolean => array.as_boolean().value(row).to_string(),
        DataType::Int8 => array.as_primitive::<at::Int8Type>().value(row).to_string(),
        DataType::Int16 => array.as_primitive::<at::Int16Type>().value(row).to_string(),
        DataType::Int32 => array.as_primitive::<at::Int32Type>().value(row).to_string(),
        DataType::Int64 => array.as_primitive::<at::Int64Type>().value(row).to_string(),
        DataType::UInt8 => array.as_primitive::<at::UInt8Type>().value(row).to_string(),
        DataType::UInt16 => array.as_primitive::<at::UInt16Type>().value(row).to_string(),
        DataType::UInt32 => array.as_primitive::<at::UInt32Type>().value(row).to_string(),
        DataType::UInt64 => array.as_primitive::<at::UInt64Type>().value(row).to_string(),
        DataType::Float32 => format!("{:?}", array.as_primitive::<at::Float32Type>().value(row)),
        DataType::Float64 => format!("{:?}", array.as_primitive::<at::Float64Type>().value(row)),
        DataType::Decimal128(_, _) => array.as_primitive::<at::Decimal128Type>().value_as_string(row),
        DataType::Utf8 => word(array.as_string::<i32>().value(row)),
        DataType::LargeUtf8 => word(array.as_string::<i64>().value(row)),
        DataType::Utf8View => word(array.as_string_view().value(row)),
        DataType::Binary => hex(array.as_binary::<i32>().value(row)),
        DataType::BinaryView => hex(array.as_binary_view().value(row)),
        DataType::Date32 => {
            let date = array.as_primitive::<at::Date32Type>().value_as_date(row);
            date.map_or_else(|| "date out of range".into(), |d| d.to_string())
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => instant(array.as_primitive::<at::TimestampMicrosecondType>().value(row)),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            let time = chrono::DateTime::from_timestamp_nanos(array.as_primitive::<at::TimestampNanosecondType>().value(row));
            time.format("%Y-%m-%dT%H:%M:%S%.f").to_string()
        }
        DataType::Duration(TimeUnit::Microsecond) => format!("{}us", array.as_primitive::<at::DurationMicrosecondType>().value(row)),
        DataType::List(_) => list(array.as_list::<i32>().value(row).as_ref()),
        DataType::Dictionary(_, _) => {
            let dictionary = array.as_any_dictionary();
            render(dictionary.values().as_ref(), dictionary.normalized_keys()[row])
        }
        other => format!("<{other}>"),
    }
}

fn list(items: &dyn Array) -> String {
    let items: Vec<String> = (0..items.len()).map(|i| render(items, i)).collect();
    format!("[{}]", items.join(", "))
}

fn instant(micros: i64) -> String {
    let time = chrono::DateTime::from_timestamp_micros(micros);
    time.map_or_else(|| format!("{micros}us"), |t| t.format("%Y-%m-%dT%H:%M:%S%.f").to_string())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold("x".to_owned(), |mut out, b| {
        let _ = write!(out, "{b:02x}");
        out
    })
}

fn word(text: &str) -> String {
    let bare = !text.is_empty() && text != "NULL" && !text.contains(|c: char| c.is_whitespace() || c == '\'' || c.is_control());
    if bare { text.to_owned() } else { format!("'{}'", text.escape_debug().to_string().replace("\\'", "''").replace("\\\"", "\"")) }
}

// -------------------------------------------------------------------------------------------------------------------------- a run

/// How many files of history were rewritten.
static COMPACTED: AtomicUsize = AtomicUsize::new(0);

/// How many views began from history, and how many from a checkpoint.
static BEGUN: [AtomicUsize; 2] = [AtomicUsize::new(0), AtomicUsize::new(0)];

struct Run<'a> {
    mode: Mode,
    now: i64,
    location: String,
    tmp: PathBuf,
    engine: Option<Engine>,
    /// Whether anything was done since the engine was opened.
    dirty: bool,
    /// How often it was opened again.
    restarts: usize,
    random: ChaCha8Rng,
    failures: Vec<String>,
    file: &'a Path,
    /// The rows that each query answered, for blessing.
    answered: Vec<(usize, Vec<String>)>,
}

impl Run<'_> {
    fn fail(&mut self, record: &Record, what: impl std::fmt::Display) {
        self.failures.push(format!("{}:{} [{}] {what}", self.file.display(), record.line, self.mode.name()));
    }

    fn engine(&self) -> Engine {
        self.engine.clone().expect("the engine is open between records")
    }

    async fn open(&mut self) -> Result<(), Error> {
        let mut settings = self.mode.settings();
        if self.restarts % 4 == 1 {
            // The next start finds an older checkpoint.
            settings.checkpoint_interval_us = 0;
        }
        let builder = Engine::builder().warehouse(&self.location).settings(settings).clock(Arc::new(StillClock(self.now)));
        let engine = builder.build().await?;
        if self.mode == Mode::Restart && self.restarts.is_multiple_of(2) {
            // States that are there when something comes; what cannot be built is told by the query that asks for it.
            let _ = engine.warm().await;
        }
        self.engine = Some(engine);
        self.dirty = false;
        Ok(())
    }

    async fn restart(&mut self) -> Result<(), Error> {
        if self.mode == Mode::Restart && self.dirty {
            if let Some(engine) = self.engine.take() {
                for view in engine.names() {
                    if let Some(begun) = engine.begun(&view) {
                        BEGUN[usize::from(begun.checkpoint.is_some())].fetch_add(1, Ordering::Relaxed);
                    }
                }
                if self.restarts % 3 == 1 {
                    for name in engine.names() {
                        match engine.compact(&name, 2).await {
                            Ok(files) => COMPACTED.fetch_add(files, Ordering::Relaxed),
                            Err(e) if e.message().starts_with("unknown stream") => 0,
                            Err(e) => return Err(e),
                        };
                    }
                }
                engine.close().await?;
            }
            self.restarts += 1;
            if self.restarts % 4 == 3 {
                let _ = std::fs::remove_dir_all(Path::new(&self.location).join("checkpoints"));
            }
            self.open().await?;
        }
        Ok(())
    }

    async fn records(&mut self, records: &[Record]) -> Result<(), Error> {
        self.open().await?;
        let mut i = 0;
        while i < records.len() {
            let record = &records[i];
            match &record.action {
                Action::Events { .. } if self.mode == Mode::Shuffle => {
                    let block = records[i..].iter().take_while(|r| matches!(r.action, Action::Events { .. })).count();
                    self.shuffled(&records[i..i + block]).await?;
                    i += block;
                    continue;
                }
                Action::Events { stream, lines } => {
                    let pushed = self.engine().push_json(stream, lines.join("\n").as_bytes(), None).await;
                    self.dirty = true;
                    match (pushed, &record.expected) {
                        (Ok(counts), Expected::Ok(expected)) => self.counts(record, Some(counts), expected),
                        (Err(e), _) => self.fail(record, format_args!("events are refused: {e}")),
                        _ => {}
                    }
                    self.restart().await?;
                }
                Action::File { name, lines } => {
                    let path = self.tmp.join(name);
                    std::fs::create_dir_all(path.parent().unwrap_or(&self.tmp))?;
                    std::fs::write(path, lines.join("\n") + "\n")?;
                }
                Action::Sql(sql) => {
                    let mut sql = sql.replace("$TMP", &self.tmp.display().to_string());
                    if self.mode == Mode::Evict && sql.starts_with("CREATE STREAM") {
                        sql = sql.replace("INTERVAL '3650 days'", "INTERVAL '1 hour'");
                    }
                    self.sql(record, &sql).await?;
                }
            }
            i += 1;
        }
        if let Some(engine) = self.engine.take() {
            engine.close().await?;
        }
        Ok(())
    }

    async fn sql(&mut self, record: &Record, sql: &str) -> Result<(), Error> {
        if matches!(record.expected, Expected::Rows { .. } | Expected::Text(_)) {
            self.restart().await?;
        }
        let outcome = self.engine().execute_named(sql, "script.sql", &[]).await;
        match (&record.expected, outcome) {
            (Expected::Ok(counts), Ok(outputs)) => {
                self.dirty = true;
                let counted = outputs.iter().rev().find_map(|o| if let Output::Done { counts, .. } = o { *counts } else { None });
                self.counts(record, counted, counts);
                if counted.is_some() {
                    self.restart().await?;
                }
            }
            (Expected::Rows { sorted, rows }, Ok(outputs)) => {
                let Some(Output::Rows { batches, .. }) = outputs.last() else {
                    self.fail(record, "the statement has no rows");
                    return Ok(());
                };
                let mut actual = render_rows(batches);
                let mut wanted = rows.clone();
                if *sorted {
                    actual.sort();
                    wanted.sort();
                }
                if actual != wanted {
                    self.fail(record, format_args!("{}\n{sql}", difference(&wanted, &actual)));
                }
                self.answered.push((record.line, actual));
                if matches!(self.mode, Mode::Batch | Mode::Shuffle) {
                    self.ask_as_training(record, sql, &wanted).await;
                }
            }
            (Expected::Text(text), Ok(outputs)) => {
                let Some(Output::Rows { batches, .. }) = outputs.last() else {
                    self.fail(record, "the statement has no rows");
                    return Ok(());
                };
                let rows = render_rows(batches).join("\n");
                if !rows.contains(text) {
                    self.fail(record, format_args!("the rows do not hold \"{text}\"\n{rows}\n{sql}"));
                }
            }
            (Expected::Error(code, text), Err(e)) => {
                let codes: Vec<&str> = e.sql_errors().iter().map(|e| e.code.as_str()).collect();
                let coded = code.as_ref().is_none_or(|code| codes.contains(&code.as_str()));
                if !coded || !e.message().contains(text.as_str()) || e.kind() == Kind::Internal {
                    let wanted = format!("{} {text}", code.as_deref().unwrap_or("-"));
                    self.fail(record, format_args!("wanted error {wanted}, found {:?} {codes:?}\n{e}\n{sql}", e.kind()));
                }
            }
            (Expected::Error(code, text), Ok(_)) => {
                self.fail(record, format_args!("wanted error {} {text}, found success\n{sql}", code.as_deref().unwrap_or("-")));
            }
            (_, Err(e)) => self.fail(record, format_args!("failed ({:?}): {e}\n{sql}", e.kind())),
        }
        Ok(())
    }

    fn counts(&mut self, record: &Record, found: Option<IngestCounts>, wanted: &Counts) {
        let Some(found) = found else {
            if !wanted.is_empty() {
                self.fail(record, "the statement counts nothing");
            }
            return;
        };
        let named = named(found);
        if found.read != found.accepted + found.duplicate + found.late + found.rejected {
            self.fail(record, format_args!("records are not conserved: {named:?}"));
        }
        let wrong: Vec<_> = wanted.iter().filter(|(name, n)| named[name.as_str()] != **n).collect();
        if !wrong.is_empty() {
            self.fail(record, format_args!("wanted counts {wanted:?}, found {named:?}"));
        }
    }

    /// A block of `events` in another order and other calls; the accepted set must be the same.
    async fn shuffled(&mut self, block: &[Record]) -> Result<(), Error> {
        let keyed = self.keyed_streams().await?;
        let mut calls: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for record in block {
            let Action::Events { stream, lines } = &record.action else { continue };
            calls.entry(stream).or_default().extend(lines.iter().map(String::as_str));
        }
        let mut pieces = Vec::new();
        for (stream, lines) in &mut calls {
            if keyed.contains(*stream) {
                let again: Vec<&str> = lines.iter().copied().filter(|_| self.random.random_bool(0.3)).collect();
                lines.extend(again);
            }
            lines.shuffle(&mut self.random);
            let mut rest = lines.as_slice();
            let mut parts = Vec::new();
            while !rest.is_empty() {
                let (piece, more) = rest.split_at(self.random.random_range(1..=rest.len().min(7)));
                parts.push(piece.join("\n"));
                rest = more;
            }
            pieces.push((*stream, parts));
        }
        let mut accepted = BTreeMap::<&str, u64>::new();
        while pieces.iter().any(|(_, parts)| !parts.is_empty()) {
            let at = self.random.random_range(0..pieces.len());
            let (stream, parts) = &mut pieces[at];
            let Some(part) = parts.pop() else { continue };
            let stream: &str = stream;
            match self.engine().push_json(stream, part.as_bytes(), None).await {
                Ok(counts) => {
                    *accepted.entry(stream).or_default() += counts.accepted;
                    if counts.late > 0 {
                        self.fail(&block[0], format_args!("shuffling made events of \"{stream}\" late: give it a greater disorder"));
                    }
                    self.counts(&block[0], Some(counts), &Counts::new());
                }
                Err(e) => self.fail(&block[0], format_args!("events are refused: {e}")),
            }
        }
        for (stream, found) in accepted {
            let of_stream = block.iter().filter(|r| matches!(&r.action, Action::Events { stream: s, .. } if s == stream));
            let expected: Option<Vec<u64>> = of_stream
                .map(|r| match &r.expected {
                    Expected::Ok(counts) => counts.get("accepted").copied(),
                    _ => None,
                })
                .collect();
            if let Some(wanted) = expected.map(|e| e.iter().sum::<u64>())
                && wanted != found
            {
                self.fail(&block[0], format_args!("shuffled: wanted {wanted} accepted events of \"{stream}\", found {found}"));
            }
        }
        Ok(())
    }

    async fn keyed_streams(&self) -> Result<BTreeSet<String>, Error> {
        let outputs = self.engine().execute("SHOW STREAMS", &[]).await?;
        let mut keyed = BTreeSet::new();
        for output in &outputs {
            let Output::Rows { batches, .. } = output else { continue };
            for batch in batches {
                let (Some(name), Some(key)) = (batch.column_by_name("stream"), batch.column_by_name("primary_key")) else { continue };
                keyed.extend((0..batch.num_rows()).filter(|r| key.is_valid(*r)).map(|r| render(name.as_ref(), r)));
            }
        }
        Ok(keyed)
    }

    /// `SELECT * FROM view FOR ENTITY keys AS OF TIMESTAMP '...'` once more, as an AS OF join of a spine with the view.
    async fn ask_as_training(&mut self, record: &Record, sql: &str, wanted: &[String]) {
        let Some(asked) = Lookup::parse(sql) else { return };
        let Some(description) = self.describe(&asked.view).await else { return };
        let Some(training) = asked.training_query(&description) else { return };
        match self.engine().execute(&training, &[]).await {
            Ok(outputs) => {
                let batches = outputs.into_iter().find_map(|o| if let Output::Rows { batches, .. } = o { Some(batches) } else { None });
                let actual = render_rows(&batches.unwrap_or_default());
                if actual != wanted {
                    self.fail(record, format_args!("as a training query: {}\n{training}", difference(wanted, &actual)));
                }
            }
            Err(e) => self.fail(record, format_args!("as a training query: {e}\n{training}")),
        }
    }

    /// The columns of a view: name, type and role.
    async fn describe(&self, view: &str) -> Option<Vec<(String, String, String)>> {
        let outputs = self.engine().execute(&format!("DESCRIBE {view}"), &[]).await.ok()?;
        let Some(Output::Rows { batches, .. }) = outputs.first() else { return None };
        let mut columns = Vec::new();
        for batch in batches {
            let text = |column: &str, row: usize| {
                let array = batch.column_by_name(column)?;
                Some(arrow::util::display::array_value_to_string(array, row).unwrap_or_default())
            };
            for row in 0..batch.num_rows() {
                columns.push((text("column", row)?, text("type", row)?, text("role", row)?));
            }
        }
        Some(columns)
    }
}

fn named(c: IngestCounts) -> BTreeMap<&'static str, u64> {
    let all = [c.read, c.accepted, c.duplicate, c.late, c.rejected, c.conflicts];
    ["read", "accepted", "duplicate", "late", "rejected", "conflicts"].into_iter().zip(all).collect()
}

fn difference(wanted: &[String], actual: &[String]) -> String {
    let indented = |rows: &[String]| rows.iter().map(|r| format!("    {r}\n")).collect::<String>();
    format!("rows differ\n  wanted:\n{}  found:\n{}", indented(wanted), indented(actual))
}

/// A look-up simple enough to be written as a training query.
struct Lookup {
    view: String,
    columns: Option<Vec<String>>,
    rows: Vec<Vec<String>>,
    strict: bool,
    instant: String,
}

impl Lookup {
    fn parse(sql: &str) -> Option<Lookup> {
        let sql = sql.split_whitespace().collect::<Vec<_>>().join(" ");
        let (view, rest) = sql.strip_prefix("SELECT * FROM ")?.split_once(" FOR ENTITY ")?;
        if view.contains([' ', ',']) {
            return None;
        }
        let (keys, strict, instant) = match (rest.rsplit_once(" AS OF "), rest.rsplit_once(" BEFORE ")) {
            (Some((keys, instant)), None) => (keys, false, instant),
            (None, Some((keys, instant))) => (keys, true, instant),
            _ => return None,
        };
        let (columns, rows) = if let Some((columns, rows)) = keys.split_once(" IN ") {
            let columns = parts(columns)?;
            let single = columns.len() == 1;
            let rows =
                parts(rows)?.iter().map(|row| if single { Some(vec![row.clone()]) } else { parts(row) }).collect::<Option<Vec<_>>>()?;
            (Some(columns), rows)
        } else if keys.contains('=') {
            let pairs = parts(keys)?;
            let pairs: Vec<_> = pairs.iter().map(|p| p.split_once('=')).collect::<Option<Vec<_>>>()?;
            let (columns, row) = pairs.into_iter().map(|(c, v)| (c.trim().to_owned(), v.trim().to_owned())).unzip();
            (Some(columns), vec![row])
        } else {
            (None, vec![parts(keys)?])
        };
        Some(Lookup { view: view.to_owned(), columns, rows, strict, instant: instant.to_owned() })
    }

    fn training_query(&self, description: &[(String, String, String)]) -> Option<String> {
        let quoted = |name: &str| format!("\"{name}\"");
        let entity: Vec<_> = description.iter().filter(|(_, _, role)| role == "entity").collect();
        let (time, _, _) = description.iter().find(|(_, _, role)| role == "instant")?;
        let features = description.iter().filter(|(_, _, role)| role != "entity" && role != "instant");
        let places: Vec<usize> = match &self.columns {
            None => (0..entity.len()).collect(),
            Some(columns) => entity.iter().map(|(name, _, _)| columns.iter().position(|c| c == name)).collect::<Option<_>>()?,
        };
        let mut rows = Vec::new();
        for (i, row) in self.rows.iter().enumerate() {
            let mut values = vec![i.to_string(), self.instant.clone()];
            for (place, (_, data_type, _)) in places.iter().zip(&entity) {
                let value = row.get(*place)?;
                // A number that is none of the type has no literal of the type; it is asked for as it stands.
                let cast = value.starts_with('\'') || value == "NULL" || value.parse::<i64>().is_ok() || data_type.starts_with("DECIMAL");
                values.push(if cast { format!("CAST({value} AS {data_type})") } else { value.clone() });
            }
            rows.push(format!("({})", values.join(", ")));
        }
        let names: Vec<String> = (0..entity.len()).map(|k| format!("column{} AS k{k}", k + 3)).collect();
        let on: Vec<String> = entity.iter().enumerate().map(|(k, (name, _, _))| format!("s.k{k} = v.{}", quoted(name))).collect();
        let items = (0..entity.len()).map(|k| format!("s.k{k}")).chain(features.map(|(name, _, _)| format!("v.{}", quoted(name))));
        Some(format!(
            "WITH spine AS (SELECT column1 AS i, column2 AS t, {} FROM (VALUES {}))\nSELECT {} FROM spine s ASOF JOIN {} v MATCH_CONDITION (s.t {} v.{}) ON {} ORDER BY s.i",
            names.join(", "),
            rows.join(", "),
            items.collect::<Vec<_>>().join(", "),
            self.view,
            if self.strict { ">" } else { ">=" },
            quoted(time),
            on.join(" AND "),
        ))
    }
}

/// The items of a list with commas between, its parentheses taken away; quotes and inner parentheses stay whole.
fn parts(text: &str) -> Option<Vec<String>> {
    let text = text.trim();
    let inner = if text.starts_with('(') { text.strip_prefix('(')?.strip_suffix(')')? } else { text };
    let (mut out, mut depth, mut quoted) = (vec![String::new()], 0, false);
    for c in inner.chars() {
        quoted ^= c == '\'';
        depth += i32::from(c == '(' && !quoted) - i32::from(c == ')' && !quoted);
        match c {
            ',' if depth == 0 && !quoted => out.push(String::new()),
            c => out.last_mut()?.push(c),
        }
    }
    Some(out.into_iter().map(|p| p.trim().to_owned()).collect())
}

// ------------------------------------------------------------------------------------------------------------------------ all runs

/// One script in one mode: what failed, and what its queries answered.
fn run_one(file: &Path, script: &Script, mode: Mode) -> (Vec<String>, Vec<(usize, Vec<String>)>) {
    let tmp = tempfile::tempdir().expect("a folder for temporary files");
    let files = tmp.path().join("files");
    std::fs::create_dir_all(&files).expect("a folder for temporary files");
    let location = match mode {
        Mode::Batch | Mode::Shuffle => "memory://".to_owned(),
        Mode::Stream | Mode::Restart | Mode::Evict => tmp.path().join("warehouse").display().to_string(),
    };
    let seed = std::env::var("ASOF_SLT_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(7);
    let random = ChaCha8Rng::seed_from_u64(seed);
    let mut run = Run {
        mode,
        now: script.now,
        location,
        tmp: files,
        engine: None,
        dirty: false,
        restarts: 0,
        random,
        failures: vec![],
        file,
        answered: vec![],
    };
    let runtime = runtime();
    let ended = runtime.block_on(run.records(&script.records));
    if let Err(e) = ended {
        run.failures.push(format!("{} [{}] the run broke off ({:?}): {e}", file.display(), mode.name(), e.kind()));
    }
    (run.failures, run.answered)
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).thread_stack_size(16 << 20).enable_all().build().expect("a runtime")
}

/// Planning recurses deep in a debug build: more than the stack of a test's thread holds.
pub(crate) fn on_deep_stack<T: Send>(run: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(64 << 20).spawn_scoped(scope, run).expect("a thread");
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// The files under a folder with an ending, in order.
pub(crate) fn files_under(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
            let path = entry.expect("an entry of the folder").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn bless(file: &Path, text: &str, script: &Script, answered: &[(usize, Vec<String>)]) {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for record in script.records.iter().rev() {
        let (Expected::Rows { .. }, Some((_, rows))) = (&record.expected, answered.iter().find(|(line, _)| *line == record.line)) else {
            continue;
        };
        lines.splice(record.rows_at.0..record.rows_at.1, rows.iter().cloned());
    }
    std::fs::write(file, lines.join("\n") + "\n").expect("the script can be written");
}

#[test]
fn scripts() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/slt");
    let filter = std::env::var("ASOF_SLT").unwrap_or_default();
    let only_mode = std::env::var("ASOF_SLT_MODE").unwrap_or_default();
    let blessing = std::env::var("ASOF_SLT_BLESS").is_ok_and(|v| v == "1");
    let mut failures = Vec::new();
    let mut scripts = Vec::new();
    let mut queries = 0;
    for path in files_under(&root, "slt") {
        let text = std::fs::read_to_string(&path).expect("a readable script");
        let name = path.strip_prefix(&root).expect("below the root").to_path_buf();
        match parse_script(&text) {
            Ok(script) => {
                queries += script.records.iter().filter(|r| matches!(r.expected, Expected::Rows { .. })).count();
                if name.display().to_string().contains(&filter) {
                    scripts.push((path, name, text, script));
                }
            }
            Err(e) => failures.push(format!("{}: {e}", name.display())),
        }
    }
    assert!(queries >= 150, "{queries} queries are fewer than the scripts must have");
    let mut jobs: Vec<(usize, Mode)> = Vec::new();
    for (i, (_, _, _, script)) in scripts.iter().enumerate() {
        let modes = script.modes.iter().filter(|m| only_mode.is_empty() || m.name() == only_mode);
        jobs.extend(modes.take(if blessing { 1 } else { usize::MAX }).map(|m| (i, *m)));
    }
    let failures = Mutex::new(failures);
    let next = AtomicUsize::new(0);
    let (done, slowest) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let done = done.clone();
            let work = || {
                let done = done;
                while let Some((i, mode)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let (path, name, text, script) = &scripts[*i];
                    let started = std::time::Instant::now();
                    let ran = std::panic::catch_unwind(|| run_one(name, script, *mode));
                    let (failed, answered) =
                        ran.unwrap_or_else(|_| (vec![format!("{} [{}] panicked", name.display(), mode.name())], vec![]));
                    if blessing {
                        bless(path, text, script, &answered);
                    }
                    let _ = done.send((started.elapsed(), name, *mode));
                    failures.lock().unwrap_or_else(|e| e.into_inner()).extend(failed);
                }
            };
            // Planning recurses deep in a debug build.
            std::thread::Builder::new().stack_size(64 << 20).spawn_scoped(scope, work).expect("a thread");
        }
    });
    drop(done);
    let mut times: Vec<_> = slowest.into_iter().collect();
    times.sort_by_key(|(t, _, _)| std::cmp::Reverse(*t));
    let slow: Vec<String> =
        times.iter().take(5).map(|(t, n, m)| format!("{} [{}] {:.1} s", n.display(), m.name(), t.as_secs_f64())).collect();
    println!("{} scripts, {queries} queries, {} runs; slowest: {}", scripts.len(), jobs.len(), slow.join(", "));
    let [from_history, from_checkpoints] = [0, 1].map(|i| BEGUN[i].load(Ordering::Relaxed));
    let compacted = COMPACTED.load(Ordering::Relaxed);
    println!("states begun from history: {from_history}, from checkpoints: {from_checkpoints}; {compacted} files compacted");
    assert!(
        !filter.is_empty() || !only_mode.is_empty() || blessing || from_checkpoints.min(compacted) >= 100,
        "restarts go through checkpoints"
    );
    let failures = failures.into_inner().unwrap_or_else(|e| e.into_inner());
    assert!(failures.is_empty(), "{} failures\n\n{}\n", failures.len(), failures.join("\n\n"));
}

/// The runner finds what is wrong: rows, counts, codes, statements that fail or do not.
#[test]
fn wrong_expectations_are_found() {
    const RIGHT: &str = "statement ok\nCREATE STREAM s (id INT, x DOUBLE, ts TIMESTAMP NOT NULL, PRIMARY KEY (id), WATERMARK FOR ts AS ts - INTERVAL '1 day')

statement ok\nCREATE FEATURE VIEW v ENTITY (id) AS SELECT sum(x) AS total FROM s GROUP BY id\n\n";
    const CASES: [(&str, usize); 8] = [
        ("events s accepted 1\n{\"id\": 1, \"x\": 0.5, \"ts\": \"2026-03-01\"}\n\nquery\nSELECT * FROM v FOR ENTITY 1\n----\n1  0.5\n", 0),
        ("events s accepted 2\n{\"id\": 1, \"x\": 0.5, \"ts\": \"2026-03-01\"}\n", 1),
        ("query\nSELECT * FROM v FOR ENTITY 1 AS OF TIMESTAMP '2026-03-01'\n----\n1  0.5\n", 2),
        ("query\nSELECT * FROM v FOR ENTITY 1\n----\n1\n", 1),
        ("query\nSELECT * FROM v FOR ENTITY 1\n----\n", 1),
        ("statement error E0301\nSELECT * FROM v\n", 1),
        ("statement error -\nSELECT * FROM s\n", 1),
        ("statement ok\nSELECT * FROM v\n", 1),
    ];
    let run = || {
        for (text, wanted) in CASES {
            let script = parse_script(&format!("{RIGHT}{text}")).expect("the script is right");
            let (failures, _) = run_one(Path::new("inline"), &script, Mode::Batch);
            assert_eq!(failures.len(), wanted, "{text}\n{failures:#?}");
        }
    };
    on_deep_stack(run);
}

#[test]
fn lookups_are_read() {
    let lookup =
        Lookup::parse("SELECT * FROM v FOR ENTITY (a, b) IN (('x, y', 1), (NULL, 2)) BEFORE TIMESTAMP '2026-01-01'").expect("it is simple");
    assert_eq!(lookup.columns, Some(vec!["a".to_owned(), "b".to_owned()]));
    assert_eq!(lookup.rows, vec![vec!["'x, y'".to_owned(), "1".to_owned()], vec!["NULL".to_owned(), "2".to_owned()]]);
    assert!(lookup.strict);
    assert_eq!(spaced("a\tb   'c  d'   [1, 2]"), "a  b  'c  d'  [1, 2]");
}

/// What the state does not answer is refused with the earliest instant that it answers, or computed from history and said so.
#[test]
fn earlier_instants_are_refused_or_said() {
    const SETUP: &str = "CREATE STREAM s (u VARCHAR, ts TIMESTAMP NOT NULL, WATERMARK FOR ts AS ts - INTERVAL '50 minutes');
        CREATE FEATURE VIEW v ENTITY (u) AS SELECT count(*) OVER (RANGE INTERVAL '1 hour' PRECEDING) AS n FROM s;
        INSERT INTO s VALUES ('a', TIMESTAMP '2026-03-01 12:00:00'), ('a', TIMESTAMP '2026-03-01 09:59:59.999999')";
    let ask = async |read_path, at: &str| {
        let settings = Settings { read_path, ..Settings::default() };
        let builder = Engine::builder().warehouse("memory://").settings(settings).clock(Arc::new(StillClock(USUAL_NOW)));
        let engine = builder.build().await.expect("an empty warehouse");
        engine.execute(SETUP, &[]).await.expect("the setup is right");
        engine.execute(&format!("SELECT n FROM v FOR ENTITY 'a' AS OF TIMESTAMP '{at}'"), &[]).await
    };
    let rows = |outputs: Vec<Output>| match outputs.into_iter().next() {
        Some(Output::Rows { batches, note, .. }) => (render_rows(&batches), note),
        _ => panic!("a look-up has rows"),
    };
    let run = || {
        runtime().block_on(async {
            // The greatest event time, less the disorder of 50 minutes and the skew of 10.
            let (edge, before) = ("2026-03-01 11:00:00", "2026-03-01 10:59:59.999999");
            for read_path in [ReadPath::Online, ReadPath::Auto] {
                assert_eq!(rows(ask(read_path, edge).await.expect("it is answered")), (vec!["0".to_owned()], None));
            }
            let refused = ask(ReadPath::Online, before).await.expect_err("it is refused");
            assert_eq!(refused.kind(), Kind::Invalid);
            assert!(refused.message().contains("2026-03-01T11:00:00"), "{refused}");
            let (answer, note) = rows(ask(ReadPath::Auto, before).await.expect("history answers"));
            assert_eq!(answer, vec!["1".to_owned()]);
            assert!(note.is_some_and(|n| n.contains("history")));
            // A view's look_back moves the edge.
            let settings = Settings { read_path: ReadPath::Online, ..Settings::default() };
            let builder = Engine::builder().warehouse("memory://").settings(settings).clock(Arc::new(StillClock(USUAL_NOW)));
            let engine = builder.build().await.expect("an empty warehouse");
            engine.execute(&SETUP.replace("ENTITY (u) AS", "ENTITY (u) WITH (look_back = '3 hours') AS"), &[]).await.expect("it is right");
            let ask = async |at: &str| engine.execute(&format!("SELECT n FROM v FOR ENTITY 'a' AS OF TIMESTAMP '{at}'"), &[]).await;
            assert_eq!(rows(ask(before).await.expect("it is held")), (vec!["1".to_owned()], None));
            assert_eq!(rows(ask("2026-03-01 08:00:00").await.expect("it is held")), (vec!["0".to_owned()], None));
            assert!(ask("2026-03-01 07:59:59.999999").await.expect_err("it is refused").message().contains("2026-03-01T08:00:00"));
        });
    };
    on_deep_stack(run);
}

/// Parameters stand for keys, instants and values; they obey the rules of keys.
#[test]
fn parameters_are_bound() {
    use asof::ScalarValue;
    let run = || {
        runtime().block_on(async {
            let builder = Engine::builder().warehouse("memory://").clock(Arc::new(StillClock(USUAL_NOW)));
            let engine = builder.build().await.expect("an empty warehouse");
            let setup =
                "CREATE STREAM s (id INT, u VARCHAR, k BIGINT, ts TIMESTAMP NOT NULL, WATERMARK FOR ts AS ts - INTERVAL '3650 days');
                CREATE FEATURE VIEW v ENTITY (u) AS SELECT count(*) AS n FROM s GROUP BY u;
                CREATE FEATURE VIEW w ENTITY (k) AS SELECT count(*) AS n FROM s GROUP BY k;
                INSERT INTO s VALUES (1, 'a', 7, TIMESTAMP '2026-03-01 12:00:00'), (2, 'a', 8, TIMESTAMP '2026-03-01 13:00:00')";
            engine.execute(setup, &[]).await.expect("the setup is right");
            let text = |t: &str| ScalarValue::Utf8(Some(t.into()));
            let at = ScalarValue::TimestampMicrosecond(Some(1_772_366_400_000_000), Some("UTC".into()));
            let ask = async |sql: &str, params: &[ScalarValue]| match engine.execute(sql, params).await {
                Ok(outputs) => match outputs.into_iter().next() {
                    Some(Output::Rows { batches, .. }) => Ok(render_rows(&batches)),
                    _ => Ok(vec![]),
                },
                Err(e) => Err(e),
            };
            let answers = [
                ("SELECT * FROM v FOR ENTITY $1", vec![text("a")], vec!["a  2"]),
                ("SELECT * FROM v FOR ENTITY u = $1 AS OF $2", vec![text("a"), at.clone()], vec!["a  1"]),
                ("SELECT * FROM v FOR ENTITY u = $1 BEFORE $2", vec![text("a"), at.clone()], vec!["a  0"]),
                ("SELECT * FROM v FOR ENTITY u IN ($2, 'b', $1, $2)", vec![text("x"), text("a")], vec!["a  2", "b  0", "x  0", "a  2"]),
                ("SELECT * FROM v FOR ENTITY ?", vec![ScalarValue::Utf8(None)], vec!["NULL  0"]),
                (
                    "SELECT n FROM w FOR ENTITY k IN ($1, $2)",
                    vec![ScalarValue::Int8(Some(7)), ScalarValue::Float64(Some(7.5))],
                    vec!["1", "0"],
                ),
                ("SELECT n FROM w FOR ENTITY $1", vec![ScalarValue::UInt64(Some(u64::MAX))], vec!["0"]),
                ("SELECT count(*) FROM s WHERE u = $1 AND id > $2", vec![text("a"), ScalarValue::Int64(Some(1))], vec!["1"]),
                (
                    "SELECT s.id, v.n FROM s ASOF JOIN v MATCH_CONDITION (s.ts >= v.ts) ON s.u = v.u WHERE s.id = $1",
                    vec![ScalarValue::Int64(Some(2))],
                    vec!["2  2"],
                ),
            ];
            for (sql, params, wanted) in answers {
                assert_eq!(ask(sql, &params).await.unwrap_or_else(|e| panic!("{sql}: {e}")), wanted, "{sql}");
            }
            let refused = [
                ("SELECT * FROM v FOR ENTITY $1", vec![]),
                ("SELECT * FROM v FOR ENTITY $1", vec![ScalarValue::Int64(Some(1))]),
                ("SELECT * FROM w FOR ENTITY $1", vec![text("7")]),
                ("SELECT * FROM v FOR ENTITY $1 AS OF $2", vec![text("a"), ScalarValue::Int64(Some(5))]),
                ("SELECT * FROM v FOR ENTITY $1 AS OF $2", vec![text("a"), ScalarValue::Null]),
            ];
            for (sql, params) in refused {
                let e = ask(sql, &params).await.map(|rows| panic!("{sql}: {rows:?}")).expect_err("it is refused");
                assert_eq!(e.kind(), Kind::Invalid, "{sql}: {e}");
            }
            ask("INSERT INTO s VALUES ($1, $2, 9, $3)", &[ScalarValue::Int32(Some(3)), text("p"), at]).await.expect("values are bound");
            assert_eq!(ask("SELECT id, u, k, ts FROM s WHERE id = 3", &[]).await.expect("a query"), vec!["3  p  9  2026-03-01T12:00:00"]);
        });
    };
    on_deep_stack(run);
}
