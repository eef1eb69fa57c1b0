//! Keys of a JSON ticket as columns of the entity's types.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Int64Array, StringArray, StringViewArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, SchemaRef};
use serde_json::Value;

use super::{KeyLists, pointed};
use crate::status::{Failure, Outcome};

/// One column an entity column, all of one length: each list must be there, and no other.
pub fn key_arrays(keys: &KeyLists, entity: &SchemaRef, text: &str, rows_max: usize) -> Outcome<Vec<ArrayRef>> {
    let names = || entity.fields().iter().map(|f| f.name().as_str()).collect::<Vec<_>>().join(", ");
    if let Some(name) = keys.keys().find(|k| entity.field_with_name(k).is_err()) {
        let message = format!("\"{name}\" is no entity column; the entity is ({})", names());
        return Err(pointed(&message, "ticket", text, super::place_of(text, name), name.chars().count(), None));
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
            return Err(pointed(&message, "ticket", text, super::place_of(text, name), name.chars().count(), None));
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
    let before = text.get(..at).unwrap_or_default();
    let place = (before.matches('\n').count() + 1, before.rsplit('\n').next().unwrap_or_default().chars().count() + 1);
    let message = format!("error[E0501]: entity column \"{name}\" is {expected}, found {found}");
    pointed(&message, "ticket", text, place, written.chars().count(), None)
}

fn column(list: &[Value], name: &str, data_type: &DataType, text: &str) -> Outcome<ArrayRef> {
    match data_type {
        DataType::Utf8View | DataType::Utf8 | DataType::LargeUtf8 => {
            let strings: Vec<Option<&str>> = list
                .iter()
                .map(|v| match v {
                    Value::Null => Ok(None),
                    Value::String(s) => Ok(Some(s.as_str())),
                    other => Err(wrong(other, name, "a string", text)),
                })
                .collect::<Outcome<_>>()?;
            let strings: ArrayRef = Arc::new(StringViewArray::from_iter(strings));
            Ok(if data_type == &DataType::Utf8View { strings } else { cast(&strings, data_type)? })
        }
        DataType::Boolean => {
            let values: Vec<Option<bool>> = list
                .iter()
                .map(|v| match v {
                    Value::Null => Ok(None),
                    Value::Bool(b) => Ok(Some(*b)),
                    other => Err(wrong(other, name, "a boolean", text)),
                })
                .collect::<Outcome<_>>()?;
            Ok(Arc::new(BooleanArray::from(values)))
        }
        t if t.is_numeric() => {
            // Integers as they are: the reader knows what a number that does not fit means. Anything else goes by its text.
            if list.iter().all(|v| v.is_null() || v.as_i64().is_some()) {
                return Ok(Arc::new(Int64Array::from(list.iter().map(Value::as_i64).collect::<Vec<_>>())));
            }
            let texts: Vec<Option<String>> = list
                .iter()
                .map(|v| match v {
                    Value::Null => Ok(None),
                    Value::Number(n) => Ok(Some(n.to_string())),
                    Value::String(s) if s.parse::<f64>().is_ok_and(f64::is_finite) => Ok(Some(s.clone())),
                    other => Err(wrong(other, name, "a number", text)),
                })
                .collect::<Outcome<_>>()?;
            let given: ArrayRef = Arc::new(StringArray::from(texts));
            // A number with a fraction, or beyond the type, is NULL here, which has the value of an unknown entity: that of no events.
            Ok(cast(&given, t)?)
        }
        _ => {
            let texts: Vec<Option<&str>> = list
                .iter()
                .map(|v| match v {
                    Value::Null => Ok(None),
                    Value::String(s) => Ok(Some(s.as_str())),
                    other => Err(wrong(other, name, "a date or timestamp in a string", text)),
                })
                .collect::<Outcome<_>>()?;
            let given = StringArray::from(texts);
            let times = cast(&given, data_type)?;
            match (0..list.len()).find(|i| given.is_valid(*i) && times.is_null(*i)) {
                Some(i) => Err(wrong(&list[i], name, &format!("of type {data_type}"), text)),
                None => Ok(times),
            }
        }
    }
}
