//! LIKE and regular expressions over strings.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, Scalar, StringViewArray};
use arrow::compute::kernels::comparison::{ilike, like, nilike, nlike, regexp_is_match_scalar};
use arrow::compute::not;
use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::Expr;

use super::compile::CompileError;
use super::kernel::{Kernel, Nulls, Operand, null_where_it_fails, operation, pair, single};
use super::lower::{Lower, Typed};
use super::types::sql_name;

/// How a pattern is matched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Match {
    pub(super) negated: bool,
    pub(super) ignore_case: bool,
}

impl Match {
    fn name(self, what: &str) -> String {
        format!("{}{}{what}", if self.negated { "not_" } else { "" }, if self.ignore_case { "i" } else { "" })
    }
}

fn text(lower: &Lower<'_>, what: &str, operand: Typed) -> std::result::Result<Typed, CompileError> {
    match operand.data_type {
        DataType::Utf8View => Ok(operand),
        DataType::Null => lower.cast(operand, &DataType::Utf8View),
        ref other => Err(CompileError::new(format!("{what} takes VARCHAR, found {}", sql_name(other)))),
    }
}

/// `value [NOT] LIKE pattern`.
pub(super) fn lower_like(lower: &Lower<'_>, value: Typed, pattern: Typed, matching: Match) -> std::result::Result<Typed, CompileError> {
    let operands = vec![text(lower, "LIKE", value)?, text(lower, "LIKE", pattern)?];
    Ok(operation(matching.name("like"), Like(matching), DataType::Boolean, Nulls::Any, operands))
}

#[derive(Debug)]
struct Like(Match);

impl Kernel for Like {
    fn evaluate(&self, operands: &[Operand], rows: usize) -> Result<ArrayRef> {
        let [value, pattern] = pair(operands)?;
        let kernel = match (self.0.negated, self.0.ignore_case) {
            (false, false) => like,
            (false, true) => ilike,
            (true, false) => nlike,
            (true, true) => nilike,
        };
        let value = value.column(rows)?;
        // A pattern whose regular expression would be too large fails; what it matches is not known.
        null_where_it_fails(0..rows, &DataType::Boolean, &|rows| {
            let value = value.slice(rows.start, rows.len());
            let result = if pattern.is_constant() {
                kernel(&value, &Scalar::new(Arc::clone(pattern.array())))?
            } else {
                kernel(&value, &pattern.array().slice(rows.start, rows.len()))?
            };
            Ok(Arc::new(result))
        })
    }
}

/// `value ~ pattern` and `regexp_like(value, pattern [, flags])`. The pattern is a constant, so that it is checked once.
pub(super) fn lower_regex(
    lower: &Lower<'_>,
    value: Typed,
    pattern: &Typed,
    flags: Option<&Typed>,
    matching: Match,
) -> std::result::Result<Typed, CompileError> {
    let value = text(lower, "a regular expression", value)?;
    let pattern = constant_text("pattern of a regular expression", pattern)?;
    let mut flags = match flags {
        Some(flags) => constant_text("flags of a regular expression", flags)?,
        None => Some(String::new()),
    };
    if let (Some(flags), true) = (&mut flags, matching.ignore_case) {
        flags.push('i');
    }
    let (Some(pattern), Some(flags)) = (pattern, flags) else {
        return Ok(Typed::literal(ScalarValue::Boolean(None), DataType::Boolean));
    };
    if let Some(flag) = flags.chars().find(|flag| !"imsUx".contains(*flag)) {
        return Err(CompileError::new(format!("regular expression has unknown flag \"{flag}\"")));
    }
    check_regex(&pattern, &flags)?;
    // The name must tell patterns apart, so it spells them.
    let name = format!("{}[{pattern:?} {flags:?}]", matching.name("regexp_like"));
    let kernel = Regex { pattern, flags, negated: matching.negated };
    Ok(operation(name, kernel, DataType::Boolean, Nulls::OfOperands, vec![value]))
}

/// The value of a constant string; NULL is `None`.
pub(super) fn constant_text(what: &str, operand: &Typed) -> std::result::Result<Option<String>, CompileError> {
    match &operand.expr {
        Expr::Literal(value, _) if value.is_null() => Ok(None),
        Expr::Literal(value, _) => match value.try_as_str() {
            Some(text) => Ok(text.map(str::to_owned)),
            None => Err(CompileError::new(format!("{what} is {}, not a string", sql_name(&operand.data_type)))),
        },
        _ => Err(CompileError::new(format!("{what} is not a constant"))),
    }
}

/// Refuses what is no regular expression.
pub(super) fn check_regex(pattern: &str, flags: &str) -> std::result::Result<(), CompileError> {
    matches(&StringViewArray::from(vec![""]), pattern, flags)
        .map(|_| ())
        .map_err(|error| CompileError::new(format!("regular expression \"{pattern}\" is not valid: {error}")))
}

fn matches(values: &StringViewArray, pattern: &str, flags: &str) -> Result<BooleanArray> {
    let flags = (!flags.is_empty()).then_some(flags);
    Ok(regexp_is_match_scalar(values, pattern, flags)?)
}

#[derive(Debug)]
struct Regex {
    pattern: String,
    flags: String,
    negated: bool,
}

impl Kernel for Regex {
    fn evaluate(&self, operands: &[Operand], rows: usize) -> Result<ArrayRef> {
        let value = single(operands)?.column(rows)?;
        let result = matches(value.as_string_view(), &self.pattern, &self.flags)?;
        Ok(Arc::new(if self.negated { not(&result)? } else { result }))
    }
}
