//! `CREATE STREAM name (columns, PRIMARY KEY (...), WATERMARK FOR ts AS ts - INTERVAL '...') WITH (...)`.

use std::collections::HashMap;

use datafusion::sql::sqlparser::tokenizer::Token;

use super::cursor::{Cursor, Parsed};
use super::interval::interval;
use super::options::with_options;
use super::types::sql_type;
use crate::ast::{ColumnDef, CreateStream, Name, Names, StatementKind, Watermark};
use crate::codes::{E0105, E0106, E0107, E0202, E0701, E0702};
use crate::diagnostic::Diagnostic;
use crate::span::Span;

/// Reads what stands behind `CREATE STREAM`.
pub(super) fn create_stream(cursor: &mut Cursor<'_>) -> Parsed<StatementKind> {
    let if_not_exists = cursor.if_not_exists()?;
    let name = cursor.object_name("a stream name")?;
    let mut elements = Elements::default();
    let start = cursor.index();
    cursor.expect_token(&Token::LParen)?;
    loop {
        if let Err(error) = elements.read(cursor) {
            elements.failed = true;
            cursor.report(error);
            skip_element(cursor);
        }
        if !cursor.eat_token(&Token::Comma) {
            break;
        }
    }
    if !cursor.eat_token(&Token::RParen) {
        return Err(cursor.unexpected("\",\" or \")\""));
    }
    let list = cursor.span_from(start);
    let options = with_options(cursor)?;
    cursor.expect_end()?;
    elements.finish(cursor, if_not_exists, name, options, list)
}

/// Reads `name type [NOT NULL]`, and `PRIMARY KEY` behind it where a key is allowed.
pub(super) fn column(cursor: &mut Cursor<'_>) -> Parsed<(ColumnDef, Option<Span>)> {
    let start = cursor.index();
    let name = cursor.name("a column name")?;
    let (data_type, type_span) = sql_type(cursor)?;
    let (mut not_null, mut nullable, mut key) = (None, None, None);
    loop {
        let at = cursor.index();
        if cursor.eats(&["NOT", "NULL"]) {
            not_null = Some(cursor.span_from(at));
        } else if cursor.eat("NULL") {
            nullable = Some(cursor.span_from(at));
        } else if cursor.eats(&["PRIMARY", "KEY"]) {
            key = Some(cursor.span_from(at));
        } else if ["DEFAULT", "UNIQUE", "CHECK", "REFERENCES", "CONSTRAINT", "GENERATED", "COLLATE", "COMMENT"]
            .iter()
            .any(|word| cursor.sees(&[word]))
        {
            let clause = cursor.clause();
            return Err(Diagnostic::error(E0105, cursor.span(), format!("{clause} is not supported behind a column"))
                .help("A column has a name, a type and at most NOT NULL."));
        } else {
            break;
        }
    }
    if let (Some(_), Some(span)) = (not_null, nullable) {
        return Err(Diagnostic::error(E0106, span, "column is both NULL and NOT NULL"));
    }
    let span = cursor.span_from(start);
    Ok((ColumnDef { name, data_type, type_span, not_null: not_null.is_some(), span }, key))
}

/// Reports names that come twice.
pub(super) fn check_unique<'a>(cursor: &mut Cursor<'_>, kind: &str, names: impl IntoIterator<Item = &'a Name>) {
    let mut seen: HashMap<&str, Span> = HashMap::new();
    for name in names {
        if let Some(first) = seen.insert(&name.value, name.span) {
            let error = Diagnostic::error(E0202, name.span, format!("{kind} \"{name}\" is given twice"));
            cursor.report(error.note(first, "It is given first here."));
        }
    }
}

#[derive(Default)]
struct Elements {
    columns: Vec<ColumnDef>,
    keys: Vec<Names>,
    watermarks: Vec<Watermark>,
    /// Whether an element could not be read: what is missing may be in it.
    failed: bool,
}

impl Elements {
    fn read(&mut self, cursor: &mut Cursor<'_>) -> Parsed<()> {
        let start = cursor.index();
        if cursor.eats(&["PRIMARY", "KEY"]) {
            let names = cursor.names("a column name")?.names;
            self.keys.push(Names { names, span: cursor.span_from(start) });
        } else if cursor.sees(&["WATERMARK", "FOR"]) {
            self.watermarks.push(watermark(cursor)?);
        } else if let Some(clause) =
            ["CONSTRAINT", "UNIQUE", "FOREIGN", "CHECK", "INDEX"].into_iter().find(|word| cursor.sees(&[word]) && !is_column(cursor))
        {
            return Err(Diagnostic::error(E0105, cursor.span(), format!("{clause} is not supported in a stream"))
                .help("A stream has columns, PRIMARY KEY (...) and WATERMARK FOR."));
        } else {
            let (column, key) = column(cursor)?;
            if let Some(span) = key {
                self.keys.push(Names { names: vec![column.name.clone()], span });
            }
            self.columns.push(column);
        }
        if !matches!(cursor.peek(), None | Some(Token::Comma | Token::RParen)) {
            return Err(cursor.unexpected("\",\" or \")\""));
        }
        Ok(())
    }

    fn finish(
        self,
        cursor: &mut Cursor<'_>,
        if_not_exists: bool,
        name: Name,
        options: Vec<crate::ast::OptionEntry>,
        list: Span,
    ) -> Parsed<StatementKind> {
        let Elements { columns, keys, watermarks, failed } = self;
        check_unique(cursor, "column", columns.iter().map(|column| &column.name));
        let mut keys = keys.into_iter();
        let primary_key = keys.next();
        for again in keys {
            let error = Diagnostic::error(E0106, again.span, "stream has more than one PRIMARY KEY");
            let first = primary_key.as_ref().map_or(Span::NONE, |first| first.span);
            cursor.report(error.note(first, "It is given first here.").help("Name all key columns in one PRIMARY KEY (a, b)."));
        }
        if let Some(key) = &primary_key {
            check_unique(cursor, "key column", &key.names);
            unknown_columns(cursor, "PRIMARY KEY", &key.names, &columns, failed, E0702);
        }
        let mut watermarks = watermarks.into_iter();
        let Some(watermark) = watermarks.next() else {
            // An element that could not be read has been reported, and may have been it.
            let reported = if failed { cursor.take_report() } else { None };
            return Err(reported.unwrap_or_else(|| {
                Diagnostic::error(E0107, name.span, format!("stream \"{name}\" declares no WATERMARK"))
                    .note(list, "It would stand among the columns.")
                    .help("Add WATERMARK FOR <column> AS <column> - INTERVAL '30 seconds', with the longest disorder to expect.")
            }));
        };
        for again in watermarks {
            let error = Diagnostic::error(E0106, again.span, "stream has more than one WATERMARK");
            cursor.report(error.note(watermark.span, "It is given first here.").help("A stream has exactly one event time."));
        }
        unknown_columns(cursor, "WATERMARK", std::slice::from_ref(&watermark.column), &columns, failed, E0701);
        Ok(StatementKind::CreateStream(CreateStream { if_not_exists, name, columns, primary_key, watermark, options }))
    }
}

fn unknown_columns(cursor: &mut Cursor<'_>, clause: &str, names: &[Name], columns: &[ColumnDef], failed: bool, code: crate::codes::Code) {
    let known = || columns.iter().map(|column| column.name.value.as_str());
    for name in names {
        if !failed && !known().any(|column| column == name.value) {
            let error = Diagnostic::error(code, name.span, format!("{clause} names no column of the stream: \"{name}\""));
            cursor.report(error.help_nearest(&name.value, known()));
        }
    }
}

/// Whether the next word is a column of that name: a type stands behind it.
fn is_column(cursor: &Cursor<'_>) -> bool {
    matches!(cursor.peek_at(1), Some(Token::Word(_))) && matches!(cursor.peek_at(2), None | Some(Token::Comma | Token::RParen))
}

/// Goes to the comma or parenthesis that ends the element.
fn skip_element(cursor: &mut Cursor<'_>) {
    let mut depth = 0_usize;
    while let Some(token) = cursor.peek() {
        match token {
            Token::LParen => depth += 1,
            Token::RParen if depth == 0 => return,
            Token::RParen => depth -= 1,
            Token::Comma if depth == 0 => return,
            _ => {}
        }
        cursor.advance();
    }
}

/// `WATERMARK FOR ts AS ts [- INTERVAL '...']`.
fn watermark(cursor: &mut Cursor<'_>) -> Parsed<Watermark> {
    const HELP: &str = "Write WATERMARK FOR <column> AS <column> - INTERVAL '30 seconds'.";
    let start = cursor.index();
    cursor.expect_words(&["WATERMARK", "FOR"])?;
    let column = cursor.name("a column name")?;
    cursor.expect_words(&["AS"]).map_err(|error| error.help(HELP))?;
    let from = cursor.name("the column of the watermark").map_err(|error| error.help(HELP))?;
    if from.value != column.value {
        let message = format!("watermark of \"{column}\" is computed from \"{from}\"");
        return Err(Diagnostic::error(E0701, from.span, message).note(column.span, "This is its column.").help(HELP));
    }
    let disorder_us = if cursor.eat_token(&Token::Minus) { disorder(cursor)? } else { 0 };
    if !matches!(cursor.peek(), None | Some(Token::Comma | Token::RParen)) {
        return Err(cursor.unexpected("\",\" or \")\" behind the watermark").help(HELP));
    }
    Ok(Watermark { column, disorder_us, span: cursor.span_from(start) })
}

fn disorder(cursor: &mut Cursor<'_>) -> Parsed<i64> {
    let (value, span) = interval(cursor)?;
    if value.months != 0 {
        return Err(Diagnostic::error(E0701, span, "disorder of a watermark cannot be in months or years")
            .help("A month has no fixed length: write days."));
    }
    if value.micros < 0 {
        return Err(Diagnostic::error(E0701, span, "disorder of a watermark cannot be negative")
            .help("The disorder is how much later than others an event may come: 0 or more."));
    }
    Ok(value.micros)
}
