//! Keys of a JSON ticket as columns of the entity's types.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Int64Array, StringArray, StringViewArray};
use arrow::compute::kernels::cmp::distinct;
use arrow::compute::{cast, nullif};
use arrow::datatypes::{DataType, SchemaRef};
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use serde_json::Value;

use super::KeyLists;
use super::caret::{place, pointed, pointed_at};
use crate::status::{Failure, Outcome};

/// One column an entity column, all of one length: each list must be there, and no other.
pub fn key_arrays(keys: &KeyLists, entity: &SchemaRef, text: &str, rows_max: usize) -> Outcome<Vec<ArrayRef>> {
    let names = || entity.fields().iter().map(|f| f.name().as_str()).collect::<Vec<_>>().join(", ");
    if let Some(name) = keys.keys().find(|k| entity.field_with_name(k).is_err()) {
        let message = format!("\"{name}\" is no entity column; the entity is ({})", names());
        return Err(pointed_at(&message, "ticket", text, name, None));
    }
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(entity.fields().len());
    let mut rows = None;
    for field in entity.fields() {
        let name = field.name();
        let Some(list) = keys.get(name) else {
            return Err(Failure::invalid(format!("entity column \"{name}\" is not given; \"keys\" has a list for each of ({})", names())));
        };
        let Value::Array(list) = list else {
            let message = format!("the keys of entity column \"{name}\" are no list");
            return Err(pointed_at(&message, "ticket", text, name, None));
        };
        if list.len() > rows_max {
            return Err(Failure::invalid(format!("{} entities are asked for, the limit is {rows_max}", list.len())));
        }
        if *rows.get_or_insert(list.len()) != list.len() {
            return Err(Failure::invalid(format!("entity column \"{name}\" has {} keys, another has {}", list.len(), rows.unwrap_or(0))));
        }
        columns.push(column(list, name, field.data_type(), text)?);
    }
    Ok(columns)
}

fn wrong(value: &Value, name: &str, expected: &str, text: &str) -> Failure {
    let found = match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    };
    // The first place behind the column's name where the value stands.
    let written = value.to_string();
    let quoted = format!("\"{name}\"");
    let from = text.find(&quoted).map_or(0, |at| at + quoted.len());
    let at = text.get(from..).and_then(|rest| rest.find(&written)).map_or(from, |at| from + at);
    let message = format!("error[E0501]: entity column \"{name}\" is {expected}, found {found}");
    pointed(&message, "ticket", text, place(text, at), written.chars().count(), None)
}

/// A column's values, each as `take` reads it; the first that is neither null nor `expected` is refused.
fn values<'a, T>(
    list: &'a [Value],
    name: &str,
    expected: &str,
    text: &str,
    take: impl Fn(&'a Value) -> Option<T>,
) -> Outcome<Vec<Option<T>>> {
    let taken = |v: &'a Value| match v {
        Value::Null => Ok(None),
        v => take(v).map(Some).ok_or_else(|| wrong(v, name, expected, text)),
    };
    list.iter().map(taken).collect()
}

fn column(list: &[Value], name: &str, data_type: &DataType, text: &str) -> Outcome<ArrayRef> {
    match data_type {
        DataType::Utf8View | DataType::Utf8 | DataType::LargeUtf8 => {
            let strings: ArrayRef = Arc::new(StringViewArray::from_iter(values(list, name, "a string", text, Value::as_str)?));
            Ok(if data_type == &DataType::Utf8View { strings } else { cast(&strings, data_type)? })
        }
        DataType::Boolean => Ok(Arc::new(BooleanArray::from(values(list, name, "a boolean", text, Value::as_bool)?))),
        t if t.is_numeric() => {
            // Integers as they are: the reader knows what a number that does not fit means. Anything else goes by its text.
            if list.iter().all(|v| v.is_null() || v.as_i64().is_some()) {
                return Ok(Arc::new(Int64Array::from(list.iter().map(Value::as_i64).collect::<Vec<_>>())));
            }
            let written = |v: &Value| match v {
                Value::Number(n) => Some(n.to_string()),
                Value::String(s) if s.parse::<f64>().is_ok_and(f64::is_finite) => Some(s.clone()),
                _ => None,
            };
            let given = StringArray::from(values(list, name, "a number", text, written)?);
            // What the type cannot hold as it is, by its size or its fraction, is NULL here: the value of that is the value of no entity.
            let exact = cast(&given, &DataType::Decimal256(76, 38))?;
            let own = cast(&exact, t)?;
            let back = cast(&own, exact.data_type())?;
            Ok(nullif(&own, &distinct(&back, &exact)?)?)
        }
        _ => {
            let given = StringArray::from(values(list, name, "a date or timestamp in a string", text, Value::as_str)?);
            let times = cast(&given, data_type)?;
            match (0..list.len()).find(|i| given.is_valid(*i) && times.is_null(*i)) {
                Some(i) => Err(wrong(&list[i], name, &format!("of type {data_type}"), text)),
                None => Ok(times),
            }
        }
    }
}

/// Reads the lists of a ticket. A column that stands twice is refused, where the reader of maps would keep the last of its lists.
pub(super) fn each_once<'de, D: Deserializer<'de>>(from: D) -> Result<Option<KeyLists>, D::Error> {
    struct EachOnce;
    impl<'de> Visitor<'de> for EachOnce {
        type Value = Option<KeyLists>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of keys for each entity column")
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut lists = KeyLists::new();
            while let Some(name) = map.next_key::<String>()? {
                if lists.contains_key(&name) {
                    return Err(A::Error::custom(format!("entity column \"{name}\" is given twice")));
                }
                lists.insert(name, map.next_value()?);
            }
            Ok(Some(lists))
        }
    }
    from.deserialize_any(EachOnce)
}
