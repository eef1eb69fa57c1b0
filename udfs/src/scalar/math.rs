//! Functions of floats, on the pinned `libm`: the system's change bits with the processor.
//!
//! A REAL argument is computed in DOUBLE and rounded to REAL; every other number is a DOUBLE. A point outside a function's
//! domain gives the canonical NaN, as IEEE 754 has it, and fails nothing.

use std::sync::LazyLock;

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Float32Type, Float64Type, Int64Type};
use datafusion::error::Result;

use super::compile::CompileError;
use super::kernel::{Kernel, Nulls, Operand, canonical_f32, canonical_f64, map1, map2, operation, single};
use super::lower::{Lower, Typed};
use super::types::{is_float, is_numeric, sql_name, suffix};

type Function = fn(f64) -> f64;

/// Functions of one number, by DataFusion's name.
const UNARY: &[(&str, Function)] = &[
    ("acos", libm::acos),
    ("acosh", libm::acosh),
    ("asin", libm::asin),
    ("asinh", libm::asinh),
    ("atan", libm::atan),
    ("atanh", libm::atanh),
    ("cbrt", libm::cbrt),
    ("cos", libm::cos),
    ("cosh", libm::cosh),
    ("cot", |x| 1.0 / libm::tan(x)),
    ("degrees", |x| x * (180.0 / std::f64::consts::PI)),
    ("exp", libm::exp),
    ("ln", libm::log),
    ("log10", libm::log10),
    ("log2", libm::log2),
    ("radians", |x| x * (std::f64::consts::PI / 180.0)),
    ("sin", libm::sin),
    ("sinh", libm::sinh),
    ("sqrt", f64::sqrt),
    ("tan", libm::tan),
    ("tanh", libm::tanh),
];

/// The names this module answers to.
pub(super) fn knows(name: &str) -> bool {
    matches!(name, "log" | "atan2" | "power" | "round" | "trunc" | "pi") || UNARY.iter().any(|(known, _)| *known == name)
}

/// A call by DataFusion's name, or `None` where DataFusion's own function serves (`round` of an integer or a decimal).
pub(super) fn lower(lower: &Lower<'_>, name: &str, args: &[Typed]) -> std::result::Result<Option<Typed>, CompileError> {
    let number = |arg: &Typed| {
        let to = match &arg.data_type {
            DataType::Float32 => DataType::Float32,
            DataType::Null => DataType::Float64,
            other if is_numeric(other) => DataType::Float64,
            other => return Err(CompileError::new(format!("function \"{name}\" does not take {}", sql_name(other)))),
        };
        lower.cast(arg.clone(), &to)
    };
    let double = |arg: &Typed| number(arg).and_then(|arg| lower.cast(arg, &DataType::Float64));
    if let Some((_, function)) = UNARY.iter().find(|(known, _)| *known == name)
        && let [x] = args
    {
        let x = number(x)?;
        let output = x.data_type.clone();
        return Ok(Some(operation(
            format!("{name}_{}", suffix(&output)),
            Unary(*function, output.clone()),
            output,
            Nulls::OfOperands,
            vec![x],
        )));
    }
    let binary = |name: &str, f: fn(f64, f64) -> Option<f64>, nulls, args: [&Typed; 2]| {
        let args = args.into_iter().map(double).collect::<std::result::Result<Vec<_>, _>>()?;
        Ok(Some(operation(name, Binary(f), DataType::Float64, nulls, args)))
    };
    match (name, args) {
        ("log", [x]) => self::lower(lower, "log10", std::slice::from_ref(x)),
        ("log", [base, x]) => binary("log", |base, x| Some(log(base, x)), Nulls::OfOperands, [base, x]),
        ("atan2", [y, x]) => binary("atan2", |y, x| Some(libm::atan2(y, x)), Nulls::OfOperands, [y, x]),
        ("power", [base, exponent]) => binary("power", power, Nulls::Any, [base, exponent]),
        ("pi", []) => Ok(Some(Typed::literal(std::f64::consts::PI.into(), DataType::Float64))),
        ("round" | "trunc", [x, rest @ ..]) if is_float(&x.data_type) && rest.len() < 2 => {
            let digits = match rest.first() {
                Some(digits) => lower.integer(name, digits.clone())?,
                None => Typed::literal(0_i64.into(), DataType::Int64),
            };
            let output = x.data_type.clone();
            let kernel = Digits { cut: if name == "round" { f64::round } else { f64::trunc }, output: output.clone() };
            let name = format!("{name}_{}", suffix(&output));
            Ok(Some(operation(name, kernel, output, Nulls::OfOperands, vec![x.clone(), digits])))
        }
        ("round" | "trunc", _) => Ok(None),
        _ => Err(CompileError::new(format!("function \"{name}\" does not take {} arguments", args.len()))),
    }
}

/// The two bases that have a function of their own are exact at their powers.
fn log(base: f64, x: f64) -> f64 {
    if base == 2.0 {
        libm::log2(x)
    } else if base == 10.0 {
        libm::log10(x)
    } else {
        libm::log(x) / libm::log(base)
    }
}

/// Zero to a negative power is undefined, and so it fails in DataFusion.
fn power(base: f64, exponent: f64) -> Option<f64> {
    if base == 0.0 && exponent < 0.0 { None } else { Some(libm::pow(base, exponent)) }
}

#[derive(Debug)]
struct Unary(Function, DataType);

impl Kernel for Unary {
    fn evaluate(&self, operands: &[Operand], rows: usize) -> Result<ArrayRef> {
        let (f, x) = (self.0, single(operands)?);
        if self.1 == DataType::Float32 {
            return map1::<Float32Type, Float32Type>(x, rows, &self.1, |x| Some(canonical_f32(f(x.into()) as f32)));
        }
        map1::<Float64Type, Float64Type>(x, rows, &self.1, |x| Some(canonical_f64(f(x))))
    }
}

#[derive(Debug)]
struct Binary(fn(f64, f64) -> Option<f64>);

impl Kernel for Binary {
    fn evaluate(&self, operands: &[Operand], rows: usize) -> Result<ArrayRef> {
        type F = Float64Type;
        map2::<F, F, F>(operands, rows, &DataType::Float64, |a, b| (self.0)(a, b).map(canonical_f64))
    }
}

/// `round` and `trunc` to so many decimal digits, half away from zero.
#[derive(Debug)]
struct Digits {
    cut: Function,
    output: DataType,
}

impl Kernel for Digits {
    fn evaluate(&self, operands: &[Operand], rows: usize) -> Result<ArrayRef> {
        if self.output == DataType::Float32 {
            return map2::<Float32Type, Int64Type, Float32Type>(operands, rows, &self.output, |x, digits| {
                Some(canonical_f32(self.at(x.into(), digits) as f32))
            });
        }
        map2::<Float64Type, Int64Type, Float64Type>(operands, rows, &self.output, |x, digits| Some(canonical_f64(self.at(x, digits))))
    }
}

impl Digits {
    fn at(&self, x: f64, digits: i64) -> f64 {
        // The powers of ten as text gives them: correctly rounded on every machine.
        static POWERS: LazyLock<Vec<f64>> =
            LazyLock::new(|| (0..=308).map(|n| format!("1e{n}").parse().unwrap_or(f64::INFINITY)).collect());
        let power = usize::try_from(digits.unsigned_abs()).ok().and_then(|n| POWERS.get(n).copied());
        match power {
            Some(_) if digits == 0 => (self.cut)(x),
            Some(power) if digits > 0 => {
                let scaled = x * power;
                // A number so large has no such digits.
                if scaled.is_finite() { (self.cut)(scaled) / power } else { x }
            }
            Some(power) => (self.cut)(x / power) * power,
            None if digits > 0 => x,
            None => x * 0.0,
        }
    }
}
