//! Two months of flights out of New York: three streams, five feature views, one vector, one training set, one proof.
//!
//! `cargo run --example flights` pushes the rows of `data/` day by day in the order in which they happened, then runs the SQL files beside
//! this one by their numbers. Everything it makes is under `target/flights`, which it empties first.
//! It fails when the served vector and the training set's row differ in a bit, or when `verify` finds a difference.

use std::error::Error;
use std::fs::File;
use std::path::Path;
use std::time::Instant;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use arrow::util::pretty::pretty_format_batches;
use asof::{Engine, IngestCounts, Output, VerifyOptions};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const WAREHOUSE: &str = "target/flights/warehouse";
const LAST_LABEL: &str = "B6727-JFK-201302282359";
const DAY_US: i64 = 24 * 60 * 60 * 1_000_000;
/// One push a stream for every so many days: each push is one durable commit.
const SLICE_US: i64 = DAY_US;

#[tokio::main]
async fn main() -> Result<()> {
    // The SQL files name paths from the top of the repository.
    std::env::set_current_dir(env!("CARGO_MANIFEST_DIR"))?;
    if Path::new("target/flights").exists() {
        std::fs::remove_dir_all("target/flights")?;
    }
    std::fs::create_dir_all("target/flights")?;

    let started = Instant::now();
    let engine = Engine::builder().warehouse(WAREHOUSE).build().await?;

    step("1  streams", run(&engine, "01_streams.sql", include_str!("01_streams.sql"))).await?;
    step("2  views", run(&engine, "02_views.sql", include_str!("02_views.sql"))).await?;
    step("3  events, in the order in which they happened", push(&engine)).await?;
    let loaded = step("   what the streams hold", run(&engine, "03_load.sql", include_str!("03_load.sql"))).await?;
    print_rows(&loaded)?;

    let served = step("4  the vector of the last label", run(&engine, "04_serve.sql", include_str!("04_serve.sql"))).await?;
    print_vector(&served)?;

    let trained = step("5  the training set of all labels", run(&engine, "05_train.sql", include_str!("05_train.sql"))).await?;
    print_messages(&trained);
    let row = engine.execute(&format!("SELECT * FROM training WHERE flight_id = '{LAST_LABEL}'"), &[]).await?;
    let compared = compare(&served, &row)?;
    println!("   the last label's row in target/flights/training.parquet has the bits of the vector served: {compared} columns");

    let leak = step("6  what a join by the schedule would have leaked", run(&engine, "06_leak.sql", include_str!("06_leak.sql"))).await?;
    print_rows(&leak)?;

    let report = step("7  verify: every entity, both paths", async { Ok(engine.verify(VerifyOptions::default()).await?) }).await?;
    println!(
        "   {} (entity, instant) pairs, {} of them answered by the online state, {} differing bits",
        report.pairs, report.online_pairs, report.differing_bits
    );
    engine.close().await?;
    println!("done in {:.1} s; the warehouse stays in {WAREHOUSE}", started.elapsed().as_secs_f64());
    if report.differing_bits != 0 {
        return Err("the two paths differ".into());
    }
    if report.online_pairs < 100_000 {
        return Err(format!("verify compared only {} pairs of the online state", report.online_pairs).into());
    }
    Ok(())
}

/// Runs one step and prints how long it took.
async fn step<T>(name: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
    println!("{name}");
    let started = Instant::now();
    let made = work.await?;
    println!("   {:.2} s", started.elapsed().as_secs_f64());
    Ok(made)
}

/// Runs a file's statements; an error names the file and the line.
async fn run(engine: &Engine, file: &str, sql: &str) -> Result<Vec<Output>> {
    Ok(engine.execute_named(sql, &format!("examples/flights/{file}"), &[]).await?)
}

/// Pushes the three files slice by slice, within a slice the stream whose first event is the oldest first.
async fn push(engine: &Engine) -> Result<()> {
    let mut slices = Vec::new();
    for stream in ["departures", "arrivals", "weather"] {
        let rows = read_parquet(&format!("examples/flights/data/{stream}.parquet"))?;
        slices.extend(cut(&rows)?.into_iter().map(|(slice, first, batch)| (slice, first, stream, batch)));
    }
    slices.sort_by_key(|(slice, first, stream, _)| (*slice, *first, *stream));

    let mut total = IngestCounts::default();
    for (_, _, stream, batch) in slices {
        let counts = engine.push_batch(stream, batch, None).await?;
        total.read += counts.read;
        total.accepted += counts.accepted;
        total.duplicate += counts.duplicate;
        total.late += counts.late;
        total.rejected += counts.rejected;
    }
    println!(
        "   {} read = {} accepted + {} duplicate + {} late + {} rejected",
        total.read, total.accepted, total.duplicate, total.late, total.rejected
    );
    Ok(())
}

fn read_parquet(path: &str) -> Result<RecordBatch> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path)?)?.build()?;
    let batches = reader.collect::<std::result::Result<Vec<_>, _>>()?;
    let schema = batches.first().ok_or("an empty Parquet file")?.schema();
    Ok(concat_batches(&schema, &batches)?)
}

/// Cuts rows that are sorted by `ts` into slices of time: (number of the slice, its first event time, its rows).
fn cut(rows: &RecordBatch) -> Result<Vec<(i64, i64, RecordBatch)>> {
    let ts = rows.column_by_name("ts").ok_or("no column ts")?;
    let ts = cast(ts, &DataType::Timestamp(TimeUnit::Microsecond, None))?;
    let ts = ts.as_primitive::<TimestampMicrosecondType>().values();
    if !ts.is_sorted() {
        return Err("the rows are not in order of ts".into());
    }
    let mut slices = Vec::new();
    let mut from = 0;
    while from < ts.len() {
        let slice = ts[from].div_euclid(SLICE_US);
        let length = ts[from..].partition_point(|at| at.div_euclid(SLICE_US) == slice);
        slices.push((slice, ts[from], rows.slice(from, length)));
        from += length;
    }
    Ok(slices)
}

/// The one row of a result, whole.
fn single_row(outputs: &[Output]) -> Result<RecordBatch> {
    let Some(Output::Rows { schema, batches, .. }) = outputs.last() else { return Err("the statement returned no rows".into()) };
    let rows = concat_batches(schema, batches)?;
    if rows.num_rows() != 1 {
        return Err(format!("expected one row, found {}", rows.num_rows()).into());
    }
    Ok(rows)
}

/// Compares the vector with the training set's row, column by column of one name and bit by bit. Returns how many columns both have.
fn compare(served: &[Output], trained: &[Output]) -> Result<usize> {
    let (served, trained) = (single_row(served)?, single_row(trained)?);
    let mut compared = 0;
    for (field, value) in served.schema().fields().iter().zip(served.columns()) {
        let Some(other) = trained.column_by_name(field.name()) else { continue };
        // Parquet may give strings and timestamps back in another layout; numbers come back as they were written.
        let other: ArrayRef = cast(other, value.data_type())?;
        if value.to_data() != other.to_data() {
            return Err(
                format!("column \"{}\" differs: served {}, in the training set {}", field.name(), text(value)?, text(&other)?).into()
            );
        }
        compared += 1;
    }
    Ok(compared)
}

fn text(value: &ArrayRef) -> Result<String> {
    let options = FormatOptions::default().with_null("NULL");
    Ok(ArrayFormatter::try_new(value, &options)?.value(0).to_string())
}

fn print_vector(outputs: &[Output]) -> Result<()> {
    if let Some(Output::Rows { note: Some(note), .. }) = outputs.last() {
        println!("   note: {note}");
    }
    let row = single_row(outputs)?;
    for (field, value) in row.schema().fields().iter().zip(row.columns()) {
        println!("   {:<32} {}", field.name(), text(value)?);
    }
    Ok(())
}

fn print_rows(outputs: &[Output]) -> Result<()> {
    for output in outputs {
        if let Output::Rows { batches, .. } = output {
            println!("{}", pretty_format_batches(batches)?);
        }
    }
    Ok(())
}

fn print_messages(outputs: &[Output]) {
    for output in outputs {
        if let Output::Done { message, .. } = output {
            println!("   {message}");
        }
    }
}
