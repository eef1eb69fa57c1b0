//! Values and their two orders: the order of events (DESIGN section 4) and the order of `min` (3.3).
//!
//! They differ in floats only: section 4 puts -0 before +0, `min` calls them equal. In both, NaN is last and equal to itself.

use std::cmp::Ordering;

/// The type of a column or of an expression.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Type {
    Bool,
    I8,
    I16,
    I32,
    I64,
    F32,
    F64,
    Dec(u8, i8),
    Text,
    Date,
    Ts,
    /// The difference of two timestamps.
    Duration,
    List(Box<Type>),
}

/// One value. A float that is not a number is always the canonical one.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    /// Any of the integer types.
    Int(i64),
    F32(f32),
    F64(f64),
    /// Unscaled digits and scale.
    Dec(i128, i8),
    Text(String),
    /// Days since the epoch.
    Date(i32),
    /// Microseconds since the epoch.
    Ts(i64),
    Duration(i64),
    List(Vec<Value>),
    /// A sketch: the oracle has no opinion.
    Unchecked,
}

impl Type {
    pub(crate) fn is_integer(&self) -> bool {
        matches!(self, Type::I8 | Type::I16 | Type::I32 | Type::I64)
    }

    pub(crate) fn is_float(&self) -> bool {
        matches!(self, Type::F32 | Type::F64)
    }

    pub(crate) fn is_numeric(&self) -> bool {
        self.is_integer() || self.is_float() || matches!(self, Type::Dec(..))
    }

    /// The least and greatest integer of the type.
    pub(crate) fn bounds(&self) -> (i64, i64) {
        match self {
            Type::I8 => (i8::MIN.into(), i8::MAX.into()),
            Type::I16 => (i16::MIN.into(), i16::MAX.into()),
            Type::I32 => (i32::MIN.into(), i32::MAX.into()),
            Type::I64 => (i64::MIN, i64::MAX),
            other => panic!("{other:?} is no integer type"),
        }
    }

    /// The type in which two operands meet. Integers meet in the wider one, a double takes all numbers in.
    pub(crate) fn meet(&self, other: &Type) -> Type {
        match (self, other) {
            (a, b) if a == b => a.clone(),
            (a, b) if a.is_integer() && b.is_integer() => {
                if a.bounds().1 > b.bounds().1 {
                    a.clone()
                } else {
                    b.clone()
                }
            }
            (Type::F64, b) if b.is_numeric() => Type::F64,
            (a, Type::F64) if a.is_numeric() => Type::F64,
            (Type::Date, Type::Ts) | (Type::Ts, Type::Date) => Type::Ts,
            (a, b) => panic!("{a:?} and {b:?} meet in no type that the generator uses"),
        }
    }
}

/// The one NaN that is ever stored or computed.
pub(crate) fn canonical(x: f64) -> f64 {
    if x.is_nan() { f64::from_bits(0x7ff8_0000_0000_0000) } else { x }
}

/// As [`canonical`], for REAL.
pub(crate) fn canonical32(x: f32) -> f32 {
    if x.is_nan() { f32::from_bits(0x7fc0_0000) } else { x }
}

impl Value {
    pub(crate) fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }

    pub(crate) fn float(x: f64) -> Value {
        Value::F64(canonical(x))
    }

    pub(crate) fn text(x: &str) -> Value {
        Value::Text(x.to_owned())
    }

    /// The number as a double: integers and decimals rounded to the nearest.
    pub(crate) fn as_f64(&self) -> f64 {
        match self {
            Value::Int(x) => *x as f64,
            Value::F32(x) => f64::from(*x),
            Value::F64(x) => *x,
            Value::Dec(digits, scale) => super::exact::nearest(&(*digits).into(), &super::exact::power_of_ten(*scale)),
            other => panic!("{other:?} is no number"),
        }
    }

    /// The total order of section 4: NULLs first, strings by bytes, -0 before +0, NaN last.
    pub(crate) fn order(&self, other: &Value) -> Ordering {
        match (self, other) {
            (Value::F64(a), Value::F64(b)) => a.total_cmp(b),
            (Value::F32(a), Value::F32(b)) => a.total_cmp(b),
            (a, b) => a.compare(b),
        }
    }

    /// The order of `min`, of DISTINCT and of comparisons: -0 equals +0. NULL comes first where it is compared at all.
    pub(crate) fn compare(&self, other: &Value) -> Ordering {
        match (self, other) {
            (Value::Null, Value::Null) => Ordering::Equal,
            (Value::Null, _) => Ordering::Less,
            (_, Value::Null) => Ordering::Greater,
            (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
            (Value::Int(a), Value::Int(b)) => a.cmp(b),
            (Value::F64(a), Value::F64(b)) => compare_floats(*a, *b),
            (Value::F32(a), Value::F32(b)) => compare_floats(f64::from(*a), f64::from(*b)),
            (Value::Dec(a, s), Value::Dec(b, r)) if s == r => a.cmp(b),
            (Value::Text(a), Value::Text(b)) => a.as_bytes().cmp(b.as_bytes()),
            (Value::Date(a), Value::Date(b)) => a.cmp(b),
            (Value::Ts(a), Value::Ts(b)) | (Value::Duration(a), Value::Duration(b)) => a.cmp(b),
            (a, b) => panic!("{a:?} and {b:?} do not compare"),
        }
    }

    /// Whether two values are the same bits. What is unchecked equals everything.
    pub(crate) fn same(&self, other: &Value) -> bool {
        match (self, other) {
            (Value::Unchecked, _) | (_, Value::Unchecked) | (Value::Null, Value::Null) => true,
            (Value::Null, _) | (_, Value::Null) => false,
            (Value::F64(a), Value::F64(b)) => a.to_bits() == b.to_bits(),
            (Value::F32(a), Value::F32(b)) => a.to_bits() == b.to_bits(),
            (Value::Dec(a, s), Value::Dec(b, r)) => (a, s) == (b, r),
            (Value::List(a), Value::List(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.same(b)),
            (a, b) => std::mem::discriminant(a) == std::mem::discriminant(b) && a.compare(b) == Ordering::Equal,
        }
    }
}

fn compare_floats(a: f64, b: f64) -> Ordering {
    match (a.is_nan(), b.is_nan()) {
        (true, true) => Ordering::Equal,
        (true, false) => Ordering::Greater,
        (false, true) => Ordering::Less,
        (false, false) => a.partial_cmp(&b).expect("neither is NaN"),
    }
}

/// Rows by the order of section 4, column by column.
pub(crate) fn order_rows(a: &[Value], b: &[Value]) -> Ordering {
    a.iter().zip(b).map(|(a, b)| a.order(b)).find(|o| o.is_ne()).unwrap_or(Ordering::Equal)
}
