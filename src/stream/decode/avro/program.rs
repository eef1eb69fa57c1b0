//! How records of one writer's schema become the columns of a stream: field by field, by name, in the order in which they are written.
//!
//! What a column can be read from is decided by each value, as everywhere in decoding: a union's null is NULL, its string rejects the
//! record where the column is BIGINT, and its record is entered where a path goes through it.

use super::super::TimeUnit;
use super::super::batch::nearest_f32;
use super::super::columns::{Collector, Kind, Record, Value, is_date, is_time, wanted as not_wanted};
use super::super::number::Number;
use super::super::path::Wanted;
use super::binary::{Cursor, Malformed};
use super::schema::{Node, Scalar, Schema};

/// The reading of one schema.
#[derive(Debug)]
pub(super) struct Program {
    schema: Schema,
    plan: Plan,
    depth_max: usize,
}

/// What to do with a value.
#[derive(Debug)]
enum Plan {
    /// Pass over it.
    Skip(usize),
    /// Read it into columns.
    Scalar(Scalar, Vec<usize>),
    /// Read one of these.
    Union(Vec<Plan>),
    /// Read these one after the other, called so in a reason.
    Record(Vec<(Box<str>, Plan)>),
    /// Read some places, pass over all others.
    Array(Vec<(u64, Plan)>, usize),
    /// Read the values of some keys, pass over all others.
    Map(Vec<(Box<str>, Plan)>, usize),
    /// Reject the record: the column cannot be read from such a value.
    Mismatch(usize, &'static str),
}

/// Why a record is rejected.
enum Fault {
    /// Its bytes are wrong, at a field that is not known here.
    Bytes(Malformed),
    /// The whole reason.
    Told(String),
}

impl From<Malformed> for Fault {
    fn from(malformed: Malformed) -> Self {
        Self::Bytes(malformed)
    }
}

impl Program {
    /// The reading of a schema, or why none of its records can be read.
    pub(super) fn new(schema: Schema, wanted: &Wanted, depth_max: usize) -> Result<Self, String> {
        if matches!(schema.node(schema.root), Node::Scalar(_) | Node::Array(_)) {
            return Err(format!("the record is {}, not a record with fields", schema.found(schema.root)));
        }
        let plan = plan(&schema, schema.root, wanted, "");
        Ok(Self { schema, plan, depth_max })
    }

    /// Reads one record, whose binary begins at `at`, into `record`, or says why it is none.
    pub(super) fn read(&self, bytes: &[u8], at: usize, record: &mut Record, collector: &Collector) -> Result<(), String> {
        record.clear(collector.kinds.len());
        let mut run = Run { schema: &self.schema, cursor: Cursor::new(bytes, at), record, collector };
        run.value(&self.plan, self.depth_max).map_err(|fault| match fault {
            Fault::Bytes(why) | Fault::Told(why) => why,
        })?;
        match run.cursor.left() {
            0 => Ok(()),
            left => Err(run.cursor.malformed(&format!("{left} bytes stand behind the record"))),
        }
    }
}

fn plan(schema: &Schema, node: usize, wanted: &Wanted, path: &str) -> Plan {
    let nothing = Wanted::default();
    match schema.node(node) {
        Node::Union(branches) => Plan::Union(branches.iter().map(|branch| plan(schema, *branch, wanted, path)).collect()),
        Node::Scalar(scalar) if !wanted.columns.is_empty() => Plan::Scalar(scalar.clone(), wanted.columns.clone()),
        Node::Scalar(_) => Plan::Skip(node),
        _ if !wanted.columns.is_empty() => Plan::Mismatch(wanted.columns[0], schema.found(node)),
        Node::Record(fields) if !wanted.fields.is_empty() => {
            let fields = fields.iter().map(|(name, field)| {
                let below = wanted.fields.iter().find(|(n, _)| n == name).map_or(&nothing, |(_, wanted)| wanted);
                let path = if path.is_empty() { name.to_string() } else { format!("{path}.{name}") };
                let plan = plan(schema, *field, below, &path);
                (path.into(), plan)
            });
            Plan::Record(fields.collect())
        }
        Node::Map(values) if !wanted.fields.is_empty() => {
            let fields = wanted.fields.iter();
            Plan::Map(
                fields.map(|(name, below)| (name.clone(), plan(schema, *values, below, &format!("{path}.{name}")))).collect(),
                *values,
            )
        }
        Node::Array(items) if !wanted.items.is_empty() => {
            let places = wanted.items.iter();
            Plan::Array(places.map(|(i, below)| (*i as u64, plan(schema, *items, below, &format!("{path}[{i}]")))).collect(), *items)
        }
        _ => Plan::Skip(node),
    }
}

/// The reading of one record.
struct Run<'a> {
    schema: &'a Schema,
    cursor: Cursor<'a>,
    record: &'a mut Record,
    collector: &'a Collector,
}

impl Run<'_> {
    /// Reads a value that nests `depth` levels at most.
    ///
    /// A plan is as deep as the columns' paths are; what is deeper is passed over by the cursor, which counts on.
    fn value(&mut self, plan: &Plan, depth: usize) -> Result<(), Fault> {
        match plan {
            Plan::Scalar(scalar, columns) => self.scalar(scalar, columns),
            Plan::Skip(node) => Ok(self.cursor.skip(self.schema, *node, depth)?),
            Plan::Union(branches) => {
                let branch = self.cursor.index(branches.len(), "branch")?;
                self.value(&branches[branch], depth)
            }
            Plan::Record(fields) => {
                let depth = self.below(depth)?;
                fields.iter().try_for_each(|(path, field)| {
                    self.value(field, depth).map_err(|fault| match fault {
                        Fault::Bytes(why) => Fault::Told(format!("field \"{path}\": {why}")),
                        told => told,
                    })
                })
            }
            Plan::Array(places, items) => {
                let depth = self.below(depth)?;
                let mut index = 0;
                self.blocks(|run| {
                    let place = places.iter().find(|(i, _)| *i == index);
                    index += 1;
                    run.value(place.map_or(&Plan::Skip(*items), |(_, plan)| plan), depth)
                })
            }
            Plan::Map(keys, values) => {
                let depth = self.below(depth)?;
                self.blocks(|run| {
                    let name = run.cursor.text()?;
                    let key = keys.iter().find(|(key, _)| **key == *name);
                    run.value(key.map_or(&Plan::Skip(*values), |(_, plan)| plan), depth)
                })
            }
            Plan::Mismatch(column, found) => Err(self.mismatch(*column, &format!("found {found}"))),
        }
    }

    fn below(&self, depth: usize) -> Result<usize, Fault> {
        depth.checked_sub(1).ok_or_else(|| Fault::Bytes(self.cursor.too_deep()))
    }

    fn blocks(&mut self, mut value: impl FnMut(&mut Self) -> Result<(), Fault>) -> Result<(), Fault> {
        while let Some((count, length)) = self.cursor.block()? {
            let start = self.cursor.at;
            for _ in 0..count {
                self.cursor.count()?;
                value(self)?;
            }
            if length.is_some_and(|length| start + length != self.cursor.at) {
                return Err(Fault::Bytes(self.cursor.malformed("a block of another length than it says")));
            }
        }
        Ok(())
    }

    #[cold]
    fn mismatch(&self, column: usize, found: &str) -> Fault {
        let data_type = &self.collector.schema().columns()[column].data_type;
        Fault::Told(not_wanted(self.collector.label(column), data_type, found))
    }

    fn scalar(&mut self, scalar: &Scalar, columns: &[usize]) -> Result<(), Fault> {
        let read = Read::of(scalar, &mut self.cursor)?;
        for column in columns {
            if self.record.values[*column] != Value::Absent {
                return Err(Fault::Told(format!("field \"{}\": stands twice in the record", self.collector.label(*column))));
            }
            match read.to_value(self.collector.kinds[*column], self.record) {
                Ok(value) => self.record.values[*column] = value,
                Err(found) => return Err(self.mismatch(*column, &found)),
            }
        }
        Ok(())
    }
}

/// A value as it was written.
#[derive(Debug, Clone, Copy)]
enum Read<'a> {
    Null,
    Boolean(bool),
    Integer(i64),
    Float(f32),
    Double(f64),
    Text(&'a str),
    Bytes(&'a [u8]),
    Day(i32),
    /// Microseconds; beyond their range saturated, which is beyond the range of TIMESTAMP all the more.
    Time(i64),
    /// The digits, big-endian and signed, and how many of them are behind the point.
    Decimal(&'a [u8], i8),
    Uuid([u8; 16]),
}

impl<'a> Read<'a> {
    #[inline]
    fn of<'b: 'a>(scalar: &'a Scalar, cursor: &mut Cursor<'b>) -> Result<Self, Malformed> {
        Ok(match scalar {
            Scalar::Null => Self::Null,
            Scalar::Boolean => Self::Boolean(cursor.boolean()?),
            Scalar::Int => Self::Integer(cursor.int()?.into()),
            Scalar::Long => Self::Integer(cursor.long()?),
            Scalar::Float => Self::Float(f32::from_le_bytes(cursor.array()?)),
            Scalar::Double => Self::Double(f64::from_le_bytes(cursor.array()?)),
            Scalar::Bytes => Self::Bytes(cursor.bytes()?),
            Scalar::Text => Self::Text(cursor.text()?),
            Scalar::Fixed(size) => Self::Bytes(cursor.take(*size)?),
            Scalar::Enum(symbols) => Self::Text(&symbols[cursor.index(symbols.len(), "symbol")?]),
            Scalar::Date => Self::Day(cursor.int()?),
            Scalar::Timestamp(unit) => {
                let time = cursor.long()?;
                Self::Time(match unit {
                    TimeUnit::Second => time.saturating_mul(1_000_000),
                    TimeUnit::Millisecond => time.saturating_mul(1000),
                    TimeUnit::Microsecond => time,
                    TimeUnit::Nanosecond => time.div_euclid(1000),
                })
            }
            Scalar::Decimal { scale, fixed: None } => Self::Decimal(cursor.bytes()?, *scale),
            Scalar::Decimal { scale, fixed: Some(size) } => Self::Decimal(cursor.take(*size)?, *scale),
            Scalar::Uuid => Self::Uuid(cursor.array()?),
        })
    }

    /// The value in a column of this kind, or what was found in its place.
    fn to_value(self, kind: Kind, record: &mut Record) -> Result<Value, String> {
        match self {
            Self::Null => Ok(Value::Null),
            Self::Boolean(value) if kind == Kind::Boolean => Ok(Value::Boolean(value)),
            Self::Boolean(_) => Err("found a boolean".to_owned()),
            Self::Integer(value) => match kind {
                Kind::Integer { .. } | Kind::Real | Kind::Double => kind.of_integer(value.into()),
                _ => of_number(&value.to_string(), kind),
            },
            Self::Float(value) => match kind {
                Kind::Real | Kind::Double => Ok(Value::Double(value.into())),
                _ => kind.of_float(value.into(), &value.to_string()),
            },
            Self::Double(value) => match kind {
                Kind::Real => nearest_f32(value),
                _ => kind.of_float(value, &value.to_string()),
            },
            Self::Text(text) => of_text(text, kind, record),
            Self::Uuid(bytes) => of_text(&uuid::Uuid::from_bytes(bytes).to_string(), kind, record),
            Self::Bytes(bytes) if kind == Kind::Bytes => {
                let start = record.bytes.len();
                record.bytes.extend_from_slice(bytes);
                Ok(Value::Bytes(start, record.bytes.len()))
            }
            Self::Bytes(bytes) => Err(format!("found {} bytes", bytes.len())),
            Self::Day(day) => match kind {
                Kind::Date if is_date(day.into()) => Ok(Value::Integer(day.into())),
                Kind::Timestamp { .. } if is_date(day.into()) => Ok(Value::Integer(i64::from(day) * 86_400_000_000)),
                Kind::Date | Kind::Timestamp { .. } => Err(format!("found day {day}, which is out of range")),
                _ => Err("found a date".to_owned()),
            },
            Self::Time(time) => match kind {
                Kind::Timestamp { .. } if is_time(time) => Ok(Value::Integer(time)),
                Kind::Timestamp { .. } => Err(format!("found microsecond {time}, which is out of range")),
                _ => Err("found a timestamp".to_owned()),
            },
            Self::Decimal(digits, scale) => match integer(digits) {
                Some(digits) => kind.of_digits(&digits.to_string(), scale),
                None => Err("found a decimal that is out of range".to_owned()),
            },
        }
    }
}

fn of_number(digits: &str, kind: Kind) -> Result<Value, String> {
    let number = Number::from_text(digits).ok_or_else(|| format!("found {digits}"))?;
    let mut value = Value::Null;
    kind.of_number(&number, &mut value).map(|()| value)
}

fn of_text(text: &str, kind: Kind, record: &mut Record) -> Result<Value, String> {
    if kind == Kind::Text {
        let start = record.text.len();
        record.text.push_str(text);
        return Ok(Value::Unescaped(start, record.text.len()));
    }
    let mut value = Value::Null;
    kind.of_text(text, &mut record.bytes, &mut value).map(|()| value)
}

/// A signed integer from its bytes, the greatest first; None for one of more than 128 bits.
fn integer(bytes: &[u8]) -> Option<i128> {
    let sign = if bytes.first().is_some_and(|b| b & 0x80 != 0) { 0xff } else { 0 };
    let (head, tail) = bytes.split_at(bytes.len().saturating_sub(16));
    let mut all = [sign; 16];
    all[16 - tail.len()..].copy_from_slice(tail);
    let value = i128::from_be_bytes(all);
    // Bytes in front of the last sixteen may only repeat the sign.
    let fits = head.iter().all(|b| *b == sign) && (value < 0) == (sign == 0xff);
    fits.then_some(value)
}
