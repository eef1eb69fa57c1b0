//! A session of keys and features.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow_flight::{FlightData, FlightDescriptor};
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::Client;
use crate::ipc::{Decoder, Received, batch_message, plain_batch, plain_schema, schema_message};
use crate::request::ExchangeRequest;
use crate::status::{Failure, Outcome, Remedy};

/// Batches of keys that may wait to be sent.
const KEYS_AHEAD: usize = 16;

/// A session of keys and features. Keys may be sent ahead of the answers, which come in the same order.
pub struct Exchange {
    keys: mpsc::Sender<FlightData>,
    key_schema: SchemaRef,
    answers: Streaming<FlightData>,
    decoder: Decoder,
}

impl Exchange {
    pub(super) async fn open(client: &Client, request: &ExchangeRequest, keys: &SchemaRef) -> Outcome<Self> {
        let (send, receive) = mpsc::channel(KEYS_AHEAD);
        let key_schema = plain_schema(keys);
        let first = schema_message(&key_schema).with_descriptor(FlightDescriptor::new_cmd(request.to_bytes()));
        send.send(first).await.map_err(|_| closed())?;
        let answers = client.inner.clone().do_exchange(client.request(ReceiverStream::new(receive))).await?.into_inner();
        let mut exchange = Self { keys: send, key_schema, answers, decoder: Decoder::default() };
        while exchange.decoder.schema().is_none() {
            let message = exchange.answers.message().await?.ok_or_else(closed)?;
            exchange.decoder.take(&message)?;
        }
        Ok(exchange)
    }

    /// The columns of the answers.
    pub fn schema(&self) -> Option<&SchemaRef> {
        self.decoder.schema()
    }

    /// Sends a batch of keys; waits where the server is behind.
    pub async fn send(&self, keys: &RecordBatch) -> Outcome<()> {
        self.send_with(keys, Bytes::new()).await
    }

    /// Sends a batch of keys with metadata that comes back with its answer.
    pub async fn send_with(&self, keys: &RecordBatch, metadata: Bytes) -> Outcome<()> {
        let keys = plain_batch(keys.columns(), keys.num_rows(), &self.key_schema)?;
        let message = batch_message(&keys)?.with_app_metadata(metadata);
        self.keys.send(message).await.map_err(|_| closed())
    }

    /// The next answer with the metadata of its keys; `None` once the session is over.
    pub async fn receive(&mut self) -> Outcome<Option<(RecordBatch, Bytes)>> {
        loop {
            let Some(message) = self.answers.message().await? else { return Ok(None) };
            if let Received::Batch(batch) = self.decoder.take(&message)? {
                return Ok(Some((batch, message.app_metadata)));
            }
        }
    }

    /// Keys in, features out.
    pub async fn features(&mut self, keys: &RecordBatch) -> Outcome<RecordBatch> {
        match self.send(keys).await {
            // The server has ended the session; its last word says why.
            Err(e) if e.remedy == Remedy::Closed => self.receive().await.and(Err(e)),
            sent => {
                sent?;
                Ok(self.receive().await?.ok_or_else(closed)?.0)
            }
        }
    }
}

fn closed() -> Failure {
    Failure::new(Remedy::Closed, "the exchange is closed")
}
