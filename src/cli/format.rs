//! What goes to standard output: rows as a table, CSV, JSON lines or Arrow IPC, and what statements say.
//!
//! With `table` a statement's message stands among the tables; with the other formats standard output is data only, and messages go to
//! standard error. Notes always do. Each result with rows stands for itself: a CSV header, or an IPC stream, of its own.

mod cell;
mod table;

use std::fmt::Display;
use std::io::Write;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;

use self::cell::{Column, Style};
use super::args::Format;
use super::exit::{Failure, say};
use crate::engine::Output;
use crate::error::Error;

/// Writes the answers of statements in one format.
#[derive(Debug)]
pub(super) struct Printer<W> {
    format: Format,
    out: W,
}

impl<W: Write> Printer<W> {
    pub(super) fn new(format: Format, out: W) -> Self {
        Self { format, out }
    }

    /// Writes one statement's answer and hands it to the reader.
    pub(super) fn print(&mut self, output: &Output) -> Result<(), Failure> {
        match output {
            Output::Rows { schema, batches, note } => {
                self.rows(schema, batches)?;
                self.out.flush().map_err(Failure::Output)?;
                if let Some(note) = note {
                    say(format_args!("note: {note}"));
                }
            }
            Output::Done { message, .. } if self.format == Format::Table => self.line(message)?,
            Output::Done { message, .. } => say(message),
        }
        Ok(())
    }

    /// Writes a line beside the answers.
    pub(super) fn line(&mut self, line: impl Display) -> Result<(), Failure> {
        writeln!(self.out, "{line}").and_then(|()| self.out.flush()).map_err(Failure::Output)
    }

    fn rows(&mut self, schema: &SchemaRef, batches: &[RecordBatch]) -> Result<(), Failure> {
        match self.format {
            Format::Table => table::write(&mut self.out, schema, batches),
            Format::Csv => csv(&mut self.out, schema, batches),
            Format::Json => json(&mut self.out, schema, batches),
            Format::Arrow => ipc(&mut self.out, schema, batches),
        }
        .map_err(failure)
    }
}

/// An error while writing: the reader's, or of values that cannot be shown.
fn failure(e: ArrowError) -> Failure {
    match e {
        ArrowError::IoError(_, e) => Failure::Output(e),
        other => Failure::Engine(Error::from(other)),
    }
}

/// The columns of a batch as they are read cell by cell: dictionaries as their values.
fn plain_columns(batch: &RecordBatch) -> Result<Vec<ArrayRef>, ArrowError> {
    let plain = |array: &ArrayRef| match array.data_type() {
        DataType::Dictionary(_, values) => cast(array, values),
        _ => Ok(array.clone()),
    };
    batch.columns().iter().map(plain).collect()
}

fn csv(out: &mut impl Write, schema: &Schema, batches: &[RecordBatch]) -> Result<(), ArrowError> {
    let mut line = String::new();
    for (i, field) in schema.fields().iter().enumerate() {
        csv_field(&mut line, i, field.name());
    }
    writeln!(out, "{line}")?;
    let mut text = String::new();
    for batch in batches {
        let arrays = plain_columns(batch)?;
        let columns = arrays.iter().map(|a| Column::try_new(a)).collect::<Result<Vec<_>, _>>()?;
        for row in 0..batch.num_rows() {
            line.clear();
            for (i, column) in columns.iter().enumerate() {
                if column.is_null(row) {
                    line.push_str(if i > 0 { "," } else { "" });
                    continue;
                }
                text.clear();
                column.write(&mut text, row, if column.is_nested() { Style::Json } else { Style::Text });
                csv_field(&mut line, i, &text);
            }
            writeln!(out, "{line}")?;
        }
    }
    Ok(())
}

/// Appends a field that is not NULL, in quotes where it needs them.
fn csv_field(line: &mut String, i: usize, text: &str) {
    if i > 0 {
        line.push(',');
    }
    if text.is_empty() || text.contains([',', '"', '\n', '\r']) || text.starts_with(' ') || text.ends_with(' ') {
        line.push('"');
        line.push_str(&text.replace('"', "\"\""));
        line.push('"');
    } else {
        line.push_str(text);
    }
}

fn json(out: &mut impl Write, schema: &Schema, batches: &[RecordBatch]) -> Result<(), ArrowError> {
    let names = distinct_names(schema);
    let mut line = String::new();
    for batch in batches {
        let arrays = plain_columns(batch)?;
        let columns = arrays.iter().map(|a| Column::try_new(a)).collect::<Result<Vec<_>, _>>()?;
        for row in 0..batch.num_rows() {
            line.clear();
            for (i, (name, column)) in names.iter().zip(&columns).enumerate() {
                line.push(if i > 0 { ',' } else { '{' });
                cell::json_string(&mut line, name);
                line.push(':');
                column.write(&mut line, row, Style::Json);
            }
            line.push_str(if columns.is_empty() { "{}" } else { "}" });
            writeln!(out, "{line}")?;
        }
    }
    Ok(())
}

/// The names of columns as keys of an object: the second `ts` is `ts_2`.
fn distinct_names(schema: &Schema) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for field in schema.fields() {
        let taken = |name: &String| names.contains(name);
        let numbered = (2..).map(|n| format!("{}_{n}", field.name()));
        let free = std::iter::once(field.name().clone()).chain(numbered).find(|name| !taken(name));
        names.extend(free);
    }
    names
}

fn ipc(out: &mut impl Write, schema: &Schema, batches: &[RecordBatch]) -> Result<(), ArrowError> {
    let mut writer = StreamWriter::try_new(out, schema)?;
    for batch in batches {
        writer.write(batch)?;
    }
    writer.finish()
}

#[cfg(test)]
mod tests;
