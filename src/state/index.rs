//! The keyed index: a run per entity, in shards by the pinned hash of the key.
//!
//! One writer applies changes; readers look entities up at any time and see one consistent state of each: a shard's lock is held for all
//! that a step changes of an entity on the way in, and for one entity on the way out. Not here: what a run computes (`asof_udfs`), when
//! events are durable (`engine`).

mod codec;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use arrow::array::Int8Array;
use asof_udfs::{Applied, Program, Rows, Run};
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use smallvec::SmallVec;

use super::key::EntityKeys;

/// More shards than cores, so that a reader seldom waits for the writer.
const SHARDS: usize = 64;
/// For how many rows a shard's lock is held, the rest of the last entity's apart.
const ROWS_PER_HOLD: usize = 64;

/// For how many rows another thread is worth its start.
const ROWS_PER_THREAD: usize = 8192;
/// How many threads apply one step; more would take the cores from readers.
const THREADS_MAX: usize = 4;

/// Its own allocation: a slot of the table, half of which are empty after it grew, is a pointer.
#[derive(Debug)]
struct Entity {
    key: SmallVec<[u8; 16]>,
    run: Run,
}

#[derive(Debug, Default)]
struct Shard {
    entities: HashTable<Box<Entity>>,
    /// The memory of the entities, bytes; the table's own comes on top.
    bytes: usize,
    /// The horizon that the shard was last swept to.
    swept: i64,
}

/// Runs by entity.
#[derive(Debug)]
pub struct Index {
    shards: Vec<RwLock<Shard>>,
}

impl Default for Index {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| RwLock::new(Shard { swept: i64::MIN, ..Shard::default() })).collect() }
    }
}

/// Rows of a step.
#[derive(Debug)]
pub struct Part {
    /// Which entity each belongs to.
    pub keys: EntityKeys,
    /// What the runs keep.
    pub rows: Rows,
    /// +1 for a row that comes, -1 for one that goes; `None`: all come.
    pub weights: Option<Int8Array>,
}

impl Part {
    fn goes(&self, row: usize) -> bool {
        self.weights.as_ref().is_some_and(|w| w.value(row) < 0)
    }
}

/// A row to apply: which of which part, and the hash of its entity.
#[derive(Debug, Clone, Copy)]
struct Pending {
    part: u32,
    row: u32,
    hash: u64,
}

fn shard_of(hash: u64) -> usize {
    // The table uses the low bits; the shard takes the high ones.
    (hash >> 58) as usize % SHARDS
}

impl Index {
    fn read(&self, shard: usize) -> RwLockReadGuard<'_, Shard> {
        self.shards[shard].read().unwrap_or_else(|e| e.into_inner())
    }

    fn write(&self, shard: usize) -> RwLockWriteGuard<'_, Shard> {
        self.shards[shard].write().unwrap_or_else(|e| e.into_inner())
    }

    /// Applies the rows of one step, in order within each entity; each entity changes at once, from before the step to behind it.
    /// `stale` becomes true before anybody sees an entity whose rows could not be applied exactly.
    pub fn apply(&self, program: &Program, parts: &[Part], horizon: i64, stale: &AtomicBool) {
        let mut pending: Vec<Vec<Pending>> = vec![Vec::new(); SHARDS];
        for (p, part) in parts.iter().enumerate() {
            for row in 0..part.rows.len() {
                if let Some(key) = part.keys.get(row) {
                    let hash = EntityKeys::hash(key);
                    pending[shard_of(hash)].push(Pending { part: p as u32, row: row as u32, hash });
                }
            }
        }
        let rows: usize = pending.iter().map(Vec::len).sum();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = (rows / ROWS_PER_THREAD).clamp(1, cores.min(THREADS_MAX));
        // Shards have nothing in common, so threads change nothing but how long it takes.
        let share = SHARDS.div_ceil(threads);
        std::thread::scope(|scope| {
            let mut shares = pending.chunks_mut(share).enumerate();
            let mine = shares.next();
            for (number, pending) in shares {
                scope.spawn(move || self.apply_shards(program, parts, number * share, pending, horizon, stale));
            }
            if let Some((_, pending)) = mine {
                self.apply_shards(program, parts, 0, pending, horizon, stale);
            }
        });
    }

    /// Applies the pending rows of the shards from `first` on.
    fn apply_shards(
        &self,
        program: &Program,
        parts: &[Part],
        first: usize,
        pending: &mut [Vec<Pending>],
        horizon: i64,
        stale: &AtomicBool,
    ) {
        for (shard, pending) in pending.iter_mut().enumerate() {
            // Rows of one entity come together: one probe and warm memory for all of them, and one hold of the lock.
            pending.sort_by_key(|p| p.hash);
            let mut rest = &pending[..];
            while let Some(last) = rest.get(ROWS_PER_HOLD.min(rest.len()).wrapping_sub(1)) {
                let (chunk, later) = rest.split_at(rest.partition_point(|p| p.hash <= last.hash));
                self.write(first + shard).apply(program, parts, chunk, horizon, stale);
                rest = later;
            }
        }
    }

    /// Calls `f` with the run of an entity, or with `None` for one without; no change happens meanwhile.
    pub fn with_run<T>(&self, key: &[u8], f: impl FnOnce(Option<&Run>) -> T) -> T {
        let hash = EntityKeys::hash(key);
        let shard = self.read(shard_of(hash));
        f(shard.entities.find(hash, |e| *e.key == *key).map(|e| &e.run))
    }

    /// Drops what no instant from `horizon` on needs, in one shard; entities without anything left go.
    pub fn sweep(&self, program: &Program, shard: usize, horizon: i64) {
        let mut shard = self.write(shard % SHARDS);
        if shard.swept >= horizon {
            return;
        }
        shard.swept = horizon;
        let mut bytes = 0;
        shard.entities.retain(|e| {
            e.run.evict(program, horizon);
            let keep = !e.run.is_vacant(program);
            if keep {
                bytes += e.bytes();
            }
            keep
        });
        shard.bytes = bytes;
    }

    /// The number of shards, for sweeping one after the other.
    pub fn shards(&self) -> usize {
        SHARDS
    }

    /// How many entities there are.
    pub fn entities(&self) -> usize {
        (0..SHARDS).map(|s| self.read(s).entities.len()).sum()
    }

    /// How many events are held.
    pub fn events(&self) -> usize {
        (0..SHARDS).map(|s| self.read(s).entities.iter().map(|e| e.run.len()).sum::<usize>()).sum()
    }

    /// The memory held, bytes: entities and tables.
    pub fn memory_bytes(&self) -> usize {
        let one = |s: usize| {
            let shard = self.read(s);
            // A slot of the table is a pointer and a control byte; one in eight stays empty.
            shard.bytes + shard.entities.capacity() * (size_of::<Box<Entity>>() + 1) * 8 / 7
        };
        (0..SHARDS).map(one).sum()
    }

    /// Every key, in no particular order.
    pub fn keys(&self) -> Vec<Box<[u8]>> {
        (0..SHARDS).flat_map(|s| self.read(s).entities.iter().map(|e| e.key.as_slice().into()).collect::<Vec<_>>()).collect()
    }
}

impl Entity {
    /// The memory of an entity, bytes: its own allocation and what hangs on it.
    fn bytes(&self) -> usize {
        let key = if self.key.spilled() { self.key.len() } else { 0 };
        size_of::<Entity>() - size_of::<Run>() + key + self.run.memory_bytes()
    }
}

impl Shard {
    fn apply(&mut self, program: &Program, parts: &[Part], chunk: &[Pending], horizon: i64, stale: &AtomicBool) {
        let mut selection = Vec::new();
        for same in chunk.chunk_by(|a, b| (a.hash, a.part) == (b.hash, b.part)) {
            let Some(Pending { part, hash, .. }) = same.first() else { continue };
            let part = &parts[*part as usize];
            let mut rest = same;
            while let Some(key) = rest.first().and_then(|p| part.keys.get(p.row as usize)) {
                // All rows of one hash are of one entity, but for collisions.
                let count = rest.iter().take_while(|p| part.keys.get(p.row as usize) == Some(key)).count();
                let (mine, others) = rest.split_at(count);
                rest = others;
                let (entity, before) = match self.entities.entry(*hash, |e| *e.key == *key, |e| EntityKeys::hash(&e.key)) {
                    Entry::Occupied(entry) => {
                        let before = entry.get().bytes();
                        (entry.into_mut(), before)
                    }
                    Entry::Vacant(entry) => {
                        (entry.insert(Box::new(Entity { key: SmallVec::from_slice(key), run: Run::new() })).into_mut(), 0)
                    }
                };
                let run = &mut entity.run;
                let long = run.len() / ROWS_PER_HOLD;
                for same in mine.chunk_by(|a, b| part.goes(a.row as usize) == part.goes(b.row as usize)) {
                    selection.clear();
                    selection.extend(same.iter().map(|p| p.row));
                    if apply_rows(run, program, part, &selection) == Applied::Rebuild {
                        stale.store(true, Ordering::Release);
                    }
                }
                if horizon > i64::MIN && run.len() / ROWS_PER_HOLD > long {
                    // On touch: a hot entity is kept short between sweeps.
                    run.evict(program, horizon);
                }
                self.bytes = (self.bytes + entity.bytes()).saturating_sub(before);
            }
        }
    }
}

/// Rows that all come or all go.
fn apply_rows(run: &mut Run, program: &Program, part: &Part, rows: &[u32]) -> Applied {
    match rows {
        [first, ..] if part.goes(*first as usize) => {
            let removed = rows.iter().map(|row| run.remove(program, &part.rows, *row as usize));
            removed.fold(Applied::Done, |all, one| if one == Applied::Rebuild { one } else { all })
        }
        [row] => run.insert(program, &part.rows, *row as usize),
        _ => run.insert_many(program, &part.rows, rows),
    }
}
