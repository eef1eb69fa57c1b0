//! Scalar expressions: the subset that the generator writes, evaluated one row at a time.
//!
//! What would fail on a row is NULL (2.2). Integers are computed in the wider type of the two operands; a literal whole number is BIGINT and a
//! literal fraction DOUBLE. A cast of a float to an integer truncates, and is NULL where the integer does not fit.

use std::cmp::Ordering;

use super::aggregate::Aggregate;
use super::civil;
use super::value::{Type, Value, canonical32};

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    IsDistinctFrom,
}

#[derive(Debug, Clone)]
pub(crate) enum Expr {
    /// A column of the view's relation.
    Column(usize),
    Literal(Value, Type),
    AsOf,
    WindowStart,
    WindowEnd,
    Aggregate(Box<Aggregate>),
    Negate(Box<Expr>),
    Arithmetic(Arithmetic, Box<Expr>, Box<Expr>),
    Compare(Comparison, Box<Expr>, Box<Expr>),
    And(Box<Expr>, Box<Expr>),
    Or(Box<Expr>, Box<Expr>),
    Not(Box<Expr>),
    IsNull(Box<Expr>),
    IsNotNull(Box<Expr>),
    In(Box<Expr>, Vec<Expr>),
    Between(Box<Expr>, Box<Expr>, Box<Expr>),
    Case(Vec<(Expr, Expr)>, Option<Box<Expr>>),
    Coalesce(Vec<Expr>),
    NullIf(Box<Expr>, Box<Expr>),
    Cast(Box<Expr>, Type),
    Concat(Box<Expr>, Box<Expr>),
    /// A timestamp minus a fixed interval in microseconds.
    Earlier(Box<Expr>, i64),
    /// `extract(epoch FROM ...)` of a difference of timestamps: its microseconds as a double, divided by a million.
    Epoch(Box<Expr>),
}

/// What an expression can see: a row's cells (or none: every column NULL), the instant, and the aggregates' values.
#[derive(Clone, Copy)]
pub(crate) struct Scope<'a> {
    pub(crate) types: &'a [Type],
    pub(crate) cells: Option<&'a [Value]>,
    pub(crate) at: Option<i64>,
    pub(crate) aggregate: Option<&'a dyn Fn(&Aggregate) -> Value>,
    pub(crate) bounds: (Option<i64>, Option<i64>),
}

impl<'a> Scope<'a> {
    /// One row, outside any instant.
    pub(crate) fn row(types: &'a [Type], cells: &'a [Value]) -> Self {
        Scope { types, cells: Some(cells), at: None, aggregate: None, bounds: (None, None) }
    }
}

impl Expr {
    pub(crate) fn int(x: i64) -> Expr {
        Expr::Literal(Value::Int(x), Type::I64)
    }

    pub(crate) fn double(x: f64) -> Expr {
        Expr::Literal(Value::float(x), Type::F64)
    }

    pub(crate) fn text(x: &str) -> Expr {
        Expr::Literal(Value::text(x), Type::Text)
    }

    pub(crate) fn boxed(self) -> Box<Expr> {
        Box::new(self)
    }

    pub(crate) fn type_of(&self, types: &[Type]) -> Type {
        let meet = |parts: &mut dyn Iterator<Item = &Expr>| {
            let parts: Vec<Type> = parts.map(|part| part.type_of(types)).collect();
            parts.iter().skip(1).fold(parts[0].clone(), |a, b| a.meet(b))
        };
        match self {
            Expr::Column(i) => types[*i].clone(),
            Expr::Literal(_, ty) | Expr::Cast(_, ty) => ty.clone(),
            Expr::AsOf | Expr::WindowStart | Expr::WindowEnd | Expr::Earlier(..) => Type::Ts,
            Expr::Aggregate(aggregate) => aggregate.type_of(types),
            Expr::Negate(a) => a.type_of(types),
            Expr::Arithmetic(op, a, b) => match (op, a.type_of(types), b.type_of(types)) {
                (Arithmetic::Subtract, Type::Ts, Type::Ts) => Type::Duration,
                (_, a, b) => a.meet(&b),
            },
            Expr::Compare(..)
            | Expr::And(..)
            | Expr::Or(..)
            | Expr::Not(_)
            | Expr::IsNull(_)
            | Expr::IsNotNull(_)
            | Expr::In(..)
            | Expr::Between(..) => Type::Bool,
            Expr::Case(arms, other) => meet(&mut arms.iter().map(|(_, then)| then).chain(other.as_deref())),
            Expr::Coalesce(parts) => meet(&mut parts.iter()),
            Expr::NullIf(a, _) => a.type_of(types),
            Expr::Concat(..) => Type::Text,
            Expr::Epoch(_) => Type::F64,
        }
    }

    /// TRUE, and neither FALSE nor NULL.
    pub(crate) fn holds(&self, scope: &Scope) -> bool {
        matches!(self.eval(scope), Value::Bool(true))
    }

    pub(crate) fn eval(&self, scope: &Scope) -> Value {
        let ty = |e: &Expr| e.type_of(scope.types);
        match self {
            Expr::Column(i) => scope.cells.map_or(Value::Null, |cells| cells[*i].clone()),
            Expr::Literal(value, _) => value.clone(),
            Expr::AsOf => Value::Ts(scope.at.expect("as_of() stands where there is an instant")),
            Expr::WindowStart => scope.bounds.0.map_or(Value::Null, Value::Ts),
            Expr::WindowEnd => scope.bounds.1.map_or(Value::Null, Value::Ts),
            Expr::Aggregate(aggregate) => scope.aggregate.expect("aggregates stand in features")(aggregate),
            Expr::Negate(a) => match a.eval(scope) {
                Value::Int(x) => integer(x.checked_neg(), &ty(a)),
                Value::F64(x) => Value::float(-x),
                Value::F32(x) => Value::F32(canonical32(-x)),
                Value::Null => Value::Null,
                other => panic!("no negative of {other:?}"),
            },
            Expr::Arithmetic(op, a, b) => arithmetic(*op, a.eval(scope), b.eval(scope), &ty(a), &ty(b)),
            Expr::Compare(op, a, b) => compare(*op, a, b, scope),
            Expr::And(a, b) => match (truth(a.eval(scope)), truth(b.eval(scope))) {
                (Some(false), _) | (_, Some(false)) => Value::Bool(false),
                (Some(true), Some(true)) => Value::Bool(true),
                _ => Value::Null,
            },
            Expr::Or(a, b) => match (truth(a.eval(scope)), truth(b.eval(scope))) {
                (Some(true), _) | (_, Some(true)) => Value::Bool(true),
                (Some(false), Some(false)) => Value::Bool(false),
                _ => Value::Null,
            },
            Expr::Not(a) => truth(a.eval(scope)).map_or(Value::Null, |a| Value::Bool(!a)),
            Expr::IsNull(a) => Value::Bool(a.eval(scope).is_null()),
            Expr::IsNotNull(a) => Value::Bool(!a.eval(scope).is_null()),
            Expr::In(a, list) => {
                // a = l1 OR a = l2 OR ...
                let found: Vec<Option<bool>> = list.iter().map(|item| truth(compare(Comparison::Equal, a, item, scope))).collect();
                if found.contains(&Some(true)) {
                    Value::Bool(true)
                } else if found.contains(&None) {
                    Value::Null
                } else {
                    Value::Bool(false)
                }
            }
            Expr::Between(a, low, high) => {
                let low = Expr::Compare(Comparison::GreaterOrEqual, a.clone(), low.clone());
                let high = Expr::Compare(Comparison::LessOrEqual, a.clone(), high.clone());
                Expr::And(low.boxed(), high.boxed()).eval(scope)
            }
            Expr::Case(arms, other) => {
                let to = ty(self);
                let chosen = arms.iter().find(|(when, _)| when.holds(scope)).map(|(_, then)| then).or(other.as_deref());
                chosen.map_or(Value::Null, |chosen| cast(chosen.eval(scope), &to))
            }
            Expr::Coalesce(parts) => {
                let to = ty(self);
                let first = parts.iter().map(|part| part.eval(scope)).find(|value| !value.is_null());
                first.map_or(Value::Null, |value| cast(value, &to))
            }
            Expr::NullIf(a, b) => match compare(Comparison::Equal, a, b, scope) {
                Value::Bool(true) => Value::Null,
                _ => a.eval(scope),
            },
            Expr::Cast(a, to) => cast(a.eval(scope), to),
            Expr::Concat(a, b) => match (a.eval(scope), b.eval(scope)) {
                (Value::Text(a), Value::Text(b)) => Value::Text(a + &b),
                _ => Value::Null,
            },
            Expr::Earlier(a, micros) => match a.eval(scope) {
                Value::Ts(at) => at.checked_sub(*micros).map_or(Value::Null, Value::Ts),
                _ => Value::Null,
            },
            Expr::Epoch(a) => match a.eval(scope) {
                Value::Duration(micros) => Value::float(micros as f64 / 1_000_000.0),
                _ => Value::Null,
            },
        }
    }
}

fn truth(value: Value) -> Option<bool> {
    match value {
        Value::Bool(b) => Some(b),
        Value::Null => None,
        other => panic!("{other:?} is no truth value"),
    }
}

fn integer(x: Option<i64>, ty: &Type) -> Value {
    let (least, greatest) = ty.bounds();
    x.filter(|x| (least..=greatest).contains(x)).map_or(Value::Null, Value::Int)
}

fn arithmetic(op: Arithmetic, a: Value, b: Value, a_type: &Type, b_type: &Type) -> Value {
    if a.is_null() || b.is_null() {
        return Value::Null;
    }
    if let (Arithmetic::Subtract, Value::Ts(a), Value::Ts(b)) = (op, &a, &b) {
        return a.checked_sub(*b).map_or(Value::Null, Value::Duration);
    }
    let to = a_type.meet(b_type);
    match (cast(a, &to), cast(b, &to)) {
        (Value::Int(a), Value::Int(b)) => {
            let exact = match op {
                Arithmetic::Add => a.checked_add(b),
                Arithmetic::Subtract => a.checked_sub(b),
                Arithmetic::Multiply => a.checked_mul(b),
                Arithmetic::Divide => a.checked_div(b),
                // The remainder by -1 is 0 for every integer: it exists and fits, so it is no failure.
                Arithmetic::Remainder => {
                    if b == -1 {
                        Some(0)
                    } else {
                        a.checked_rem(b)
                    }
                }
            };
            integer(exact, &to)
        }
        (Value::F64(a), Value::F64(b)) => Value::float(float_arithmetic(op, a, b)),
        (Value::F32(a), Value::F32(b)) => Value::F32(canonical32(match op {
            Arithmetic::Add => a + b,
            Arithmetic::Subtract => a - b,
            Arithmetic::Multiply => a * b,
            Arithmetic::Divide => a / b,
            Arithmetic::Remainder => a % b,
        })),
        (a, b) => panic!("the generator computes nothing with {a:?} and {b:?}"),
    }
}

fn float_arithmetic(op: Arithmetic, a: f64, b: f64) -> f64 {
    match op {
        Arithmetic::Add => a + b,
        Arithmetic::Subtract => a - b,
        Arithmetic::Multiply => a * b,
        Arithmetic::Divide => a / b,
        Arithmetic::Remainder => a % b,
    }
}

fn compare(op: Comparison, a: &Expr, b: &Expr, scope: &Scope) -> Value {
    let to = a.type_of(scope.types).meet(&b.type_of(scope.types));
    let (a, b) = (cast(a.eval(scope), &to), cast(b.eval(scope), &to));
    let order = a.compare(&b);
    if op == Comparison::IsDistinctFrom {
        return Value::Bool(order != Ordering::Equal);
    }
    if a.is_null() || b.is_null() {
        return Value::Null;
    }
    Value::Bool(match op {
        Comparison::Equal => order.is_eq(),
        Comparison::NotEqual | Comparison::IsDistinctFrom => order.is_ne(),
        Comparison::Less => order.is_lt(),
        Comparison::LessOrEqual => order.is_le(),
        Comparison::Greater => order.is_gt(),
        Comparison::GreaterOrEqual => order.is_ge(),
    })
}

/// Casts one value; what does not fit is NULL.
pub(crate) fn cast(value: Value, to: &Type) -> Value {
    match (value, to) {
        (Value::Null, _) => Value::Null,
        (Value::Int(x), to) if to.is_integer() => integer(Some(x), to),
        (Value::Int(x), Type::F64) => Value::F64(x as f64),
        (Value::Int(x), Type::Text) => Value::Text(x.to_string()),
        (Value::Bool(x), to) if to.is_integer() => Value::Int(x.into()),
        (Value::Bool(x), Type::Bool) => Value::Bool(x),
        (Value::F64(x), Type::F64) => Value::float(x),
        (Value::F32(x), Type::F32) => Value::F32(canonical32(x)),
        (Value::F32(x), Type::F64) => Value::float(x.into()),
        (Value::F32(x), to) if to.is_integer() => truncate(x.into(), to),
        (Value::F64(x), to) if to.is_integer() => truncate(x, to),
        (value @ Value::Dec(..), Type::F64) => Value::F64(value.as_f64()),
        (value @ Value::Dec(_, scale), Type::Dec(_, to)) if scale == *to => value,
        (Value::Text(x), Type::Text) => Value::Text(x),
        (Value::Text(x), to) if to.is_integer() => integer(x.parse().ok(), to),
        (Value::Date(x), Type::Date) => Value::Date(x),
        (Value::Date(x), Type::Ts) => Value::Ts(i64::from(x) * civil::DAY),
        (Value::Ts(x), Type::Ts) => Value::Ts(x),
        (Value::Ts(x), Type::Date) => Value::Date(i32::try_from(x.div_euclid(civil::DAY)).expect("a day of an instant")),
        (Value::Duration(x), Type::Duration) => Value::Duration(x),
        (value, to) => panic!("the generator casts no {value:?} to {to:?}"),
    }
}

fn truncate(x: f64, to: &Type) -> Value {
    let x = x.trunc();
    // 2^63 is no i64, every smaller double that is a whole number is.
    if (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&x) { integer(Some(x as i64), to) } else { Value::Null }
}
