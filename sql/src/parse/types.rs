//! Column types: the names that a column can be declared with.

use datafusion::sql::sqlparser::tokenizer::Token;

use super::cursor::{Cursor, Parsed};
use crate::ast::SqlType;
use crate::codes::E0401;
use crate::diagnostic::{Diagnostic, nearest};
use crate::span::Span;

/// Every name of a type, with the type; DECIMAL takes its digits apart.
const NAMES: &[(&str, SqlType)] = &[
    ("boolean", SqlType::Boolean),
    ("bool", SqlType::Boolean),
    ("tinyint", SqlType::TinyInt),
    ("smallint", SqlType::SmallInt),
    ("int2", SqlType::SmallInt),
    ("int", SqlType::Int),
    ("integer", SqlType::Int),
    ("int4", SqlType::Int),
    ("bigint", SqlType::BigInt),
    ("int8", SqlType::BigInt),
    ("real", SqlType::Real),
    ("float4", SqlType::Real),
    ("double", SqlType::Double),
    ("float", SqlType::Double),
    ("float8", SqlType::Double),
    ("decimal", DECIMAL_DEFAULT),
    ("numeric", DECIMAL_DEFAULT),
    ("varchar", SqlType::Varchar),
    ("text", SqlType::Varchar),
    ("string", SqlType::Varchar),
    ("varbinary", SqlType::Varbinary),
    ("bytea", SqlType::Varbinary),
    ("date", SqlType::Date),
    ("timestamp", SqlType::Timestamp),
];

/// `DECIMAL` without digits, as DataFusion reads it.
const DECIMAL_DEFAULT: SqlType = SqlType::Decimal { precision: 38, scale: 10 };
const DECIMAL_DIGITS_MAX: u8 = 38;

/// Reads a column type.
pub(super) fn sql_type(cursor: &mut Cursor<'_>) -> Parsed<(SqlType, Span)> {
    let start = cursor.index();
    let Some(Token::Word(word)) = cursor.peek().filter(|token| matches!(token, Token::Word(word) if word.quote_style.is_none())) else {
        return Err(cursor.unexpected("a type"));
    };
    let name = word.value.to_ascii_lowercase();
    let Some((_, known)) = NAMES.iter().find(|(known, _)| *known == name) else {
        let error = Diagnostic::error(E0401, cursor.span(), format!("unknown type \"{}\"", word.value));
        return Err(match nearest(&name, NAMES.iter().map(|(known, _)| *known)) {
            Some(near) => error.help(format!("The nearest type is {}.", near.to_uppercase())),
            None => error.help(
                "The types are BOOLEAN, TINYINT, SMALLINT, INT, BIGINT, REAL, DOUBLE, DECIMAL(p, s), VARCHAR, VARBINARY, DATE and TIMESTAMP.",
            ),
        });
    };
    cursor.advance();
    if name == "double" {
        cursor.eat("PRECISION");
    }
    let data_type = match known {
        SqlType::Decimal { .. } => decimal(cursor)?,
        SqlType::Timestamp => return timestamp(cursor, start),
        other => *other,
    };
    if cursor.peek() == Some(&Token::LParen) {
        let behind = cursor.closing()?;
        cursor.seek(behind);
        let error = Diagnostic::error(E0401, cursor.span_from(start), format!("{data_type} takes no length"));
        return Err(error.help(format!("Write {data_type}; a length would not be enforced.")));
    }
    if cursor.peek() == Some(&Token::LBracket) {
        while cursor.eat_token(&Token::LBracket) || cursor.eat_token(&Token::RBracket) {}
        return Err(Diagnostic::error(E0401, cursor.span_from(start), "columns cannot be arrays"));
    }
    Ok((data_type, cursor.span_from(start)))
}

/// The digits behind `DECIMAL`.
fn decimal(cursor: &mut Cursor<'_>) -> Parsed<SqlType> {
    if cursor.peek() != Some(&Token::LParen) {
        return Ok(DECIMAL_DEFAULT);
    }
    let start = cursor.index();
    let digits = cursor.parenthesised(|cursor| match cursor.peek() {
        Some(Token::Number(text, _)) => {
            let digits = text.parse::<u8>().map_err(|_| cursor.unexpected("a number of digits"));
            cursor.advance();
            digits
        }
        _ => Err(cursor.unexpected("a number of digits")),
    })?;
    let (precision, scale) = match digits.as_slice() {
        [precision] => (*precision, 0),
        [precision, scale] => (*precision, *scale),
        _ => {
            return Err(Diagnostic::error(E0401, cursor.span_from(start), "DECIMAL takes a precision and a scale"));
        }
    };
    let scale_fits = i8::try_from(scale).ok().filter(|_| scale <= precision);
    match scale_fits {
        Some(scale) if (1..=DECIMAL_DIGITS_MAX).contains(&precision) => Ok(SqlType::Decimal { precision, scale }),
        _ => {
            let error = Diagnostic::error(E0401, cursor.span_from(start), format!("DECIMAL({precision}, {scale}) is not a type"));
            Err(error.help(format!("The precision is 1 to {DECIMAL_DIGITS_MAX}, the scale 0 to the precision.")))
        }
    }
}

/// What may stand behind `TIMESTAMP`: the precision that it has, and a zone that says UTC or none.
fn timestamp(cursor: &mut Cursor<'_>, start: usize) -> Parsed<(SqlType, Span)> {
    if cursor.peek() == Some(&Token::LParen) {
        let microseconds = matches!(cursor.peek_at(1), Some(Token::Number(text, _)) if text == "6");
        let behind = cursor.closing()?;
        cursor.seek(behind);
        if !microseconds {
            let error = Diagnostic::error(E0401, cursor.span_from(start), "TIMESTAMP has microseconds");
            return Err(error.help("Write TIMESTAMP or TIMESTAMP(6)."));
        }
    }
    if cursor.sees(&["WITH", "TIME"]) || cursor.sees(&["WITHOUT", "TIME"]) {
        cursor.seek(cursor.index() + 1);
        cursor.expect_words(&["TIME", "ZONE"])?;
        let error = Diagnostic::error(E0401, cursor.span_from(start), "TIMESTAMP takes no zone");
        return Err(error.help("Write TIMESTAMP: it is an instant in UTC, and input without a zone is read as UTC."));
    }
    Ok((SqlType::Timestamp, cursor.span_from(start)))
}
