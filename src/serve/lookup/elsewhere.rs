//! Look-ups of a view whose entities are shared out among processes: each key goes to the process that has its partition.
//!
//! What this process has it answers itself; for the rest it asks the others, as one more client, and puts the rows together in the order of
//! the keys. Whoever asks with `here` set is told instead who has an entity. While a partition is moving nobody has it: then a look-up
//! waits a while. Not here: who has what (`engine::group`).

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant as Moment};

use arrow::array::{Array, ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::{cast, interleave, take};
use arrow::datatypes::{Field, Schema};
use asof_flight::request::At;
use asof_flight::{Client, ClientOptions, ExchangeRequest, FeatureRequest};
use asof_udfs::Instant;
use chrono::Datelike;
use tokio::sync::Mutex;

use super::of_slot;
use crate::engine::Inner;
use crate::engine::views::{Part, Slot};
use crate::error::{Error, Kind, Result};
use crate::op::window::View;

/// How long a look-up waits for a partition that nobody has.
const WAIT: Duration = Duration::from_secs(5);
/// How often it looks.
const LOOK: Duration = Duration::from_millis(200);
/// How long another process may take for an answer.
const ANSWER: Duration = Duration::from_secs(30);
/// The most other processes that connections are kept to.
const PEERS_MAX: usize = 256;

/// The other processes, and how they are asked.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    options: RwLock<ClientOptions>,
    clients: Mutex<BTreeMap<String, Client>>,
}

impl Peers {
    /// Says how the others are asked.
    pub(crate) fn set_options(&self, options: ClientOptions) {
        *self.options.write().unwrap_or_else(PoisonError::into_inner) = options;
    }

    async fn client(&self, address: &str) -> Result<Client> {
        if let Some(client) = self.clients.lock().await.get(address) {
            return Ok(client.clone());
        }
        let options = self.options.read().unwrap_or_else(PoisonError::into_inner).clone();
        let client = Client::connect(address, options).await.map_err(|e| unreachable_peer(address, &e))?;
        let mut clients = self.clients.lock().await;
        if clients.len() >= PEERS_MAX {
            clients.clear();
        }
        clients.insert(address.to_owned(), client.clone());
        Ok(client)
    }

    async fn forget(&self, address: &str) {
        self.clients.lock().await.remove(address);
    }
}

fn unreachable_peer(address: &str, e: &asof_flight::Failure) -> Error {
    Error::unavailable(format!("the process at \"{address}\", which has the entity, does not answer for it: {e}"))
}

/// A view over a stream that several processes share, as a look-up needs it.
pub(crate) struct Shared {
    stream: String,
    /// Which of the entity columns is the stream's key.
    entity: usize,
}

/// How a look-up of this view finds its entities; `None` where this process has all of them.
pub(crate) fn shared(engine: &Inner, view: &View) -> Option<Shared> {
    if !engine.is_member() {
        return None;
    }
    let registry = engine.registry();
    let (stream, ..) = registry.shared(&view.plan)?;
    let entity = registry.key_of(&view.plan)?;
    Some(Shared { stream: stream.to_owned(), entity })
}

/// Who answers for some keys.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Here(Part),
    At(String),
}

/// The partition of each key. A NULL key has no events, which every process knows.
fn partitions(placement: &crate::stream::placement::Placement, parts: &[Part], keys: &ArrayRef, unknown: &[bool]) -> Result<Vec<i32>> {
    let any = parts.first().map_or(0, |part| part.partition);
    let of = placement.of_keys(keys)?;
    Ok(of.into_iter().zip(unknown).map(|(p, unknown)| p.filter(|_| !unknown).unwrap_or(any)).collect())
}

impl Shared {
    /// Which rows of keys go where, as far as that is known now.
    async fn places(&self, engine: &Inner, keys: &[ArrayRef], unknown: &[bool]) -> Result<BTreeMap<Place, Vec<u32>>> {
        let moving =
            |what: String| Error::unavailable(format!("{what} of stream \"{}\" is moving between processes; try again", self.stream));
        let share = engine.share(&self.stream).ok_or_else(|| moving("every partition".into()))?;
        let parts: Vec<Part> = share.parts().collect();
        let mut places: BTreeMap<Place, Vec<u32>> = BTreeMap::new();
        let mut known: BTreeMap<i32, Place> = parts.iter().map(|part| (part.partition, Place::Here(*part))).collect();
        let own = engine.own_address();
        for (row, partition) in partitions(&share.placement, &parts, self.key(keys)?, unknown)?.into_iter().enumerate() {
            let place = match known.get(&partition) {
                Some(place) => place.clone(),
                None => {
                    let owner = engine.owner(&self.stream, partition).await?.and_then(|holder| holder.connect);
                    let address = owner.filter(|at| Some(at) != own.as_ref()).ok_or_else(|| moving(format!("partition {partition}")))?;
                    known.entry(partition).or_insert(Place::At(address)).clone()
                }
            };
            places.entry(place).or_default().push(row as u32);
        }
        Ok(places)
    }

    fn key<'a>(&self, keys: &'a [ArrayRef]) -> Result<&'a ArrayRef> {
        keys.get(self.entity).ok_or_else(|| Error::internal("a look-up without its key"))
    }

    /// The address of the one other process that has all of these keys; `None` where there is no such.
    pub(crate) async fn served_at(&self, engine: &Inner, keys: &[ArrayRef], unknown: &[bool]) -> Option<String> {
        match self.places(engine, keys, unknown).await.ok()?.into_keys().collect::<Vec<_>>().as_slice() {
            [Place::At(address)] => Some(address.clone()),
            _ => None,
        }
    }

    /// The features of entities, wherever they are.
    pub(crate) async fn features(
        &self,
        engine: &Inner,
        view: &Arc<View>,
        keys: &[ArrayRef],
        unknown: &[bool],
        at: Instant,
        here: bool,
    ) -> Result<(Vec<ArrayRef>, Option<String>)> {
        let until = Moment::now() + WAIT;
        loop {
            let found = self.once(engine, view, keys, unknown, at, here).await;
            match found {
                Err(e) if e.kind() == Kind::Unavailable && !here && Moment::now() < until => {
                    tracing::debug!(view = view.plan.name, error = %e, "a look-up waits");
                    engine.forget_owners();
                    tokio::time::sleep(LOOK).await;
                }
                found => return found,
            }
        }
    }

    async fn once(
        &self,
        engine: &Inner,
        view: &Arc<View>,
        keys: &[ArrayRef],
        unknown: &[bool],
        at: Instant,
        here: bool,
    ) -> Result<(Vec<ArrayRef>, Option<String>)> {
        let places = self.places(engine, keys, unknown).await?;
        if here && let Some(Place::At(address)) = places.keys().find(|p| matches!(p, Place::At(_))) {
            return Err(Error::unavailable(format!("the entity is served at \"{address}\"")));
        }
        let answers = places.iter().map(|(place, rows)| async move {
            let (keys, unknown) = picked(keys, unknown, rows)?;
            match place {
                Place::Here(part) => {
                    let slot = Slot { view: view.plan.name.clone(), part: Some(*part) };
                    of_slot(engine, &slot, view, &keys, &unknown, at).await
                }
                Place::At(address) => Ok((ask(engine, address, view, &keys, at).await?, None)),
            }
        });
        let answers = futures::future::try_join_all(answers).await?;
        let notes: Vec<String> = answers.iter().filter_map(|(_, note)| note.clone()).collect();
        let columns: Vec<Vec<ArrayRef>> = answers.into_iter().map(|(columns, _)| columns).collect();
        let rows: Vec<&[u32]> = places.values().map(Vec::as_slice).collect();
        Ok((together(view, &rows, &columns, unknown.len())?, notes.into_iter().next()))
    }

    /// The features of entities that this process has, from states that are there; `None` where that takes more.
    pub(crate) fn features_now(
        &self,
        engine: &Inner,
        view: &Arc<View>,
        keys: &[ArrayRef],
        unknown: &[bool],
        at: Instant,
    ) -> Option<Result<Vec<ArrayRef>>> {
        let share = engine.share(&self.stream)?;
        let parts: Vec<Part> = share.parts().collect();
        let of = partitions(&share.placement, &parts, self.key(keys).ok()?, unknown).ok()?;
        let read = |partition: i32, keys: &[ArrayRef], unknown: &[bool]| {
            let slot = Slot { view: view.plan.name.clone(), part: Some(share.part(partition)?) };
            engine.ready_slot(&slot).filter(|o| Arc::ptr_eq(&o.view, view))?.read(keys, unknown, at)
        };
        // The usual case: one entity.
        let first = *of.first()?;
        if of.iter().all(|p| *p == first) {
            return read(first, keys, unknown);
        }
        let mut rows: BTreeMap<i32, Vec<u32>> = BTreeMap::new();
        of.iter().enumerate().for_each(|(row, p)| rows.entry(*p).or_default().push(row as u32));
        let mut columns = Vec::with_capacity(rows.len());
        for (partition, rows) in &rows {
            let (keys, unknown) = picked(keys, unknown, rows).ok()?;
            match read(*partition, &keys, &unknown)? {
                Ok(found) => columns.push(found),
                Err(e) => return Some(Err(e)),
            }
        }
        let rows: Vec<&[u32]> = rows.values().map(Vec::as_slice).collect();
        Some(together(view, &rows, &columns, unknown.len()))
    }
}

/// Some rows of the keys.
fn picked(keys: &[ArrayRef], unknown: &[bool], rows: &[u32]) -> Result<(Vec<ArrayRef>, Vec<bool>)> {
    let picks = UInt32Array::from(rows.to_vec());
    let keys = keys.iter().map(|k| take(k, &picks, None)).collect::<std::result::Result<_, _>>()?;
    Ok((keys, rows.iter().map(|row| unknown[*row as usize]).collect()))
}

/// Answers for some rows each as one answer for all, in the order of the keys.
fn together(view: &View, rows: &[&[u32]], columns: &[Vec<ArrayRef>], count: usize) -> Result<Vec<ArrayRef>> {
    if let [one] = columns {
        return Ok(one.clone());
    }
    let mut places = vec![(0, 0); count];
    for (answer, rows) in rows.iter().enumerate() {
        for (place, row) in rows.iter().enumerate() {
            places[*row as usize] = (answer, place);
        }
    }
    let feature = |i: usize| {
        let answers: Vec<&dyn Array> = columns.iter().filter_map(|c| c.get(i)).map(AsRef::as_ref).collect();
        Ok(match answers.is_empty() {
            true => arrow::array::new_empty_array(&view.plan.features[i].data_type),
            false => interleave(&answers, &places)?,
        })
    };
    (0..view.plan.features.len()).map(feature).collect()
}

/// The features of entities that another process has.
async fn ask(engine: &Inner, address: &str, view: &View, keys: &[ArrayRef], at: Instant) -> Result<Vec<ArrayRef>> {
    if chrono::DateTime::from_timestamp_micros(at.at).is_none_or(|t| t.year() > 9999) {
        return Err(Error::invalid("the instant lies beyond the year 9999"));
    }
    let fields: Vec<Field> = view.plan.entity.iter().map(|e| Field::new(&e.name, e.data_type.clone(), true)).collect();
    let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), keys.to_vec())?;
    let at = if at.strict { At::Before(at.at) } else { At::AsOf(at.at) };
    let features = FeatureRequest { views: vec![view.plan.name.clone()], at, here: true, ..FeatureRequest::default() };
    let asked = async {
        let client = engine.peers.client(address).await?;
        let request = ExchangeRequest { features, with_keys: false };
        let answer = async {
            let mut exchange = client.exchange(&request, &batch.schema()).await?;
            let answer = exchange.features(&batch).await?;
            let meaning = exchange.schema().and_then(|s| s.metadata().get(&format!("asof.view.{}", view.plan.name)).cloned());
            Ok((answer, meaning))
        };
        answer.await.map_err(|e| unreachable_peer(address, &e))
    };
    let silent = || Error::unavailable(format!("the process at \"{address}\", which has the entity, takes too long"));
    let (answer, meaning) = match tokio::time::timeout(ANSWER, asked).await.unwrap_or_else(|_| Err(silent())) {
        Ok(answer) => answer,
        Err(e) => {
            engine.peers.forget(address).await;
            return Err(e);
        }
    };
    let wanted = &view.plan.features;
    let same = meaning == Some(view.plan.fingerprint.to_string());
    if !same || (answer.num_rows(), answer.num_columns()) != (batch.num_rows(), wanted.len()) {
        return Err(Error::unavailable(format!("the process at \"{address}\" knows another definition of view \"{}\"", view.plan.name)));
    }
    // Strings travel in their plain form.
    Ok(answer.columns().iter().zip(wanted).map(|(column, of)| cast(column, &of.data_type)).collect::<std::result::Result<_, _>>()?)
}
