//! `SELECT items FROM views FOR ENTITY keys [AS OF instant | BEFORE instant]`.
//!
//! The part before `FOR ENTITY` is an ordinary query to sqlparser; what may stand in it is checked here, since serving looks up
//! values and runs no plan over them.

use datafusion::sql::sqlparser::ast::{GroupByExpr, Query, Select, SetExpr, Spanned, TableFactor, TableWithJoins};
use datafusion::sql::sqlparser::tokenizer::Token;

use super::cursor::{Cursor, Parsed, is_word};
use super::embedded;
use crate::ast::{EntityKeys, ForEntity, Instant, KeyLiteral, KeyRow, KeyValue, StatementKind};
use crate::codes::{E0202, E0403, E0501, E0503, E0504};
use crate::diagnostic::Diagnostic;
use crate::span::Span;

/// The index of `FOR ENTITY` outside all parentheses, at or behind the cursor.
pub(super) fn find(cursor: &Cursor<'_>) -> Option<usize> {
    let mut depth = 0_usize;
    let tokens = cursor.tokens();
    (cursor.index()..tokens.len()).find(|at| {
        let word = |at: usize, word| tokens.get(at).is_some_and(|token| is_word(&token.token, word));
        match tokens.get(*at).map(|token| &token.token) {
            Some(Token::LParen) => depth += 1,
            Some(Token::RParen) => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth == 0 && word(*at, "FOR") && word(at + 1, "ENTITY")
    })
}

/// Reads a query that has `FOR ENTITY` at the token of index `at`.
pub(super) fn for_entity(cursor: &mut Cursor<'_>, at: usize) -> Parsed<StatementKind> {
    let (query, _) = embedded::query(cursor, at)?;
    for diagnostic in check_serving(&query) {
        cursor.report(diagnostic);
    }
    cursor.expect_words(&["FOR", "ENTITY"])?;
    let keys = keys(cursor)?;
    let at_instant = instant(cursor)?;
    if !cursor.is_at_end() {
        let error = Diagnostic::error(E0503, cursor.span(), format!("expected the end of FOR ENTITY, found {}", cursor.describe_next()));
        return Err(error.help("Behind the keys stand only AS OF or BEFORE; the answer has one row for each entity, in the order asked."));
    }
    let span = cursor.span_of(at).to(cursor.last_span());
    Ok(StatementKind::ForEntity(ForEntity { query, keys, at: at_instant, span }))
}

/// `AS OF instant`, `BEFORE instant` or nothing.
fn instant(cursor: &mut Cursor<'_>) -> Parsed<Instant> {
    let as_of = cursor.eats(&["AS", "OF"]);
    if !as_of && !cursor.eat("BEFORE") {
        return Ok(Instant::Now);
    }
    // A clause that does not belong here ends the instant, so that it is named for what it is.
    let clauses = ["ORDER", "LIMIT", "WHERE", "GROUP", "HAVING", "OFFSET", "UNION", "FOR", "BEFORE", "WINDOW", "QUALIFY"];
    let end = (cursor.index()..cursor.tokens().len())
        .find(|at| cursor.tokens().get(*at).is_some_and(|token| clauses.iter().any(|word| is_word(&token.token, word))))
        .unwrap_or(cursor.tokens().len());
    if matches!(cursor.peek(), Some(Token::SingleQuotedString(_))) {
        return Err(Diagnostic::error(E0504, cursor.span(), "an instant is a timestamp, found a string")
            .help(format!("Write TIMESTAMP {}.", cursor.text(cursor.span()))));
    }
    let (expr, span) =
        embedded::expression(cursor, end).map_err(|error| error.help("An instant is written TIMESTAMP '2026-03-01 12:00:00'."))?;
    Ok(if as_of { Instant::AsOf { expr, span } } else { Instant::Before { expr, span } })
}

/// The keys in any of their forms.
fn keys(cursor: &mut Cursor<'_>) -> Parsed<EntityKeys> {
    let start = cursor.index();
    let (columns, rows) = if cursor.peek() != Some(&Token::LParen) {
        if starts_value(cursor) { (None, vec![bare_row(cursor)?]) } else { named(cursor)? }
    } else if cursor.tokens().get(cursor.closing()?).is_some_and(|token| is_word(&token.token, "IN")) {
        let columns = cursor.names("a key column")?;
        cursor.expect_words(&["IN"])?;
        let width = columns.names.len();
        (Some(columns.names), rows(cursor, width)?)
    } else if !matches!(cursor.peek_at(2), Some(Token::Eq)) {
        (None, vec![tuple(cursor)?])
    } else {
        let row_start = cursor.index();
        let pairs = cursor.parenthesised(|cursor| {
            let column = cursor.name("a key column")?;
            cursor.expect_token(&Token::Eq)?;
            let value = value(cursor)?;
            if cursor.sees(&["AND"]) {
                return Err(cursor.unexpected("\",\"").help("Keys stand with commas between: FOR ENTITY (a = 'x', b = 'y')."));
            }
            Ok((column, value))
        })?;
        let (columns, values) = pairs.into_iter().unzip();
        (Some(columns), vec![KeyRow { values, span: cursor.span_from(row_start) }])
    };
    if let Some(columns) = &columns {
        for (at, column) in columns.iter().enumerate() {
            if let Some(first) = columns.iter().take(at).find(|first| first.value == column.value) {
                let error = Diagnostic::error(E0202, column.span, format!("key column \"{column}\" is given twice"));
                cursor.report(error.note(first.span, "It is given first here."));
            }
        }
    }
    Ok(EntityKeys { columns, rows, span: cursor.span_from(start) })
}

/// `column = value` or `column IN (value, ...)`.
fn named(cursor: &mut Cursor<'_>) -> Parsed<(Option<Vec<crate::ast::Name>>, Vec<KeyRow>)> {
    let is_quoted = cursor.word().is_none();
    let column = cursor.name("an entity key").map_err(|error| error.help("Write FOR ENTITY 'key', or FOR ENTITY column = 'key'."))?;
    if cursor.eat("IN") {
        let rows = rows(cursor, 1)?;
        return Ok((Some(vec![column]), rows));
    }
    if !cursor.eat_token(&Token::Eq) {
        let help = match cursor.peek() {
            Some(Token::LParen) => "A key is a literal or a parameter.".to_owned(),
            _ if is_quoted => format!("A string stands in single quotes: '{column}'."),
            _ => format!("Write FOR ENTITY {column} = 'key'."),
        };
        return Err(cursor.unexpected("\"=\" or IN").help(help));
    }
    let row = bare_row(cursor)?;
    if cursor.sees(&["AND"]) || cursor.peek() == Some(&Token::Comma) {
        return Err(cursor
            .unexpected("the end of the key")
            .help("Several key columns stand in parentheses: FOR ENTITY (a = 'x', b = 'y')."));
    }
    Ok((Some(vec![column]), vec![row]))
}

/// `(row, row, ...)`: a row of one column is a bare value or `(value)`.
fn rows(cursor: &mut Cursor<'_>, width: usize) -> Parsed<Vec<KeyRow>> {
    if cursor.peek() == Some(&Token::LParen)
        && matches!(cursor.peek_at(1), Some(Token::Word(word)) if word.value.eq_ignore_ascii_case("SELECT"))
    {
        return Err(cursor.unexpected("a list of keys").help("Keys are literals or parameters; for keys of a table use ASOF JOIN."));
    }
    cursor.parenthesised(|cursor| {
        let row = if cursor.peek() == Some(&Token::LParen) { tuple(cursor)? } else { bare_row(cursor)? };
        if row.values.len() != width {
            let message = format!("expected {width} key {}, found {}", if width == 1 { "value" } else { "values" }, row.values.len());
            return Err(Diagnostic::error(E0501, row.span, message));
        }
        Ok(row)
    })
}

fn tuple(cursor: &mut Cursor<'_>) -> Parsed<KeyRow> {
    let start = cursor.index();
    let values = cursor.parenthesised(value)?;
    Ok(KeyRow { values, span: cursor.span_from(start) })
}

fn bare_row(cursor: &mut Cursor<'_>) -> Parsed<KeyRow> {
    let value = value(cursor)?;
    let span = value.span;
    Ok(KeyRow { values: vec![value], span })
}

/// Whether the next token begins a value and not the name of a column.
fn starts_value(cursor: &Cursor<'_>) -> bool {
    match cursor.peek() {
        Some(Token::Word(word)) if word.quote_style.is_none() => {
            let typed = ["DATE", "TIMESTAMP"].iter().any(|name| word.value.eq_ignore_ascii_case(name));
            let literal = ["TRUE", "FALSE", "NULL"].iter().any(|name| word.value.eq_ignore_ascii_case(name));
            literal || typed && matches!(cursor.peek_at(1), Some(Token::SingleQuotedString(_)))
        }
        Some(Token::Word(_)) => false,
        _ => true,
    }
}

/// One key value: a literal or a parameter.
fn value(cursor: &mut Cursor<'_>) -> Parsed<KeyValue> {
    const EXPECTED: &str = "a key value (a literal or a parameter)";
    let start = cursor.index();
    let sign = match cursor.peek() {
        Some(Token::Minus) => "-",
        Some(Token::Plus) => "+",
        _ => "",
    };
    if !sign.is_empty() {
        cursor.advance();
    }
    let literal = match cursor.peek() {
        Some(Token::Number(text, _)) => KeyLiteral::Number(if sign == "-" { format!("-{text}") } else { text.clone() }),
        Some(Token::SingleQuotedString(text)) if sign.is_empty() => KeyLiteral::String(text.clone()),
        Some(Token::Placeholder(text)) if sign.is_empty() => {
            KeyLiteral::Parameter(super::parameters::number(text).ok_or_else(|| cursor.unexpected(EXPECTED))?)
        }
        Some(Token::Word(word)) if sign.is_empty() && starts_value(cursor) => match word.value.to_ascii_uppercase().as_str() {
            "TRUE" => KeyLiteral::Boolean(true),
            "FALSE" => KeyLiteral::Boolean(false),
            "NULL" => KeyLiteral::Null,
            kind => {
                cursor.advance();
                let (text, _) = cursor.string("a date or a timestamp in quotes")?;
                let literal = if kind == "DATE" { KeyLiteral::Date(text) } else { KeyLiteral::Timestamp(text) };
                return Ok(KeyValue { literal, span: cursor.span_from(start) });
            }
        },
        Some(Token::Word(word)) if word.quote_style == Some('"') => {
            return Err(cursor.unexpected(EXPECTED).help(format!("A string stands in single quotes: '{}'.", word.value)));
        }
        Some(
            Token::HexStringLiteral(_) | Token::EscapedStringLiteral(_) | Token::NationalStringLiteral(_) | Token::UnicodeStringLiteral(_),
        ) => {
            return Err(Diagnostic::error(E0403, cursor.span(), format!("a key cannot be written as {}", cursor.describe_next())));
        }
        _ => return Err(cursor.unexpected(EXPECTED)),
    };
    cursor.advance();
    Ok(KeyValue { literal, span: cursor.span_from(start) })
}

/// Refuses what does not stand beside FOR ENTITY: it would be accepted and ignored.
fn check_serving(query: &Query) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let mut refuse = |clause: &str, span: Span, help: &str| {
        let error = Diagnostic::error(E0503, span, format!("{clause} does not stand beside FOR ENTITY"));
        found.push(error.help(help));
    };
    const ONE_ROW: &str = "The answer has one row for each entity, in the order asked.";
    const PLAIN: &str = "Serving reads views by name: SELECT features FROM view, other_view FOR ENTITY ....";
    let Query { with, body, order_by, limit_clause, .. } = query;
    if let Some(with) = with {
        refuse("WITH", with.with_token.0.span.into(), PLAIN);
    }
    if let Some(order_by) = order_by {
        refuse("ORDER BY", order_by.span().into(), ONE_ROW);
    }
    if let Some(limit) = limit_clause {
        refuse("LIMIT", limit.span().into(), ONE_ROW);
    }
    let SetExpr::Select(select) = body.as_ref() else {
        refuse("a query other than SELECT", body.span().into(), PLAIN);
        return found;
    };
    let Select { select_token, distinct, from, selection, group_by, having, named_window, qualify, .. } = select.as_ref();
    let select_span: Span = select_token.0.span.into();
    if distinct.is_some() {
        refuse("DISTINCT", select_span, ONE_ROW);
    }
    if let Some(selection) = selection {
        refuse("WHERE", selection.span().into(), "A condition on the events belongs into the view; one on the answer to the reader.");
    }
    let grouped = match group_by {
        GroupByExpr::All(_) => true,
        GroupByExpr::Expressions(exprs, _) => !exprs.is_empty(),
    };
    if grouped {
        refuse("GROUP BY", group_by.span().into(), ONE_ROW);
    }
    if let Some(having) = having {
        refuse("HAVING", having.span().into(), ONE_ROW);
    }
    if let Some(qualify) = qualify {
        refuse("QUALIFY", qualify.span().into(), ONE_ROW);
    }
    if !named_window.is_empty() {
        refuse("WINDOW", select_span, "Windows belong into the view.");
    }
    if from.is_empty() {
        refuse("a query without FROM", select_span, PLAIN);
    }
    for TableWithJoins { relation, joins } in from {
        if let Some(join) = joins.first() {
            refuse("a join", join.relation.span().into(), "Several views stand with commas between: FROM view, other_view.");
        }
        match relation {
            TableFactor::Table { name: _, alias, args: None, .. } => {
                if let Some(column) = alias.as_ref().and_then(|alias| alias.columns.first()) {
                    refuse("a list of columns in an alias", column.name.span.into(), "Name columns in the select list.");
                }
            }
            other => refuse("a FROM item that is no view", other.span().into(), PLAIN),
        }
    }
    found
}
