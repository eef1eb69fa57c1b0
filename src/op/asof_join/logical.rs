//! The AS OF join in a logical plan, and what its ties need.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use asof_sql::codes::{self, Code};
use asof_sql::{Diagnostic, Span};
use datafusion::arrow::datatypes::DataType;
use datafusion::common::{Column, DFSchema, DFSchemaRef, Result, internal_err, plan_err};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::type_coercion::binary::BinaryTypeCoercer;
use datafusion::logical_expr::{Expr, ExprSchemable, Extension, LogicalPlan, Operator, UserDefinedLogicalNodeCore};

use crate::error::{Error, Kind};

/// How the left match value compares with the right one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MatchOp {
    /// `left >= right`: the newest right row, the same instant included.
    AtOrBefore,
    /// `left > right`: the newest right row strictly before.
    Before,
    /// `left <= right`: the next right row, the same instant included.
    AtOrAfter,
    /// `left < right`: the next right row strictly after.
    After,
}

impl MatchOp {
    /// The operator of `left op right`, if it is one of the four.
    pub fn from_operator(op: Operator) -> Option<Self> {
        match op {
            Operator::GtEq => Some(Self::AtOrBefore),
            Operator::Gt => Some(Self::Before),
            Operator::LtEq => Some(Self::AtOrAfter),
            Operator::Lt => Some(Self::After),
            _ => None,
        }
    }

    /// The operator with its sides exchanged: `a >= b` is `b <= a`.
    #[must_use]
    pub fn flip(self) -> Self {
        match self {
            Self::AtOrBefore => Self::AtOrAfter,
            Self::Before => Self::After,
            Self::AtOrAfter => Self::AtOrBefore,
            Self::After => Self::Before,
        }
    }

    /// Whether the match looks at right rows after the left one.
    pub fn is_forward(self) -> bool {
        matches!(self, Self::AtOrAfter | Self::After)
    }

    fn operator(self) -> Operator {
        match self {
            Self::AtOrBefore => Operator::GtEq,
            Self::Before => Operator::Gt,
            Self::AtOrAfter => Operator::LtEq,
            Self::After => Operator::Lt,
        }
    }
}

impl fmt::Display for MatchOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.operator().fmt(f)
    }
}

/// How rows of one table that have the same match value are ordered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TieOrder {
    /// The columns that decide, as positions in the table's schema, the first one first.
    pub columns: Vec<usize>,
    /// How many of `columns`, from the first, identify a row among those with equal `time`; what follows them never decides.
    /// Holds only where the match condition compares the `time` column itself.
    pub identity: Option<Identity>,
}

/// The columns that no two rows of a table share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The position of the time column in the table's schema.
    pub time: usize,
    /// The length of the identifying prefix of [`TieOrder::columns`].
    pub columns: usize,
}

/// An AS OF join whose names are resolved and whose types are as written.
#[derive(Debug, Clone)]
pub struct AsofJoin {
    /// The side whose every row comes out once.
    pub left: LogicalPlan,
    /// The side that is looked up.
    pub right: LogicalPlan,
    /// The equalities of `ON` or `USING`: an expression over the left side, one over the right.
    pub keys: Vec<(Expr, Expr)>,
    /// The match value over the left side.
    pub match_left: Expr,
    /// How the left match value compares with the right one.
    pub op: MatchOp,
    /// The match value over the right side.
    pub match_right: Expr,
    /// Columns of the right side that do not come out: the key columns of `USING`, which come out once, as the left side's.
    pub hidden: Vec<Column>,
    /// Where its clauses stand.
    pub places: Places,
}

/// Where the clauses of an AS OF join stand in the statement.
#[derive(Debug, Clone, Copy)]
pub struct Places {
    /// The comparison of `MATCH_CONDITION`.
    pub condition: Span,
    /// `ON` or `USING`; the condition where there is none.
    pub keys: Span,
}

impl Places {
    /// A planner's refusal of the match condition, at its place. "What is wrong; what to do" becomes message and help.
    pub fn refuse_condition(&self, error: DataFusionError) -> DataFusionError {
        at(codes::E0505, self.condition, error)
    }

    /// A planner's refusal of the keys, at their place.
    pub fn refuse_keys(&self, error: DataFusionError) -> DataFusionError {
        at(codes::E0506, self.keys, error)
    }
}

fn at(code: Code, span: Span, error: DataFusionError) -> DataFusionError {
    let message = match Error::from(error) {
        error if error.kind() != Kind::Invalid || error.found().is_some() => return error.into(),
        error => error.message().strip_prefix("Error during planning: ").unwrap_or(error.message()).to_owned(),
    };
    // Names that are not known are shown where they stand, by the statement.
    if message.contains("No field named") || message.contains("Ambiguous reference") {
        return DataFusionError::Plan(message);
    }
    let (wrong, remedy) = message.split_once("; ").unwrap_or((&message, ""));
    let diagnostic = Diagnostic::error(code, span, wrong);
    let mut letters = remedy.chars();
    let diagnostic = match letters.next() {
        Some(first) => diagnostic.help(format!("{}{}.", first.to_uppercase(), letters.as_str())),
        None => diagnostic,
    };
    Error::at_place(diagnostic, message).into()
}

impl AsofJoin {
    /// The logical plan of the join between ordinary relations; `ties` is the right table's own order, all columns from left to right if absent.
    ///
    /// Both match values, and both sides of each key, are coerced to a common type.
    pub fn into_plan(self, ties: Option<&TieOrder>) -> Result<LogicalPlan> {
        let node = AsofJoinNode::try_new(self, ties)?;
        Ok(LogicalPlan::Extension(Extension { node: Arc::new(node) }))
    }
}

/// The AS OF join between ordinary relations as a node of a logical plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AsofJoinNode {
    left: Arc<LogicalPlan>,
    right: Arc<LogicalPlan>,
    keys: Vec<(Expr, Expr)>,
    match_left: Expr,
    op: MatchOp,
    match_right: Expr,
    hidden: Vec<Column>,
    /// What orders rows of equal match value and keys. Not among the node's expressions, so that what no output column needs is pruned.
    ties: Vec<Column>,
    /// Right columns that are equal in all rows that tie: the bare match and key columns.
    fixed: Vec<Column>,
    schema: DFSchemaRef,
}

impl AsofJoinNode {
    fn try_new(join: AsofJoin, order: Option<&TieOrder>) -> Result<Self> {
        let AsofJoin { left, right, keys, match_left, op, match_right, hidden, places } = join;
        let bare = |e: &Expr| if let Expr::Column(c) = e { Some(c.clone()) } else { None };
        let fixed: Vec<Column> = std::iter::once(&match_right).chain(keys.iter().map(|(_, r)| r)).filter_map(bare).collect();
        let ties = tie_columns(right.schema(), order, &match_right).into_iter().filter(|c| !fixed.contains(c)).collect();

        let (match_left, match_right) = coerce(match_left, left.schema(), op.operator(), match_right, right.schema(), "MATCH_CONDITION")
            .map_err(|e| places.refuse_condition(e))?;
        let keys = keys
            .into_iter()
            .map(|(l, r)| coerce(l, left.schema(), Operator::Eq, r, right.schema(), "ON"))
            .collect::<Result<Vec<_>>>()
            .map_err(|e| places.refuse_keys(e))?;
        let schema = joined_schema(left.schema(), right.schema(), &hidden)?;
        Ok(Self { left: Arc::new(left), right: Arc::new(right), keys, match_left, op, match_right, hidden, ties, fixed, schema })
    }

    /// The equalities, left and right.
    pub fn keys(&self) -> &[(Expr, Expr)] {
        &self.keys
    }

    /// The match condition: left value, operator, right value.
    pub fn match_condition(&self) -> (&Expr, MatchOp, &Expr) {
        (&self.match_left, self.op, &self.match_right)
    }

    /// The right columns that order ties, the first one first.
    pub fn ties(&self) -> &[Column] {
        &self.ties
    }

    /// Both inputs, left and right.
    pub fn sides(&self) -> (&LogicalPlan, &LogicalPlan) {
        (&self.left, &self.right)
    }

    /// The positions in the right side's schema of the right columns that come out.
    pub fn right_output(&self) -> Vec<usize> {
        visible(self.right.schema(), &self.hidden)
    }

    fn with_left(&self, left: LogicalPlan) -> Result<Self> {
        let schema = joined_schema(left.schema(), self.right.schema(), &self.hidden)?;
        Ok(Self { left: Arc::new(left), schema, ..self.clone() })
    }

    /// The same join over a left side with the same columns and fewer rows.
    pub(super) fn plan_with_left(&self, left: LogicalPlan) -> Result<LogicalPlan> {
        Ok(LogicalPlan::Extension(Extension { node: Arc::new(self.with_left(left)?) }))
    }
}

/// The columns of the right side that order its ties.
fn tie_columns(right: &DFSchema, order: Option<&TieOrder>, match_right: &Expr) -> Vec<Column> {
    let column = |i: usize| (i < right.fields().len()).then(|| Column::from(right.qualified_field(i)));
    match order {
        None => right.columns(),
        Some(order) => {
            let identity = order.identity.filter(|id| matches!(match_right, Expr::Column(c) if column(id.time).as_ref() == Some(c)));
            let length = identity.map_or(order.columns.len(), |id| id.columns);
            order.columns.iter().take(length).filter_map(|i| column(*i)).collect()
        }
    }
}

fn coerce(l: Expr, left: &DFSchema, op: Operator, r: Expr, right: &DFSchema, clause: &str) -> Result<(Expr, Expr)> {
    let (lt, rt) = (l.get_type(left)?, r.get_type(right)?);
    let (to_l, to_r) = match BinaryTypeCoercer::new(&lt, &op, &rt).get_input_types() {
        Ok((a, b)) if plain(&a) == plain(&b) => (plain(&a), plain(&b)),
        _ => return plan_err!("{clause} compares {l} of type {lt} with {r} of type {rt}, which have no common type; cast one of them"),
    };
    let text = |t: &DataType| matches!(t, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    let temporal = |t: &DataType| matches!(t, DataType::Timestamp(_, _) | DataType::Date32 | DataType::Date64);
    if text(&plain(&lt)) != text(&plain(&rt))
        && !temporal(&plain(&lt))
        && !temporal(&plain(&rt))
        && lt != DataType::Null
        && rt != DataType::Null
    {
        return plan_err!("{clause} compares {l} of type {lt} with {r} of type {rt}: a string with another type; cast one of them");
    }
    if !ordered(&to_l) {
        return plan_err!(
            "{clause} compares {l} and {r} as {to_l}, a type without an order; compare numbers, strings, dates or timestamps"
        );
    }
    Ok((l.cast_to(&to_l, left)?, r.cast_to(&to_r, right)?))
}

/// The type of the values, without the encoding around them.
fn plain(t: &DataType) -> DataType {
    match t {
        DataType::Dictionary(_, v) => plain(v),
        DataType::RunEndEncoded(_, v) => plain(v.data_type()),
        t => t.clone(),
    }
}

fn ordered(t: &DataType) -> bool {
    !t.is_nested() && !matches!(t, DataType::Null | DataType::Interval(_))
}

fn visible(right: &DFSchema, hidden: &[Column]) -> Vec<usize> {
    (0..right.fields().len()).filter(|i| !hidden.contains(&Column::from(right.qualified_field(*i)))).collect()
}

fn joined_schema(left: &DFSchema, right: &DFSchema, hidden: &[Column]) -> Result<DFSchemaRef> {
    let mut fields: Vec<_> = left.iter().map(|(q, f)| (q.cloned(), Arc::clone(f))).collect();
    for i in visible(right, hidden) {
        let (q, f) = right.qualified_field(i);
        fields.push((q.cloned(), Arc::new(f.as_ref().clone().with_nullable(true))));
    }
    let width = fields.len();
    // Every left row comes out once, so what its columns determine they still determine.
    let mut determined = left.functional_dependencies().clone();
    determined.extend_target_indices(width);
    let mut metadata = right.metadata().clone();
    metadata.extend(left.metadata().clone());
    Ok(Arc::new(DFSchema::new_with_metadata(fields, metadata)?.with_functional_dependencies(determined)?))
}

impl Hash for AsofJoinNode {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.left.hash(state);
        self.right.hash(state);
        self.keys.hash(state);
        self.match_left.hash(state);
        self.op.hash(state);
        self.match_right.hash(state);
        self.hidden.hash(state);
        self.ties.hash(state);
    }
}

impl PartialOrd for AsofJoinNode {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        let parts = |n: &Self| (n.keys.clone(), n.match_left.clone(), n.op, n.match_right.clone());
        match parts(self).partial_cmp(&parts(other)) {
            Some(Ordering::Equal) if self != other => None,
            o => o,
        }
    }
}

impl UserDefinedLogicalNodeCore for AsofJoinNode {
    fn name(&self) -> &str {
        "AsofJoin"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.left, &self.right]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        let mut all = vec![self.match_left.clone(), self.match_right.clone()];
        all.extend(self.keys.iter().flat_map(|(l, r)| [l.clone(), r.clone()]));
        all
    }

    // DataFusion pushes a predicate into every input of an extension, so none may go that way: one over right columns would change
    // which row matches. `PushLeftFilters` moves those that are safe.

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AsofJoin: match=[{} {} {}]", self.match_left, self.op, self.match_right)?;
        if !self.keys.is_empty() {
            let keys: Vec<String> = self.keys.iter().map(|(l, r)| format!("{l} = {r}")).collect();
            write!(f, ", on=[{}]", keys.join(", "))?;
        }
        if !self.ties.is_empty() {
            let ties: Vec<String> = self.ties.iter().map(|c| c.flat_name()).collect();
            write!(f, ", ties=[{}]", ties.join(", "))?;
        }
        Ok(())
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<Self> {
        let mut exprs = exprs.into_iter().map(Expr::unalias);
        let mut inputs = inputs.into_iter();
        let (Some(left), Some(right), None) = (inputs.next(), inputs.next(), inputs.next()) else {
            return internal_err!("an AS OF join has two inputs");
        };
        let (Some(match_left), Some(match_right)) = (exprs.next(), exprs.next()) else {
            return internal_err!("an AS OF join has two match values");
        };
        let mut keys = Vec::with_capacity(self.keys.len());
        while let Some(l) = exprs.next() {
            let Some(r) = exprs.next() else { return internal_err!("a key of an AS OF join has two sides") };
            keys.push((l, r));
        }
        let ties = self.ties.iter().filter(|c| right.schema().has_column(c)).cloned().collect();
        let schema = joined_schema(left.schema(), right.schema(), &self.hidden)?;
        Ok(Self {
            left: Arc::new(left),
            right: Arc::new(right),
            keys,
            match_left,
            op: self.op,
            match_right,
            hidden: self.hidden.clone(),
            ties,
            fixed: self.fixed.clone(),
            schema,
        })
    }

    /// Ties are decided column by column, so only those up to the last column that comes out can change what comes out.
    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let width = self.left.schema().fields().len();
        let shown = self.right_output();
        let mut left = Vec::new();
        let mut right = Vec::new();
        let mut deciding = 0;
        for &i in output_columns {
            if i < width {
                left.push(i);
                continue;
            }
            let at = *shown.get(i - width)?;
            right.push(at);
            let column = Column::from(self.right.schema().qualified_field(at));
            if !self.fixed.contains(&column) {
                let position = self.ties.iter().position(|c| *c == column);
                deciding = deciding.max(position.map_or(self.ties.len(), |p| p + 1));
            }
        }
        for tie in self.ties.iter().take(deciding) {
            right.push(self.right.schema().maybe_index_of_column(tie)?);
        }
        for side in [&mut left, &mut right] {
            side.sort_unstable();
            side.dedup();
        }
        Some(vec![left, right])
    }
}
