//! Which functions a feature view may call.
//!
//! Ours answer by DataFusion's names, since a statement is planned with DataFusion's functions; of the rest only those that
//! have been looked at are let in: functions of their arguments alone, that neither panic nor take memory without bound.

use std::cmp::Ordering;
use std::sync::Arc;

use datafusion::common::ScalarValue;
use datafusion::functions::core::planner::CoreFunctionPlanner;
use datafusion::functions::datetime::planner::DatetimeFunctionPlanner;
use datafusion::functions::unicode::planner::UnicodeFunctionPlanner;
use datafusion::logical_expr::planner::ExprPlanner;
use datafusion::logical_expr::{Expr, ScalarUDF, Volatility};

use super::compile::CompileError;
use super::lower::{Lower, Typed, tested};
use super::pattern::{Match, check_regex, constant_text, lower_regex};
use super::text::Text;
use super::{conditional, math, null_on_error, text, time};

/// Functions of DataFusion that serve as they are, failing rows apart.
const WRAPPED: &[&str] = &[
    "abs",
    "ascii",
    "bit_length",
    "btrim",
    "ceil",
    "character_length",
    "chr",
    "contains",
    "decode",
    "digest",
    "encode",
    "ends_with",
    "factorial",
    "find_in_set",
    "floor",
    "gcd",
    "initcap",
    "isnan",
    "iszero",
    "lcm",
    "left",
    "lower",
    "ltrim",
    "md5",
    "nanvl",
    "octet_length",
    "regexp_count",
    "regexp_replace",
    "reverse",
    "right",
    "round",
    "rtrim",
    "sha224",
    "sha256",
    "sha384",
    "sha512",
    "signum",
    "split_part",
    "starts_with",
    "strpos",
    "substr",
    "substr_index",
    "to_hex",
    "translate",
    "trunc",
    "upper",
];

/// Functions with a form of their own here.
const OWN: &[&str] =
    &["coalesce", "concat", "concat_ws", "greatest", "least", "lpad", "nullif", "nvl", "nvl2", "regexp_like", "repeat", "replace", "rpad"];

/// Every scalar function of DataFusion, for the planner that reads a feature's text.
///
/// More than a view may call: [`super::compile`] refuses the others, and can say why, where a planner that did not know
/// `now` could only say that there is no such function. `sign` is `signum`.
pub fn functions() -> Vec<Arc<ScalarUDF>> {
    let mut functions = datafusion::functions::all_default_functions();
    for function in &mut functions {
        if function.name() == "signum" {
            *function = Arc::new(function.as_ref().clone().with_aliases(["sign"]));
        }
    }
    functions
}

/// The planners of `extract`, `position`, `substring` and `overlay`.
pub fn expr_planners() -> Vec<Arc<dyn ExprPlanner>> {
    vec![Arc::new(CoreFunctionPlanner::default()), Arc::new(DatetimeFunctionPlanner), Arc::new(UnicodeFunctionPlanner)]
}

/// Whether `name`, as DataFusion spells it, may be called in a feature view.
pub(super) fn is_allowed(name: &str) -> bool {
    WRAPPED.contains(&name) || OWN.contains(&name) || time::FUNCTIONS.contains(&name) || math::knows(name)
}

/// Refuses a function that a feature view may not call.
pub(super) fn check(function: &ScalarUDF) -> Result<(), CompileError> {
    let name = function.name();
    if is_allowed(name) {
        return Ok(());
    }
    let instant = matches!(name, "now" | "current_date" | "current_time" | "current_timestamp" | "today");
    if function.signature().volatility != Volatility::Immutable || instant {
        let error = CompileError::new(format!("function \"{name}\" is not immutable"));
        return Err(match instant {
            true => error.help("The instant at which a feature is evaluated is as_of()."),
            false => error.help("A feature is a function of events and the instant alone."),
        });
    }
    Err(CompileError::new(format!("function \"{name}\" is not supported in a feature view")))
}

/// A call of an allowed function, its arguments lowered but not yet cast.
pub(super) fn call(lower: &Lower<'_>, function: &Arc<ScalarUDF>, mut args: Vec<Typed>) -> Result<Typed, CompileError> {
    check(function)?;
    let name = function.name();
    let text_function = match name {
        "concat" => Some(Text::Concat),
        "concat_ws" => Some(Text::ConcatWith),
        "replace" => Some(Text::Replace),
        "repeat" => Some(Text::Repeat),
        "lpad" => Some(Text::PadLeft),
        "rpad" => Some(Text::PadRight),
        _ => None,
    };
    if let Some(function) = text_function {
        return text::lower(lower, function, args);
    }
    if math::knows(name)
        && let Some(call) = math::lower(lower, name, &args)?
    {
        return Ok(call);
    }
    if time::FUNCTIONS.contains(&name) {
        return time::function(lower, name, &args);
    }
    let wrong = |count: usize| CompileError::new(format!("function \"{name}\" does not take {count} arguments"));
    match (name, args.len()) {
        ("coalesce" | "greatest" | "least", 0) => Err(wrong(0)),
        ("coalesce", _) | ("nvl", 2) => conditional::coalesce(lower, args),
        ("greatest", _) => conditional::extreme(lower, Ordering::Greater, args),
        ("least", _) => conditional::extreme(lower, Ordering::Less, args),
        ("nullif", 2) => match (args.pop(), args.pop()) {
            (Some(right), Some(left)) => conditional::null_if(lower, left, right),
            _ => Err(wrong(0)),
        },
        ("nvl2", 3) => match (args.pop(), args.pop(), args.pop()) {
            (Some(otherwise), Some(then), Some(value)) => {
                conditional::case(lower, None, vec![(tested(Expr::IsNotNull, value), then)], Some(otherwise))
            }
            _ => Err(wrong(0)),
        },
        ("regexp_like", 2 | 3) => {
            let matching = Match { negated: false, ignore_case: false };
            let flags = args.get(2);
            lower_regex(lower, args[0].clone(), &args[1], flags, matching)
        }
        ("regexp_count" | "regexp_replace", _) => {
            constant_pattern(name, &args)?;
            null_on_error::lower(lower, function, args)
        }
        ("nullif" | "nvl" | "nvl2" | "regexp_like", count) => Err(wrong(count)),
        _ => null_on_error::lower(lower, function, args),
    }
}

/// The pattern and what follows it are constants, and the pattern is one.
fn constant_pattern(name: &str, args: &[Typed]) -> Result<(), CompileError> {
    for (i, arg) in args.iter().enumerate().skip(1) {
        let Expr::Literal(value, _) = &arg.expr else {
            return Err(CompileError::new(format!("argument {} of \"{name}\" is not a constant", i + 1)));
        };
        if i == 1
            && !matches!(value, ScalarValue::Null)
            && let Some(pattern) = constant_text("pattern of a regular expression", arg)?
        {
            check_regex(&pattern, "")?;
        }
    }
    Ok(())
}
