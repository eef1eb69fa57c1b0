//! Functions that make longer strings: `||`, `concat`, `concat_ws`, `replace`, `repeat`, `lpad`, `rpad`.
//!
//! A result beyond [`TEXT_BYTES_MAX`] is NULL, before any memory is taken for it: `repeat(x, 1000000000)` costs nothing.

use std::fmt::Debug;
use std::sync::Arc;

use arrow::array::{ArrayRef, StringViewBuilder};
use arrow::datatypes::{DataType, Int64Type};
use datafusion::error::Result;

use super::compile::CompileError;
use super::kernel::{Kernel, Nulls, Operand, operation};
use super::lower::{Lower, Typed};

/// The longest string that a function makes.
pub(super) const TEXT_BYTES_MAX: usize = 1 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Text {
    /// `||`: NULL where an operand is.
    Join,
    /// `concat`: NULL adds nothing.
    Concat,
    /// `concat_ws`: the first operand between the others that are not NULL; NULL where the first is.
    ConcatWith,
    /// `replace(text, from, to)`: an empty `from` replaces nothing.
    Replace,
    /// `repeat(text, count)`: a count below 1 gives the empty string.
    Repeat,
    /// `lpad(text, characters [, fill])`: a longer text is cut.
    PadLeft,
    /// `rpad(text, characters [, fill])`.
    PadRight,
}

impl Text {
    fn name(self) -> &'static str {
        match self {
            Text::Join => "join",
            Text::Concat => "concat",
            Text::ConcatWith => "concat_ws",
            Text::Replace => "replace",
            Text::Repeat => "repeat",
            Text::PadLeft => "lpad",
            Text::PadRight => "rpad",
        }
    }

    /// Whether an operand is a count.
    fn is_count(self, operand: usize) -> bool {
        operand == 1 && matches!(self, Text::Repeat | Text::PadLeft | Text::PadRight)
    }
}

/// A call with as many operands as the function takes.
pub(super) fn lower(lower: &Lower<'_>, function: Text, operands: Vec<Typed>) -> std::result::Result<Typed, CompileError> {
    let expected = match function {
        Text::Join | Text::Repeat => 2..=2,
        Text::Concat => 1..=usize::MAX,
        Text::ConcatWith => 2..=usize::MAX,
        Text::Replace => 3..=3,
        Text::PadLeft | Text::PadRight => 2..=3,
    };
    if !expected.contains(&operands.len()) {
        let name = function.name();
        return Err(CompileError::new(format!("function \"{name}\" does not take {} arguments", operands.len())));
    }
    let operands = operands
        .into_iter()
        .enumerate()
        .map(|(i, operand)| {
            if function.is_count(i) {
                return lower.integer(function.name(), operand);
            }
            super::cast::explicit(lower, operand, &DataType::Utf8View)
        })
        .collect::<std::result::Result<Vec<_>, _>>()?;
    Ok(operation(function.name(), Texts(function), DataType::Utf8View, Nulls::Any, operands))
}

#[derive(Debug)]
struct Texts(Text);

impl Kernel for Texts {
    fn evaluate(&self, operands: &[Operand], rows: usize) -> Result<ArrayRef> {
        let mut builder = StringViewBuilder::with_capacity(rows);
        let mut out = String::new();
        for row in 0..rows {
            out.clear();
            match self.make(operands, row, &mut out)? {
                Some(()) => builder.append_value(&out),
                None => builder.append_null(),
            }
        }
        Ok(Arc::new(builder.finish()))
    }
}

impl Texts {
    /// `None` where the result is NULL.
    fn make(&self, operands: &[Operand], row: usize, out: &mut String) -> Result<Option<()>> {
        let count = |operand: &Operand| Ok::<_, datafusion::error::DataFusionError>(operand.cells::<Int64Type>()?.get(row));
        Ok(match (self.0, operands) {
            (Text::Join, [left, right]) => match (left.text(row)?, right.text(row)?) {
                (Some(left), Some(right)) => push(out, left).and_then(|()| push(out, right)),
                _ => None,
            },
            (Text::Concat, parts) => {
                for part in parts {
                    if let Some(part) = part.text(row)?
                        && push(out, part).is_none()
                    {
                        return Ok(None);
                    }
                }
                Some(())
            }
            (Text::ConcatWith, [between, parts @ ..]) => {
                let Some(between) = between.text(row)? else { return Ok(None) };
                let mut first = true;
                for part in parts {
                    let Some(part) = part.text(row)? else { continue };
                    let separator = if first { "" } else { between };
                    first = false;
                    if push(out, separator).and_then(|()| push(out, part)).is_none() {
                        return Ok(None);
                    }
                }
                Some(())
            }
            (Text::Replace, [text, from, to]) => match (text.text(row)?, from.text(row)?, to.text(row)?) {
                (Some(text), Some(""), Some(_)) => push(out, text),
                (Some(text), Some(from), Some(to)) => replace(out, text, from, to),
                _ => None,
            },
            (Text::Repeat, [text, times]) => match (text.text(row)?, count(times)?) {
                (Some(text), Some(times)) => repeat(out, text, times),
                _ => None,
            },
            (Text::PadLeft | Text::PadRight, [text, width, rest @ ..]) => {
                let fill = match rest.first() {
                    Some(fill) => fill.text(row)?,
                    None => Some(" "),
                };
                match (text.text(row)?, count(width)?, fill) {
                    (Some(text), Some(width), Some(fill)) => pad(out, text, width, fill, self.0 == Text::PadLeft),
                    _ => None,
                }
            }
            _ => None,
        })
    }
}

fn push(out: &mut String, part: &str) -> Option<()> {
    if out.len() + part.len() > TEXT_BYTES_MAX {
        return None;
    }
    out.push_str(part);
    Some(())
}

fn replace(out: &mut String, text: &str, from: &str, to: &str) -> Option<()> {
    let mut parts = text.split(from);
    push(out, parts.next()?)?;
    parts.try_for_each(|part| push(out, to).and_then(|()| push(out, part)))
}

fn repeat(out: &mut String, text: &str, times: i64) -> Option<()> {
    let times = usize::try_from(times).unwrap_or(0);
    if text.len().checked_mul(times)? > TEXT_BYTES_MAX {
        return None;
    }
    // An empty text is done however often it is wanted.
    (0..times).take_while(|_| !text.is_empty()).for_each(|_| out.push_str(text));
    Some(())
}

fn pad(out: &mut String, text: &str, width: i64, fill: &str, left: bool) -> Option<()> {
    let width = usize::try_from(width).unwrap_or(0);
    // A character has at least one byte, so a wider result is too long in any case.
    if width > TEXT_BYTES_MAX {
        return None;
    }
    let length = text.chars().count();
    if length >= width {
        text.chars().take(width).for_each(|c| out.push(c));
        return (out.len() <= TEXT_BYTES_MAX).then_some(());
    }
    let mut filler = String::new();
    for c in fill.chars().cycle().take(width - length) {
        filler.push(c);
    }
    let (first, second) = if left { (filler.as_str(), text) } else { (text, filler.as_str()) };
    push(out, first).and_then(|()| push(out, second))
}
