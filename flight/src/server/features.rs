//! Features in one round trip: tickets, and sessions in which each batch of keys gives one batch of features.
//!
//! Neither parses SQL nor plans anything: the reader is found by what is asked for, the schema's message was made with it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;
use arrow_flight::flight_descriptor::DescriptorType;
use arrow_flight::{FlightData, FlightDescriptor, FlightEndpoint, FlightInfo, Ticket};
use futures::StreamExt;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tonic::{Status, Streaming};

use super::connection::Connection;
use super::service::Answers;
use super::{Core, silent, stopping};
use crate::backend::{FeatureReader, Session};
use crate::ipc::{Decoder, Received, batch_message, plain_batch};
use crate::request::{ExchangeRequest, FeatureRequest, KeyLists, VERSION, is_ours, key_arrays};
use crate::status::{Failure, Outcome, Remedy};

/// How long a session still takes keys once the server stops: what was sent before is answered, whoever goes on sending is not waited for.
const LAST_KEYS: Duration = Duration::from_secs(1);

/// The features of keys as one message. What is to be said of them stands in its metadata.
async fn answer(
    reader: &dyn FeatureReader,
    request: &FeatureRequest,
    keys: Vec<ArrayRef>,
    rows: usize,
    with_keys: bool,
) -> Outcome<FlightData> {
    let schema = &reader.layout(with_keys).schema;
    let features = reader.read(keys, request.at, request.here).await?;
    let before = if with_keys { features.keys } else { vec![] };
    let columns: Vec<ArrayRef> = before.into_iter().chain(features.columns).collect();
    let message = batch_message(&plain_batch(&columns, rows, schema)?)?;
    Ok(match features.note {
        Some(note) => message.with_app_metadata(serde_json::json!({ "v": VERSION, "note": note }).to_string()),
        None => message,
    })
}

impl Core {
    /// What a client learns that asks for the information first: the ticket is what it sent, and where another process has all of the
    /// entities, that is where it is pulled.
    pub(super) async fn features_info(
        &self,
        connection: &Connection,
        request: &FeatureRequest,
        keys: &KeyLists,
        descriptor: FlightDescriptor,
    ) -> Outcome<FlightInfo> {
        let reader = connection.session.reader(request).await?;
        let keys = key_arrays(keys, reader.keys(), &request.text, self.limits.keys)?;
        let mut endpoint = FlightEndpoint::new().with_ticket(Ticket::new(descriptor.cmd.clone()));
        if let Some(address) = reader.served_at(&keys).await {
            endpoint = endpoint.with_location(address).with_location(super::sql::REUSE_CONNECTION);
        }
        super::sql::info(&reader.layout(true).schema, vec![endpoint], descriptor)
    }

    /// The answer to a ticket: the entity columns, then the features, one row per key in the order given.
    pub(super) async fn get_features(
        &self,
        connection: &Connection,
        request: FeatureRequest,
        keys: &KeyLists,
    ) -> Outcome<Answers<FlightData>> {
        let reader = connection.session.reader(&request).await?;
        let keys = key_arrays(keys, reader.keys(), &request.text, self.limits.keys)?;
        let rows = keys.first().map_or(0, |k| k.len());
        let features = answer(reader.as_ref(), &request, keys, rows, true).await?;
        let messages = [Ok(reader.layout(true).message.clone()), Ok(features)];
        Ok(futures::stream::iter(messages).boxed())
    }

    /// A session: the schema at once, then a batch of features for each batch of keys, as fast as the client reads them.
    pub(super) async fn exchange(&self, connection: &Connection, mut messages: Streaming<FlightData>) -> Outcome<Answers<FlightData>> {
        let permit = self.exchanges.clone().try_acquire_owned().map_err(|_| {
            Failure::new(Remedy::Exhausted, format!("{} exchange sessions are open, which is the limit", self.limits.exchanges))
        })?;
        let first = self.first_message(&mut messages, "exchange").await?;
        let descriptor =
            first.flight_descriptor.as_ref().ok_or_else(|| Failure::invalid("the first message of an exchange has a descriptor"))?;
        let request = match descriptor.r#type() {
            DescriptorType::Path => ExchangeRequest::of_path(&descriptor.path)?,
            _ if is_ours(&descriptor.cmd) => ExchangeRequest::parse(&descriptor.cmd)?,
            _ => return Err(Failure::invalid("the descriptor of an exchange is a view's name as path, or a JSON object")),
        };
        let reader = connection.session.reader(&request.features).await?;
        let schema = reader.layout(request.with_keys).message.clone();
        let mut exchange = Exchange {
            session: connection.session.clone(),
            reader,
            request,
            decoder: Decoder::default(),
            places: None,
            keys_max: self.limits.keys,
            idle: self.limits.idle,
            closing: self.closing.clone(),
            last_keys: None,
            ended: false,
            _permit: permit,
        };
        // The schema of the keys may come with the descriptor or behind it.
        if let Received::Batch(_) = exchange.decoder.take(&first)? {
            return Err(Failure::invalid("the first message of an exchange holds the schema of the keys, not keys"));
        }
        let answers = futures::stream::unfold((exchange, messages), |(mut exchange, mut messages)| async move {
            if exchange.ended {
                return None;
            }
            let next = exchange.next(&mut messages).await;
            exchange.ended = matches!(next, Some(Err(_)));
            next.map(|answer| (answer.map_err(Status::from), (exchange, messages)))
        });
        Ok(futures::stream::iter([Ok(schema)]).chain(answers).boxed())
    }
}

struct Exchange {
    session: Arc<dyn Session>,
    reader: Arc<dyn FeatureReader>,
    request: ExchangeRequest,
    decoder: Decoder,
    /// Where in a batch of keys each entity column stands.
    places: Option<Vec<usize>>,
    keys_max: usize,
    idle: Duration,
    closing: watch::Receiver<bool>,
    /// Until when keys are taken, once the server stops.
    last_keys: Option<Instant>,
    ended: bool,
    _permit: OwnedSemaphorePermit,
}

impl Exchange {
    async fn next(&mut self, messages: &mut Streaming<FlightData>) -> Option<Outcome<FlightData>> {
        loop {
            if *self.closing.borrow() && *self.last_keys.get_or_insert_with(|| Instant::now() + LAST_KEYS) <= Instant::now() {
                return Some(Err(stopping("exchange")));
            }
            let message = tokio::select! {
                biased;
                message = tokio::time::timeout(self.idle, messages.next()) => message,
                _ = self.closing.wait_for(|c| *c) => return Some(Err(stopping("exchange"))),
            };
            let message = match message {
                Err(_) => return Some(Err(silent())),
                Ok(None) => return None,
                Ok(Some(Err(e))) => return Some(Err(e.into())),
                Ok(Some(Ok(message))) => message,
            };
            match self.decoder.take(&message) {
                Err(e) => return Some(Err(e)),
                Ok(Received::Preamble) => {}
                Ok(Received::Nothing) => {
                    if !message.app_metadata.is_empty() {
                        return Some(Err(Failure::invalid("a message of an exchange holds keys; one with metadata alone has no answer")));
                    }
                }
                Ok(Received::Batch(keys)) => {
                    let answer = self.answer(&keys).await;
                    // What the client sent comes back; where it sent nothing, there is room for a note.
                    let echo = message.app_metadata;
                    return Some(answer.map(|data| if echo.is_empty() { data } else { data.with_app_metadata(echo) }));
                }
            }
        }
    }

    async fn answer(&mut self, batch: &RecordBatch) -> Outcome<FlightData> {
        if batch.num_rows() > self.keys_max {
            return Err(Failure::invalid(format!("{} entities are asked for, the limit is {}", batch.num_rows(), self.keys_max)));
        }
        if self.reader.is_outdated() {
            let reader = self.session.reader(&self.request.features).await?;
            if reader.layout(self.request.with_keys).schema != self.reader.layout(self.request.with_keys).schema {
                return Err(Failure::new(Remedy::Closed, "the definition of a view has changed; open the exchange anew"));
            }
            self.reader = reader;
            self.places = None;
        }
        let places = match &self.places {
            Some(places) => places,
            None => self.places.insert(places(self.reader.keys(), &batch.schema())?),
        };
        let keys = places.iter().map(|i| batch.column(*i).clone()).collect();
        answer(self.reader.as_ref(), &self.request.features, keys, batch.num_rows(), self.request.with_keys).await
    }
}

/// Where each entity column stands among the columns of the keys; they must be these and no others.
fn places(entity: &SchemaRef, given: &SchemaRef) -> Outcome<Vec<usize>> {
    let names = || entity.fields().iter().map(|f| f.name().as_str()).collect::<Vec<_>>().join(", ");
    if let Some(extra) = given.fields().iter().find(|f| entity.field_with_name(f.name()).is_err()) {
        return Err(Failure::invalid(format!("\"{}\" is no entity column; the entity is ({})", extra.name(), names())));
    }
    let place = |f: &Arc<arrow::datatypes::Field>| {
        let mut found = given.fields().iter().enumerate().filter(|(_, g)| g.name() == f.name()).map(|(i, _)| i);
        match (found.next(), found.next()) {
            (Some(i), None) => Ok(i),
            (Some(_), Some(_)) => Err(Failure::invalid(format!("entity column \"{}\" is given twice", f.name()))),
            (None, _) => Err(Failure::invalid(format!("entity column \"{}\" is not given; the entity is ({})", f.name(), names()))),
        }
    };
    entity.fields().iter().map(place).collect()
}
