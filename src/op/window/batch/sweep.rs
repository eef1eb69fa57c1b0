//! The sweep: for each entity of a piece its events in order into one scratch run, its instants in order out of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, TimestampMicrosecondArray, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::TimestampMicrosecondType;
use asof_udfs::{Applied, Instant, Rows, Run};
use datafusion::common::Result as DfResult;
use datafusion::common::runtime::SpawnedTask;
use hashbrown::HashTable;

use super::super::View;
use super::pieces::{PIECES, Pieces, piece_of};
use crate::error::{Error, Result};
use crate::state::key::EntityKeys;

/// The entities and instants of a slice of the spine.
#[derive(Debug)]
pub(super) struct SpineView {
    /// The entity of each row.
    pub keys: EntityKeys,
    /// Rows that name an entity that cannot exist.
    pub unknown: Vec<bool>,
    /// The instant of each row.
    pub times: TimestampMicrosecondArray,
    /// The entity columns as the view's types.
    pub entity: Vec<ArrayRef>,
    /// The instants as a column.
    pub instant_column: ArrayRef,
}

impl SpineView {
    /// The key of a row that can have events.
    pub(super) fn key(&self, row: usize) -> Option<&[u8]> {
        self.keys.get(row).filter(|_| !self.unknown[row])
    }

    /// The range of event time that can matter; `None` where no row has an instant.
    pub(super) fn event_range(&self, reach: Option<i64>) -> Option<(i64, i64)> {
        let (least, greatest) = (arrow::compute::min(&self.times)?, arrow::compute::max(&self.times)?);
        let reach = reach.map(|r| if asof_udfs::seeded_bug("history-read-short") { r - 1 } else { r });
        Some((reach.map_or(i64::MIN, |r| least.saturating_sub(r)), greatest))
    }
}

/// The features of a piece's spine rows.
#[derive(Debug)]
pub(super) struct Swept {
    /// A column a feature.
    pub features: Vec<ArrayRef>,
    /// The spine row of each row.
    rows: Vec<u32>,
}

/// Sweeps all pieces on as many threads as there are partitions; gives their results and the place of each spine row.
#[allow(clippy::type_complexity)]
pub(super) async fn sweep(
    pieces: Pieces,
    view: Arc<View>,
    spine: Arc<SpineView>,
    strict: bool,
) -> DfResult<(Vec<Swept>, Vec<Option<(u32, u32)>>)> {
    let threads = pieces.threads();
    let rows_of_piece = Arc::new(spine_pieces(&spine));
    // The longest pieces first, so that no thread is left alone with one at the end.
    let mut order: Vec<usize> = (0..=PIECES).collect();
    order.sort_by_key(|piece| std::cmp::Reverse(rows_of_piece[*piece].len()));
    let order = Arc::new(order);
    let (pieces, next) = (Arc::new(pieces), Arc::new(AtomicUsize::new(0)));
    let tasks: Vec<_> = (0..threads)
        .map(|_| {
            let (pieces, next, view, spine) = (pieces.clone(), next.clone(), view.clone(), spine.clone());
            let (order, rows_of_piece) = (order.clone(), rows_of_piece.clone());
            SpawnedTask::spawn_blocking(move || {
                let mut done = Vec::new();
                loop {
                    let Some(&piece) = order.get(next.fetch_add(1, Ordering::Relaxed)) else {
                        return Ok::<_, Error>(done);
                    };
                    let rows = &rows_of_piece[piece];
                    if !rows.is_empty() {
                        done.push(sweep_piece(&pieces, piece, &view, &spine, rows, strict)?);
                    }
                }
            })
        })
        .collect();
    let mut swept: Vec<Swept> = Vec::new();
    for task in tasks {
        swept.extend(task.join_unwind().await.map_err(|e| Error::internal(e.to_string()))??);
    }
    let mut places = vec![None; spine.times.len()];
    for (piece, s) in swept.iter().enumerate() {
        for (row, spine_row) in s.rows.iter().enumerate() {
            places[*spine_row as usize] = Some((piece as u32, row as u32));
        }
    }
    Ok((swept, places))
}

/// The spine rows of each piece; the last piece, behind the others, has the rows without an entity. Rows without an instant are in none.
fn spine_pieces(spine: &SpineView) -> Vec<Vec<u32>> {
    let mut pieces = vec![Vec::new(); PIECES + 1];
    for row in 0..spine.times.len() {
        if spine.times.is_valid(row) {
            let piece = spine.key(row).map_or(PIECES, |key| piece_of(EntityKeys::hash(key)));
            pieces[piece].push(row as u32);
        }
    }
    pieces
}

/// Rows of a piece grouped by entity: `rows[starts[e]..starts[e + 1]]` are those of entity `e`.
struct Groups {
    starts: Vec<u32>,
    rows: Vec<u32>,
}

/// A counting sort by code; rows without one are left out.
fn group(codes: &[u32], entities: usize) -> Groups {
    let mut starts = vec![0u32; entities + 1];
    for code in codes.iter().filter(|c| **c != u32::MAX) {
        starts[*code as usize + 1] += 1;
    }
    for e in 0..entities {
        starts[e + 1] += starts[e];
    }
    let mut next = starts.clone();
    let mut rows = vec![0u32; starts[entities] as usize];
    for (row, code) in codes.iter().enumerate().filter(|(_, c)| **c != u32::MAX) {
        let at = &mut next[*code as usize];
        rows[*at as usize] = row as u32;
        *at += 1;
    }
    Groups { starts, rows }
}

impl Groups {
    fn of(&mut self, entity: usize) -> &mut [u32] {
        &mut self.rows[self.starts[entity] as usize..self.starts[entity + 1] as usize]
    }
}

fn sweep_piece(pieces: &Pieces, piece: usize, view: &View, spine: &SpineView, spine_rows: &[u32], strict: bool) -> Result<Swept> {
    // Entities are numbered as the spine names them; events of others do not matter.
    let mut table: HashTable<(u64, u32, u32)> = HashTable::new();
    let mut entities = 0u32;
    let mut spine_codes = Vec::with_capacity(spine_rows.len());
    for &row in spine_rows {
        let Some(key) = spine.key(row as usize) else {
            spine_codes.push(0);
            continue;
        };
        let hash = EntityKeys::hash(key);
        let entry = table.entry(hash, |(h, first, _)| *h == hash && spine.key(*first as usize) == Some(key), |(h, _, _)| *h);
        let (_, _, code) = *entry
            .or_insert_with(|| {
                entities += 1;
                (hash, row, entities - 1)
            })
            .get();
        spine_codes.push(code);
    }
    let events = if piece < PIECES { pieces.load(piece)? } else { None };
    let mut collector = view.collector(spine_rows.len());
    let mut order = Vec::with_capacity(spine_rows.len());
    let mut spine_groups = group(&spine_codes, entities.max(1) as usize);
    let mut run = Run::scratch();
    match events {
        None => {
            for entity in 0..entities.max(1) as usize {
                for &i in spine_groups.of(entity).iter() {
                    let row = spine_rows[i as usize];
                    view.evaluate(None, Instant { at: spine.times.value(row as usize), strict }, &mut collector)?;
                    order.push(row);
                }
            }
        }
        Some(events) => {
            let keys = EntityKeys::try_new(&events.entity, events.times.len())?;
            let mut codes = Vec::with_capacity(events.times.len());
            for row in 0..events.times.len() {
                let code = keys.get(row).and_then(|key| {
                    let hash = EntityKeys::hash(key);
                    table.find(hash, |(h, first, _)| *h == hash && spine.key(*first as usize) == Some(key)).map(|(_, _, code)| *code)
                });
                codes.push(code.unwrap_or(u32::MAX));
            }
            let mut event_groups = group(&codes, entities.max(1) as usize);
            drop(codes);
            let times = events.times.clone();
            let order_keys: Option<BinaryArray> = events.keys.clone();
            let rows = Rows::try_new(view.program(), events.times, events.keys, events.values, events.masks)
                .map_err(|e| Error::internal(e.to_string()))?;
            for entity in 0..entities.max(1) as usize {
                let mine = event_groups.of(entity);
                // History is nearly sorted, so a stable sort costs little more than a look.
                match &order_keys {
                    None => mine.sort_by_key(|r| times[*r as usize]),
                    Some(keys) => mine.sort_by(|a, b| {
                        let place = |r: &u32| (times[*r as usize], keys.value(*r as usize));
                        place(a).cmp(&place(b))
                    }),
                }
                let asked = spine_groups.of(entity);
                asked.sort_by_key(|i| spine.times.value(spine_rows[*i as usize] as usize));
                run.clear(view.program());
                let mut next = 0;
                for &i in asked.iter() {
                    let row = spine_rows[i as usize];
                    let at = spine.times.value(row as usize);
                    while let Some(event) = mine
                        .get(next)
                        .map(|e| *e as usize)
                        .filter(|e| times[*e] < at || (!strict && times[*e] == at && !asof_udfs::seeded_bug("sweep-equal-left-out")))
                    {
                        let applied = run.insert(view.program(), &rows, event);
                        debug_assert_eq!(applied, Applied::Done, "invariant: nothing is evicted from a run that is swept");
                        next += 1;
                    }
                    view.evaluate(Some(&run), Instant { at, strict }, &mut collector)?;
                    order.push(row);
                }
            }
        }
    }
    let picks = UInt32Array::from(order.clone());
    let entity = spine.entity.iter().map(|c| take(c, &picks, None)).collect::<Result<Vec<_>, _>>()?;
    let instants = take(&spine.instant_column, &picks, None)?;
    debug_assert!(instants.as_primitive_opt::<TimestampMicrosecondType>().is_some(), "invariant: instants are timestamps");
    Ok(Swept { features: view.finish(&entity, &instants, collector)?, rows: order })
}
