//! What clients build themselves: tickets, descriptors of `DoExchange` and of `DoPut`, all JSON objects with `"v": 1`.
//!
//! They are told from the protobuf messages of Flight SQL by their first byte: `{` begins no protobuf message of Flight SQL. Unknown fields
//! are refused, so that a field of a later version is never ignored. Not here: what the names mean.

mod caret;
mod keys;

use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int64Array, NullArray, RecordBatch, RecordBatchOptions, StringArray};
use arrow::datatypes::{Field, Schema};
use bytes::Bytes;
use chrono::Utc;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::sync::Arc;

use self::caret::pointed;
pub use self::caret::pointed_at;
pub use self::keys::key_arrays;
use crate::status::{Failure, Outcome};

/// The longest ticket or descriptor, bytes.
pub const REQUEST_BYTES_MAX: usize = 64 << 10;
/// The version of the format.
pub const VERSION: u32 = 1;

/// Whether a ticket or descriptor is one of ours.
pub fn is_ours(bytes: &[u8]) -> bool {
    bytes.first() == Some(&b'{')
}

/// The instant that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum At {
    /// The moment of the request.
    #[default]
    Now,
    /// At this instant, microseconds; events at it count.
    AsOf(i64),
    /// Strictly before this instant, microseconds.
    Before(i64),
}

/// A ticket for `DoGet`.
#[derive(Debug, Clone, PartialEq)]
pub enum TicketRequest {
    /// SQL.
    Sql(SqlRequest),
    /// Features of entities.
    Features(FeatureRequest, KeyLists),
}

/// SQL with parameters.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SqlRequest {
    /// The text.
    pub sql: String,
    /// The value of `$1` and so on.
    pub params: Vec<Value>,
}

/// Which features, and when.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FeatureRequest {
    /// The views.
    pub views: Vec<String>,
    /// The features, qualified where two views have one of that name; empty for all of them.
    pub features: Vec<String>,
    /// The instant.
    pub at: At,
    /// Whether entities that another process has are an error that says which, instead of being asked for there.
    pub here: bool,
    /// The text that the request was read from; errors point into it.
    pub text: String,
    /// What errors call that text.
    pub source: &'static str,
}

/// Keys as they stand in a ticket: a list an entity column, all of one length.
pub type KeyLists = Map<String, Value>;

/// The descriptor of a `DoExchange` session.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExchangeRequest {
    /// Which features, and when.
    pub features: FeatureRequest,
    /// Whether the entity columns come back before the features.
    pub with_keys: bool,
}

/// The descriptor of a `DoPut` into a stream.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PutRequest {
    /// The stream.
    pub stream: String,
    /// With a token the put is one commit that is applied once, however often it is sent.
    pub token: Option<String>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct TicketText {
    v: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    sql: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    params: Option<Vec<Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    views: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    features: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "keys::each_once")]
    keys: Option<KeyLists>,
    #[serde(skip_serializing_if = "Option::is_none")]
    as_of: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    strict: Option<bool>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    here: bool,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ExchangeText {
    v: u32,
    views: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    features: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    as_of: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    strict: Option<bool>,
    with_keys: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    here: bool,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct PutText {
    v: u32,
    stream: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
}

fn parse<'a, T: Deserialize<'a>>(what: &str, bytes: &'a [u8], version: impl Fn(&T) -> u32) -> Outcome<(T, &'a str)> {
    if bytes.len() > REQUEST_BYTES_MAX {
        return Err(Failure::invalid(format!("the {what} has {} bytes, the limit is {REQUEST_BYTES_MAX}", bytes.len())));
    }
    let text = std::str::from_utf8(bytes).map_err(|e| Failure::invalid(format!("the {what} is not UTF-8 at byte {}", e.valid_up_to())))?;
    let parsed: T = serde_json::from_str(text).map_err(|e| {
        let words = e.to_string();
        let words = words.split(" at line ").next().unwrap_or_default();
        pointed(&format!("the {what} cannot be read: {words}"), what, text, (e.line(), e.column()), 1, None)
    })?;
    match version(&parsed) {
        VERSION => Ok((parsed, text)),
        0 => Err(Failure::invalid(format!("the {what} names no version; it begins with {{\"v\":{VERSION}, ..."))),
        other => Err(Failure::invalid(format!("the {what} has version {other}, this server knows {VERSION}"))),
    }
}

/// The instant that `as_of` and `strict` mean.
fn instant(what: &str, text: &str, as_of: Option<&str>, strict: Option<bool>) -> Outcome<At> {
    let Some(as_of) = as_of else {
        return match strict {
            Some(true) => Err(Failure::invalid(format!("\"strict\" in the {what} stands beside \"as_of\""))),
            _ => Ok(At::Now),
        };
    };
    let time = arrow::compute::kernels::cast_utils::string_to_datetime(&Utc, as_of).map_err(|_| {
        let message = format!("\"as_of\" is no timestamp: \"{as_of}\"");
        pointed_at(&message, what, text, as_of, Some("Write it as 2026-03-01T12:00:00Z."))
    })?;
    // Finer input is truncated toward the past.
    let at = time.timestamp_micros();
    Ok(if strict == Some(true) { At::Before(at) } else { At::AsOf(at) })
}

fn written(at: At) -> (Option<String>, Option<bool>) {
    let text = |us: i64| chrono::DateTime::from_timestamp_micros(us).map(|t| t.to_rfc3339());
    match at {
        At::Now => (None, None),
        At::AsOf(us) => (text(us), None),
        At::Before(us) => (text(us), Some(true)),
    }
}

fn json(value: &impl Serialize) -> Bytes {
    // A map with string keys and finite numbers always has a text.
    serde_json::to_vec(value).unwrap_or_default().into()
}

impl TicketRequest {
    /// Reads a ticket.
    pub fn parse(bytes: &[u8]) -> Outcome<Self> {
        let (t, text) = parse("ticket", bytes, |t: &TicketText| t.v)?;
        match t {
            TicketText {
                sql: Some(sql), params, views: None, features: None, keys: None, as_of: None, strict: None, here: false, ..
            } => Ok(Self::Sql(SqlRequest { sql, params: params.unwrap_or_default() })),
            TicketText { sql: Some(_), .. } => {
                Err(Failure::invalid("a ticket with \"sql\" has only \"params\" beside it; an instant is written in the SQL"))
            }
            TicketText { params: Some(_), .. } => Err(Failure::invalid("\"params\" in the ticket stands beside \"sql\"")),
            TicketText { views: Some(views), features, keys: Some(keys), as_of, strict, here, .. } if !views.is_empty() => {
                let at = instant("ticket", text, as_of.as_deref(), strict)?;
                let (features, text) = (features.unwrap_or_default(), text.to_owned());
                let request = FeatureRequest { views, features, at, here, text, source: "ticket" };
                Ok(Self::Features(request, keys))
            }
            _ => Err(Failure::invalid("a ticket has \"sql\", or \"views\" and \"keys\"")),
        }
    }

    /// The ticket as it travels.
    pub fn to_bytes(&self) -> Bytes {
        json(&match self.clone() {
            Self::Sql(r) => {
                TicketText { v: VERSION, sql: Some(r.sql), params: Some(r.params).filter(|p| !p.is_empty()), ..TicketText::default() }
            }
            Self::Features(r, keys) => {
                let (as_of, strict) = written(r.at);
                let features = Some(r.features).filter(|f| !f.is_empty());
                TicketText {
                    v: VERSION,
                    views: Some(r.views),
                    features,
                    keys: Some(keys),
                    as_of,
                    strict,
                    here: r.here,
                    ..TicketText::default()
                }
            }
        })
    }
}

impl SqlRequest {
    /// The parameters as one row; `None` where there are none.
    pub fn parameters(&self) -> Outcome<Option<RecordBatch>> {
        if self.params.is_empty() {
            return Ok(None);
        }
        let (mut fields, mut columns): (Vec<Field>, Vec<ArrayRef>) = (vec![], vec![]);
        for (i, value) in self.params.iter().enumerate() {
            let wrong = |what: &str| Failure::invalid(format!("parameter ${} in the ticket is {what}", i + 1));
            let column: ArrayRef = match value {
                Value::Null => Arc::new(NullArray::new(1)),
                Value::Bool(b) => Arc::new(BooleanArray::from(vec![*b])),
                Value::Number(n) => match (n.as_i64(), n.as_f64()) {
                    (Some(n), _) => Arc::new(Int64Array::from(vec![n])),
                    (None, Some(x)) if !n.is_u64() => Arc::new(Float64Array::from(vec![x])),
                    _ => return Err(wrong("beyond 64 bits")),
                },
                Value::String(s) => Arc::new(StringArray::from(vec![s.as_str()])),
                Value::Array(_) | Value::Object(_) => return Err(wrong("neither a number, a string, a boolean nor null")),
            };
            fields.push(Field::new(format!("${}", i + 1), column.data_type().clone(), true));
            columns.push(column);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(1));
        Ok(Some(RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)?))
    }
}

impl ExchangeRequest {
    /// Reads the command of a descriptor.
    pub fn parse(bytes: &[u8]) -> Outcome<Self> {
        let (t, text) = parse("descriptor", bytes, |t: &ExchangeText| t.v)?;
        if t.views.is_empty() {
            return Err(Failure::invalid("the descriptor names no \"views\""));
        }
        let at = instant("descriptor", text, t.as_of.as_deref(), t.strict)?;
        let features =
            FeatureRequest { views: t.views, features: t.features, at, here: t.here, text: text.to_owned(), source: "descriptor" };
        Ok(Self { features, with_keys: t.with_keys })
    }

    /// What the path of a descriptor means: a view with all of its features.
    pub fn of_path(path: &[String]) -> Outcome<Self> {
        match path {
            [view] => {
                let (views, text) = (vec![view.clone()], view.clone());
                let features = FeatureRequest { views, text, source: "path", ..FeatureRequest::default() };
                Ok(Self { features, with_keys: false })
            }
            _ => Err(Failure::invalid(format!("the path of a descriptor is one name, found {} parts", path.len()))),
        }
    }

    /// The command as it travels.
    pub fn to_bytes(&self) -> Bytes {
        let (as_of, strict) = written(self.features.at);
        let (views, features) = (self.features.views.clone(), self.features.features.clone());
        json(&ExchangeText { v: VERSION, views, features, as_of, strict, with_keys: self.with_keys, here: self.features.here })
    }
}

impl PutRequest {
    /// Reads the command of a descriptor.
    pub fn parse(bytes: &[u8]) -> Outcome<Self> {
        let (t, _) = parse("descriptor", bytes, |t: &PutText| t.v)?;
        if t.stream.is_empty() {
            return Err(Failure::invalid("the descriptor names no \"stream\""));
        }
        if t.token.as_deref() == Some("") {
            return Err(Failure::invalid("the \"token\" of the descriptor is empty"));
        }
        Ok(Self { stream: t.stream, token: t.token })
    }

    /// What the path of a descriptor means: a stream.
    pub fn of_path(path: &[String]) -> Outcome<Self> {
        match path {
            [stream] => Ok(Self { stream: stream.clone(), token: None }),
            _ => Err(Failure::invalid(format!("the path of a descriptor is one name, found {} parts", path.len()))),
        }
    }

    /// The command as it travels.
    pub fn to_bytes(&self) -> Bytes {
        json(&PutText { v: VERSION, stream: self.stream.clone(), token: self.token.clone() })
    }
}

#[cfg(test)]
mod tests;
