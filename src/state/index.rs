//! The keyed index: a run per entity, in shards by the pinned hash of the key.
//!
//! One writer applies changes; readers look entities up at any time and see one consistent state of each: a shard's lock is held for a
//! bounded number of rows on the way in and for one entity on the way out. Not here: what a run computes (`asof_udfs`), when events are
//! durable (`engine`).

use std::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use asof_udfs::{Applied, Program, Rows, Run};
use hashbrown::HashTable;

use super::key::EntityKeys;

/// More shards than cores, so that a reader seldom waits for the writer.
const SHARDS: usize = 64;
/// How many rows a shard's lock is held for at most.
const ROWS_PER_HOLD: usize = 64;

#[derive(Debug)]
struct Entity {
    key: Box<[u8]>,
    run: Run,
}

#[derive(Debug, Default)]
struct Shard {
    entities: HashTable<Entity>,
    /// The memory of the runs and keys, bytes; the table's own comes on top.
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

/// A row to apply: which, under which hash, and whether it goes away.
#[derive(Debug, Clone, Copy)]
struct Pending {
    row: u32,
    gone: bool,
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

    /// Applies the rows of a batch, in order within each entity. Gives the rows that could not be applied exactly.
    pub fn apply(&self, program: &Program, keys: &EntityKeys, rows: &Rows, gone: impl Fn(usize) -> bool, horizon: i64) -> Vec<usize> {
        let mut pending: Vec<Vec<Pending>> = vec![Vec::new(); SHARDS];
        for row in 0..rows.len() {
            if let Some(key) = keys.get(row) {
                let hash = EntityKeys::hash(key);
                pending[shard_of(hash)].push(Pending { row: row as u32, gone: gone(row), hash });
            }
        }
        let mut rebuild = Vec::new();
        for (shard, mut pending) in pending.into_iter().enumerate() {
            // Rows of one entity come together: one probe and warm memory for all of them.
            pending.sort_by_key(|p| p.hash);
            for chunk in pending.chunks(ROWS_PER_HOLD) {
                self.write(shard).apply(program, keys, rows, chunk, horizon, &mut rebuild);
            }
        }
        rebuild
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

    /// The memory held, bytes: runs, keys and tables.
    pub fn memory_bytes(&self) -> usize {
        let one = |s: usize| {
            let shard = self.read(s);
            // A slot of the table is an entity and a control byte.
            shard.bytes + shard.entities.capacity() * (size_of::<Entity>() + 1) * 8 / 7
        };
        (0..SHARDS).map(one).sum()
    }

    /// Every key, in no particular order.
    pub fn keys(&self) -> Vec<Box<[u8]>> {
        (0..SHARDS).flat_map(|s| self.read(s).entities.iter().map(|e| e.key.clone()).collect::<Vec<_>>()).collect()
    }
}

impl Entity {
    fn bytes(&self) -> usize {
        self.key.len() + self.run.memory_bytes()
    }
}

impl Shard {
    fn apply(&mut self, program: &Program, keys: &EntityKeys, rows: &Rows, chunk: &[Pending], horizon: i64, rebuild: &mut Vec<usize>) {
        for p in chunk {
            let row = p.row as usize;
            let Some(key) = keys.get(row) else { continue };
            let slot = self.entities.entry(p.hash, |e| *e.key == *key, |e| EntityKeys::hash(&e.key));
            let mut slot = slot.or_insert_with(|| Entity { key: key.into(), run: Run::new() });
            let entity = slot.get_mut();
            let before = entity.run.memory_bytes();
            let fresh = entity.run.is_vacant(program);
            let applied = if p.gone { entity.run.remove(program, rows, row) } else { entity.run.insert(program, rows, row) };
            if horizon > i64::MIN && entity.run.len().is_multiple_of(ROWS_PER_HOLD) {
                // On touch: a hot entity is kept short between sweeps.
                entity.run.evict(program, horizon);
            }
            if matches!(applied, Applied::Rebuild) {
                rebuild.push(row);
            }
            self.bytes = self.bytes + entity.run.memory_bytes() + if fresh { entity.key.len() } else { 0 };
            self.bytes = self.bytes.saturating_sub(before);
        }
    }
}
