//! The online state of a view as pieces of bytes, and back: what a checkpoint holds.
//!
//! Pieces are made one by one while readers go on; nobody may change the state from before the first until behind the last, so that all
//! are of one moment. A state is made of all pieces, in any order and side by side. Not here: where pieces lie, checksums (`warehouse`).

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use asof_sql::plan::{Fingerprint, Relation};
use asof_udfs::codec::{CodecError, Reader, Writer};

use super::OnlineView;
use crate::error::Result;
use crate::op::window::View;
use crate::state::columns::damaged;

/// The version of the pieces' layout. The encodings of rows and keys are Arrow's, whose version is a part of [`definition`].
pub const STATE_VERSION: u32 = 1;

/// The memory that goes into one piece, bytes; its own are fewer.
const PIECE_BYTES: usize = 32 << 20;

const ENTITIES: u8 = 1;
const RELATION: u8 = 2;

/// Something that is encoded at once.
#[derive(Debug, Clone)]
pub enum Piece {
    /// The entities of some shards.
    Entities(Range<usize>),
    /// What the operators of the relation keep: several pieces of bytes.
    Relation,
}

impl OnlineView {
    /// What to encode.
    pub fn pieces(&self) -> Vec<Piece> {
        let mut pieces: Vec<Piece> = self.index.pieces(PIECE_BYTES).into_iter().map(Piece::Entities).collect();
        if self.view.plan.relation.has_join() {
            pieces.push(Piece::Relation);
        }
        pieces
    }

    /// The bytes of a piece.
    pub fn encode(&self, piece: &Piece) -> Result<Vec<Vec<u8>>> {
        match piece {
            Piece::Entities(shards) => {
                let mut into = Writer::new();
                into.byte(ENTITIES);
                self.index.encode(self.view.program(), shards.clone(), &mut into);
                Ok(vec![into.into_bytes()])
            }
            Piece::Relation => {
                let relation = self.relation.lock().unwrap_or_else(|e| e.into_inner());
                let mut pieces = Vec::new();
                for (operator, bytes) in relation.encode(PIECE_BYTES)? {
                    let mut into = Writer::new();
                    into.byte(RELATION);
                    into.number(operator as u64);
                    into.raw(&bytes.into_bytes());
                    pieces.push(into.into_bytes());
                }
                Ok(pieces)
            }
        }
    }

    /// An empty state that answers from an instant on, to be filled by [`Self::decode`].
    pub fn from_horizon(view: Arc<View>, horizon: i64, greatest: Option<i64>) -> Result<Self> {
        let online = Self::try_new(view)?;
        online.horizon.store(horizon, Ordering::Release);
        online.saw(greatest);
        Ok(online)
    }

    /// Adds what a piece holds. On an error the state is to be thrown away.
    ///
    /// - Errors: [`crate::error::Kind::Data`] for bytes that are no piece of this view's state.
    pub fn decode(&self, bytes: &[u8]) -> Result<()> {
        let mut from = Reader::new(bytes);
        match from.byte().map_err(damaged)? {
            ENTITIES => self.index.decode(self.view.program(), &mut from).map_err(damaged)?,
            RELATION => {
                let operator = from.number().map_err(damaged)?;
                self.relation.lock().unwrap_or_else(|e| e.into_inner()).decode(operator, &mut from)?;
            }
            _ => return Err(damaged(CodecError("a piece of a kind that is not known"))),
        }
        if from.left() > 0 { Err(damaged(CodecError("there are bytes behind the end"))) } else { Ok(()) }
    }

    /// Whether a step that is applied in pieces is under way.
    pub fn is_loading(&self) -> bool {
        !self.loads.load(Ordering::Acquire).is_multiple_of(2)
    }
}

/// What decides the bytes of a view's state beside history: a state is of use to a view of the same definition only.
pub fn definition(view: &View) -> Fingerprint {
    let plan = &view.plan;
    let program = view.program();
    let mut text = format!("arrow {}; ordered {}; ttl {:?}; ", arrow::ARROW_VERSION, plan.ordered, plan.ttl);
    let mut add = |part: String| {
        text.push_str(&part);
        text.push('\n');
    };
    relation(&plan.relation, &mut add);
    plan.entity.iter().for_each(|e| add(format!("entity {} {}", e.column, e.data_type)));
    plan.values.iter().for_each(|v| add(format!("value {} {}", v.expr.text(), v.expr.data_type)));
    plan.masks.iter().for_each(|m| add(format!("mask {}", m.text())));
    // What is computed decides what is folded.
    program.frames().iter().for_each(|f| add(format!("frame {f:?}")));
    program.aggregates().iter().for_each(|a| add(format!("aggregate {a:?}")));
    Fingerprint::of(&text)
}

fn relation(of: &Relation, add: &mut impl FnMut(String)) {
    match of {
        Relation::Scan(s) => {
            add(format!("scan {} {:?} {} {:?}", s.stream, s.columns, s.event_time, s.order));
            s.schema.fields().iter().for_each(|f| add(format!("column {} {}", f.name(), f.data_type())));
        }
        Relation::Filter(f) => {
            add(format!("filter {}", f.predicate.text()));
            relation(&f.input, add);
        }
        Relation::Project(p) => {
            p.exprs.iter().for_each(|e| add(format!("project {} {}", e.text(), e.data_type)));
            relation(&p.input, add);
        }
        Relation::AsofJoin(j) => {
            add(format!("asof {}", j.strict));
            j.on.iter().for_each(|(l, r)| add(format!("on {} = {}", l.text(), r.text())));
            relation(&j.left, add);
            relation(&j.right, add);
        }
        Relation::Union(u) => {
            add(format!("union {}", u.inputs.len()));
            u.inputs.iter().for_each(|i| relation(i, add));
        }
    }
}
