//! Durations and the options of a view.

use datafusion::sql::sqlparser::ast;

use super::Errors;
use super::expr::span_of;
use crate::ast::{Interval, OptionEntry, OptionValue};
use crate::codes;
use crate::diagnostic::{Diagnostic, nearest};
use crate::parse::{interval_of, parse_interval};
use crate::plan::ViewOptions;
use crate::span::Span;

/// A fixed duration written as text, `30 seconds`, in microseconds; `None` where it is none, has months, or is negative.
pub fn parse_duration(text: &str) -> Option<i64> {
    let i = parse_interval(text).ok()?;
    (i.months == 0 && i.micros >= 0).then_some(i.micros)
}

/// An INTERVAL literal.
pub fn interval(expr: &ast::Expr) -> Result<Interval, Diagnostic> {
    match expr {
        ast::Expr::Interval(i) => interval_of(i),
        ast::Expr::Nested(inner) => interval(inner),
        ast::Expr::Value(v) if v.value == ast::Value::Null => Err(Diagnostic::error(codes::E0302, span_of(expr), "a bound cannot be NULL")),
        _ => Err(Diagnostic::error(codes::E0302, span_of(expr), "a bound of RANGE must be an INTERVAL literal")
            .help("Write INTERVAL '1 hour', or ROWS to count events.")),
    }
}

/// A positive fixed duration: an INTERVAL literal without months.
pub(crate) fn positive_duration(expr: &ast::Expr, what: &str) -> Result<i64, Diagnostic> {
    let i = interval(expr)?;
    if i.months != 0 {
        return Err(Diagnostic::error(codes::E0302, span_of(expr), format!("the {what} must be a fixed duration, not months"))
            .help("Write it in days, hours, minutes or seconds."));
    }
    if i.micros <= 0 {
        return Err(Diagnostic::error(codes::E0302, span_of(expr), format!("the {what} must be positive")));
    }
    Ok(i.micros)
}

/// The options of a view: what changes no value, and the ttl.
pub(crate) fn view_options(entries: &[OptionEntry], errors: &mut Errors) -> (ViewOptions, Option<i64>) {
    let (mut options, mut ttl) = (ViewOptions::default(), None);
    for entry in entries {
        let mut duration = |positive: bool| match duration_of(&entry.value) {
            Some(d) if d > 0 || !positive => Some(d),
            _ => {
                errors.push(
                    Diagnostic::error(
                        codes::E0602,
                        entry.key_span,
                        format!("option \"{}\" must be a {}duration", entry.key, if positive { "positive " } else { "" }),
                    )
                    .help("Write it as '90 days' or '5 seconds'; months are not a fixed duration."),
                );
                None
            }
        };
        match entry.key.as_str() {
            "owner" => options.owner = text(entry, errors),
            "description" => options.description = text(entry, errors),
            "freshness" => options.freshness = duration(true),
            "look_back" => options.look_back = duration(false),
            "ttl" => ttl = duration(true),
            other => errors.push(unknown_option(other, entry.key_span, &["owner", "description", "freshness", "ttl", "look_back"])),
        }
    }
    (options, ttl)
}

fn text(entry: &OptionEntry, errors: &mut Errors) -> Option<String> {
    let text = match &entry.value {
        OptionValue::String(s) => Some(s.clone()),
        _ => None,
    };
    if text.is_none() {
        errors.push(Diagnostic::error(codes::E0602, entry.key_span, format!("option \"{}\" must be a string", entry.key)));
    }
    text
}

/// An option's value as a fixed duration, microseconds.
pub fn duration_of(value: &OptionValue) -> Option<i64> {
    match value {
        OptionValue::String(s) => parse_duration(s),
        OptionValue::Interval(i) if i.months == 0 && i.micros >= 0 => Some(i.micros),
        _ => None,
    }
}

/// An option that an object does not have.
pub fn unknown_option(name: &str, span: Span, known: &[&str]) -> Diagnostic {
    let d = Diagnostic::error(codes::E0601, span, format!("unknown option \"{name}\""));
    match nearest(name, known.iter().copied()) {
        Some(near) => d.help(format!("The nearest known option is \"{near}\".")),
        None => d.help(format!("Known options: {}.", known.join(", "))),
    }
}
