//! How SQL writes a type, for messages.

use arrow::datatypes::DataType;

/// A type as SQL writes it.
pub fn sql_name(data_type: &DataType) -> String {
    use DataType::*;
    match data_type {
        Boolean => "BOOLEAN".into(),
        Int8 => "TINYINT".into(),
        Int16 => "SMALLINT".into(),
        Int32 => "INTEGER".into(),
        Int64 => "BIGINT".into(),
        Float32 => "REAL".into(),
        Float64 => "DOUBLE".into(),
        Decimal128(precision, scale) => format!("DECIMAL({precision}, {scale})"),
        Utf8View => "VARCHAR".into(),
        BinaryView => "VARBINARY".into(),
        Date32 => "DATE".into(),
        Timestamp(..) => "TIMESTAMP".into(),
        Duration(_) | Interval(_) => "INTERVAL".into(),
        List(item) => format!("{}[]", sql_name(item.data_type())),
        Null => "NULL".into(),
        other => other.to_string(),
    }
}
