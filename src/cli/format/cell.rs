//! One value as text: what a table shows and what JSON holds.
//!
//! Floats are the shortest text that reads back to the same bits; NaN and infinities are `NaN`, `Infinity` and `-Infinity`, which the JSON
//! and CSV readers of streams take back. Timestamps are ISO 8601, bytes hexadecimal behind `\x`.

use std::fmt::Write;

use arrow::array::{Array, AsArray, Float32Array, Float64Array, StructArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Float32Type, Float64Type, TimeUnit, TimestampMicrosecondType};
use arrow::error::ArrowError;
use arrow::temporal_conversions::timestamp_us_to_datetime;
use arrow::util::display::{ArrayFormatter, FormatOptions};

/// Who reads the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// People, and CSV.
    Text,
    /// A JSON parser.
    Json,
}

/// A column whose cells are written one by one.
pub(super) struct Column<'a> {
    array: &'a dyn Array,
    values: Values<'a>,
}

enum Values<'a> {
    /// The same in both styles: integers, decimals, booleans.
    Bare(ArrayFormatter<'a>),
    /// A string in JSON.
    Quoted(ArrayFormatter<'a>),
    Bytes(ArrayFormatter<'a>),
    Float(&'a Float32Array),
    Double(&'a Float64Array),
    /// Microseconds, in UTC or without a zone.
    Micros(&'a TimestampMicrosecondArray, bool),
    List(Offsets<'a>, Box<Column<'a>>),
    Struct(&'a StructArray, Vec<Column<'a>>),
}

/// Where the elements of a list lie.
enum Offsets<'a> {
    Short(&'a [i32]),
    Long(&'a [i64]),
    Fixed(usize),
}

impl Offsets<'_> {
    fn range(&self, row: usize) -> std::ops::Range<usize> {
        match self {
            Offsets::Short(o) => o[row] as usize..o[row + 1] as usize,
            Offsets::Long(o) => o[row] as usize..o[row + 1] as usize,
            Offsets::Fixed(n) => row * n..(row + 1) * n,
        }
    }
}

impl<'a> Column<'a> {
    pub(super) fn try_new(array: &'a dyn Array) -> Result<Self, ArrowError> {
        let formatter = || ArrayFormatter::try_new(array, &OPTIONS);
        let list = |offsets, values: &'a dyn Array| Ok::<_, ArrowError>(Values::List(offsets, Box::new(Column::try_new(values)?)));
        let values = match array.data_type() {
            t if t.is_integer() || matches!(t, DataType::Boolean) || is_decimal(t) => Values::Bare(formatter()?),
            DataType::Float32 => Values::Float(array.as_primitive::<Float32Type>()),
            DataType::Float64 => Values::Double(array.as_primitive::<Float64Type>()),
            DataType::Timestamp(TimeUnit::Microsecond, zone) if zone.as_deref().is_none_or(is_utc) => {
                Values::Micros(array.as_primitive::<TimestampMicrosecondType>(), zone.is_some())
            }
            t if t.is_binary() => Values::Bytes(formatter()?),
            DataType::List(_) => list(Offsets::Short(array.as_list::<i32>().value_offsets()), array.as_list::<i32>().values())?,
            DataType::LargeList(_) => list(Offsets::Long(array.as_list::<i64>().value_offsets()), array.as_list::<i64>().values())?,
            DataType::FixedSizeList(_, n) => list(Offsets::Fixed(*n as usize), array.as_fixed_size_list().values())?,
            DataType::Struct(_) => {
                let array = array.as_struct();
                Values::Struct(array, array.columns().iter().map(|c| Column::try_new(c)).collect::<Result<_, _>>()?)
            }
            _ => Values::Quoted(formatter()?),
        };
        Ok(Self { array, values })
    }

    pub(super) fn is_null(&self, row: usize) -> bool {
        self.array.is_null(row) || matches!(self.array.data_type(), DataType::Null)
    }

    pub(super) fn is_nested(&self) -> bool {
        matches!(self.values, Values::List(..) | Values::Struct(..))
    }

    /// Appends the value of a row.
    pub(super) fn write(&self, out: &mut String, row: usize, style: Style) {
        if self.is_null(row) {
            out.push_str(if style == Style::Json { "null" } else { "NULL" });
            return;
        }
        match &self.values {
            Values::Bare(formatter) => push(out, formatter.value(row)),
            Values::Quoted(formatter) if style == Style::Json => json_string(out, &formatter.value(row).to_string()),
            Values::Quoted(formatter) => push(out, formatter.value(row)),
            Values::Bytes(formatter) if style == Style::Json => json_string(out, &format!("\\x{}", formatter.value(row))),
            Values::Bytes(formatter) => push(out, format_args!("\\x{}", formatter.value(row))),
            // Each width is written by its own shortest text: 0.1 as REAL is not the DOUBLE 0.10000000149011612.
            Values::Float(array) => match array.value(row) {
                v if v.is_finite() => push(out, format_args!("{v:?}")),
                v => infinite(out, v.into(), style),
            },
            Values::Double(array) => match array.value(row) {
                v if v.is_finite() => push(out, format_args!("{v:?}")),
                v => infinite(out, v, style),
            },
            Values::Micros(array, utc) => {
                let text = timestamp(array.value(row), *utc);
                if style == Style::Json { json_string(out, &text) } else { out.push_str(&text) }
            }
            Values::List(offsets, values) => {
                out.push('[');
                for (i, element) in offsets.range(row).enumerate() {
                    separate(out, i, style);
                    values.write(out, element, style);
                }
                out.push(']');
            }
            Values::Struct(array, columns) => {
                out.push('{');
                for (i, (field, column)) in array.fields().iter().zip(columns).enumerate() {
                    separate(out, i, style);
                    match style {
                        Style::Json => json_string(out, field.name()),
                        Style::Text => out.push_str(field.name()),
                    }
                    out.push_str(if style == Style::Json { ":" } else { ": " });
                    column.write(out, row, style);
                }
                out.push('}');
            }
        }
    }
}

/// Whether a column's cells stand at the right.
pub(super) fn is_number(t: &DataType) -> bool {
    t.is_numeric()
}

/// Appends a string as JSON writes it.
pub(super) fn json_string(out: &mut String, text: &str) {
    out.push_str(&serde_json::Value::from(text).to_string());
}

const OPTIONS: FormatOptions<'static> = FormatOptions::new().with_null("NULL");

fn is_decimal(t: &DataType) -> bool {
    matches!(t, DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal128(..) | DataType::Decimal256(..))
}

fn is_utc(zone: &str) -> bool {
    matches!(zone, "UTC" | "Z" | "+00:00" | "+00")
}

/// ISO 8601; an instant beyond the calendar is its number.
fn timestamp(micros: i64, utc: bool) -> String {
    match timestamp_us_to_datetime(micros) {
        Some(at) => format!("{at:?}{}", if utc { "Z" } else { "" }),
        None => format!("{micros}us"),
    }
}

fn infinite(out: &mut String, v: f64, style: Style) {
    let text = match v {
        v if v.is_nan() => "NaN",
        v if v > 0.0 => "Infinity",
        _ => "-Infinity",
    };
    if style == Style::Json { json_string(out, text) } else { out.push_str(text) }
}

fn separate(out: &mut String, i: usize, style: Style) {
    if i > 0 {
        out.push_str(if style == Style::Json { "," } else { ", " });
    }
}

fn push(out: &mut String, value: impl std::fmt::Display) {
    // A formatter that fails has written that it failed; a String takes everything.
    let _ = write!(out, "{value}");
}
