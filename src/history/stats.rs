//! The statistics of a data file in Delta's log: written from what Parquet gathered, read for what files are pruned by.
//!
//! Only what is certain is written. Floats have no least and greatest value, since Parquet's pass over NaN; a string is cut to
//! [`STRING_CHARS`] characters and its greatest value raised over all that begin so; a time outside of years 1 to 9999 is left out.

use arrow::datatypes::{DataType, Schema, TimeUnit};
use chrono::{DateTime, NaiveDate, SecondsFormat, Utc};
use parquet::file::metadata::ParquetMetaData;
use parquet::file::statistics::Statistics;
use serde_json::{Map, Value, json};

use super::REVISION;

/// How many characters of a string its least and greatest values keep.
const STRING_CHARS: usize = 32;

const DAYS_TO_EPOCH: i32 = 719_163;

/// What readers want to know of a file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct FileStats {
    pub(super) rows: Option<u64>,
    /// The least and the greatest time.
    pub(super) times: Option<(i64, i64)>,
    /// `None` where it is not known, too.
    pub(super) revision_max: Option<i32>,
}

impl FileStats {
    /// What Delta's statistics, which may be of any writer, say for sure.
    pub(super) fn parse(json: &str, time: &str) -> Self {
        let Ok(stats) = serde_json::from_str::<Value>(json) else { return Self::default() };
        let least = stats["minValues"].get(time).and_then(Value::as_str).and_then(parse_time);
        let greatest = stats["maxValues"].get(time).and_then(Value::as_str).and_then(|text| {
            // Some writers cut timestamps to milliseconds, so that the greatest may lie up to one behind.
            let cut = text.split_once('.').is_none_or(|(_, f)| f.bytes().take_while(u8::is_ascii_digit).count() < 6);
            parse_time(text).map(|t| if cut { t.saturating_add(999) } else { t })
        });
        let revision_max = stats["maxValues"].get(REVISION).and_then(Value::as_i64).and_then(|r| i32::try_from(r).ok());
        Self { rows: stats["numRecords"].as_u64(), times: least.zip(greatest), revision_max }
    }
}

/// The statistics of a file that was just written, as Delta's log wants them.
pub(super) fn to_json(schema: &Schema, metadata: &ParquetMetaData, null_counts: &[u64]) -> String {
    let (mut least, mut greatest, mut nulls) = (Map::new(), Map::new(), Map::new());
    for (i, field) in schema.fields().iter().enumerate() {
        if let Some(count) = null_counts.get(i) {
            nulls.insert(field.name().clone(), json!(count));
        }
        let chunks = metadata.row_groups().iter().map(|group| group.columns().get(i)?.statistics());
        if let Some((low, high)) = bounds(field.data_type(), chunks) {
            least.insert(field.name().clone(), low);
            greatest.insert(field.name().clone(), high);
        }
    }
    let rows = metadata.file_metadata().num_rows();
    json!({ "numRecords": rows, "minValues": least, "maxValues": greatest, "nullCount": nulls }).to_string()
}

/// The least and the greatest value over all row groups; `None` where one of them does not say, as where it is all NULL.
fn bounds<'a>(data_type: &DataType, chunks: impl Iterator<Item = Option<&'a Statistics>>) -> Option<(Value, Value)> {
    match data_type {
        DataType::Utf8View => {
            let mut range: Option<(Vec<u8>, Vec<u8>)> = None;
            for chunk in chunks {
                let Statistics::ByteArray(stats) = chunk? else { return None };
                let (Some(low), Some(high)) = (stats.min_opt(), stats.max_opt()) else {
                    return None;
                };
                let (low, high) = (low.data().to_vec(), high.data().to_vec());
                range = Some(match range {
                    None => (low, high),
                    Some((l, h)) => (l.min(low), h.max(high)),
                });
            }
            let (low, high) = range?;
            Some((json!(cut_low(&low)?), json!(cut_high(&high)?)))
        }
        _ => {
            let mut range: Option<(i64, i64)> = None;
            for chunk in chunks {
                let found = match chunk? {
                    Statistics::Int32(s) => s.min_opt().zip(s.max_opt()).map(|(l, h)| (i64::from(*l), i64::from(*h))),
                    Statistics::Int64(s) => s.min_opt().zip(s.max_opt()).map(|(l, h)| (*l, *h)),
                    _ => return None,
                };
                let (low, high) = found?;
                range = Some(range.map_or((low, high), |(l, h)| (l.min(low), h.max(high))));
            }
            let (low, high) = range?;
            Some((to_value(data_type, low)?, to_value(data_type, high)?))
        }
    }
}

fn to_value(data_type: &DataType, value: i64) -> Option<Value> {
    match data_type {
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => Some(json!(value)),
        DataType::Date32 => {
            let days = i32::try_from(value).ok()?.checked_add(DAYS_TO_EPOCH)?;
            let date = NaiveDate::from_num_days_from_ce_opt(days).filter(|d| is_usual(*d))?;
            Some(json!(date.format("%Y-%m-%d").to_string()))
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            let time = DateTime::<Utc>::from_timestamp_micros(value).filter(|t| is_usual(t.date_naive()))?;
            Some(json!(time.to_rfc3339_opts(SecondsFormat::Micros, true)))
        }
        _ => None,
    }
}

/// Whether every reader understands the date.
fn is_usual(date: NaiveDate) -> bool {
    use chrono::Datelike;
    (1..=9999).contains(&date.year())
}

fn parse_time(text: &str) -> Option<i64> {
    DateTime::parse_from_rfc3339(text).ok().map(|t| t.timestamp_micros())
}

/// A string that is not greater.
fn cut_low(bytes: &[u8]) -> Option<String> {
    // Parquet may have cut within a character; what comes before it is still not greater.
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(e) => std::str::from_utf8(bytes.get(..e.valid_up_to())?).ok()?,
    };
    Some(text.chars().take(STRING_CHARS).collect())
}

/// A string that is not less.
fn cut_high(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?;
    let Some((at, next)) = text.char_indices().nth(STRING_CHARS) else { return Some(text.to_owned()) };
    if next == char::MAX {
        return None;
    }
    Some(format!("{}{}", text.get(..at)?, char::MAX))
}
