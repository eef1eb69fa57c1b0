//! The frame of every operation: a named function of one row's values, over columns.
//!
//! A [`Kernel`] is told whether an operand is one value or a column, but must not let it matter: row `i` of its result
//! depends only on row `i` of its operands. What is true of the name of an operation is true of its meaning: the name
//! carries the types and constants, so that equal names are equal functions.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, Datum, Float32Array, Float64Array, PrimitiveArray, PrimitiveBuilder, Scalar,
    new_null_array,
};
use arrow::buffer::NullBuffer;
use arrow::compute::concat;
use arrow::datatypes::{DataType, Field, FieldRef, Float32Type, Float64Type};
use datafusion::common::{ScalarValue, internal_datafusion_err};
use datafusion::error::Result;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

use super::lower::Typed;

/// What an operation does.
pub(super) trait Kernel: fmt::Debug + Send + Sync {
    /// The result for each of `rows` rows, of the type given to [`operation`].
    fn evaluate(&self, operands: &[Operand], rows: usize) -> Result<ArrayRef>;
}

/// When an operation gives NULL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Nulls {
    /// Where an operand is NULL and nowhere else.
    OfOperands,
    /// Elsewhere too: it may fail on a row.
    Any,
    /// Nowhere.
    Never,
}

/// Applies a kernel to operands. `name` must tell the kernel apart from every other one.
pub(super) fn operation(
    name: impl Into<String>,
    kernel: impl Kernel + 'static,
    output: DataType,
    nulls: Nulls,
    operands: Vec<Typed>,
) -> Typed {
    let nullable = match nulls {
        Nulls::Any => true,
        Nulls::Never => false,
        Nulls::OfOperands => operands.iter().any(|operand| operand.nullable),
    };
    let operation = Operation {
        name: name.into(),
        kernel: Arc::new(kernel),
        output: output.clone(),
        nullable,
        signature: Signature::variadic_any(Volatility::Immutable),
    };
    let args = operands.into_iter().map(|operand| operand.expr).collect();
    let expr = Expr::ScalarFunction(ScalarFunction::new_udf(Arc::new(ScalarUDF::from(operation)), args));
    Typed { expr, data_type: output, nullable }
}

#[derive(Debug)]
struct Operation {
    name: String,
    kernel: Arc<dyn Kernel>,
    output: DataType,
    nullable: bool,
    signature: Signature,
}

impl PartialEq for Operation {
    fn eq(&self, other: &Operation) -> bool {
        self.name == other.name && self.output == other.output && self.nullable == other.nullable
    }
}

impl Eq for Operation {}

impl Hash for Operation {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.name, &self.output, self.nullable).hash(state);
    }
}

impl ScalarUDFImpl for Operation {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.output.clone())
    }

    fn return_field_from_args(&self, _: ReturnFieldArgs) -> Result<FieldRef> {
        Ok(Arc::new(Field::new(&self.name, self.output.clone(), self.nullable)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let constant = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { args.number_rows };
        let operands = args.args.into_iter().map(Operand::new).collect::<Result<Vec<_>>>()?;
        let result = self.kernel.evaluate(&operands, rows)?;
        if constant {
            return ScalarValue::try_from_array(&result, 0).map(ColumnarValue::Scalar);
        }
        Ok(ColumnarValue::Array(result))
    }
}

/// What an operation of ours does; `None` of a function of DataFusion.
pub(super) fn kernel_of(function: &ScalarUDF) -> Option<Arc<dyn Kernel>> {
    function.inner().downcast_ref::<Operation>().map(|operation| Arc::clone(&operation.kernel))
}

/// One operand: a column, or one value that stands for every row.
#[derive(Debug, Clone)]
pub(super) struct Operand {
    array: ArrayRef,
    /// 1 for a column, 0 for one value.
    step: usize,
}

impl Operand {
    pub(super) fn column_of(array: ArrayRef) -> Operand {
        Operand { array, step: 1 }
    }

    /// `array` has one value.
    pub(super) fn constant_of(array: ArrayRef) -> Operand {
        Operand { array, step: 0 }
    }

    pub(super) fn new(value: ColumnarValue) -> Result<Operand> {
        Ok(match value {
            ColumnarValue::Array(array) => Operand { array, step: 1 },
            ColumnarValue::Scalar(scalar) => Operand { array: scalar.to_array()?, step: 0 },
        })
    }

    /// The values; one value alone where [`Operand::is_constant`].
    pub(super) fn array(&self) -> &ArrayRef {
        &self.array
    }

    /// Whether one value stands for every row.
    pub(super) fn is_constant(&self) -> bool {
        self.step == 0
    }

    /// The operand as a column of `rows` rows.
    pub(super) fn column(&self, rows: usize) -> Result<ArrayRef> {
        if self.is_constant() {
            return ScalarValue::try_from_array(&self.array, 0)?.to_array_of_size(rows);
        }
        Ok(Arc::clone(&self.array))
    }

    /// The operand as Arrow's kernels take it.
    pub(super) fn datum(&self) -> Box<dyn Datum> {
        if self.is_constant() { Box::new(Scalar::new(Arc::clone(&self.array))) } else { Box::new(Arc::clone(&self.array)) }
    }

    /// Some rows of the operand, as a function of DataFusion takes them.
    pub(super) fn columnar(&self, rows: Range<usize>) -> Result<ColumnarValue> {
        Ok(match self.is_constant() {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&self.array, 0)?),
            false => ColumnarValue::Array(self.array.slice(rows.start, rows.len())),
        })
    }

    /// Where row `row` lies in [`Operand::array`].
    pub(super) fn index(&self, row: usize) -> usize {
        row * self.step
    }

    pub(super) fn is_null(&self, row: usize) -> bool {
        self.array.is_null(self.index(row))
    }

    pub(super) fn cells<T: ArrowPrimitiveType>(&self) -> Result<Cells<'_, T>> {
        let array = self.array.as_primitive_opt::<T>().ok_or_else(|| self.wrong_type(&T::DATA_TYPE))?;
        Ok(Cells { values: array.values(), nulls: array.nulls(), step: self.step })
    }

    /// The text of row `row`; NULL is `None`.
    pub(super) fn text(&self, row: usize) -> Result<Option<&str>> {
        let array = self.array.as_string_view_opt().ok_or_else(|| self.wrong_type(&DataType::Utf8View))?;
        let index = self.index(row);
        Ok(array.is_valid(index).then(|| array.value(index)))
    }

    fn wrong_type(&self, expected: &DataType) -> datafusion::error::DataFusionError {
        internal_datafusion_err!("column is {}, not {expected}", self.array.data_type())
    }
}

/// The values of an operand of a primitive type.
pub(super) struct Cells<'a, T: ArrowPrimitiveType> {
    values: &'a [T::Native],
    nulls: Option<&'a NullBuffer>,
    step: usize,
}

impl<T: ArrowPrimitiveType> Cells<'_, T> {
    #[inline]
    pub(super) fn get(&self, row: usize) -> Option<T::Native> {
        let index = row * self.step;
        if self.nulls.is_some_and(|nulls| nulls.is_null(index)) {
            return None;
        }
        Some(self.values[index])
    }
}

/// One operand to a primitive result; `f` gives `None` where it would fail.
pub(super) fn map1<A: ArrowPrimitiveType, O: ArrowPrimitiveType>(
    operand: &Operand,
    rows: usize,
    output: &DataType,
    f: impl Fn(A::Native) -> Option<O::Native>,
) -> Result<ArrayRef> {
    let cells = operand.cells::<A>()?;
    build::<O>(rows, output, |row| f(cells.get(row)?))
}

/// Two operands to a primitive result; `f` gives `None` where it would fail.
pub(super) fn map2<A: ArrowPrimitiveType, B: ArrowPrimitiveType, O: ArrowPrimitiveType>(
    operands: &[Operand],
    rows: usize,
    output: &DataType,
    f: impl Fn(A::Native, B::Native) -> Option<O::Native>,
) -> Result<ArrayRef> {
    let [left, right] = pair(operands)?;
    let (left, right) = (left.cells::<A>()?, right.cells::<B>()?);
    build::<O>(rows, output, |row| f(left.get(row)?, right.get(row)?))
}

/// A column of `rows` rows from a function of the row.
pub(super) fn build<O: ArrowPrimitiveType>(rows: usize, output: &DataType, f: impl Fn(usize) -> Option<O::Native>) -> Result<ArrayRef> {
    let mut builder = PrimitiveBuilder::<O>::with_capacity(rows).with_data_type(output.clone());
    for row in 0..rows {
        builder.append_option(f(row));
    }
    Ok(Arc::new(builder.finish()))
}

/// The rows of an evaluation that fails as a whole when one of its rows does: those that fail are NULL, and every other
/// row has what it would have had alone. Halves what fails until it is one row.
pub(super) fn null_where_it_fails(
    rows: Range<usize>,
    output: &DataType,
    evaluate: &impl Fn(Range<usize>) -> Result<ArrayRef>,
) -> Result<ArrayRef> {
    match evaluate(rows.clone()) {
        Ok(result) => Ok(result),
        Err(_) if rows.len() < 2 => Ok(new_null_array(output, rows.len())),
        Err(_) => {
            let middle = rows.start + rows.len() / 2;
            let first = null_where_it_fails(rows.start..middle, output, evaluate)?;
            let second = null_where_it_fails(middle..rows.end, output, evaluate)?;
            Ok(concat(&[first.as_ref(), second.as_ref()])?)
        }
    }
}

/// The two operands of a binary operation.
pub(super) fn pair(operands: &[Operand]) -> Result<[&Operand; 2]> {
    match operands {
        [left, right] => Ok([left, right]),
        _ => Err(internal_datafusion_err!("operation has {} operands, not 2", operands.len())),
    }
}

/// The one operand of a unary operation.
pub(super) fn single(operands: &[Operand]) -> Result<&Operand> {
    match operands {
        [operand] => Ok(operand),
        _ => Err(internal_datafusion_err!("operation has {} operands, not 1", operands.len())),
    }
}

/// The one NaN that is ever stored or computed; any other value is kept.
#[inline]
pub(super) fn canonical_f64(value: f64) -> f64 {
    if value.is_nan() { f64::from_bits(0x7ff8_0000_0000_0000) } else { value }
}

/// [`canonical_f64`] for REAL.
#[inline]
pub(super) fn canonical_f32(value: f32) -> f32 {
    if value.is_nan() { f32::from_bits(0x7fc0_0000) } else { value }
}

/// Replaces every NaN of a float column by the canonical one; any other column is returned as it is.
pub fn canonical_nan(array: ArrayRef) -> ArrayRef {
    match array.data_type() {
        DataType::Float64 => {
            let values = array.as_primitive::<Float64Type>();
            if !values.values().iter().any(|value| value.is_nan()) {
                return array;
            }
            let values: Float64Array = values.unary(canonical_f64);
            Arc::new(values)
        }
        DataType::Float32 => {
            let values: &PrimitiveArray<Float32Type> = array.as_primitive();
            if !values.values().iter().any(|value| value.is_nan()) {
                return array;
            }
            let values: Float32Array = values.unary(canonical_f32);
            Arc::new(values)
        }
        _ => array,
    }
}
