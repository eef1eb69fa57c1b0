//! `+ - * / %`, unary minus and the bit operations on numbers: NULL where the result does not fit.
//!
//! Integers are checked and division truncates. Decimals are computed exactly in 256 bits and must fit the precision of
//! the result (its type is DataFusion's; a quotient is truncated). Floats follow IEEE 754 and never fail.

use arrow::array::{ArrayRef, ArrowPrimitiveType};
use arrow::datatypes::{
    ArrowNativeTypeOp, DataType, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, i256,
};
use datafusion::common::internal_err;
use datafusion::error::Result;
use datafusion::logical_expr::Operator;
use datafusion::logical_expr::binary::BinaryTypeCoercer;

use super::compile::CompileError;
use super::kernel::{Kernel, Nulls, Operand, canonical_f32, canonical_f64, map1, map2, operation, single};
use super::lower::{Lower, Typed};
use super::types::{self, is_decimal, is_float, is_integer, sql_name, suffix};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    And,
    Or,
    Xor,
    ShiftLeft,
    ShiftRight,
}

impl Arithmetic {
    pub(super) fn of(operator: Operator) -> Option<Arithmetic> {
        Some(match operator {
            Operator::Plus => Arithmetic::Add,
            Operator::Minus => Arithmetic::Subtract,
            Operator::Multiply => Arithmetic::Multiply,
            Operator::Divide => Arithmetic::Divide,
            Operator::Modulo => Arithmetic::Remainder,
            Operator::BitwiseAnd => Arithmetic::And,
            Operator::BitwiseOr => Arithmetic::Or,
            Operator::BitwiseXor => Arithmetic::Xor,
            Operator::BitwiseShiftLeft => Arithmetic::ShiftLeft,
            Operator::BitwiseShiftRight => Arithmetic::ShiftRight,
            _ => return None,
        })
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Arithmetic::Add => "add",
            Arithmetic::Subtract => "subtract",
            Arithmetic::Multiply => "multiply",
            Arithmetic::Divide => "divide",
            Arithmetic::Remainder => "remainder",
            Arithmetic::And => "bit_and",
            Arithmetic::Or => "bit_or",
            Arithmetic::Xor => "bit_xor",
            Arithmetic::ShiftLeft => "shift_left",
            Arithmetic::ShiftRight => "shift_right",
        }
    }

    fn of_bits(self) -> bool {
        !matches!(self, Arithmetic::Add | Arithmetic::Subtract | Arithmetic::Multiply | Arithmetic::Divide | Arithmetic::Remainder)
    }
}

/// `left operator right` of two numbers, or `None` where they are not numbers.
pub(super) fn lower(lower: &Lower<'_>, operator: Operator, left: Typed, right: Typed) -> std::result::Result<Option<Typed>, CompileError> {
    let Some(op) = Arithmetic::of(operator) else { return Ok(None) };
    let (left, right) = match (&left.data_type, &right.data_type) {
        (DataType::Null, DataType::Null) => (lower.cast(left, &DataType::Int64)?, lower.cast(right, &DataType::Int64)?),
        (DataType::Null, other) => {
            let other = other.clone();
            (lower.cast(left, &other)?, right)
        }
        (other, DataType::Null) => {
            let other = other.clone();
            (left, lower.cast(right, &other)?)
        }
        _ => (left, right),
    };
    let Some(common) = types::numeric_common(&left.data_type, &right.data_type) else { return Ok(None) };
    if op.of_bits() && !is_integer(&common) {
        return Err(CompileError::new(format!(
            "operator {operator} takes integers, found {} and {}",
            sql_name(&left.data_type),
            sql_name(&right.data_type)
        )));
    }
    if is_decimal(&common) {
        return decimals(lower, operator, op, left, right).map(Some);
    }
    let nulls =
        if is_float(&common) || matches!(op, Arithmetic::And | Arithmetic::Or | Arithmetic::Xor) { Nulls::OfOperands } else { Nulls::Any };
    let operands = vec![lower.cast(left, &common)?, lower.cast(right, &common)?];
    let name = format!("{}_{}", op.name(), suffix(&common));
    Ok(Some(operation(name, Numbers { op, data_type: common.clone() }, common, nulls, operands)))
}

fn decimals(lower: &Lower<'_>, operator: Operator, op: Arithmetic, left: Typed, right: Typed) -> std::result::Result<Typed, CompileError> {
    let as_decimal = |operand: Typed| {
        let (precision, scale) = types::decimal_of(&operand.data_type)
            .ok_or_else(|| CompileError::new(format!("{} is no decimal", sql_name(&operand.data_type))))?;
        lower.cast(operand, &DataType::Decimal128(precision, scale)).map(|typed| (typed, scale))
    };
    let ((left, left_scale), (right, right_scale)) = (as_decimal(left)?, as_decimal(right)?);
    let result = BinaryTypeCoercer::new(&left.data_type, &operator, &right.data_type).get_result_type();
    let Ok(DataType::Decimal128(precision, scale)) = result else {
        return Err(CompileError::new(format!(
            "{} {operator} {} has more than 38 digits after the point",
            sql_name(&left.data_type),
            sql_name(&right.data_type)
        ))
        .help("Cast an operand to a smaller scale."));
    };
    let output = DataType::Decimal128(precision, scale);
    let kernel = Decimals { op, left_scale, right_scale, precision, scale };
    let name = format!("{}_{}_{}_{}", op.name(), suffix(&left.data_type), suffix(&right.data_type), suffix(&output));
    Ok(operation(name, kernel, output, Nulls::Any, vec![left, right]))
}

/// `-operand` of a number, or `None` where it is not one.
pub(super) fn negate(operand: &Typed) -> Option<Typed> {
    let data_type = operand.data_type.clone();
    let nulls = if is_integer(&data_type) {
        Nulls::Any
    } else if is_float(&data_type) || is_decimal(&data_type) {
        Nulls::OfOperands
    } else {
        return None;
    };
    let name = format!("negate_{}", suffix(&data_type));
    Some(operation(name, Negate(data_type.clone()), data_type, nulls, vec![operand.clone()]))
}

#[derive(Debug)]
struct Numbers {
    op: Arithmetic,
    data_type: DataType,
}

impl Kernel for Numbers {
    fn evaluate(&self, operands: &[Operand], rows: usize) -> Result<ArrayRef> {
        match self.data_type {
            DataType::Int8 => self.integers::<Int8Type>(operands, rows, 8),
            DataType::Int16 => self.integers::<Int16Type>(operands, rows, 16),
            DataType::Int32 => self.integers::<Int32Type>(operands, rows, 32),
            DataType::Int64 => self.integers::<Int64Type>(operands, rows, 64),
            DataType::Float32 => {
                let f = self.float::<f32>();
                map2::<Float32Type, Float32Type, Float32Type>(operands, rows, &self.data_type, |a, b| Some(canonical_f32(f(a, b))))
            }
            DataType::Float64 => {
                let f = self.float::<f64>();
                map2::<Float64Type, Float64Type, Float64Type>(operands, rows, &self.data_type, |a, b| Some(canonical_f64(f(a, b))))
            }
            _ => internal_err!("no arithmetic on {}", self.data_type),
        }
    }
}

impl Numbers {
    fn integers<T>(&self, operands: &[Operand], rows: usize, bits: i64) -> Result<ArrayRef>
    where
        T: ArrowPrimitiveType,
        T::Native: Integer,
    {
        let run = |f: fn(T::Native, T::Native) -> Option<T::Native>| map2::<T, T, T>(operands, rows, &self.data_type, f);
        // A shift by more than the width, either way, is a shift that does not fit.
        let shift = |f: fn(i64, u32) -> i64| {
            map2::<T, T, T>(operands, rows, &self.data_type, |value, count| {
                let count = count.wide();
                let shifted = (0..bits).contains(&count).then(|| f(value.wide(), count as u32))?;
                Some(T::Native::narrow(shifted))
            })
        };
        match self.op {
            Arithmetic::Add => run(|a, b| a.add_checked(b).ok()),
            Arithmetic::Subtract => run(|a, b| a.sub_checked(b).ok()),
            Arithmetic::Multiply => run(|a, b| a.mul_checked(b).ok()),
            Arithmetic::Divide => run(|a, b| a.div_checked(b).ok()),
            // The least integer modulo -1 is 0, which fits, though the division beside it does not.
            Arithmetic::Remainder => run(|a, b| (!b.is_zero()).then(|| a.mod_wrapping(b))),
            Arithmetic::And => run(|a, b| Some(T::Native::narrow(a.wide() & b.wide()))),
            Arithmetic::Or => run(|a, b| Some(T::Native::narrow(a.wide() | b.wide()))),
            Arithmetic::Xor => run(|a, b| Some(T::Native::narrow(a.wide() ^ b.wide()))),
            Arithmetic::ShiftLeft => shift(|value, count| value << count),
            Arithmetic::ShiftRight => shift(|value, count| value >> count),
        }
    }

    fn float<F>(&self) -> fn(F, F) -> F
    where
        F: std::ops::Add<Output = F>
            + std::ops::Sub<Output = F>
            + std::ops::Mul<Output = F>
            + std::ops::Div<Output = F>
            + std::ops::Rem<Output = F>,
    {
        match self.op {
            Arithmetic::Add => |a, b| a + b,
            Arithmetic::Subtract => |a, b| a - b,
            Arithmetic::Multiply => |a, b| a * b,
            Arithmetic::Divide => |a, b| a / b,
            // The remainder of IEEE division that truncates is exact, on every machine.
            _ => |a, b| a % b,
        }
    }
}

/// An integer seen as the widest one; narrowing keeps the low bits.
trait Integer: ArrowNativeTypeOp {
    fn wide(self) -> i64;
    fn narrow(wide: i64) -> Self;
}

macro_rules! integer {
    ($($t:ty),*) => {$(
        impl Integer for $t {
            fn wide(self) -> i64 {
                i64::from(self)
            }
            fn narrow(wide: i64) -> Self {
                wide as $t
            }
        }
    )*};
}
integer!(i8, i16, i32, i64);

#[derive(Debug)]
struct Negate(DataType);

impl Kernel for Negate {
    fn evaluate(&self, operands: &[Operand], rows: usize) -> Result<ArrayRef> {
        let (operand, output) = (single(operands)?, &self.0);
        match output {
            DataType::Int8 => map1::<Int8Type, Int8Type>(operand, rows, output, i8::checked_neg),
            DataType::Int16 => map1::<Int16Type, Int16Type>(operand, rows, output, i16::checked_neg),
            DataType::Int32 => map1::<Int32Type, Int32Type>(operand, rows, output, i32::checked_neg),
            DataType::Int64 => map1::<Int64Type, Int64Type>(operand, rows, output, i64::checked_neg),
            DataType::Float32 => map1::<Float32Type, Float32Type>(operand, rows, output, |value| Some(canonical_f32(-value))),
            DataType::Float64 => map1::<Float64Type, Float64Type>(operand, rows, output, |value| Some(canonical_f64(-value))),
            DataType::Decimal128(..) => map1::<Decimal128Type, Decimal128Type>(operand, rows, output, i128::checked_neg),
            _ => internal_err!("no negation of {output}"),
        }
    }
}

#[derive(Debug)]
struct Decimals {
    op: Arithmetic,
    left_scale: i8,
    right_scale: i8,
    precision: u8,
    scale: i8,
}

impl Kernel for Decimals {
    fn evaluate(&self, operands: &[Operand], rows: usize) -> Result<ArrayRef> {
        let output = DataType::Decimal128(self.precision, self.scale);
        let limit = 10_i128.pow(u32::from(self.precision));
        map2::<Decimal128Type, Decimal128Type, Decimal128Type>(operands, rows, &output, |a, b| {
            self.exact(a, b).filter(|value| -limit < *value && *value < limit)
        })
    }
}

impl Decimals {
    /// `None` where the exact result has more than 128 bits, or there is none.
    fn exact(&self, a: i128, b: i128) -> Option<i128> {
        let (wide_a, wide_b) = (i256::from_i128(a), i256::from_i128(b));
        let result = match self.op {
            Arithmetic::Add | Arithmetic::Subtract | Arithmetic::Remainder => {
                let a = scale_up(wide_a, self.scale - self.left_scale)?;
                let b = scale_up(wide_b, self.scale - self.right_scale)?;
                match self.op {
                    Arithmetic::Add => a.checked_add(b)?,
                    Arithmetic::Subtract => a.checked_sub(b)?,
                    _ => a.checked_rem(b)?,
                }
            }
            Arithmetic::Multiply => wide_a.checked_mul(wide_b)?,
            // A dividend beyond 256 bits has a quotient beyond 38 digits, whatever the divisor.
            Arithmetic::Divide => scale_up(wide_a, self.scale - self.left_scale + self.right_scale)?.checked_div(wide_b)?,
            _ => return None,
        };
        result.to_i128()
    }
}

/// `value` times ten to the `digits`; `None` beyond 256 bits.
pub(super) fn scale_up(value: i256, digits: i8) -> Option<i256> {
    match digits {
        0 => Some(value),
        1.. => value.checked_mul(i256::from_i128(10).checked_pow(digits as u32)?),
        _ => None,
    }
}
