//! Windows: `OVER (...)`, `WINDOW w AS (...)`, `TUMBLE`, `HOP` and `SESSION`, as frames.

use std::collections::HashMap;

use asof_udfs::{Bound, Frame};
use datafusion::sql::sqlparser::ast::{self, Spanned};

use super::expr::{fold, span_of};
use super::options::{interval, positive_duration};
use crate::ast::Interval;
use crate::codes;
use crate::diagnostic::{Diagnostic, nearest};
use crate::span::Span;

/// What a window may name: the entity and the event time are implied, and must be meant when they are written.
pub(crate) struct Implied<'a> {
    /// The entity's columns.
    pub entity: &'a [String],
    /// The event-time column.
    pub time: &'a str,
}

/// The named windows of a SELECT.
#[derive(Default)]
pub(crate) struct NamedWindows<'a> {
    windows: HashMap<String, (&'a ast::WindowSpec, Span)>,
}

impl<'a> NamedWindows<'a> {
    /// Collects `WINDOW w AS (...)`; a name written twice is an error.
    pub(crate) fn collect(definitions: &'a [ast::NamedWindowDefinition], errors: &mut super::Errors) -> Self {
        let mut named = Self::default();
        for ast::NamedWindowDefinition(name, definition) in definitions {
            match definition {
                ast::NamedWindowExpr::WindowSpec(spec) => {
                    if named.windows.insert(fold(name), (spec, name.span.into())).is_some() {
                        errors.push(Diagnostic::error(codes::E0202, name.span, format!("window \"{}\" is defined twice", fold(name))));
                    }
                }
                ast::NamedWindowExpr::NamedWindow(other) => errors.push(
                    Diagnostic::error(codes::E0301, other.span, "a window that only names another is not supported")
                        .help("Write its frame, or use the other window's name."),
                ),
            }
        }
        named
    }

    /// Checks every window, those too that no aggregate names.
    pub(crate) fn check(&self, implied: &Implied<'_>, errors: &mut super::Errors) {
        for (spec, name) in self.windows.values() {
            errors.extend(self.spec(spec, implied, *name).err());
        }
    }

    fn get(&self, name: &ast::Ident) -> Result<&'a ast::WindowSpec, Diagnostic> {
        let folded = fold(name);
        self.windows.get(&folded).map(|(spec, _)| *spec).ok_or_else(|| {
            let d = Diagnostic::error(codes::E0201, name.span, format!("unknown window \"{folded}\""));
            match nearest(&folded, self.windows.keys().map(String::as_str)) {
                Some(near) => d.help(format!("The nearest known window is \"{near}\".")),
                None => d.help("Define it: WINDOW name AS (RANGE INTERVAL '1 hour' PRECEDING)."),
            }
        })
    }

    /// The frame of an OVER clause.
    pub(crate) fn frame(&self, over: &ast::WindowType, implied: &Implied<'_>, at: Span) -> Result<Frame, Diagnostic> {
        match over {
            ast::WindowType::NamedWindow(name) => self.spec(self.get(name)?, implied, name.span.into()),
            ast::WindowType::WindowSpec(spec) => self.spec(spec, implied, at),
        }
    }

    fn spec(&self, spec: &ast::WindowSpec, implied: &Implied<'_>, at: Span) -> Result<Frame, Diagnostic> {
        check_implied(spec, implied)?;
        let base = spec.window_name.as_ref().map(|n| self.get(n)).transpose()?;
        if let Some(base) = base {
            check_implied(base, implied)?;
            if base.window_name.is_some() || (base.window_frame.is_some() && spec.window_frame.is_some()) {
                return Err(Diagnostic::error(codes::E0301, at, "a window cannot change the frame of the window it builds on"));
            }
        }
        match spec.window_frame.as_ref().or_else(|| base.and_then(|b| b.window_frame.as_ref())) {
            Some(frame) => frame_of(frame, at),
            None => Err(Diagnostic::error(codes::E0301, at, "a window needs a frame")
                .help("Write RANGE INTERVAL '1 hour' PRECEDING, ROWS 10 PRECEDING, or RANGE UNBOUNDED PRECEDING for all events up to the instant.")),
        }
    }
}

fn check_implied(spec: &ast::WindowSpec, implied: &Implied<'_>) -> Result<(), Diagnostic> {
    let name = |e: &ast::Expr| match e {
        ast::Expr::Identifier(i) => Some(fold(i)),
        ast::Expr::CompoundIdentifier(parts) => parts.last().map(fold),
        _ => None,
    };
    if let Some(first) = spec.partition_by.first() {
        let mut written: Vec<_> = spec.partition_by.iter().map(name).collect();
        let mut meant: Vec<_> = implied.entity.iter().map(|e| Some(e.clone())).collect();
        written.sort();
        meant.sort();
        if written != meant {
            return Err(Diagnostic::error(codes::E0308, span_of(first), "PARTITION BY must be the entity")
                .help(format!("Leave it out, or write PARTITION BY {}.", implied.entity.join(", "))));
        }
    }
    if let Some(first) = spec.order_by.first() {
        let plain = spec.order_by.len() == 1
            && first.options.asc != Some(false)
            && first.options.nulls_first.is_none()
            && first.with_fill.is_none();
        if !plain || name(&first.expr).as_deref() != Some(implied.time) {
            return Err(Diagnostic::error(codes::E0308, span_of(&first.expr), "ORDER BY must be the event time, ascending")
                .help(format!("Leave it out, or write ORDER BY {}.", implied.time)));
        }
    }
    Ok(())
}

fn frame_of(frame: &ast::WindowFrame, at: Span) -> Result<Frame, Diagnostic> {
    let current = ast::WindowFrameBound::CurrentRow;
    let end = frame.end_bound.as_ref().unwrap_or(&current);
    let frame = match frame.units {
        ast::WindowFrameUnits::Range => Frame::Range { start: range_bound(&frame.start_bound, at)?, end: range_bound(end, at)? },
        ast::WindowFrameUnits::Rows => {
            let end =
                rows_bound(end, at)?.ok_or_else(|| Diagnostic::error(codes::E0302, at, "a frame cannot end at UNBOUNDED PRECEDING"))?;
            Frame::Rows { start: rows_bound(&frame.start_bound, at)?, end }
        }
        ast::WindowFrameUnits::Groups => {
            return Err(Diagnostic::error(codes::E0301, at, "GROUPS frames are not supported").help("Use RANGE, or ROWS to count events."));
        }
    };
    check_order(&frame, at)?;
    Ok(frame)
}

fn following(at: Span) -> Diagnostic {
    Diagnostic::error(codes::E0302, at, "a feature cannot read what follows the instant").help("Use PRECEDING and CURRENT ROW.")
}

fn range_bound(bound: &ast::WindowFrameBound, at: Span) -> Result<Bound, Diagnostic> {
    match bound {
        ast::WindowFrameBound::CurrentRow => Ok(Bound::Back { months: 0, micros: 0 }),
        ast::WindowFrameBound::Preceding(None) => Ok(Bound::Unbounded),
        ast::WindowFrameBound::Preceding(Some(e)) => {
            let Interval { months, micros } = interval(e)?;
            if months < 0 || micros < 0 {
                return Err(Diagnostic::error(codes::E0302, span_of(e.as_ref()), "a bound cannot be negative"));
            }
            Ok(Bound::Back { months, micros })
        }
        ast::WindowFrameBound::Following(_) => Err(following(at)),
    }
}

fn rows_bound(bound: &ast::WindowFrameBound, at: Span) -> Result<Option<u64>, Diagnostic> {
    match bound {
        ast::WindowFrameBound::CurrentRow => Ok(Some(0)),
        ast::WindowFrameBound::Preceding(None) => Ok(None),
        ast::WindowFrameBound::Preceding(Some(e)) => {
            let count = e.to_string().parse::<u64>().ok().filter(|n| *n <= u64::from(u32::MAX));
            count.map(Some).ok_or_else(|| {
                Diagnostic::error(
                    codes::E0302,
                    span_of(e.as_ref()),
                    format!("a bound of ROWS must be a whole number from 0 to {}", u32::MAX),
                )
            })
        }
        ast::WindowFrameBound::Following(_) => Err(following(at)),
    }
}

/// Refuses a frame that is empty at every instant.
fn check_order(frame: &Frame, at: Span) -> Result<(), Diagnostic> {
    const DAY: i64 = 86_400_000_000;
    let reach = |b: &Bound, days: i64| match b {
        Bound::Unbounded => i64::MAX,
        Bound::Back { months, micros } => micros.saturating_add(i64::from(*months).saturating_mul(days * DAY)),
    };
    let inverted = match frame {
        Frame::Range { end: Bound::Unbounded, .. } => {
            return Err(Diagnostic::error(codes::E0302, at, "a frame cannot end at UNBOUNDED PRECEDING"));
        }
        // Twelve months are at least 365 days, so this bound on both sides is generous but never refuses a frame that can hold an event.
        Frame::Range { start, end } => match (start, end) {
            (Bound::Back { months: a, micros: x }, Bound::Back { months: b, micros: y }) if a == b => x < y,
            _ => reach(start, 31) < reach(end, 28),
        },
        Frame::Rows { start, end } => start.is_some_and(|s| s < *end),
        Frame::Tumble { .. } | Frame::Session { .. } => false,
    };
    if inverted {
        return Err(Diagnostic::error(codes::E0302, at, "the frame starts after its end").help("Write the farther bound first."));
    }
    Ok(())
}

/// `TUMBLE(ts, size)`, `HOP(ts, slide, size)` or `SESSION(ts, gap)` in GROUP BY; `None` for anything else.
pub(crate) fn group_window(expr: &ast::Expr, time: &str) -> Option<Result<Frame, Diagnostic>> {
    let ast::Expr::Function(f) = expr else { return None };
    let name = f.name.to_string().to_lowercase();
    let wanted = match name.as_str() {
        "tumble" => 2,
        "hop" => 3,
        "session" => 2,
        _ => return None,
    };
    Some(group_window_of(f, &name, wanted, time))
}

fn group_window_of(f: &ast::Function, name: &str, wanted: usize, time: &str) -> Result<Frame, Diagnostic> {
    let at: Span = f.span().into();
    let signature = match name {
        "hop" => "HOP(ts, slide, size)",
        "session" => "SESSION(ts, gap)",
        _ => "TUMBLE(ts, size)",
    };
    let args = super::aggregate::plain_arguments(f).filter(|a| a.len() == wanted);
    let args = args.ok_or_else(|| Diagnostic::error(codes::E0306, at, format!("the window is written {signature}")))?;
    let column = match args[0] {
        ast::Expr::Identifier(i) => Some(fold(i)),
        ast::Expr::CompoundIdentifier(parts) => parts.last().map(fold),
        _ => None,
    };
    if column.as_deref() != Some(time) {
        return Err(Diagnostic::error(codes::E0308, span_of(args[0]), "the window must be over the event time")
            .help(format!("Write {}.", signature.replace("ts", time))));
    }
    match name {
        "tumble" => {
            let size = positive_duration(args[1], "size")?;
            Ok(Frame::Tumble { size, slide: size })
        }
        "hop" => {
            let (slide, size) = (positive_duration(args[1], "slide")?, positive_duration(args[2], "size")?);
            if size % slide != 0 {
                return Err(Diagnostic::error(codes::E0302, span_of(args[2]), "the size must be a multiple of the slide"));
            }
            Ok(Frame::Tumble { size, slide })
        }
        _ => Ok(Frame::Session { gap: positive_duration(args[1], "gap")? }),
    }
}
