//! The walk over an expression: types from the leaves up, and each node replaced by an operation that cannot fail.

use std::cell::Cell;

use arrow::datatypes::{DataType, IntervalMonthDayNano};
use datafusion::common::{DFSchema, ExprSchema, ScalarValue};
use datafusion::logical_expr::expr::{Between, InList, Like, ScalarFunction};
use datafusion::logical_expr::{BinaryExpr, Case, Expr, Operator};

use super::compile::CompileError;
use super::conditional::{self, balanced, not};
use super::kernel::{canonical_f32, canonical_f64};
use super::pattern::{self, Match};
use super::text::Text;
use super::types::{self, DURATION, MONTHS, canonical_type, sql_name};
use super::{allowed, arithmetic, cast, compare, text, time};
use crate::time::DAY_US;

type Lowered = Result<Typed, CompileError>;

/// How deep expressions may nest: the walks over one are recursive, here and in DataFusion.
const DEPTH_MAX: usize = 128;

/// An expression of our operations, its type one of the canonical ones (or NULL, or an interval of months).
#[derive(Debug, Clone)]
pub(super) struct Typed {
    pub(super) expr: Expr,
    pub(super) data_type: DataType,
    pub(super) nullable: bool,
}

impl Typed {
    pub(super) fn literal(value: ScalarValue, data_type: DataType) -> Typed {
        let nullable = value.is_null();
        Typed { expr: Expr::Literal(value, None), data_type, nullable }
    }
}

/// The walk over expressions of one schema.
pub(super) struct Lower<'a> {
    schema: &'a DFSchema,
    depth: Cell<usize>,
}

impl<'a> Lower<'a> {
    pub(super) fn new(schema: &'a DFSchema) -> Lower<'a> {
        Lower { schema, depth: Cell::new(0) }
    }

    /// Lowers an expression that has not been coerced.
    pub(super) fn lower(&self, expr: Expr) -> Lowered {
        let depth = self.depth.get() + 1;
        if depth > DEPTH_MAX {
            return Err(CompileError::new(format!("expression is nested more than {DEPTH_MAX} deep"))
                .help("Split it into a subquery that projects its parts."));
        }
        self.depth.set(depth);
        let lowered = self.node(expr);
        self.depth.set(depth - 1);
        lowered
    }

    // Each kind of node has a function of its own: this one's frame is on the stack once per level.
    fn node(&self, expr: Expr) -> Lowered {
        match expr {
            Expr::Alias(alias) => self.lower(*alias.expr),
            Expr::Column(_) => self.column(expr),
            Expr::Literal(value, _) => self.literal(value),
            Expr::BinaryExpr(binary) => self.binary(binary),
            Expr::Cast(cast) => self.explicit_cast(*cast.expr, cast.field.data_type()),
            Expr::TryCast(cast) => self.explicit_cast(*cast.expr, cast.field.data_type()),
            Expr::Negative(operand) => self.negative(*operand),
            Expr::Between(between) => self.between(between),
            Expr::Like(like) => self.like(like),
            Expr::Case(case) => self.case(case),
            Expr::InList(within) => self.in_list(within),
            Expr::ScalarFunction(call) => self.call(call),
            other => self.test(other),
        }
    }

    fn explicit_cast(&self, operand: Expr, to: &DataType) -> Lowered {
        cast::explicit(self, self.lower(operand)?, to)
    }

    fn between(&self, Between { expr, negated, low, high }: Between) -> Lowered {
        conditional::between(self, self.lower(*expr)?, self.lower(*low)?, self.lower(*high)?, negated)
    }

    fn case(&self, case: Case) -> Lowered {
        let base = case.expr.map(|base| self.lower(*base)).transpose()?;
        let branches = case
            .when_then_expr
            .into_iter()
            .map(|(when, then)| Ok((self.lower(*when)?, self.lower(*then)?)))
            .collect::<Result<Vec<_>, CompileError>>()?;
        let otherwise = case.else_expr.map(|otherwise| self.lower(*otherwise)).transpose()?;
        conditional::case(self, base, branches, otherwise)
    }

    fn in_list(&self, InList { expr, list, negated }: InList) -> Lowered {
        let value = self.lower(*expr)?;
        let list = list.into_iter().map(|item| self.lower(item)).collect::<Result<Vec<_>, _>>()?;
        conditional::in_list(self, value, list, negated)
    }

    fn call(&self, call: ScalarFunction) -> Lowered {
        allowed::check(&call.func)?;
        let args = call.args.into_iter().map(|arg| self.lower(arg)).collect::<Result<Vec<_>, _>>()?;
        allowed::call(self, &call.func, args)
    }

    /// NOT and the tests by IS, which never fail and keep their form.
    fn test(&self, expr: Expr) -> Lowered {
        let (test, operand, what): (fn(Box<Expr>) -> Expr, _, _) = match expr {
            Expr::Not(operand) => return Ok(not(self.condition("NOT", self.lower(*operand)?)?)),
            Expr::IsNull(operand) => return Ok(tested(Expr::IsNull, self.lower(*operand)?)),
            Expr::IsNotNull(operand) => return Ok(tested(Expr::IsNotNull, self.lower(*operand)?)),
            Expr::IsTrue(operand) => (Expr::IsTrue, operand, "IS TRUE"),
            Expr::IsNotTrue(operand) => (Expr::IsNotTrue, operand, "IS NOT TRUE"),
            Expr::IsFalse(operand) => (Expr::IsFalse, operand, "IS FALSE"),
            Expr::IsNotFalse(operand) => (Expr::IsNotFalse, operand, "IS NOT FALSE"),
            Expr::IsUnknown(operand) => (Expr::IsNull, operand, "IS UNKNOWN"),
            Expr::IsNotUnknown(operand) => (Expr::IsNotNull, operand, "IS NOT UNKNOWN"),
            other => return Err(refused(&other)),
        };
        let operand = self.condition(what, self.lower(*operand)?)?;
        Ok(tested(test, operand))
    }

    fn column(&self, expr: Expr) -> Lowered {
        let Expr::Column(column) = &expr else { return Err(refused(&expr)) };
        let field = self.schema.field_from_column(column)?;
        let (found, nullable) = (field.data_type().clone(), field.is_nullable());
        let canonical = canonical_type(&found)
            .ok_or_else(|| CompileError::new(format!("column \"{}\" has type {found}, which no stream column has", column.name)))?;
        let typed = Typed { expr, data_type: found, nullable };
        self.cast(typed, &canonical)
    }

    /// A literal in its canonical type. An interval without months is a duration.
    fn literal(&self, value: ScalarValue) -> Lowered {
        let value = match value {
            ScalarValue::Null => return Ok(Typed::literal(ScalarValue::Null, DataType::Null)),
            ScalarValue::UInt64(Some(big)) if i64::try_from(big).is_err() => {
                return Ok(Typed::literal(ScalarValue::Decimal128(Some(big.into()), 20, 0), DataType::Decimal128(20, 0)));
            }
            ScalarValue::IntervalMonthDayNano(Some(interval)) => return self.interval(interval),
            ScalarValue::IntervalYearMonth(Some(months)) => {
                return self.interval(IntervalMonthDayNano::new(months, 0, 0));
            }
            ScalarValue::IntervalDayTime(Some(interval)) => {
                let nanos = i64::from(interval.milliseconds) * 1_000_000;
                return self.interval(IntervalMonthDayNano::new(0, interval.days, nanos));
            }
            ScalarValue::IntervalMonthDayNano(None) | ScalarValue::IntervalYearMonth(None) | ScalarValue::IntervalDayTime(None) => {
                return Ok(Typed::literal(ScalarValue::DurationMicrosecond(None), DURATION));
            }
            ScalarValue::Float64(Some(value)) => ScalarValue::Float64(Some(canonical_f64(value))),
            ScalarValue::Float32(Some(value)) => ScalarValue::Float32(Some(canonical_f32(value))),
            other => other,
        };
        let found = value.data_type();
        let canonical =
            canonical_type(&found).ok_or_else(|| CompileError::new(format!("constant has type {found}, which no feature can be")))?;
        self.cast(Typed::literal(value, found), &canonical)
    }

    fn interval(&self, interval: IntervalMonthDayNano) -> Lowered {
        if interval.months == 0 {
            let micros = self.interval_micros(interval)?;
            return Ok(Typed::literal(ScalarValue::DurationMicrosecond(Some(micros)), DURATION));
        }
        Ok(Typed::literal(ScalarValue::IntervalMonthDayNano(Some(interval)), MONTHS))
    }

    /// The days and the time of an interval in microseconds, truncated toward the past.
    pub(super) fn interval_micros(&self, interval: IntervalMonthDayNano) -> Result<i64, CompileError> {
        i64::from(interval.days)
            .checked_mul(DAY_US)
            .and_then(|days| days.checked_add(interval.nanoseconds.div_euclid(1_000)))
            .ok_or_else(|| CompileError::new("interval is out of range"))
    }

    /// `CAST('1 hour' AS INTERVAL)`, of a constant.
    pub(super) fn interval_literal(&self, operand: Typed) -> Lowered {
        let Some(text) = pattern::constant_text("interval", &operand)? else {
            return Ok(Typed::literal(ScalarValue::DurationMicrosecond(None), DURATION));
        };
        let value = ScalarValue::Utf8(Some(text.clone())).cast_to(&MONTHS);
        match value {
            Ok(value) => self.literal(value),
            Err(_) => Err(CompileError::new(format!("\"{text}\" is not an interval"))),
        }
    }

    fn binary(&self, BinaryExpr { left, op, right }: BinaryExpr) -> Lowered {
        if matches!(op, Operator::And | Operator::Or) {
            let conditions = chain(op, *left, *right)
                .into_iter()
                .map(|condition| self.condition(&op.to_string(), self.lower(condition)?))
                .collect::<Result<Vec<_>, _>>()?;
            return balanced(op, conditions).ok_or_else(|| CompileError::new("condition has no operands"));
        }
        let (left, right) = (self.lower(*left)?, self.lower(*right)?);
        let matching = |negated, ignore_case| Match { negated, ignore_case };
        match op {
            Operator::Eq
            | Operator::NotEq
            | Operator::Lt
            | Operator::LtEq
            | Operator::Gt
            | Operator::GtEq
            | Operator::IsDistinctFrom
            | Operator::IsNotDistinctFrom => compare::lower(self, left, op, right),
            Operator::StringConcat => text::lower(self, Text::Join, vec![left, right]),
            Operator::RegexMatch => pattern::lower_regex(self, left, &right, None, matching(false, false)),
            Operator::RegexIMatch => pattern::lower_regex(self, left, &right, None, matching(false, true)),
            Operator::RegexNotMatch => pattern::lower_regex(self, left, &right, None, matching(true, false)),
            Operator::RegexNotIMatch => pattern::lower_regex(self, left, &right, None, matching(true, true)),
            Operator::LikeMatch => pattern::lower_like(self, left, right, matching(false, false)),
            Operator::ILikeMatch => pattern::lower_like(self, left, right, matching(false, true)),
            Operator::NotLikeMatch => pattern::lower_like(self, left, right, matching(true, false)),
            Operator::NotILikeMatch => pattern::lower_like(self, left, right, matching(true, true)),
            _ => self.arithmetic(op, left, right),
        }
    }

    fn arithmetic(&self, op: Operator, left: Typed, right: Typed) -> Lowered {
        let (found_left, found_right) = (left.data_type.clone(), right.data_type.clone());
        if let Some(result) = time::arithmetic(self, op, left.clone(), right.clone())? {
            return Ok(result);
        }
        if let Some(result) = arithmetic::lower(self, op, left, right)? {
            return Ok(result);
        }
        Err(CompileError::new(format!("operator {op} does not take {} and {}", sql_name(&found_left), sql_name(&found_right))))
    }

    fn negative(&self, operand: Expr) -> Lowered {
        let operand = self.lower(operand)?;
        if operand.data_type == DataType::Null {
            return self.cast(operand, &DataType::Int64);
        }
        if let Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(value)), _) = &operand.expr {
            let negated = (|| {
                Some(IntervalMonthDayNano::new(value.months.checked_neg()?, value.days.checked_neg()?, value.nanoseconds.checked_neg()?))
            })();
            return self.interval(negated.ok_or_else(|| CompileError::new("interval is out of range"))?);
        }
        if let Expr::Literal(ScalarValue::DurationMicrosecond(Some(value)), _) = &operand.expr {
            // Kept a constant, for those operations that want one.
            return Ok(Typed::literal(ScalarValue::DurationMicrosecond(value.checked_neg()), DURATION));
        }
        arithmetic::negate(&operand)
            .or_else(|| time::negate(&operand))
            .ok_or_else(|| CompileError::new(format!("operator - does not take {}", sql_name(&operand.data_type))))
    }

    fn like(&self, like: Like) -> Lowered {
        if like.escape_char.is_some_and(|escape| escape != '\\') {
            return Err(CompileError::new("LIKE has an ESCAPE other than '\\'"));
        }
        let matching = Match { negated: like.negated, ignore_case: like.case_insensitive };
        pattern::lower_like(self, self.lower(*like.expr)?, self.lower(*like.pattern)?, matching)
    }

    /// An operand that must be BOOLEAN.
    pub(super) fn condition(&self, what: &str, operand: Typed) -> Lowered {
        match operand.data_type {
            DataType::Boolean => Ok(operand),
            DataType::Null => self.cast(operand, &DataType::Boolean),
            ref other => Err(CompileError::new(format!("{what} takes BOOLEAN, found {}", sql_name(other)))),
        }
    }

    /// An operand that must be an integer, as BIGINT.
    pub(super) fn integer(&self, what: &str, operand: Typed) -> Lowered {
        if types::is_integer(&operand.data_type) || operand.data_type == DataType::Null {
            return self.cast(operand, &DataType::Int64);
        }
        Err(CompileError::new(format!("{what} takes an integer, found {}", sql_name(&operand.data_type))))
    }

    /// The operand in another type; what does not fit is NULL. A constant stays one.
    ///
    /// The type may be none of ours, where a function of DataFusion wants such an argument.
    pub(super) fn cast(&self, operand: Typed, to: &DataType) -> Lowered {
        if operand.data_type == *to {
            return Ok(operand);
        }
        if let Expr::Literal(value, _) = &operand.expr {
            if value.is_null() {
                return Ok(Typed::literal(ScalarValue::try_from(to)?, to.clone()));
            }
            let column = cast::column(&value.to_array()?, to)?;
            return Ok(Typed::literal(ScalarValue::try_from_array(&column, 0)?, to.clone()));
        }
        cast::operation_of(operand, to)
    }
}

/// A test that gives no NULL.
pub(super) fn tested(test: fn(Box<Expr>) -> Expr, operand: Typed) -> Typed {
    Typed { expr: test(Box::new(operand.expr)), data_type: DataType::Boolean, nullable: false }
}

/// The conditions of `a AND b AND ...` (or OR) in order, however they are nested.
fn chain(op: Operator, left: Expr, right: Expr) -> Vec<Expr> {
    let mut conditions = Vec::new();
    let mut pending = vec![right, left];
    while let Some(expr) = pending.pop() {
        match expr {
            Expr::BinaryExpr(BinaryExpr { left, op: inner, right }) if inner == op => {
                pending.push(*right);
                pending.push(*left);
            }
            other => conditions.push(other),
        }
    }
    conditions
}

/// Why a kind of expression cannot stand in a feature view.
fn refused(expr: &Expr) -> CompileError {
    let what = match expr {
        Expr::ScalarSubquery(_) | Expr::Exists(_) | Expr::InSubquery(_) | Expr::SetComparison(_) => "subquery",
        Expr::AggregateFunction(call) => {
            return CompileError::new(format!("aggregate \"{}\" stands inside a scalar expression", call.func.name()));
        }
        Expr::WindowFunction(call) => {
            return CompileError::new(format!("window function \"{}\" stands inside a scalar expression", call.fun));
        }
        Expr::SimilarTo(_) => {
            return CompileError::new("SIMILAR TO is not supported in a feature view").help("Use ~ or LIKE.");
        }
        Expr::Placeholder(placeholder) => {
            return CompileError::new(format!("parameter \"{}\" has no value", placeholder.id));
        }
        Expr::ScalarVariable(..) => "variable",
        Expr::OuterReferenceColumn(..) => "column of an outer query",
        Expr::Lambda(_) | Expr::LambdaVariable(_) | Expr::HigherOrderFunction(_) => "lambda",
        Expr::GroupingSet(_) => "grouping set",
        _ => "this expression",
    };
    CompileError::new(format!("{what} is not supported in a feature view"))
}
