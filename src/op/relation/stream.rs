//! The streaming lowering of a relation: changes of streams in, changes of the view's events out.
//!
//! Operators pass changelogs of (row, +1 or -1). Scan, Filter, Project and Union keep nothing; AsofJoin keeps both sides per key, see
//! `enrich`. Not here: what the events are aggregated into (`op::window`).

mod enrich;

use arrow::array::RecordBatch;
use asof_sql::plan::{Filter, Project, Relation, Scan};
use asof_udfs::codec::{Reader, Writer};

use self::enrich::Enrich;
use super::{branch, filter, project, scan};
use crate::error::{Error, Result};
use crate::op::events::Events;

/// A relation with the state that its operators keep.
#[derive(Debug)]
pub struct StreamRelation {
    root: Node,
}

#[derive(Debug)]
enum Node {
    Scan(Scan, bool),
    Filter(Box<Node>, Filter),
    Project(Box<Node>, Project),
    AsofJoin(Box<Enrich>),
    Union(Vec<Node>, bool),
}

/// A change of one stream: rows that come or go, as columns of the whole stream.
#[derive(Debug, Clone)]
pub struct Change<'a> {
    /// The stream.
    pub stream: &'a str,
    /// Its rows, all columns in declaration order.
    pub rows: &'a RecordBatch,
    /// Whether they go away.
    pub gone: bool,
}

impl StreamRelation {
    /// The operators of a relation; with order keys where the view is ordered.
    pub fn try_new(relation: &Relation, ordered: bool) -> Result<Self> {
        Ok(Self { root: Node::lower(relation, ordered)? })
    }

    /// Pushes a change through and gives the changes of the view's events, to be applied in order.
    pub fn push(&mut self, change: &Change<'_>) -> Result<Vec<Events>> {
        self.root.push(change)
    }

    /// Forgets what no instant from `horizon` on can need; `reach` is how far before an instant left events are read, `None`: all.
    pub fn evict(&mut self, horizon: i64, reach: Option<i64>) {
        self.root.evict(horizon, reach);
    }

    /// The memory that its operators keep, bytes.
    pub fn memory_bytes(&self) -> usize {
        self.root.memory_bytes()
    }

    /// What the operators keep, in pieces of about so many bytes of memory, each with the number of its operator.
    pub fn encode(&self, bytes: usize) -> Result<Vec<(usize, Writer)>> {
        let mut joins = Vec::new();
        self.root.joins(&mut joins);
        let mut pieces = Vec::new();
        for (number, join) in joins.into_iter().enumerate() {
            pieces.extend(join.encode(bytes)?.into_iter().map(|piece| (number, piece)));
        }
        Ok(pieces)
    }

    /// Adds a piece of what an operator keeps.
    pub fn decode(&mut self, operator: u64, from: &mut Reader<'_>) -> Result<()> {
        let join = self.root.join_mut(&mut usize::try_from(operator).unwrap_or(usize::MAX));
        join.ok_or_else(|| Error::data("a piece of an operator that is not there"))?.decode(from)
    }
}

impl Node {
    fn lower(relation: &Relation, ordered: bool) -> Result<Node> {
        Ok(match relation {
            Relation::Scan(s) => Node::Scan(s.clone(), ordered),
            Relation::Filter(f) => Node::Filter(Box::new(Node::lower(&f.input, ordered)?), f.clone()),
            Relation::Project(p) => Node::Project(Box::new(Node::lower(&p.input, ordered)?), p.clone()),
            Relation::AsofJoin(j) => {
                // Left rows keep their own order; the right side is ordered always, since its order decides ties.
                let (left, right) = (Node::lower(&j.left, ordered)?, Node::lower(&j.right, true)?);
                Node::AsofJoin(Box::new(Enrich::try_new(j, left, right, ordered)?))
            }
            // A branch's own order is replaced by that of the projected columns.
            Relation::Union(u) => Node::Union(u.inputs.iter().map(|i| Node::lower(i, false)).collect::<Result<_>>()?, ordered),
        })
    }

    fn push(&mut self, change: &Change<'_>) -> Result<Vec<Events>> {
        match self {
            Node::Scan(s, keyed) => {
                if s.stream != change.stream || change.rows.num_rows() == 0 {
                    return Ok(vec![]);
                }
                let mut events = scan(s, &change.rows.project(&s.columns)?, *keyed)?;
                if change.gone {
                    events.weights = Some(vec![-1i8; events.len()].into());
                }
                Ok(vec![events])
            }
            Node::Filter(input, f) => {
                let batches = input.push(change)?;
                batches.iter().map(|e| filter(f, e)).filter(|e| !matches!(e, Ok(e) if e.is_empty())).collect()
            }
            Node::Project(input, p) => input.push(change)?.into_iter().map(|e| project(p, e)).collect(),
            Node::AsofJoin(join) => join.push(change),
            Node::Union(inputs, keyed) => {
                let mut out = Vec::new();
                for input in inputs {
                    for events in input.push(change)? {
                        out.push(branch(events, *keyed)?);
                    }
                }
                Ok(out)
            }
        }
    }

    /// The operators that keep something, from the outside in and from left to right.
    fn joins<'a>(&'a self, into: &mut Vec<&'a Enrich>) {
        match self {
            Node::Scan(..) => {}
            Node::Filter(input, _) | Node::Project(input, _) => input.joins(into),
            Node::AsofJoin(join) => {
                into.push(join);
                join.inputs().into_iter().for_each(|input| input.joins(into));
            }
            Node::Union(inputs, _) => inputs.iter().for_each(|input| input.joins(into)),
        }
    }

    /// The operator of a number in the order of [`Self::joins`]; of one behind the last, the number is what is left of it.
    fn join_mut(&mut self, number: &mut usize) -> Option<&mut Enrich> {
        match self {
            Node::Scan(..) => None,
            Node::Filter(input, _) | Node::Project(input, _) => input.join_mut(number),
            Node::AsofJoin(join) => {
                if *number == 0 {
                    return Some(&mut **join);
                }
                *number -= 1;
                join.inputs_mut().into_iter().find_map(|input| input.join_mut(number))
            }
            Node::Union(inputs, _) => inputs.iter_mut().find_map(|input| input.join_mut(number)),
        }
    }

    fn evict(&mut self, horizon: i64, reach: Option<i64>) {
        match self {
            Node::Scan(..) => {}
            Node::Filter(input, _) | Node::Project(input, _) => input.evict(horizon, reach),
            Node::AsofJoin(join) => join.evict(horizon, reach),
            Node::Union(inputs, _) => inputs.iter_mut().for_each(|i| i.evict(horizon, reach)),
        }
    }

    fn memory_bytes(&self) -> usize {
        match self {
            Node::Scan(..) => 0,
            Node::Filter(input, _) | Node::Project(input, _) => input.memory_bytes(),
            Node::AsofJoin(join) => join.memory_bytes(),
            Node::Union(inputs, _) => inputs.iter().map(Node::memory_bytes).sum(),
        }
    }
}
