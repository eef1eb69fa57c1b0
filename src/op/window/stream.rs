//! The streaming mode of a feature view: its online state, kept up by changes and asked at instants.
//!
//! The state answers every instant from its horizon on, exactly; earlier instants are history's. What it cannot apply exactly makes it
//! *stale*: it answers nothing until its owner has built it anew from history. Not here: where changes come from, when they are durable.

pub mod checkpoint;

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};

use arrow::array::ArrayRef;
use asof_udfs::{Instant, Value};

use super::{Collector, EntityRows, View};
use crate::error::Result;
use crate::op::relation::stream::{Change, StreamRelation};
use crate::state::index::{Index, Part};
use crate::state::key::EntityKeys;

/// The online state of one view.
#[derive(Debug)]
pub struct OnlineView {
    /// The view.
    pub view: Arc<View>,
    relation: Mutex<StreamRelation>,
    index: Index,
    /// The earliest instant that is answered.
    horizon: AtomicI64,
    /// The greatest accepted event time of the view's streams; the least `i64` before the first.
    greatest: AtomicI64,
    stale: AtomicBool,
    /// Steps applied in pieces that began or ended: odd while one is under way.
    loads: AtomicU64,
    next_sweep: AtomicUsize,
}

impl OnlineView {
    /// An empty state.
    pub fn try_new(view: Arc<View>) -> Result<Self> {
        let relation = StreamRelation::try_new(&view.plan.relation, view.plan.ordered)?;
        Ok(Self {
            view,
            relation: Mutex::new(relation),
            index: Index::default(),
            horizon: AtomicI64::new(i64::MIN),
            greatest: AtomicI64::new(i64::MIN),
            stale: AtomicBool::new(false),
            loads: AtomicU64::new(0),
            next_sweep: AtomicUsize::new(0),
        })
    }

    /// Applies the changes of one step in their order; a reader sees an entity as it was before all of them or as it is behind them.
    pub fn apply(&self, changes: &[Change<'_>]) -> Result<()> {
        let mut relation = self.relation.lock().unwrap_or_else(|e| e.into_inner());
        let mut parts = Vec::new();
        for change in changes {
            for events in relation.push(change)? {
                let EntityRows { keys, rows } = self.view.rows(&events)?;
                parts.push(Part { keys, rows, weights: events.weights });
            }
        }
        self.index.apply(self.view.program(), &parts, self.horizon(), &self.stale);
        Ok(())
    }

    /// Begins a step that is applied in pieces; nothing is answered before [`Self::end_load`].
    pub fn begin_load(&self) {
        self.loads.fetch_add(1, Ordering::AcqRel);
    }

    /// Ends a step that was applied in pieces.
    pub fn end_load(&self) {
        self.loads.fetch_add(1, Ordering::AcqRel);
    }

    /// Whether the state answers an instant now.
    pub fn answers(&self, at: i64) -> bool {
        self.loads.load(Ordering::Acquire).is_multiple_of(2)
            && !self.is_stale()
            && (at >= self.horizon() || asof_udfs::seeded_bug("evicted-answered"))
    }

    /// The features of entities at one instant, as [`Self::features`]. `None` where the state does not answer it, or where a write came in
    /// between that made it stale, evicted or was applied in pieces: what was read then does not count.
    pub fn read(&self, entity: &[ArrayRef], unknown: &[bool], at: Instant) -> Option<Result<Vec<ArrayRef>>> {
        let loads = self.loads.load(Ordering::Acquire);
        if !self.answers(at.at) {
            return None;
        }
        let features = self.features(entity, unknown, &vec![at; unknown.len()]);
        (self.answers(at.at) && self.loads.load(Ordering::Acquire) == loads).then_some(features)
    }

    /// The earliest instant that is answered.
    pub fn horizon(&self) -> i64 {
        self.horizon.load(Ordering::Acquire)
    }

    /// Takes note of a stream's greatest accepted event time.
    pub fn saw(&self, greatest: Option<i64>) {
        self.greatest.fetch_max(greatest.unwrap_or(i64::MIN), Ordering::AcqRel);
    }

    /// The greatest accepted event time of the view's streams.
    pub fn greatest(&self) -> Option<i64> {
        Some(self.greatest.load(Ordering::Acquire)).filter(|g| *g > i64::MIN)
    }

    /// Raises the horizon and sweeps one shard towards it; values at later instants never depend on when this is called.
    pub fn advance(&self, horizon: i64) {
        let horizon = self.horizon.fetch_max(horizon, Ordering::AcqRel).max(horizon);
        let shard = self.next_sweep.fetch_add(1, Ordering::Relaxed);
        self.index.sweep(self.view.program(), shard, horizon);
        if shard.is_multiple_of(self.index.shards()) {
            self.evict_relation(horizon);
        }
    }

    fn evict_relation(&self, horizon: i64) {
        if self.view.plan.relation.has_join() {
            let reach = self.view.reach_us().map(|r| r.max(self.view.plan.ttl.unwrap_or(0)));
            self.relation.lock().unwrap_or_else(|e| e.into_inner()).evict(horizon, reach);
        }
    }

    /// Sweeps all of it to the horizon.
    pub fn sweep(&self) {
        for shard in 0..self.index.shards() {
            self.index.sweep(self.view.program(), shard, self.horizon());
        }
        self.evict_relation(self.horizon());
    }

    /// Whether a change came that could not be applied exactly.
    pub fn is_stale(&self) -> bool {
        self.stale.load(Ordering::Acquire)
    }

    /// Marks the state as one that must be built anew.
    pub fn invalidate(&self) {
        self.stale.store(true, Ordering::Release);
    }

    /// The aggregates of an entity at an instant as scalars, one a slot of `out`; without Arrow and without an allocation but for
    /// strings and arrays. Deferred aggregates and computed features are not among them, see [`OnlineView::evaluate`].
    pub fn aggregates(&self, key: Option<&[u8]>, at: Instant, out: &mut [Value]) {
        let program = self.view.program();
        match key {
            Some(key) => self.index.with_run(key, |run| program.evaluate(run, at, out)),
            None => program.evaluate(None, at, out),
        }
    }

    /// Adds the row of one entity at one instant to a collector; a NULL key is the empty set of events.
    pub fn evaluate(&self, key: Option<&[u8]>, at: Instant, out: &mut Collector) -> Result<()> {
        match key {
            Some(key) => self.index.with_run(key, |run| self.view.evaluate(run, at, out)),
            None => self.view.evaluate(None, at, out),
        }
    }

    /// The features of entities, each at its instant: a column a feature, a row an entity.
    pub fn features(&self, entity: &[ArrayRef], unknown: &[bool], instants: &[Instant]) -> Result<Vec<ArrayRef>> {
        let keys = EntityKeys::try_new(entity, instants.len())?;
        let mut out = self.view.collector(instants.len());
        for (row, at) in instants.iter().enumerate() {
            let key = keys.get(row).filter(|_| !unknown.get(row).copied().unwrap_or(false));
            self.evaluate(key, *at, &mut out)?;
        }
        let times = crate::op::relation::utc(instants.iter().map(|i| i.at).collect::<Vec<_>>().into());
        self.view.finish(entity, &times, out)
    }

    /// The memory of all that is held, bytes.
    pub fn memory_bytes(&self) -> usize {
        self.index.memory_bytes() + self.relation.lock().unwrap_or_else(|e| e.into_inner()).memory_bytes()
    }

    /// How many entities are held. Cost: a look at every shard.
    pub fn entities(&self) -> usize {
        self.index.entities()
    }

    /// How many entities and events are held, and the memory of all, bytes. Cost: a look at every entity.
    pub fn size(&self) -> (usize, usize, usize) {
        (self.index.entities(), self.index.events(), self.memory_bytes())
    }
}
