//! Which events were here before: the identities of recent events, by fingerprints.
//!
//! A stream with a primary key identifies an event by (event time, primary key). Of each event a table keeps 64 bits of its
//! identity and 64 bits of its whole row, both with a seed of this process that nobody outside can know. A row with neither seen is
//! new without doubt; a row equal in both is a duplicate, wrong once in 2^128 pairs; a row whose identity alone was seen is a
//! conflict, which is wrong once in 2^64 pairs and is found out when the caller looks for the row it conflicts with: where
//! there is none, the row is new.
//!
//! Tables are kept per bucket of event time and dropped whole, the oldest first, at a time the caller names or at the memory bound.
//! A row older than all that is kept is unknown: the caller checks history. Rows equal in every column are equal to the bit here,
//! so -0 and +0 differ and every NaN is the canonical one. Not here: history, what a conflict does, streams without a primary key
//! (a multiset, where every copy counts).

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, Hasher, RandomState};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, TimestampMicrosecondType,
};
use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::schema::StreamSchema;
use crate::error::{Error, Result};

/// The width of a bucket that suits most streams: ten minutes.
pub const BUCKET_US: i64 = 600_000_000;

/// What an empty bucket costs beside its entries: its place in the tree and the table's header.
const BUCKET_BYTES: usize = 96;

/// What is known of one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// No event of this identity was here.
    New,
    /// An event equal in every column was here.
    Duplicate,
    /// An event of this identity was here, with other columns.
    Conflict,
    /// The row is older than what is kept: history knows. A copy of an unknown row earlier in the same batch is a duplicate all
    /// the same.
    Unknown,
}

/// The verdicts on one batch.
#[derive(Debug, Clone, Default)]
pub struct Judged {
    /// One for each row.
    pub verdicts: Vec<Verdict>,
    earlier: HashMap<usize, usize>,
    inserted: Vec<(i64, Entry)>,
}

impl Judged {
    /// The last row before a conflicting or unknown row, in the same batch, that has its identity and is no duplicate.
    ///
    /// Following it from row to row gives all of them; the others that conflict are in history.
    pub fn earlier(&self, row: usize) -> Option<usize> {
        self.earlier.get(&row).copied()
    }

    /// How many rows have a verdict.
    pub fn count(&self, verdict: Verdict) -> usize {
        self.verdicts.iter().filter(|v| **v == verdict).count()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Entry {
    identity: u64,
    row: u64,
}

/// The identities of a stream's recent events.
///
/// One writer; a batch is judged as if row after row.
#[derive(Debug)]
pub struct Dedupe {
    key: Vec<usize>,
    payload: Vec<usize>,
    event_time: usize,
    seeds: [u64; 2],
    bucket_us: i64,
    bytes_max: usize,
    /// Everything at or after this time that was accepted is in `buckets`.
    known_from: i64,
    buckets: BTreeMap<i64, HashTable<Entry>>,
    bytes: usize,
    scratch: [Vec<u64>; 2],
}

impl Dedupe {
    /// An empty table for a stream of which nothing was accepted yet, or of which all that was is loaded next.
    ///
    /// - Errors: [`crate::error::Kind::Internal`] for a stream without a primary key.
    pub fn try_new(schema: &StreamSchema, bytes_max: usize) -> Result<Self> {
        let seed = || RandomState::new().build_hasher().finish();
        Self::with_seeds(schema, bytes_max, BUCKET_US, [seed(), seed()])
    }

    /// As [`Dedupe::try_new`], with the width of buckets and the seeds given, for simulations and tests.
    pub fn with_seeds(schema: &StreamSchema, bytes_max: usize, bucket_us: i64, seeds: [u64; 2]) -> Result<Self> {
        if schema.primary_key().is_empty() {
            return Err(Error::internal("a stream without a primary key has no duplicates"));
        }
        Ok(Self {
            key: schema.primary_key().to_vec(),
            payload: schema.payload().collect(),
            event_time: schema.event_time(),
            seeds,
            bucket_us: bucket_us.max(1),
            bytes_max,
            known_from: i64::MIN,
            buckets: BTreeMap::new(),
            bytes: 0,
            scratch: [Vec::new(), Vec::new()],
        })
    }

    /// Judges the rows of a batch in order and remembers those that are new or in conflict.
    ///
    /// - The batch has the columns of the stream's schema first; rows that are late are not in it.
    /// - What is remembered counts as accepted: where the batch is not accepted after all, [`Dedupe::undo`] takes it back.
    pub fn judge(&mut self, rows: &RecordBatch) -> Result<Judged> {
        let [identities, fingerprints] = self.fingerprints(rows)?;
        let times = self.times(rows)?;
        let mut judged = Judged { verdicts: Vec::with_capacity(times.len()), ..Judged::default() };
        let mut unknown: HashTable<Entry> = HashTable::new();
        let mut looks_back = false;
        let mut start = 0;
        while let Some(&first) = times.get(start) {
            let bucket = first.div_euclid(self.bucket_us);
            let same = |time: &&i64| time.div_euclid(self.bucket_us) == bucket;
            let end = start + times[start..].iter().take_while(same).count();
            let table = self.buckets.entry(bucket).or_insert_with(|| {
                self.bytes += BUCKET_BYTES;
                HashTable::new()
            });
            let before = table.allocation_size();
            for row in start..end {
                let entry = Entry { identity: identities[row], row: fingerprints[row] };
                let known = times[row] >= self.known_from;
                let table = if known { &mut *table } else { &mut unknown };
                let verdict = match (look_up(table, entry), known) {
                    (Verdict::Duplicate, _) if asof_udfs::seeded_bug("duplicate-applied") => Verdict::New,
                    (Verdict::Duplicate, _) => Verdict::Duplicate,
                    (verdict, known) => {
                        table.insert_unique(entry.identity, entry, |e| e.identity);
                        if known {
                            judged.inserted.push((bucket, entry));
                            verdict
                        } else {
                            Verdict::Unknown
                        }
                    }
                };
                looks_back |= matches!(verdict, Verdict::Conflict | Verdict::Unknown);
                judged.verdicts.push(verdict);
            }
            self.bytes = self.bytes + table.allocation_size() - before;
            if table.is_empty() {
                self.drop_bucket(bucket);
            }
            start = end;
        }
        if looks_back {
            judged.link(&identities);
        }
        self.scratch = [identities, fingerprints];
        self.keep_bound();
        Ok(judged)
    }

    /// Remembers rows that were accepted before, as they are read from history after a start.
    ///
    /// Rows before [`Dedupe::known_from`] are passed over.
    pub fn load(&mut self, rows: &RecordBatch) -> Result<()> {
        self.judge(rows).map(|_| ())
    }

    /// Takes back what [`Dedupe::judge`] remembered of a batch that was not accepted.
    ///
    /// Batches judged after it must be taken back before it.
    pub fn undo(&mut self, judged: &Judged) {
        for (bucket, entry) in judged.inserted.iter().rev() {
            let Some(table) = self.buckets.get_mut(bucket) else { continue };
            if let Ok(found) = table.find_entry(entry.identity, |e| e == entry) {
                found.remove();
            }
            if table.is_empty() {
                self.drop_bucket(*bucket);
            }
        }
    }

    /// The time from which on all accepted events are known; what is older is [`Verdict::Unknown`].
    pub fn known_from(&self) -> i64 {
        self.known_from
    }

    /// Declares that nothing is known before a time, and drops the buckets that lie wholly before it.
    ///
    /// Called before a load with the time from which on history is read, and as the watermark moves. The time only rises.
    pub fn forget_before(&mut self, time: i64) {
        self.known_from = self.known_from.max(time);
        let bucket = self.known_from.div_euclid(self.bucket_us);
        while let Some((&oldest, _)) = self.buckets.first_key_value() {
            if oldest >= bucket {
                break;
            }
            self.drop_bucket(oldest);
        }
    }

    /// The memory of all tables, in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.bytes
    }

    /// How many events are remembered.
    pub fn len(&self) -> usize {
        self.buckets.values().map(HashTable::len).sum()
    }

    /// Whether no event is remembered.
    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }

    fn keep_bound(&mut self) {
        while self.bytes > self.bytes_max {
            let Some((&oldest, _)) = self.buckets.first_key_value() else { break };
            // Times end at the year 9999, so the end of a bucket is a time.
            let end = oldest.saturating_add(1).saturating_mul(self.bucket_us);
            self.forget_before(end);
            self.drop_bucket(oldest);
        }
    }

    fn drop_bucket(&mut self, bucket: i64) {
        if let Some(table) = self.buckets.remove(&bucket) {
            self.bytes = self.bytes.saturating_sub(table.allocation_size() + BUCKET_BYTES);
        }
    }

    fn times<'a>(&self, rows: &'a RecordBatch) -> Result<&'a [i64]> {
        let times = rows.columns().get(self.event_time);
        let times = times.and_then(|c| c.as_primitive_opt::<TimestampMicrosecondType>());
        let times = times.ok_or_else(|| Error::internal("a batch of events has no event time"))?;
        Ok(times.values())
    }

    /// The fingerprints of every row's identity and of the whole row.
    ///
    /// Both are chains of hashes over columns, from different seeds, so that two rows of different identity must collide in two
    /// independent hashes to pass for one.
    fn fingerprints(&mut self, rows: &RecordBatch) -> Result<[Vec<u64>; 2]> {
        let [mut identities, mut fingerprints] = std::mem::take(&mut self.scratch);
        for (lane, seed) in [(&mut identities, self.seeds[0]), (&mut fingerprints, self.seeds[1])] {
            lane.clear();
            lane.resize(rows.num_rows(), seed);
        }
        for column in std::iter::once(&self.event_time).chain(&self.key) {
            let column = column_of(rows, *column)?;
            fold_column(&mut identities, column)?;
            fold_column(&mut fingerprints, column)?;
        }
        for column in &self.payload {
            fold_column(&mut fingerprints, column_of(rows, *column)?)?;
        }
        Ok([identities, fingerprints])
    }
}

impl Judged {
    fn link(&mut self, identities: &[u64]) {
        let looks_back = |verdict: Verdict| matches!(verdict, Verdict::Conflict | Verdict::Unknown);
        let rows = || self.verdicts.iter().zip(identities).enumerate();
        let mut last: HashMap<u64, Option<usize>> =
            rows().filter(|(_, (v, _))| looks_back(**v)).map(|(_, (_, identity))| (*identity, None)).collect();
        let mut earlier = HashMap::new();
        for (row, (verdict, identity)) in rows() {
            if *verdict == Verdict::Duplicate {
                continue;
            }
            let Some(last) = last.get_mut(identity) else { continue };
            if let Some(before) = last.replace(row).filter(|_| looks_back(*verdict)) {
                earlier.insert(row, before);
            }
        }
        self.earlier = earlier;
    }
}

fn look_up(table: &HashTable<Entry>, entry: Entry) -> Verdict {
    let mut verdict = Verdict::New;
    for found in table.iter_hash(entry.identity).filter(|e| e.identity == entry.identity) {
        if found.row == entry.row {
            return Verdict::Duplicate;
        }
        verdict = Verdict::Conflict;
    }
    verdict
}

fn column_of(rows: &RecordBatch, column: usize) -> Result<&dyn Array> {
    rows.columns().get(column).map(AsRef::as_ref).ok_or_else(|| Error::internal("a batch of events lacks a column"))
}

/// Folds a column into one hash per row.
fn fold_column(lane: &mut [u64], column: &dyn Array) -> Result<()> {
    macro_rules! fold {
        ($array:expr, $bytes:expr) => {
            fold(lane, column, |row| $array.value(row), $bytes)
        };
    }
    match column.data_type() {
        DataType::Boolean => {
            let array = column.as_boolean();
            fold!(array, |v, h| xxh3_64_with_seed(&[u8::from(v)], h));
        }
        DataType::Int8 => fold!(column.as_primitive::<Int8Type>(), |v, h| xxh3_64_with_seed(&v.to_le_bytes(), h)),
        DataType::Int16 => fold!(column.as_primitive::<Int16Type>(), |v, h| xxh3_64_with_seed(&v.to_le_bytes(), h)),
        DataType::Int32 => fold!(column.as_primitive::<Int32Type>(), |v, h| xxh3_64_with_seed(&v.to_le_bytes(), h)),
        DataType::Date32 => fold!(column.as_primitive::<Date32Type>(), |v, h| xxh3_64_with_seed(&v.to_le_bytes(), h)),
        DataType::Int64 => fold!(column.as_primitive::<Int64Type>(), |v, h| xxh3_64_with_seed(&v.to_le_bytes(), h)),
        DataType::Timestamp(_, _) => {
            let array =
                column.as_primitive_opt::<TimestampMicrosecondType>().ok_or_else(|| Error::internal("a timestamp of another unit"))?;
            fold!(array, |v, h| xxh3_64_with_seed(&v.to_le_bytes(), h));
        }
        DataType::Float32 => fold!(column.as_primitive::<Float32Type>(), |v, h| xxh3_64_with_seed(&v.to_le_bytes(), h)),
        DataType::Float64 => fold!(column.as_primitive::<Float64Type>(), |v, h| xxh3_64_with_seed(&v.to_le_bytes(), h)),
        DataType::Decimal128(_, _) => {
            fold!(column.as_primitive::<Decimal128Type>(), |v, h| xxh3_64_with_seed(&v.to_le_bytes(), h));
        }
        DataType::Utf8View => fold!(column.as_string_view(), |v, h| xxh3_64_with_seed(v.as_bytes(), h)),
        DataType::Utf8 => fold!(column.as_string::<i32>(), |v, h| xxh3_64_with_seed(v.as_bytes(), h)),
        DataType::BinaryView => fold!(column.as_binary_view(), xxh3_64_with_seed),
        DataType::Binary => fold!(column.as_binary::<i32>(), xxh3_64_with_seed),
        other => return Err(Error::internal(format!("an event with a column of type {other}"))),
    }
    Ok(())
}

fn fold<T>(lane: &mut [u64], column: &dyn Array, value: impl Fn(usize) -> T, hash: impl Fn(T, u64) -> u64) {
    /// Keeps a NULL apart from the empty string, which hashes no bytes either.
    const NULL: u64 = 0x9e37_79b9_7f4a_7c15;
    match column.nulls().filter(|nulls| nulls.null_count() > 0) {
        None => {
            for (row, lane) in lane.iter_mut().enumerate() {
                *lane = hash(value(row), *lane);
            }
        }
        Some(nulls) => {
            for (row, lane) in lane.iter_mut().enumerate() {
                *lane = if nulls.is_valid(row) { hash(value(row), *lane) } else { xxh3_64_with_seed(&[], *lane ^ NULL) };
            }
        }
    }
}

#[cfg(test)]
mod tests;
