//! `CREATE EXTERNAL TABLE name [(columns)] STORED AS format LOCATION 'path' [OPTIONS (...)]`: DataFusion's form.

use datafusion::sql::sqlparser::tokenizer::Token;

use super::copy::file_format;
use super::create_stream::{check_unique, column};
use super::cursor::{Cursor, Parsed};
use super::options::{Assignment, options};
use crate::ast::{ColumnDef, CreateExternalTable, FileFormat, OptionEntry, StatementKind};
use crate::codes::{E0105, E0106, E0107, E0703};
use crate::diagnostic::Diagnostic;
use crate::span::Span;

/// Reads what stands behind `CREATE EXTERNAL TABLE`.
pub(super) fn create_external_table(cursor: &mut Cursor<'_>) -> Parsed<StatementKind> {
    let if_not_exists = cursor.if_not_exists()?;
    let name = cursor.object_name("a table name")?;
    let columns = if cursor.peek() == Some(&Token::LParen) { cursor.parenthesised(plain_column)? } else { Vec::new() };
    check_unique(cursor, "column", columns.iter().map(|column| &column.name));
    let mut clauses = Clauses::default();
    while !cursor.is_at_end() {
        clauses.read(cursor)?;
    }
    let help = "Write CREATE EXTERNAL TABLE name STORED AS PARQUET LOCATION 'path'.";
    let missing = |clause: &str| Diagnostic::error(E0107, name.span, format!("table \"{name}\" has no {clause}")).help(help);
    let (format, format_span) = clauses.format.ok_or_else(|| missing("STORED AS"))?;
    let (location, location_span) = clauses.location.ok_or_else(|| missing("LOCATION"))?;
    if format == FileFormat::Delta && !columns.is_empty() {
        let span = columns.first().map_or(name.span, |column| column.span);
        cursor.report(Diagnostic::error(E0105, span, "a Delta table names its columns itself").help("Leave the columns out."));
    }
    let options = clauses.options.map(|(options, _)| options).unwrap_or_default();
    let table = CreateExternalTable { if_not_exists, name, columns, format, format_span, location, location_span, options };
    Ok(StatementKind::CreateExternalTable(table))
}

fn plain_column(cursor: &mut Cursor<'_>) -> Parsed<ColumnDef> {
    match column(cursor)? {
        (column, None) => Ok(column),
        (_, Some(key)) => Err(Diagnostic::error(E0105, key, "PRIMARY KEY is not supported in an external table")),
    }
}

#[derive(Default)]
struct Clauses {
    format: Option<(FileFormat, Span)>,
    location: Option<(String, Span)>,
    options: Option<(Vec<OptionEntry>, Span)>,
}

impl Clauses {
    fn read(&mut self, cursor: &mut Cursor<'_>) -> Parsed<()> {
        let start = cursor.index();
        let again = if cursor.eats(&["STORED", "AS"]) {
            self.format.replace(file_format(cursor)?).is_some()
        } else if cursor.eat("LOCATION") {
            let (location, span) = cursor.string("a location in quotes")?;
            if location.is_empty() {
                return Err(Diagnostic::error(E0703, span, "a location cannot be empty"));
            }
            self.location.replace((location, span)).is_some()
        } else if cursor.eat("OPTIONS") {
            let entries = options(cursor, Assignment::Optional)?;
            self.options.replace((entries, cursor.span_from(start))).is_some()
        } else {
            for clause in [&["PARTITIONED", "BY"][..], &["WITH", "ORDER"], &["WITH", "HEADER"], &["COMPRESSION"], &["DELIMITER"]] {
                if cursor.eats(clause) {
                    let message = format!("{} is not supported in an external table", clause.join(" "));
                    return Err(Diagnostic::error(E0105, cursor.span_from(start), message));
                }
            }
            return Err(cursor.unexpected("STORED AS, LOCATION or OPTIONS"));
        };
        if again {
            return Err(Diagnostic::error(E0106, cursor.span_from(start), "a clause is given twice"));
        }
        Ok(())
    }
}
