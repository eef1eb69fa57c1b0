//! Rows as a table for people: columns aligned, numbers at the right, cells of several lines below one another.

use std::io::Write;
use std::ops::RangeInclusive;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use arrow::error::ArrowError;

use super::cell::{Column, Style, is_number};
use super::plain_columns;

/// Writes all rows under their names, then how many there are.
pub(super) fn write(out: &mut impl Write, schema: &Schema, batches: &[RecordBatch]) -> Result<(), ArrowError> {
    let names: Vec<String> = schema.fields().iter().map(|f| visible(f.name()).replace('\n', "\\n")).collect();
    let mut rows: Vec<Vec<String>> = Vec::new();
    for batch in batches {
        let arrays = plain_columns(batch)?;
        let columns = arrays.iter().map(|a| Column::try_new(a)).collect::<Result<Vec<_>, _>>()?;
        rows.extend((0..batch.num_rows()).map(|row| {
            let text = |column: &Column<'_>| {
                let mut text = String::new();
                column.write(&mut text, row, Style::Text);
                visible(text.trim_end_matches('\n'))
            };
            columns.iter().map(text).collect()
        }));
    }

    let mut widths: Vec<usize> = names.iter().map(|n| width(n)).collect();
    for row in &rows {
        for (w, cell) in widths.iter_mut().zip(row) {
            *w = cell.split('\n').map(width).max().unwrap_or(0).max(*w);
        }
    }
    let right: Vec<bool> = schema.fields().iter().map(|f| is_number(f.data_type())).collect();

    if !names.is_empty() {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        line(out, &names, &widths, &right)?;
        let rules: Vec<String> = widths.iter().map(|w| "-".repeat(w + 2)).collect();
        writeln!(out, "{}", rules.join("+"))?;
    }
    for row in &rows {
        let mut cells: Vec<_> = row.iter().map(|cell| cell.split('\n')).collect();
        let height = row.iter().map(|cell| cell.split('\n').count()).max().unwrap_or(0);
        for _ in 0..height {
            let parts: Vec<&str> = cells.iter_mut().map(|lines| lines.next().unwrap_or("")).collect();
            line(out, &parts, &widths, &right)?;
        }
    }
    let count = rows.len();
    writeln!(out, "({count} {})", if count == 1 { "row" } else { "rows" })?;
    Ok(())
}

fn line(out: &mut impl Write, cells: &[&str], widths: &[usize], right: &[bool]) -> Result<(), ArrowError> {
    let mut text = String::new();
    for (i, ((cell, w), right)) in cells.iter().zip(widths).zip(right).enumerate() {
        text.push_str(if i > 0 { " | " } else { " " });
        let blanks = " ".repeat(w.saturating_sub(width(cell)));
        if *right {
            text.push_str(&blanks);
            text.push_str(cell);
        } else {
            text.push_str(cell);
            text.push_str(&blanks);
        }
    }
    writeln!(out, "{}", text.trim_end())?;
    Ok(())
}

/// Control characters as escapes: a value must not steer the terminal. Line ends stay.
fn visible(text: &str) -> String {
    if !text.contains(|c: char| c.is_control()) {
        return text.to_owned();
    }
    let mut shown = String::new();
    for c in text.chars() {
        if c.is_control() && c != '\n' { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    shown
}

/// Characters that a terminal gives two columns: the scripts of East Asia, and pictures.
const WIDE: [RangeInclusive<u32>; 10] = [
    0x1100..=0x115F,
    0x2E80..=0xA4CF,
    0xAC00..=0xD7A3,
    0xF900..=0xFAFF,
    0xFE30..=0xFE6F,
    0xFF00..=0xFF60,
    0xFFE0..=0xFFE6,
    0x1F300..=0x1FAFF,
    0x20000..=0x2FFFD,
    0x30000..=0x3FFFD,
];
/// Accents, joiners and variants, which stand on the character before.
const ZERO: [RangeInclusive<u32>; 3] = [0x0300..=0x036F, 0x200B..=0x200F, 0xFE00..=0xFE0F];

/// The columns a text takes on a terminal.
fn width(text: &str) -> usize {
    if text.is_ascii() {
        return text.len();
    }
    let is = |c: char, ranges: &[RangeInclusive<u32>]| ranges.iter().any(|r| r.contains(&(c as u32)));
    text.chars().map(|c| if is(c, &ZERO) { 0 } else { 1 + usize::from(is(c, &WIDE)) }).sum()
}
