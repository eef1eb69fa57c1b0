//! What one join computes, over which columns, inputs apart.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::{Result, internal_err};
use datafusion::physical_expr::PhysicalExpr;

use super::logical::MatchOp;

/// Which side is indexed in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Build {
    /// The left side; the right one streams.
    Left,
    /// The right side; the left one streams.
    Right,
}

/// Two expressions that are compared, one over each side.
#[derive(Debug, Clone)]
pub struct Key {
    /// Over the left side.
    pub left: Arc<dyn PhysicalExpr>,
    /// Over the right side.
    pub right: Arc<dyn PhysicalExpr>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Left(usize),
    Right(usize),
}

/// What the join computes, inputs apart.
#[derive(Debug, Clone)]
pub struct Shape {
    pub(super) keys: Vec<Key>,
    pub(super) matched: Key,
    pub(super) op: MatchOp,
    pub(super) ties: Vec<usize>,
    pub(super) output: Vec<Source>,
    pub(super) schema: SchemaRef,
    pub(super) left_schema: SchemaRef,
    pub(super) right_schema: SchemaRef,
}

/// Which columns of the right side are kept of a row that leads.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    /// Positions in the right side's schema.
    pub(super) keep: Vec<usize>,
    /// Positions in `keep` of the columns that come out, and their types.
    pub(super) output: Vec<usize>,
    pub(super) types: Vec<DataType>,
    /// Positions in `keep` of the columns that decide ties.
    pub(super) ties: Vec<usize>,
}

impl Shape {
    /// A join that puts out all left columns, then the right columns `shown`, nullable. `ties` are right columns, the first decides first.
    pub fn try_new(
        left: SchemaRef,
        right: SchemaRef,
        keys: Vec<Key>,
        matched: Key,
        op: MatchOp,
        ties: Vec<usize>,
        shown: &[usize],
    ) -> Result<Self> {
        let output: Vec<Source> = (0..left.fields().len()).map(Source::Left).chain(shown.iter().map(|i| Source::Right(*i))).collect();
        let schema = output_schema(&left, &right, &output)?;
        Ok(Self { keys, matched, op, ties, output, schema, left_schema: left, right_schema: right })
    }

    pub(super) fn key_exprs(&self, side: Build) -> Vec<Arc<dyn PhysicalExpr>> {
        let pick = |k: &Key| Arc::clone(if side == Build::Left { &k.left } else { &k.right });
        self.keys.iter().map(pick).collect()
    }

    pub(super) fn match_expr(&self, side: Build) -> &Arc<dyn PhysicalExpr> {
        if side == Build::Left { &self.matched.left } else { &self.matched.right }
    }

    pub(super) fn match_type(&self) -> Result<DataType> {
        self.matched.left.data_type(&self.left_schema)
    }

    pub(super) fn key_types(&self) -> Result<Vec<DataType>> {
        self.keys.iter().map(|k| k.left.data_type(&self.left_schema)).collect()
    }

    /// Without `whole` only what comes out or decides ties is kept; with it, all that is needed to see the row again as an input.
    pub(super) fn layout(&self, whole: bool) -> Layout {
        let shown = || self.output.iter().filter_map(|s| if let Source::Right(i) = s { Some(*i) } else { None });
        let mut keep: Vec<usize> =
            if whole { (0..self.right_schema.fields().len()).collect() } else { shown().chain(self.ties.iter().copied()).collect() };
        keep.sort_unstable();
        keep.dedup();
        let at = |i: usize| keep.binary_search(&i).unwrap_or_default();
        let types = shown().map(|i| self.right_schema.field(i).data_type().clone()).collect();
        Layout { output: shown().map(at).collect(), ties: self.ties.iter().map(|i| at(*i)).collect(), types, keep }
    }

    pub(super) fn has_right_output(&self) -> bool {
        self.output.iter().any(|s| matches!(s, Source::Right(_)))
    }

    /// A batch of the output: left columns as they are, right columns in the order of [`Layout::output`].
    pub(super) fn assemble(&self, left: &RecordBatch, right: Vec<ArrayRef>) -> Result<RecordBatch> {
        let mut right = right.into_iter();
        let mut columns = Vec::with_capacity(self.output.len());
        for source in &self.output {
            columns.push(match source {
                Source::Left(i) => Arc::clone(left.column(*i)),
                Source::Right(_) => match right.next() {
                    Some(c) => c,
                    None => return internal_err!("a right column of an AS OF join is missing"),
                },
            });
        }
        let options = RecordBatchOptions::new().with_row_count(Some(left.num_rows()));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?)
    }

    pub(super) fn values(&self, side: Build, batch: &RecordBatch) -> Result<(Vec<ArrayRef>, ArrayRef)> {
        let keys = evaluate(&self.key_exprs(side), batch)?;
        Ok((keys, self.match_expr(side).evaluate(batch)?.into_array(batch.num_rows())?))
    }
}

pub(super) fn evaluate(exprs: &[Arc<dyn PhysicalExpr>], batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
    exprs.iter().map(|e| e.evaluate(batch)?.into_array(batch.num_rows())).collect()
}

pub(super) fn output_schema(left: &Schema, right: &Schema, output: &[Source]) -> Result<SchemaRef> {
    let field = |s: &Source| -> Arc<Field> {
        match s {
            Source::Left(i) => Arc::new(left.field(*i).clone()),
            Source::Right(i) => Arc::new(right.field(*i).clone().with_nullable(true)),
        }
    };
    let mut metadata = right.metadata().clone();
    metadata.extend(left.metadata().clone());
    Ok(Arc::new(Schema::new_with_metadata(output.iter().map(field).collect::<Vec<_>>(), metadata)))
}
