//! SQL text to statements.
//!
//! ```text
//! text ─tokenize─▶ tokens ─split at ;─▶ statement's tokens ─limits─▶ ─parse/<statement>─▶ ast
//!                                                                        └ embedded SQL ─▶ sqlparser ─check─▶ its nodes
//! ```
//! The text is tokenised once; our own statements are read by our own code, one file each, and the queries and expressions in them
//! by sqlparser, over the same tokens. Limits come before anything that recurses, and nothing that sqlparser reads but no planner
//! keeps gets through `check`. Every statement is parsed on its own, so the errors of a script come together.
//! Not here: what names mean, which types fit (`bind`).

mod alter_stream;
mod check;
mod copy;
mod create_stream;
mod cursor;
mod dialect;
mod drop;
mod embedded;
mod explain;
mod external_table;
mod feature_view;
mod for_entity;
mod insert;
mod interval;
mod options;
mod parameters;
mod reprocess;
mod resume;
mod show;
#[cfg(test)]
mod tests;
mod types;

use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer};

pub use self::check::{check_expression, check_query, check_scalar_calls};
pub use self::interval::{interval_of, parse_interval};

use self::cursor::{Cursor, Parsed};
use self::dialect::Dialect;
use self::parameters::Parameters;
use crate::ast::{Statement, StatementKind};
use crate::codes::{E0101, E0103, E0104, E0108, E0109};
use crate::diagnostic::Diagnostic;
use crate::limits::{self, TEXT_BYTES_MAX};
use crate::span::{Position, Source, Span};

/// Parses a script: statements with semicolons between.
///
/// - An empty script has no statements.
/// - Errors: all that were found, in the order of the text. `source_name` is named where an error has no place.
/// - Cost: linear in the text, but for hostile nesting, which is bounded.
pub fn parse(text: &str, source_name: &str) -> Result<Vec<Statement>, Vec<Diagnostic>> {
    if text.len() > TEXT_BYTES_MAX {
        let message = format!("{source_name} has {} bytes; at most {TEXT_BYTES_MAX} are read", text.len());
        return Err(vec![Diagnostic::error(E0103, Span::NONE, message).help("Load rows with COPY, or split the script.")]);
    }
    let source = Source::new(text);
    let mut tokens = Vec::new();
    let unreadable = Tokenizer::new(&Dialect::for_tokens(0), text)
        .tokenize_with_location_into_buf(&mut tokens)
        .err()
        .map(|error| (error.message, error.location));
    let mut scripts = split(tokens);
    let mut statements = Vec::new();
    let mut found = Vec::new();
    // Where the text cannot be read, the statement that it breaks off in is not judged.
    let broken = unreadable.as_ref().and_then(|_| scripts.pop());
    for tokens in scripts.into_iter().filter(|tokens| !tokens.is_empty()) {
        match statement(&source, tokens) {
            Ok(statement) => statements.push(statement),
            Err(errors) => found.extend(errors),
        }
        if found.len() >= ERRORS_MAX {
            let last = found.pop().map(|last| last.remark("The rest of the script was not looked at: it has many errors."));
            found.extend(last);
            return Err(found);
        }
    }
    if let Some((message, location)) = unreadable {
        found.push(lexical(&source, broken.as_deref().unwrap_or(&[]), &message, location));
    }
    if found.is_empty() { Ok(statements) } else { Err(found) }
}

/// After so many errors of a script no more are looked for.
const ERRORS_MAX: usize = 100;

/// Whether an unquoted identifier of this folded name would not be read as a name.
pub fn is_reserved(name: &str) -> bool {
    RESERVED.split_whitespace().any(|word| word == name)
}

/// The words that end or begin something in every statement.
const RESERVED: &str = "all and as asof between by case cast create cross distinct drop else end except exists false fetch for from full \
    group having if in inner insert intersect interval into is join lateral left like limit match_condition natural not null offset on or \
    order outer over qualify right select set table then true union unnest using values when where window with";

/// Cuts the tokens at semicolons and drops white space and comments. The last part is what stands behind the last semicolon.
fn split(tokens: Vec<TokenWithSpan>) -> Vec<Vec<TokenWithSpan>> {
    let mut parts = vec![Vec::new()];
    for token in tokens {
        match token.token {
            Token::SemiColon => parts.push(Vec::new()),
            // Some editors begin a file with this mark.
            Token::Whitespace(_) | Token::Char('\u{feff}') => {}
            _ => parts.last_mut().expect("there is always a last part").push(token),
        }
    }
    parts
}

fn statement(source: &Source<'_>, mut tokens: Vec<TokenWithSpan>) -> Result<Statement, Vec<Diagnostic>> {
    let depth = limits::check(&tokens).map_err(|error| vec![error])?;
    let parameters = parameters::resolve(&mut tokens).map_err(|error| vec![error])?;
    if depth <= SHALLOW_DEPTH {
        return read_statement(source, &tokens, &parameters);
    }
    // A step of sqlparser's recursion takes up to 80 KiB in a debug build; the stack of the caller may be small.
    std::thread::scope(|scope| {
        let parse = || read_statement(source, &tokens, &parameters);
        let thread = std::thread::Builder::new().stack_size(DEEP_STACK_BYTES).spawn_scoped(scope, parse);
        match thread.map(|thread| thread.join()) {
            Ok(Ok(statement)) => statement,
            Ok(Err(panic)) => std::panic::resume_unwind(panic),
            Err(error) => {
                let span = tokens.first().map_or(Span::NONE, |token| token.span.into());
                Err(vec![Diagnostic::error(E0103, span, format!("no stack to parse the statement on: {error}"))])
            }
        }
    })
}

/// Up to this depth, in the steps of [`limits`], a statement is parsed on the stack of the caller.
const SHALLOW_DEPTH: usize = 24;
/// The stack for deeper ones; only what is used of it takes memory.
const DEEP_STACK_BYTES: usize = 64 << 20;

fn read_statement(source: &Source<'_>, tokens: &[TokenWithSpan], parameters: &Parameters) -> Result<Statement, Vec<Diagnostic>> {
    let mut cursor = Cursor::new(source, tokens);
    let kind = kind(&mut cursor, parameters);
    let span = cursor.span_of(0).to(cursor.span_of(tokens.len().saturating_sub(1)));
    let mut found = cursor.into_found();
    match kind {
        Ok(kind) if found.is_empty() => Ok(Statement { kind, span, text: source.slice(span).to_owned(), parameters: parameters.count }),
        Ok(_) => Err(ordered(found)),
        Err(error) => {
            found.push(error);
            Err(ordered(found))
        }
    }
}

/// By place, one for each place: one mistake is often found twice.
fn ordered(mut found: Vec<Diagnostic>) -> Vec<Diagnostic> {
    found.sort_by_key(|diagnostic| diagnostic.span);
    found.dedup_by(|again, first| again.span == first.span && (again.code, &again.message) == (first.code, &first.message));
    found
}

/// Reads one statement by its first word.
fn kind(cursor: &mut Cursor<'_>, parameters: &Parameters) -> Parsed<StatementKind> {
    if opens_query(cursor) {
        return query(cursor);
    }
    match cursor.word().as_deref() {
        Some("CREATE") => create(cursor, parameters),
        Some("INSERT") => insert::insert(cursor),
        Some("COPY") => copy::copy(cursor),
        Some("REPROCESS") => reprocess::reprocess(cursor),
        Some("RESUME") => resume::resume(cursor),
        Some("SHOW") => show::show(cursor),
        Some("DESCRIBE" | "DESC") => show::describe(cursor),
        Some("DROP") => drop::drop(cursor),
        Some("ALTER") => alter_stream::alter(cursor),
        Some("EXPLAIN") => explain::explain(cursor, parameters.count),
        _ => Err(unknown_statement(cursor)),
    }
}

/// Whether a query is next.
fn opens_query(cursor: &Cursor<'_>) -> bool {
    ["SELECT", "WITH", "VALUES"].iter().any(|word| cursor.sees(&[word])) || cursor.peek() == Some(&Token::LParen)
}

/// A query, with `FOR ENTITY` or without.
fn query(cursor: &mut Cursor<'_>) -> Parsed<StatementKind> {
    match for_entity::find(cursor) {
        Some(at) => for_entity::for_entity(cursor, at),
        None => Ok(StatementKind::Query(embedded::query(cursor, cursor.tokens().len())?.0)),
    }
}

fn create(cursor: &mut Cursor<'_>, parameters: &Parameters) -> Parsed<StatementKind> {
    if let Some(first) = parameters.first {
        let error = Diagnostic::error(E0108, first, "a definition cannot have parameters");
        cursor.report(error.help("Nothing would bind them: write the value."));
    }
    cursor.expect_words(&["CREATE"])?;
    let at = cursor.index();
    let or_replace = cursor.eats(&["OR", "REPLACE"]);
    let replaced = cursor.span_from(at);
    if cursor.eat("FEATURE") {
        // A view may be named "view": CREATE FEATURE view ENTITY (...).
        if !cursor.sees(&["VIEW", "ENTITY"]) || cursor.sees(&["VIEW", "ENTITY", "ENTITY"]) {
            cursor.eat("VIEW");
        }
        if or_replace && cursor.sees(&["IF"]) {
            return Err(Diagnostic::error(E0109, cursor.span(), "OR REPLACE and IF NOT EXISTS exclude each other")
                .note(replaced, "OR REPLACE is written here."));
        }
        return feature_view::create_feature_view(cursor, or_replace);
    }
    let kind = if cursor.eat("STREAM") {
        create_stream::create_stream(cursor)
    } else if cursor.eats(&["EXTERNAL", "TABLE"]) {
        external_table::create_external_table(cursor)
    } else {
        return Err(unknown_object(cursor));
    };
    if or_replace {
        cursor.report(
            Diagnostic::error(E0109, replaced, "OR REPLACE is supported only with FEATURE VIEW")
                .help("Drop the object first: DROP STREAM name, DROP TABLE name."),
        );
    }
    kind
}

fn unknown_object(cursor: &Cursor<'_>) -> Diagnostic {
    let known = "CREATE makes a STREAM, a FEATURE VIEW or an EXTERNAL TABLE.";
    let error = |help: &str| Diagnostic::error(E0104, cursor.span(), format!("CREATE {} is not supported", cursor.clause())).help(help);
    if cursor.sees(&["TABLE"]) || cursor.sees(&["TEMPORARY"]) || cursor.sees(&["TEMP"]) {
        return error("Rows are kept in streams: CREATE STREAM; files are read with CREATE EXTERNAL TABLE.");
    }
    if cursor.sees(&["VIEW"]) || cursor.sees(&["MATERIALIZED"]) {
        return error("Write CREATE FEATURE VIEW name ENTITY (...) AS SELECT ....");
    }
    if cursor.is_at_end() { cursor.unexpected("STREAM, FEATURE VIEW or EXTERNAL TABLE") } else { error(known) }
}

/// Names the statements of other systems that are refused, with what to do instead.
fn unknown_statement(cursor: &Cursor<'_>) -> Diagnostic {
    const KNOWN: &str = "The statements are CREATE, DROP, ALTER, INSERT, COPY, SELECT, REPROCESS, RESUME, SHOW, DESCRIBE and EXPLAIN.";
    let help = match cursor.word().as_deref() {
        Some("UPDATE" | "DELETE" | "MERGE" | "TRUNCATE" | "REPLACE") => {
            "History is append-only: events are added with INSERT INTO or COPY, and corrected by the primary key."
        }
        Some("BEGIN" | "START" | "COMMIT" | "ROLLBACK" | "SAVEPOINT" | "ABORT") => "Every statement is one transaction of its own.",
        Some("SET" | "RESET" | "PRAGMA") => "No setting changes what a view means; settings of the process are given where it is started.",
        Some("TABLE" | "FROM") => "Write SELECT * FROM the table.",
        Some(
            "USE" | "GRANT" | "REVOKE" | "ANALYZE" | "VACUUM" | "PREPARE" | "EXECUTE" | "DEALLOCATE" | "CALL" | "ATTACH" | "DECLARE"
            | "REFRESH",
        ) => KNOWN,
        _ => {
            let message = format!("expected a statement, found {}", cursor.describe_next());
            return Diagnostic::error(E0104, cursor.span(), message).help(KNOWN);
        }
    };
    Diagnostic::error(E0104, cursor.span(), format!("{} is not supported", cursor.clause())).help(help)
}

/// The error of the tokenizer: `tokens` are those of the statement that it broke off in.
fn lexical(source: &Source<'_>, tokens: &[TokenWithSpan], message: &str, location: Location) -> Diagnostic {
    let lower = message.to_lowercase();
    let end = source.end();
    // sqlparser's places of unterminated text differ: some are its start, some the end of the script.
    let at = Position::from(location);
    let last = tokens.last().map_or(Position::new(1, 1), |token| Span::from(token.span).end);
    let start = if at >= end { skip_space(source, last) } else { at };
    let span = Span::new(start, Position::new(start.line, start.column.saturating_add(1)));
    let error = |message: &str| Diagnostic::error(E0101, span, message);
    if lower.contains("unterminated string") || lower.contains("unterminated encoded string") {
        error("string is not closed").help("A string ends with a single quote; a quote within it is written twice.")
    } else if lower.contains("close delimiter") {
        error("quoted name is not closed").help("A quoted name ends with the quote that it began with.")
    } else if lower.contains("unexpected eof") || lower.contains("comment") {
        error("comment is not closed").help("A comment that begins with /* ends with */; one within it ends first.")
    } else {
        let mut text = lower;
        if text.is_empty() {
            text.push_str("text cannot be read");
        }
        error(&text)
    }
}

fn skip_space(source: &Source<'_>, from: Position) -> Position {
    let mut at = from;
    let offset = source.offset(from);
    for c in source.text().get(offset..).unwrap_or("").chars() {
        match c {
            '\n' => at = Position::new(at.line + 1, 1),
            c if c.is_whitespace() => at.column += 1,
            _ => break,
        }
    }
    at
}
