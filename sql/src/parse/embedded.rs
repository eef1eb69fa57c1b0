//! SQL inside our statements: handed to sqlparser with the places of the whole text, its errors brought back to ours.

use datafusion::sql::sqlparser::ast::{Expr, Query};
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan};

use super::cursor::{Cursor, END, Parsed, describe, is_word};
use super::dialect::Dialect;
use crate::codes::{E0102, E0103, E0105, E0301, E0503};
use crate::diagnostic::Diagnostic;
use crate::span::{Position, Span};

/// How deep sqlparser may recurse: a subquery takes three levels, a pair of parentheses one, and `limits` bounds those first.
const RECURSION_MAX: usize = 256;

/// Reads a query up to the token of index `end`, and checks that nothing in it would be dropped.
pub(super) fn query(cursor: &mut Cursor<'_>, end: usize) -> Parsed<(Box<Query>, Span)> {
    let (query, span) = read(cursor, end, "a query", |parser| parser.parse_query())?;
    for diagnostic in super::check::check_query(&query) {
        cursor.report(diagnostic);
    }
    Ok((query, span))
}

/// Reads an expression up to the token of index `end`.
pub(super) fn expression(cursor: &mut Cursor<'_>, end: usize) -> Parsed<(Box<Expr>, Span)> {
    let (expr, span) = read(cursor, end, "an expression", |parser| parser.parse_expr().map(Box::new))?;
    for diagnostic in super::check::check_expression(&expr) {
        cursor.report(diagnostic);
    }
    Ok((expr, span))
}

/// Reads a query in parentheses.
pub(super) fn parenthesised_query(cursor: &mut Cursor<'_>) -> Parsed<(Box<Query>, Span)> {
    let behind = cursor.closing()?;
    cursor.expect_token(&Token::LParen)?;
    let query = query(cursor, behind.saturating_sub(1))?;
    cursor.seek(behind);
    Ok(query)
}

fn read<T>(
    cursor: &mut Cursor<'_>,
    end: usize,
    what: &str,
    parse: impl FnOnce(&mut Parser<'_>) -> Result<T, ParserError>,
) -> Parsed<(T, Span)> {
    let start = cursor.index();
    let tokens = cursor.tokens().get(start..end).unwrap_or(&[]);
    if tokens.is_empty() {
        return Err(cursor.unexpected(what));
    }
    let embedded = Embedded { tokens, behind: cursor.tokens().get(end).map(|token| &token.token) };
    embedded.refuse_locks()?;
    let node = embedded.parse(parse).map_err(|error| embedded.explain(error))?;
    cursor.seek(end);
    Ok((node, cursor.span_from(start)))
}

/// Tokens for sqlparser.
#[derive(Clone, Copy)]
struct Embedded<'a> {
    tokens: &'a [TokenWithSpan],
    /// What stands behind them in the statement.
    behind: Option<&'a Token>,
}

impl<'a> Embedded<'a> {
    fn parse<T>(self, parse: impl FnOnce(&mut Parser<'_>) -> Result<T, ParserError>) -> Parsed<T> {
        let mut owned = self.tokens.to_vec();
        owned.push(TokenWithSpan::new(Token::EOF, self.end().into()));
        let dialect = Dialect::for_tokens(owned.len());
        let mut parser = Parser::new(&dialect).with_recursion_limit(RECURSION_MAX).with_tokens_with_locations(owned);
        let node = parse(&mut parser).map_err(|error| {
            let here = parser.get_current_token().span.into();
            match error {
                ParserError::RecursionLimitExceeded => too_deep(here, dialect.is_spent()),
                ParserError::ParserError(text) | ParserError::TokenizerError(text) => self.convert(&text, here),
            }
        })?;
        let next = parser.peek_token_ref();
        if next.token == Token::EOF {
            return Ok(node);
        }
        let expected = if self.behind.is_some() { "the end of the query" } else { END };
        Err(Diagnostic::error(E0102, next.span, format!("expected {expected}, found {}", describe(&next.token))))
    }

    /// The empty span behind the last token.
    fn end(self) -> Span {
        self.tokens.last().map_or(Span::NONE, |last| Span::from(last.span).after())
    }

    fn sees(self, at: usize, word: &str) -> bool {
        self.tokens.get(at).is_some_and(|token| is_word(&token.token, word))
    }

    /// A lock keeps no place of its own in sqlparser's node.
    fn refuse_locks(self) -> Parsed<()> {
        let kinds = ["UPDATE", "SHARE", "XML", "JSON", "BROWSE"];
        for (at, pair) in self.tokens.windows(2).enumerate() {
            let [first, second] = pair else { continue };
            if self.sees(at, "FOR") && kinds.iter().any(|kind| self.sees(at + 1, kind)) && !self.is_in_call(at) {
                let span = Span::from(first.span).to(second.span.into());
                return Err(Diagnostic::error(E0105, span, format!("FOR {} is not supported", second.token.to_string().to_uppercase())));
            }
        }
        Ok(())
    }

    /// Whether `FOR` at this index is that of `SUBSTRING(a FROM b FOR c)` or `OVERLAY(...)`.
    fn is_in_call(self, at: usize) -> bool {
        let mut depth = 0_usize;
        for before in (0..at).rev() {
            match self.tokens.get(before).map(|token| &token.token) {
                Some(Token::RParen) => depth += 1,
                Some(Token::LParen) if depth == 0 => {
                    let call = before.checked_sub(1);
                    return call.is_some_and(|call| ["SUBSTRING", "SUBSTR", "OVERLAY"].iter().any(|name| self.sees(call, name)));
                }
                Some(Token::LParen) => depth -= 1,
                _ => {}
            }
        }
        false
    }

    /// Brings an error of sqlparser, which is text with the place at its end, to ours.
    fn convert(self, text: &str, here: Span) -> Diagnostic {
        let (message, place) = split_place(text);
        let start = place.map(Position::from);
        let token = self.tokens.iter().find(|token| Some(Position::from(token.span.start)) == start);
        let span = match (token, start) {
            (Some(token), _) => token.span.into(),
            (None, Some(start)) => Span::new(start, start),
            (None, None) => here,
        };
        let span = if span.is_none() { self.end() } else { span };
        let found = match (token, self.behind) {
            (Some(token), _) => describe(&token.token),
            (None, Some(behind)) => describe(behind),
            (None, None) => END.to_owned(),
        };
        let error = Diagnostic::error(E0102, span, reword(message, &found));
        if message.contains("MATCH_CONDITION") { error.help(ASOF_JOIN) } else { error }
    }

    /// Finds the place that is to blame, and what was meant there.
    ///
    /// sqlparser tries a parenthesis first as a subquery, then as a join or a list, and reports the last: so the subqueries are
    /// parsed on their own, and the innermost that is wrong says why.
    fn explain(self, error: Diagnostic) -> Diagnostic {
        if let Some(span) = self.misplaced_for_entity() {
            return Diagnostic::error(E0503, span, "FOR ENTITY stands only at the end of a statement of its own").help(
                "Join the view in place of it: FROM spine ASOF JOIN view MATCH_CONDITION (spine.ts >= view.ts) ON spine.key = view.key.",
            );
        }
        let (mut inner, mut error) = (self, error);
        while let Some((subquery, its_error)) = inner.wrong_subquery() {
            (inner, error) = (subquery, its_error);
        }
        if error.help.is_some() {
            return error;
        }
        let at = inner.tokens.iter().position(|token| Span::from(token.span) == error.span).unwrap_or(inner.tokens.len());
        let near = |word: &str| inner.sees(at, word) || at.checked_sub(1).is_some_and(|before| inner.sees(before, word));
        let count = |word: &str| (0..inner.tokens.len()).filter(|at| inner.sees(*at, word)).count();
        if near("ASOF") || inner.sees(at + 1, "ASOF") {
            return error.help(ASOF_JOIN);
        }
        if near("OF") || near("BEFORE") || near("SYSTEM_TIME") {
            return error.help("AS OF and BEFORE stand behind FOR ENTITY; a table has no versions.");
        }
        if inner.sees(at, "EXCLUDE") && inner.in_frame(at) {
            return Diagnostic::error(E0301, error.span, "EXCLUDE in a frame is not supported").help(
                "Leave it out; a frame that ends before the event is asked BEFORE it: FOR ENTITY ... BEFORE, or > in MATCH_CONDITION.",
            );
        }
        if count("CASE") > count("END") {
            return error.help("A CASE ends with END.");
        }
        error
    }

    /// The first subquery in parentheses that cannot be parsed.
    fn wrong_subquery(self) -> Option<(Embedded<'a>, Diagnostic)> {
        let mut at = 0;
        while let Some(token) = self.tokens.get(at) {
            at += 1;
            let opens = token.token == Token::LParen && ["SELECT", "WITH", "VALUES"].iter().any(|word| self.sees(at, word));
            let Some(close) = opens.then(|| self.closing(at)).flatten() else { continue };
            let subquery = Embedded { tokens: self.tokens.get(at..close)?, behind: self.tokens.get(close).map(|token| &token.token) };
            match subquery.parse(|parser| parser.parse_query()) {
                Ok(_) => at = close,
                Err(error) => return Some((subquery, error)),
            }
        }
        None
    }

    /// The index of the parenthesis that closes the one before `from`.
    fn closing(self, from: usize) -> Option<usize> {
        let mut depth = 0_usize;
        for (ahead, token) in self.tokens.get(from..)?.iter().enumerate() {
            match token.token {
                Token::LParen => depth += 1,
                Token::RParen if depth == 0 => return Some(from + ahead),
                Token::RParen => depth -= 1,
                _ => {}
            }
        }
        None
    }

    /// Whether the tokens before this index are those of a frame.
    fn in_frame(self, at: usize) -> bool {
        ["PRECEDING", "FOLLOWING", "ROW"].iter().any(|word| at.checked_sub(1).is_some_and(|before| self.sees(before, word)))
    }

    fn misplaced_for_entity(self) -> Option<Span> {
        let at = (0..self.tokens.len()).find(|at| {
            let ends = matches!(self.tokens.get(at + 2).map(|token| &token.token), Some(Token::RParen));
            self.sees(*at, "FOR") && self.sees(at + 1, "ENTITY") && !ends
        })?;
        let span = |at: usize| self.tokens.get(at).map(|token| Span::from(token.span));
        Some(span(at)?.to(span(at + 1)?))
    }
}

const ASOF_JOIN: &str = "An AS OF join is written: left ASOF JOIN right MATCH_CONDITION (left.ts >= right.ts) ON left.key = right.key.";

fn too_deep(span: Span, spent: bool) -> Diagnostic {
    let message = if spent { "the text has too many readings to be parsed" } else { "statement nests too deep" };
    Diagnostic::error(E0103, span, message).help("Name inner parts in a WITH clause, or leave out parentheses.")
}

/// Writes a message of sqlparser the way ours are written.
fn reword(message: &str, found: &str) -> String {
    let wanted = message.strip_prefix("Expected: ").or_else(|| message.strip_prefix("Expected "));
    if let Some((expected, _)) = wanted.and_then(|rest| rest.rsplit_once(", found: ")) {
        // Of what may stand behind FOR, one is ours and the rest is refused.
        let expected = expected.trim().replace("one of UPDATE or SHARE", "ENTITY");
        let symbol = !expected.is_empty() && !expected.contains(|c: char| c.is_alphanumeric() || c.is_whitespace());
        return if symbol { format!("expected \"{expected}\", found {found}") } else { format!("expected {expected}, found {found}") };
    }
    let message = message.trim().trim_end_matches('.');
    let mut chars = message.chars();
    match (chars.next(), chars.next()) {
        (Some(first), Some(second)) if !second.is_uppercase() => first.to_lowercase().chain([second]).chain(chars).collect(),
        (Some(_), _) => message.to_owned(),
        (None, _) => "syntax error".to_owned(),
    }
}

/// Takes ` at Line: 1, Column: 2` off the end of an error.
fn split_place(text: &str) -> (&str, Option<Location>) {
    let parse = || {
        let (message, place) = text.rsplit_once(" at Line: ")?;
        let (line, column) = place.split_once(", Column: ")?;
        Some((message, Location::new(line.parse().ok()?, column.parse().ok()?)))
    };
    match parse() {
        Some((message, place)) => (message, Some(place)),
        None => (text, None),
    }
}
