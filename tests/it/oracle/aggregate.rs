//! Aggregates: the table of DESIGN 3.3, row by row.

use std::cmp::Ordering;

use num_bigint::BigInt;
use num_traits::{FromPrimitive, One, Signed, ToPrimitive, Zero};

use super::exact;
use super::expr::{Expr, Scope};
use super::frame::Frame;
use super::value::{Type, Value, canonical, canonical32};

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Function {
    Count,
    Sum,
    Avg,
    VarPop,
    VarSamp,
    StddevPop,
    StddevSamp,
    Min,
    Max,
    FirstValue,
    LastValue,
    ArrayAgg,
    FirstN(u32),
    LastN(u32),
    Median,
    PercentileCont(f64),
    ApproxDistinct,
    ApproxPercentileCont(f64),
}

/// One aggregate call. `count(*)` has no argument.
#[derive(Debug, Clone)]
pub(crate) struct Aggregate {
    pub(crate) function: Function,
    pub(crate) distinct: bool,
    pub(crate) argument: Option<Expr>,
    pub(crate) filter: Option<Expr>,
    pub(crate) frame: Frame,
    /// How the window is written; it means nothing.
    pub(crate) style: u8,
}

impl Aggregate {
    pub(crate) fn type_of(&self, types: &[Type]) -> Type {
        let argument = || self.argument.as_ref().expect("only count(*) has no argument").type_of(types);
        match self.function {
            Function::Count | Function::ApproxDistinct => Type::I64,
            Function::Sum => match argument() {
                ty if ty.is_integer() => Type::I64,
                Type::Dec(_, scale) => Type::Dec(38, scale),
                ty if ty.is_float() => Type::F64,
                ty => panic!("no sum of {ty:?}"),
            },
            Function::Min | Function::Max | Function::FirstValue | Function::LastValue => argument(),
            Function::ArrayAgg | Function::FirstN(_) | Function::LastN(_) => Type::List(Box::new(argument())),
            _ => Type::F64,
        }
    }

    /// The value over a window's rows, given oldest first. `at` is the instant, for `as_of()` in the argument or the filter.
    pub(crate) fn value(&self, types: &[Type], rows: &[&[Value]], at: i64) -> Value {
        let scope = |cells| Scope { at: Some(at), ..Scope::row(types, cells) };
        let rows = rows.iter().filter(|cells| self.filter.as_ref().is_none_or(|filter| filter.holds(&scope(cells))));
        let Some(argument) = &self.argument else {
            return Value::Int(rows.count() as i64);
        };
        let values: Vec<Value> = rows.map(|cells| argument.eval(&scope(cells))).collect();
        over(self.function, self.distinct, &argument.type_of(types), values)
    }
}

/// One aggregate over its inputs, oldest first.
pub(crate) fn over(function: Function, distinct: bool, ty: &Type, values: Vec<Value>) -> Value {
    // These keep NULLs, order and bits.
    match function {
        Function::FirstValue => return values.into_iter().next().unwrap_or(Value::Null),
        Function::LastValue => return values.into_iter().next_back().unwrap_or(Value::Null),
        Function::ArrayAgg => return list(values),
        Function::FirstN(n) => return list(values.into_iter().take(n as usize).collect()),
        Function::LastN(n) => {
            let skip = values.len().saturating_sub(n as usize);
            return list(values.into_iter().skip(skip).collect());
        }
        Function::ApproxDistinct | Function::ApproxPercentileCont(_) => return Value::Unchecked,
        _ => {}
    }
    let mut values: Vec<Value> = values.into_iter().filter(|value| !value.is_null()).collect();
    values.sort_by(Value::compare);
    if distinct {
        values.dedup_by(|a, b| a.compare(b) == Ordering::Equal);
    }
    let n = values.len();
    if function == Function::Count {
        return Value::Int(n as i64);
    }
    if n == 0 {
        return Value::Null;
    }
    match function {
        Function::Sum => sum(ty, &values),
        Function::Avg => Value::float(positive_zero(sum_f64(&values) / n as f64)),
        Function::VarPop => variance(&values, n).map_or(Value::Null, Value::float),
        Function::VarSamp => variance(&values, n - 1).map_or(Value::Null, Value::float),
        Function::StddevPop => variance(&values, n).map_or(Value::Null, |v| Value::float(v.sqrt())),
        Function::StddevSamp => variance(&values, n - 1).map_or(Value::Null, |v| Value::float(v.sqrt())),
        Function::Min => zero_is_positive(values.swap_remove(0)),
        Function::Max => zero_is_positive(values.swap_remove(n - 1)),
        Function::Median => Value::float(percentile(&values, 0.5)),
        Function::PercentileCont(p) => Value::float(percentile(&values, p)),
        other => panic!("{other:?} is answered above"),
    }
}

/// A list, which over no rows is NULL as every aggregate but a count.
fn list(values: Vec<Value>) -> Value {
    if values.is_empty() { Value::Null } else { Value::List(values) }
}

fn positive_zero(x: f64) -> f64 {
    if x == 0.0 { 0.0 } else { x }
}

fn zero_is_positive(value: Value) -> Value {
    match value {
        Value::F64(x) => Value::F64(positive_zero(x)),
        Value::F32(x) => Value::F32(if x == 0.0 { 0.0 } else { canonical32(x) }),
        other => other,
    }
}

/// NaN, +Inf or -Inf, if any of the values decides a sum without arithmetic.
fn special(values: &[Value]) -> Option<f64> {
    let floats = || {
        values.iter().filter_map(|value| match value {
            Value::F64(x) => Some(*x),
            Value::F32(x) => Some(f64::from(*x)),
            _ => None,
        })
    };
    let (nan, up, down) = (floats().any(f64::is_nan), floats().any(|x| x == f64::INFINITY), floats().any(|x| x == f64::NEG_INFINITY));
    match (nan, up, down) {
        (true, _, _) | (_, true, true) => Some(canonical(f64::NAN)),
        (_, true, _) => Some(f64::INFINITY),
        (_, _, true) => Some(f64::NEG_INFINITY),
        _ => None,
    }
}

fn exact_sum(values: &[Value]) -> BigInt {
    values.iter().map(exact::numerator).sum()
}

/// The exact sum, rounded once.
fn sum_f64(values: &[Value]) -> f64 {
    special(values).unwrap_or_else(|| exact::nearest(&exact_sum(values), &exact::denominator(&values[0])))
}

fn sum(ty: &Type, values: &[Value]) -> Value {
    match ty {
        ty if ty.is_integer() => exact_sum(values).to_i64().map_or(Value::Null, Value::Int),
        Type::Dec(_, scale) => {
            let sum = exact_sum(values);
            if sum.abs() < exact::power_of_ten(38) { Value::Dec(sum.to_i128().expect("38 digits fit"), *scale) } else { Value::Null }
        }
        _ => Value::float(sum_f64(values)),
    }
}

/// (n Q - S²) / (n d) for d = n or n - 1, rounded once; none where d is 0. An infinite value has no variance: NaN.
fn variance(values: &[Value], d: usize) -> Option<f64> {
    if d == 0 {
        return None;
    }
    if special(values).is_some() {
        return Some(f64::NAN);
    }
    let n = BigInt::from(values.len());
    let sum = exact_sum(values);
    let squares: BigInt = values.iter().map(|value| exact::numerator(value).pow(2)).sum();
    let unit = exact::denominator(&values[0]);
    Some(exact::nearest(&(&n * squares - &sum * &sum), &(n * BigInt::from(d) * &unit * &unit)))
}

/// `values` sorted in the order of `min`. The position is p (n - 1), exactly.
fn percentile(values: &[Value], p: f64) -> f64 {
    let half = exact::denominator(&Value::F64(p));
    let position = exact::numerator(&Value::F64(p)) * BigInt::from_usize(values.len() - 1).expect("a count");
    let whole = (&position / &half).to_usize().expect("a position");
    let part = position % &half;
    if part.is_zero() {
        return match special(&values[whole..=whole]) {
            Some(special) => special,
            None => exact::nearest(&exact::numerator(&values[whole]), &exact::denominator(&values[whole])),
        };
    }
    let (low, high) = (&values[whole], &values[whole + 1]);
    // Next to NaN NaN, next to one infinity that one, between the two NaN: as a sum of both would be.
    if let Some(special) = special(&values[whole..=whole + 1]) {
        return special;
    }
    let unit = exact::denominator(low);
    let (low, high) = (exact::numerator(low), exact::numerator(high));
    exact::nearest(&(&low * &half + (high - &low) * part), &(unit * half * BigInt::one()))
}
