//! The index as bytes: some shards' entities a piece, so that pieces are made and read side by side.
//!
//! `shard counts · key lengths · keys · runs`. Which shard an entity is in follows from its key; the counts only make room.

use std::ops::Range;

use asof_udfs::codec::{CodecError, Reader, Writer};
use asof_udfs::{Program, RunsIn, RunsOut};
use hashbrown::hash_table::Entry;
use smallvec::SmallVec;

use super::{Entity, Index, SHARDS, shard_of};
use crate::state::key::EntityKeys;

const DAMAGED_TWICE: CodecError = CodecError("an entity is there twice");

impl Index {
    /// The shards in ranges of about so many bytes of memory each.
    pub fn pieces(&self, bytes: usize) -> Vec<Range<usize>> {
        let mut pieces: Vec<Range<usize>> = Vec::new();
        let mut gathered = usize::MAX;
        for shard in 0..SHARDS {
            let size = self.read(shard).bytes;
            match pieces.last_mut().filter(|_| gathered.saturating_add(size) <= bytes) {
                Some(piece) => piece.end = shard + 1,
                None => {
                    pieces.push(shard..shard + 1);
                    gathered = 0;
                }
            }
            gathered += size;
        }
        pieces
    }

    /// Appends the entities of some shards. Readers go on meanwhile; nobody may change the index.
    pub fn encode(&self, program: &Program, shards: Range<usize>, into: &mut Writer) {
        let (mut counts, mut lengths, mut keys) = (vec![], vec![], vec![]);
        let mut runs = RunsOut::new(program);
        for shard in shards {
            let shard = self.read(shard);
            counts.push(shard.entities.len() as u64);
            for entity in &shard.entities {
                lengths.push(entity.key.len() as u64);
                keys.extend_from_slice(&entity.key);
                runs.push(&entity.run);
            }
        }
        into.number(counts.len() as u64);
        counts.iter().for_each(|count| into.number(*count));
        into.number(lengths.len() as u64);
        into.column(&lengths, true);
        into.raw(&keys);
        runs.finish(into);
    }

    /// Adds the entities of a piece. On an error some of them may be there: the index is to be thrown away.
    pub fn decode(&self, program: &Program, from: &mut Reader<'_>) -> Result<(), CodecError> {
        let shards = from.count()?;
        let counts = (0..shards).map(|_| from.count()).collect::<Result<Vec<usize>, _>>()?;
        let entities = from.count()?;
        let lengths = from.column(entities, true)?;
        let mut keys = Reader::new(from.raw(lengths.sum(from.left())?)?);
        let mut runs = RunsIn::new(program, from)?;
        if runs.left() != entities || counts.iter().try_fold(0usize, |sum, n| sum.checked_add(*n)) != Some(entities) {
            return Err(CodecError("there are not as many runs as entities"));
        }
        let mut room = counts.into_iter().filter(|count| *count > 0);
        let mut reserved = SHARDS;
        for i in 0..entities {
            let key = keys.raw(lengths.get(i) as usize)?;
            let run = runs.next_run()?.ok_or(CodecError("there are not as many runs as entities"))?;
            let hash = EntityKeys::hash(key);
            let number = shard_of(hash);
            let mut shard = self.write(number);
            let shard = &mut *shard;
            if number != reserved {
                // Entities of a shard come together.
                reserved = number;
                shard.entities.reserve(room.next().unwrap_or(0), |e| EntityKeys::hash(&e.key));
            }
            match shard.entities.entry(hash, |e| *e.key == *key, |e| EntityKeys::hash(&e.key)) {
                Entry::Occupied(_) => return Err(DAMAGED_TWICE),
                Entry::Vacant(entry) => {
                    let entity = Box::new(Entity { key: SmallVec::from_slice(key), run });
                    shard.bytes += entity.bytes();
                    entry.insert(entity);
                }
            }
        }
        Ok(())
    }
}
