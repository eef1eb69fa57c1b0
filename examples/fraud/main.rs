//! Writes a load of card transactions: JSON lines, labels and the SQL that reads them, all from one seed.
//!
//! `cargo run --release --example fraud -- --events 1000000 --out DIR`; every option is in `README.md`. The files of one set of options are
//! the same bytes on every machine. Nothing is loaded: `load.sql` does that, and benchmarks use `generate.rs` alone.

mod generate;

use std::error::Error;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{BooleanBuilder, RecordBatch, StringBuilder, TimestampMicrosecondBuilder};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use parquet::arrow::ArrowWriter;

use generate::{Generator, JsonLines, Record, Sending, Settings, Transaction};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Labels written to Parquet at a time.
const LABELS_PER_BATCH: usize = 65_536;

fn main() -> Result<()> {
    let (settings, out) = arguments()?;
    fs::create_dir_all(&out)?;
    let started = Instant::now();
    let mut generator = Generator::new(settings.clone());
    let mut lines = JsonLines::default();
    let mut transactions = BufWriter::with_capacity(1 << 20, File::create(out.join("transactions.jsonl"))?);
    let mut chargebacks = BufWriter::new(File::create(out.join("chargebacks.jsonl"))?);
    let mut merchants = BufWriter::new(File::create(out.join("merchants.jsonl"))?);
    let mut labels = Labels::create(&out.join("labels.parquet"))?;
    let (mut chargeback_count, mut merchant_count) = (0_u64, 0_u64);

    let mut line = Vec::with_capacity(256);
    while let Some(record) = generator.next() {
        line.clear();
        match record {
            Record::Transaction(transaction, sending) => {
                let fault = if let Sending::Malformed(fault) = sending { Some(fault) } else { None };
                lines.transaction(&mut line, &transaction, generator.category(transaction.merchant), fault);
                transactions.write_all(&line)?;
            }
            Record::Chargeback(chargeback) => {
                chargeback_count += 1;
                lines.chargeback(&mut line, &chargeback);
                chargebacks.write_all(&line)?;
            }
            Record::Merchant(merchant) => {
                merchant_count += 1;
                lines.merchant(&mut line, &merchant);
                merchants.write_all(&line)?;
            }
            Record::Label(transaction) => labels.add(&transaction)?,
        }
    }
    transactions.flush()?;
    chargebacks.flush()?;
    merchants.flush()?;
    let label_count = labels.close()?;
    let seconds = started.elapsed().as_secs_f64();

    let expected = generator.expected();
    // What the file connector must count; the lines of one COPY or one push are not judged for lateness among themselves.
    let counts = format!(
        "{{\"read\":{},\"accepted\":{},\"duplicate\":{},\"late\":{},\"rejected\":{},\"chargebacks\":{},\"merchants\":{},\"labels\":{}}}\n",
        expected.read,
        expected.accepted,
        expected.duplicate,
        expected.late,
        expected.rejected,
        chargeback_count,
        merchant_count,
        label_count
    );
    fs::write(out.join("expected.json"), &counts)?;
    write_sql(&out, settings.disorder_us)?;
    println!("{}: {} lines of transactions in {seconds:.2} s", out.display(), expected.read);
    print!("{counts}");
    Ok(())
}

/// Writes the SQL files with the folder's path and the watermark's disorder in them.
fn write_sql(out: &Path, disorder_us: i64) -> Result<()> {
    let folder = fs::canonicalize(out)?;
    let folder = folder.to_str().ok_or("the output's path is not UTF-8")?.replace('\'', "''");
    for (name, text) in [
        ("streams.sql", include_str!("streams.sql")),
        ("streams_file.sql", include_str!("streams_file.sql")),
        ("views.sql", include_str!("views.sql")),
        ("load.sql", include_str!("load.sql")),
        ("train.sql", include_str!("train.sql")),
    ] {
        fs::write(out.join(name), text.replace("{dir}", &folder).replace("{disorder}", &format!("{} seconds", disorder_us / 1_000_000)))?;
    }
    Ok(())
}

/// `labels.parquet`: txn_id, card_id, merchant_id, ts, fraud.
struct Labels {
    schema: SchemaRef,
    writer: ArrowWriter<File>,
    pending: Vec<Transaction>,
    written: u64,
}

impl Labels {
    fn create(path: &Path) -> Result<Labels> {
        let schema = Arc::new(Schema::new(vec![
            Field::new("txn_id", DataType::Utf8, false),
            Field::new("card_id", DataType::Utf8, false),
            Field::new("merchant_id", DataType::Utf8, false),
            Field::new("ts", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), false),
            Field::new("fraud", DataType::Boolean, false),
        ]));
        let writer = ArrowWriter::try_new(File::create(path)?, schema.clone(), None)?;
        Ok(Labels { schema, writer, pending: Vec::with_capacity(LABELS_PER_BATCH), written: 0 })
    }

    fn add(&mut self, transaction: &Transaction) -> Result<()> {
        self.pending.push(*transaction);
        if self.pending.len() == LABELS_PER_BATCH { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> Result<()> {
        let (mut id, mut card, mut merchant) = (StringBuilder::new(), StringBuilder::new(), StringBuilder::new());
        let (mut ts, mut fraud) = (TimestampMicrosecondBuilder::new().with_timezone("UTC"), BooleanBuilder::new());
        for label in &self.pending {
            id.append_value(format!("t{:010}", label.id));
            card.append_value(format!("c{:07}", label.card));
            merchant.append_value(format!("m{:06}", label.merchant));
            ts.append_value(label.at_us);
            fraud.append_value(label.fraud);
        }
        self.written += self.pending.len() as u64;
        self.pending.clear();
        let columns: Vec<arrow::array::ArrayRef> = vec![
            Arc::new(id.finish()),
            Arc::new(card.finish()),
            Arc::new(merchant.finish()),
            Arc::new(ts.finish()),
            Arc::new(fraud.finish()),
        ];
        self.writer.write(&RecordBatch::try_new(self.schema.clone(), columns)?)?;
        Ok(())
    }

    fn close(mut self) -> Result<u64> {
        self.write()?;
        self.writer.close()?;
        Ok(self.written)
    }
}

fn arguments() -> Result<(Settings, PathBuf)> {
    let mut settings = Settings::default();
    let mut out = PathBuf::from("target/fraud");
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("option {name} has no value"))?;
        let wrong = |error: &dyn std::fmt::Display| format!("option {name}: {error}: \"{value}\"");
        match name.as_str() {
            "--events" => settings.events = value.parse().map_err(|e| wrong(&e))?,
            "--cards" => settings.cards = value.parse().map_err(|e| wrong(&e))?,
            "--merchants" => settings.merchants = value.parse().map_err(|e| wrong(&e))?,
            "--seed" => settings.seed = value.parse().map_err(|e| wrong(&e))?,
            "--days" => settings.span_us = 86_400_000_000 * value.parse::<u32>().map_err(|e| wrong(&e)).map(i64::from)?,
            "--late" => settings.late_share = value.parse().map_err(|e| wrong(&e))?,
            "--duplicates" => settings.duplicate_share = value.parse().map_err(|e| wrong(&e))?,
            "--malformed" => settings.malformed_share = value.parse().map_err(|e| wrong(&e))?,
            "--labels" => settings.label_share = value.parse().map_err(|e| wrong(&e))?,
            "--disorder-seconds" => settings.disorder_us = 1_000_000 * value.parse::<u32>().map_err(|e| wrong(&e)).map(i64::from)?,
            "--out" => out = PathBuf::from(&value),
            _ => return Err(format!("unknown option {name}; examples/fraud/README.md lists them").into()),
        }
    }
    Ok((settings, out))
}
