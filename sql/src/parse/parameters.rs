//! Parameters: `$1` names one by its number, `?` takes the next number. A statement uses one way or the other.
//!
//! Every `?` is written as `$n` into the tokens, so that all that follows knows one form.

use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use crate::codes::E0108;
use crate::diagnostic::Diagnostic;
use crate::span::Span;

/// The greatest number of a parameter.
const NUMBER_MAX: usize = 1000;

/// The parameters of one statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Parameters {
    /// The greatest number.
    pub(super) count: usize,
    /// Where the first one stands.
    pub(super) first: Option<Span>,
}

/// The number of `$n`.
pub(super) fn number(placeholder: &str) -> Option<usize> {
    let digits = placeholder.strip_prefix('$')?;
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|number| plain && (1..=NUMBER_MAX).contains(number))
}

/// Numbers the parameters in place.
pub(super) fn resolve(tokens: &mut [TokenWithSpan]) -> Result<Parameters, Diagnostic> {
    let mut parameters = Parameters::default();
    let (mut positional, mut numbered) = (None, None);
    for token in tokens.iter_mut() {
        let Token::Placeholder(text) = &mut token.token else { continue };
        let span = Span::from(token.span);
        if text == "?" {
            positional.get_or_insert(span);
            *text = format!("${}", parameters.count + 1);
        } else {
            numbered.get_or_insert(span);
        }
        if let (Some(_), Some(_)) = (positional, numbered) {
            let error = Diagnostic::error(E0108, span, "parameters are written both as ? and as $n");
            return Err(error.note(parameters.first.unwrap_or(span), "The first one is written here.").help("Use one of the two."));
        }
        let number = number(text).ok_or_else(|| {
            Diagnostic::error(E0108, span, format!("\"{text}\" is not a parameter"))
                .help(format!("Parameters are $1 to ${NUMBER_MAX}, or ? for the next one."))
        })?;
        parameters.count = parameters.count.max(number);
        parameters.first.get_or_insert(span);
    }
    Ok(parameters)
}
