//! The state of the streaming AS OF join as bytes: groups of rows, some a piece.
//!
//! `exact from · groups · key lengths · keys · left rows · right rows`, rows of a side being `rows of each group · first and further times ·
//! order keys · columns`. Rows are kept as columns rather than as their encodings, so that any bytes decode to rows or to an error.

use arrow::array::ArrayRef;
use arrow::datatypes::SchemaRef;
use arrow::row::RowConverter;
use asof_udfs::codec::{CodecError, Reader, Writer, ordered, signed};

use super::{Enrich, Group, Node, Row};
use crate::error::Result;
use crate::state::columns::{damaged, decode, encode};

impl Enrich {
    /// The operators below, left before right.
    pub(in crate::op::relation::stream) fn inputs(&self) -> [&Node; 2] {
        [&self.left, &self.right]
    }

    /// The same, to be filled.
    pub(in crate::op::relation::stream) fn inputs_mut(&mut self) -> [&mut Node; 2] {
        [&mut self.left, &mut self.right]
    }

    /// The pieces of the state, each of about so many bytes of memory.
    pub(in crate::op::relation::stream) fn encode(&self, bytes: usize) -> Result<Vec<Writer>> {
        let mut pieces = Vec::new();
        let mut piece: Vec<(&[u8], &Group)> = Vec::new();
        let mut gathered = 0;
        for (key, group) in &self.groups {
            piece.push((&**key, group));
            gathered += group.left.iter().chain(&group.right).map(Row::bytes).sum::<usize>();
            if gathered >= bytes {
                pieces.push(self.piece(&piece)?);
                piece.clear();
                gathered = 0;
            }
        }
        // The last one is there even without groups: it says from when on changes are exact.
        pieces.push(self.piece(&piece)?);
        Ok(pieces)
    }

    fn piece(&self, groups: &[(&[u8], &Group)]) -> Result<Writer> {
        let mut into = Writer::new();
        into.word(ordered(self.exact_from));
        into.number(groups.len() as u64);
        into.column(&groups.iter().map(|(key, _)| key.len() as u64).collect::<Vec<_>>(), true);
        groups.iter().for_each(|(key, _)| into.raw(key));
        let left: Vec<&[Row]> = groups.iter().map(|(_, group)| group.left.as_slice()).collect();
        side(&left, &self.left_rows, &mut into)?;
        let right: Vec<&[Row]> = groups.iter().map(|(_, group)| group.right.as_slice()).collect();
        side(&right, &self.right_rows, &mut into)?;
        Ok(into)
    }

    /// Adds the groups of a piece.
    pub(in crate::op::relation::stream) fn decode(&mut self, from: &mut Reader<'_>) -> Result<()> {
        let exact_from = signed(from.word().map_err(damaged)?);
        let count = from.count().map_err(damaged)?;
        let lengths = from.column(count, true).map_err(damaged)?;
        let mut keys = Reader::new(from.raw(lengths.sum(from.left()).map_err(damaged)?).map_err(damaged)?);
        let left = read_side(count, &self.plan.left.schema(), &self.left_rows, from)?;
        let right = read_side(count, &self.right_schema, &self.right_rows, from)?;
        self.exact_from = self.exact_from.max(exact_from);
        for ((i, left), right) in (0..count).zip(left).zip(right) {
            let key = keys.raw(lengths.get(i) as usize).map_err(damaged)?;
            self.bytes += left.iter().chain(&right).map(Row::bytes).sum::<usize>();
            if self.groups.insert(key.into(), Group { left, right }).is_some() {
                return Err(damaged(CodecError("a key is there twice")));
            }
        }
        Ok(())
    }
}

fn side(groups: &[&[Row]], converter: &RowConverter, into: &mut Writer) -> Result<()> {
    let rows = || groups.iter().flat_map(|rows| rows.iter());
    into.column(&groups.iter().map(|rows| rows.len() as u64).collect::<Vec<_>>(), false);
    // Each row takes a byte at least, which bounds how many a reader believes in.
    into.column(&rows().map(|row| ordered(row.time)).collect::<Vec<_>>(), true);
    into.column(&rows().map(|row| row.key.len() as u64).collect::<Vec<_>>(), false);
    rows().for_each(|row| into.raw(&row.key));
    let columns = converter.convert_rows(rows().map(|row| row.columns.row()))?;
    columns.iter().try_for_each(|column| encode(column.as_ref(), into))
}

fn read_side(groups: usize, schema: &SchemaRef, converter: &RowConverter, from: &mut Reader<'_>) -> Result<Vec<Vec<Row>>> {
    let counts = from.column(groups, false).map_err(damaged)?;
    let n = counts.sum(from.left()).map_err(damaged)?;
    let times = from.column(n, true).map_err(damaged)?;
    let lengths = from.column(n, false).map_err(damaged)?;
    let mut keys = Reader::new(from.raw(lengths.sum(from.left()).map_err(damaged)?).map_err(damaged)?);
    let columns: Vec<ArrayRef> = schema.fields().iter().map(|f| decode(f.data_type(), n, from)).collect::<Result<_>>()?;
    let encoded = converter.convert_columns(&columns)?;
    let mut at = 0;
    let mut sides = Vec::with_capacity(groups);
    for group in 0..groups {
        let mut rows: Vec<Row> = Vec::with_capacity(counts.get(group) as usize);
        for _ in 0..counts.get(group) {
            let key = keys.raw(lengths.get(at) as usize).map_err(damaged)?;
            let row = Row { time: signed(times.get(at)), key: key.into(), columns: encoded.row(at).owned() };
            if rows.last().is_some_and(|before| before.place() > row.place()) {
                return Err(damaged(CodecError("rows are out of order")));
            }
            rows.push(row);
            at += 1;
        }
        sides.push(rows);
    }
    Ok(sides)
}
