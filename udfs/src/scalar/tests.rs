//! What each operation means, as text: an expression over a few columns, the rows, and what comes out.
//!
//! Every case is evaluated on the whole columns, row by row, and with each row's values as constants, and must give the
//! same bits each time.

mod arithmetic;
mod cast;
mod compare;
mod determinism;
mod functions;
mod refused;
mod time;

use std::sync::{Arc, LazyLock};

use arrow::array::{
    Array, ArrayRef, BinaryViewArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int8Array, Int16Array,
    Int32Array, Int64Array, StringViewArray, TimestampMicrosecondArray,
};
use arrow::compute::concat;
use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, ScalarValue};
use datafusion::logical_expr::Expr;
use datafusion::prelude::SessionContext;

use super::{CompileError, Compiled, compile, types};

/// The columns that cases are written over; a case names the ones it needs.
type Columns<'a> = &'a [(&'a str, ArrayRef)];

fn schema_of(columns: Columns<'_>) -> DFSchema {
    let fields: Vec<Field> = columns.iter().map(|(name, column)| Field::new(*name, column.data_type().clone(), true)).collect();
    DFSchema::try_from(Schema::new(fields)).unwrap()
}

/// Reads a statement's text as the binder's planner does, with the functions of this module.
static CONTEXT: LazyLock<SessionContext> = LazyLock::new(|| {
    let context = SessionContext::new();
    for function in super::functions() {
        context.register_udf(function.as_ref().clone());
    }
    context
});

fn parse(sql: &str, schema: &DFSchema) -> Expr {
    CONTEXT.parse_sql_expr(sql, schema).unwrap_or_else(|error| panic!("{sql}: {error}"))
}

fn compiled(sql: &str, columns: Columns<'_>) -> Result<Compiled, CompileError> {
    let schema = schema_of(columns);
    compile(parse(sql, &schema), &schema)
}

fn batch_of(columns: Columns<'_>) -> RecordBatch {
    let schema = Arc::new(schema_of(columns).as_arrow().clone());
    RecordBatch::try_new(schema, columns.iter().map(|(_, column)| Arc::clone(column)).collect()).unwrap()
}

/// Evaluates in every way there is, and insists that all agree in every bit.
fn evaluate(sql: &str, columns: Columns<'_>) -> ArrayRef {
    let compiled = compiled(sql, columns).unwrap_or_else(|error| panic!("{sql}: {error}"));
    let batch = batch_of(columns);
    let whole = compiled.evaluate(&batch).unwrap_or_else(|error| panic!("{sql}: {error}"));
    assert_eq!(whole.len(), batch.num_rows(), "{sql}");
    assert_eq!(whole.data_type(), &compiled.data_type, "{sql}");
    assert_eq!(types::canonical_type(whole.data_type()).as_ref(), Some(whole.data_type()), "{sql}");
    assert!(compiled.nullable || whole.null_count() == 0, "{sql} is declared not null");
    assert_eq!(compiled.evaluate(&batch.slice(0, 0)).unwrap().len(), 0, "{sql}");

    let framed = compiled.expr.evaluate(&batch).unwrap().into_array(batch.num_rows()).unwrap();
    same(sql, "in DataFusion's frame", &whole, &[framed]);

    let rows: Vec<ArrayRef> = (0..batch.num_rows()).map(|row| compiled.evaluate(&batch.slice(row, 1)).unwrap()).collect();
    same(sql, "row by row", &whole, &rows);

    let constants: Vec<ArrayRef> = (0..batch.num_rows()).map(|row| with_constants(sql, columns, row)).collect();
    same(sql, "as constants", &whole, &constants);
    whole
}

/// The expression with the columns replaced by one row's values.
fn with_constants(sql: &str, columns: Columns<'_>, row: usize) -> ArrayRef {
    let schema = schema_of(columns);
    let expr = parse(sql, &schema)
        .transform(|expr| {
            Ok(match &expr {
                Expr::Column(Column { name, .. }) => {
                    let (_, column) = columns.iter().find(|(column, _)| column == name).unwrap();
                    Transformed::yes(Expr::Literal(ScalarValue::try_from_array(column, row)?, None))
                }
                _ => Transformed::no(expr),
            })
        })
        .unwrap()
        .data;
    let compiled = compile(expr, &schema).unwrap_or_else(|error| panic!("{sql} with constants: {error}"));
    compiled.evaluate(&batch_of(columns).slice(row, 1)).unwrap()
}

fn same(sql: &str, way: &str, whole: &ArrayRef, rows: &[ArrayRef]) {
    if rows.is_empty() {
        return;
    }
    let rows: Vec<&dyn Array> = rows.iter().map(AsRef::as_ref).collect();
    let rows = concat(&rows).unwrap();
    // Compares floats by their bits.
    assert_eq!(whole.to_data(), rows.to_data(), "{sql} {way}");
}

fn show(array: &ArrayRef) -> String {
    let options = FormatOptions::default().with_null("NULL");
    let formatter = ArrayFormatter::try_new(array, &options).unwrap();
    let values: Vec<String> = (0..array.len()).map(|row| formatter.value(row).to_string()).collect();
    format!("{}: {}", types::sql_name(array.data_type()), values.join(" "))
}

/// `expected` is the type, a colon, and the value for each row.
fn check(sql: &str, columns: Columns<'_>, expected: &str) {
    assert_eq!(show(&evaluate(sql, columns)), expected, "{sql}");
}

/// An expression without columns.
fn constant(sql: &str, expected: &str) {
    check(sql, &[("unused", int64(&[Some(1)]))], expected);
}

fn refuse(sql: &str, columns: Columns<'_>, expected: &str) {
    match compiled(sql, columns) {
        Ok(compiled) => panic!("{sql} compiled to {}", compiled.logical),
        Err(error) => assert_eq!(error.message, expected, "{sql}"),
    }
}

fn int8(values: &[Option<i8>]) -> ArrayRef {
    Arc::new(Int8Array::from(values.to_vec()))
}

fn int16(values: &[Option<i16>]) -> ArrayRef {
    Arc::new(Int16Array::from(values.to_vec()))
}

fn int32(values: &[Option<i32>]) -> ArrayRef {
    Arc::new(Int32Array::from(values.to_vec()))
}

fn int64(values: &[Option<i64>]) -> ArrayRef {
    Arc::new(Int64Array::from(values.to_vec()))
}

fn real(values: &[Option<f32>]) -> ArrayRef {
    Arc::new(Float32Array::from(values.to_vec()))
}

fn double(values: &[Option<f64>]) -> ArrayRef {
    Arc::new(Float64Array::from(values.to_vec()))
}

fn decimal(precision: u8, scale: i8, values: &[Option<i128>]) -> ArrayRef {
    Arc::new(Decimal128Array::from(values.to_vec()).with_precision_and_scale(precision, scale).unwrap())
}

fn boolean(values: &[Option<bool>]) -> ArrayRef {
    Arc::new(BooleanArray::from(values.to_vec()))
}

fn text(values: &[Option<&str>]) -> ArrayRef {
    Arc::new(StringViewArray::from(values.to_vec()))
}

fn bytes(values: &[Option<&[u8]>]) -> ArrayRef {
    Arc::new(BinaryViewArray::from(values.to_vec()))
}

fn date(values: &[Option<i32>]) -> ArrayRef {
    Arc::new(Date32Array::from(values.to_vec()))
}

fn timestamp(values: &[Option<i64>]) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from(values.to_vec()).with_timezone("UTC"))
}

/// The instant that a text names, in microseconds.
fn at(text: &str) -> Option<i64> {
    let value = ScalarValue::Utf8(Some(text.to_owned())).cast_to(&types::timestamp()).unwrap();
    let ScalarValue::TimestampMicrosecond(value, _) = value else { panic!("{text}") };
    value
}

#[test]
fn result_types_are_those_of_columns() {
    for (data_type, expected) in [
        (DataType::Utf8, Some(DataType::Utf8View)),
        (DataType::Timestamp(arrow::datatypes::TimeUnit::Nanosecond, None), Some(types::timestamp())),
        (DataType::Decimal256(50, 2), None),
        (DataType::Decimal128(10, -2), None),
        (DataType::Timestamp(arrow::datatypes::TimeUnit::Second, Some("Europe/Riga".into())), None),
    ] {
        assert_eq!(types::canonical_type(&data_type), expected, "{data_type}");
    }
}
