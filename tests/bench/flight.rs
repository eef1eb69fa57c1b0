//! Flight as a hot client speaks it: messages are made beforehand, and answers are compared with what must come.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{Schema, SchemaRef};
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::utils::{batches_to_flight_data, flight_data_to_arrow_batch};
use arrow_flight::{FlightData, FlightDescriptor, Ticket};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use prost::Message;
use tokio::sync::mpsc::unbounded_channel;
use tokio::sync::oneshot;
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint};

use super::Result;
use super::drive::{Feed, Job, Load, Tally, drive};
use super::fill::training;
use super::world::World;

pub(crate) async fn channel(address: &str) -> Result<Channel> {
    Ok(Endpoint::new(format!("http://{address}"))?.tcp_nodelay(true).connect().await?)
}

fn client(channel: Channel) -> FlightServiceClient<Channel> {
    FlightServiceClient::new(channel).max_decoding_message_size(64 << 20)
}

/// The schema of keys and the messages of all requests, in order.
fn messages(world: &World, batch: usize) -> Result<(FlightData, Vec<FlightData>)> {
    let mut batches = vec![];
    for request in 0..world.requests(batch) {
        let names = world.keys(request, batch).iter().map(|k| world.entities[*k as usize].as_str());
        let column: ArrayRef = Arc::new(StringArray::from_iter_values(names));
        batches.push(RecordBatch::try_from_iter([("user_id", column)])?);
    }
    let schema = batches.first().ok_or("no requests")?.schema();
    let mut all = batches_to_flight_data(&schema, batches)?.into_iter();
    let mut first = all.next().ok_or("no schema")?;
    first.flight_descriptor =
        Some(FlightDescriptor::new_cmd(format!(r#"{{"v":1,"views":["{}"],"as_of":"{}Z"}}"#, world.view, world.instant.replace(' ', "T"))));
    Ok((first, all.collect()))
}

fn schema_of(message: &FlightData) -> Result<SchemaRef> {
    Ok(Arc::new(Schema::try_from(message)?))
}

fn decode(message: &FlightData, schema: &SchemaRef) -> Result<RecordBatch> {
    Ok(flight_data_to_arrow_batch(message, schema.clone(), &HashMap::new())?)
}

/// Whether an answer is right: that of the echo is the same whoever is asked for.
fn is_right(world: &World, keys: &[u32], message: &FlightData, schema: &SchemaRef, echo: bool) -> bool {
    decode(message, schema).is_ok_and(|found| if echo { found.num_rows() == keys.len() } else { world.is_right(keys, &found) })
}

/// One DoExchange session a connection.
pub(crate) async fn exchange(address: &str, world: &World, batch: usize, connections: usize, load: Load, echo: bool) -> Result<Tally> {
    let (first, requests) = messages(world, batch)?;
    let shared = Rc::new((first, requests));
    let world = Rc::new(Asked::new(world, batch));
    let address = address.to_owned();
    drive(connections, load, move |feed| {
        let (shared, world, address) = (shared.clone(), world.clone(), address.clone());
        async move { session(&address, &world, &shared, feed, echo).await }
    })
    .await
}

/// What the requests of a task ask for.
struct Asked {
    world: World,
    batch: usize,
    /// The message that announced the last schema, and the schema.
    known: RefCell<Option<(FlightData, SchemaRef)>>,
}

impl Asked {
    fn new(world: &World, batch: usize) -> Self {
        Self { world: world.clone(), batch, known: RefCell::default() }
    }

    /// The schema that a message announces. The one of the answer before is not decoded again, as no hot client would.
    fn schema(&self, message: &FlightData) -> Result<SchemaRef> {
        let mut known = self.known.borrow_mut();
        if let Some((_, schema)) = known.as_ref().filter(|(first, _)| first.data_header == message.data_header) {
            return Ok(schema.clone());
        }
        let schema = schema_of(message)?;
        *known = Some((message.clone(), schema.clone()));
        Ok(schema)
    }

    fn keys(&self, request: usize) -> &[u32] {
        self.world.keys(request, self.batch)
    }
}

async fn session(address: &str, asked: &Asked, shared: &(FlightData, Vec<FlightData>), mut feed: Feed, echo: bool) -> Result<Feed> {
    let (sender, receiver) = unbounded_channel();
    let mut sender = Some(sender);
    if let Some(sender) = &sender {
        sender.send(shared.0.clone())?;
    }
    let outgoing = tokio_stream(receiver);
    let mut answers = client(channel(address).await?).do_exchange(outgoing).await?.into_inner();
    let schema = schema_of(&answers.message().await?.ok_or("the session ended before its schema")?)?;
    let mut waiting: VecDeque<Job> = VecDeque::new();
    loop {
        tokio::select! {
            biased;
            job = feed.jobs.recv(), if sender.is_some() => match (job, &sender) {
                (Some(job), Some(open)) => {
                    open.send(shared.1[job.request % shared.1.len()].clone())?;
                    waiting.push_back(job);
                }
                _ => sender = None,
            },
            answer = answers.message() => match answer? {
                Some(answer) => {
                    let job = waiting.pop_front().ok_or("an answer without a request")?;
                    let right = is_right(&asked.world, asked.keys(job.request), &answer, &schema, echo);
                    feed.done(job, right);
                }
                None if waiting.is_empty() && sender.is_none() => return Ok(feed),
                None => return Err(format!("the session ended with {} requests unanswered", waiting.len()).into()),
            },
        }
    }
}

fn tokio_stream<T>(mut receiver: tokio::sync::mpsc::UnboundedReceiver<T>) -> impl futures::Stream<Item = T> {
    futures::stream::poll_fn(move |context| receiver.poll_recv(context))
}

/// A DoGet a request, over a few connections, by tickets made here.
pub(crate) async fn ticket(address: &str, world: &World, batch: usize, connections: usize, load: Load, echo: bool) -> Result<Tally> {
    let tickets: Vec<Ticket> = (0..world.requests(batch))
        .map(|request| {
            let keys: Vec<&str> = world.keys(request, batch).iter().map(|k| world.entities[*k as usize].as_str()).collect();
            let as_of = format!("{}Z", world.instant.replace(' ', "T"));
            Ticket::new(serde_json::json!({"v": 1, "views": [world.view], "keys": {"user_id": keys}, "as_of": as_of}).to_string())
        })
        .collect();
    let tickets = Rc::new(tickets);
    let asked = Rc::new(Asked::new(world, batch));
    let address = address.to_owned();
    drive(connections, load, move |feed| {
        let (tickets, asked, address) = (tickets.clone(), asked.clone(), address.clone());
        async move { tickets_of(&address, &asked, &tickets, feed, echo).await }
    })
    .await
}

async fn tickets_of(address: &str, asked: &Asked, tickets: &[Ticket], mut feed: Feed, echo: bool) -> Result<Feed> {
    let client = client(channel(address).await?);
    let mut under_way = FuturesUnordered::new();
    let mut open = true;
    while open || !under_way.is_empty() {
        tokio::select! {
            biased;
            job = feed.jobs.recv(), if open => match job {
                Some(job) => {
                    let mut client = client.clone();
                    let ticket = tickets[job.request % tickets.len()].clone();
                    under_way.push(async move {
                        let answers = client.do_get(ticket).await?.into_inner();
                        let right = is_answer(answers, asked, job.request, echo).await?;
                        Ok::<_, Box<dyn std::error::Error + Send + Sync>>((job, right))
                    });
                }
                None => open = false,
            },
            Some(answer) = under_way.next(), if !under_way.is_empty() => {
                let (job, right) = answer?;
                feed.done(job, right);
            }
        }
    }
    drop(under_way);
    Ok(feed)
}

/// Reads a whole answer: a schema, then one batch.
async fn is_answer(mut answers: Streaming<FlightData>, asked: &Asked, request: usize, echo: bool) -> Result<bool> {
    let schema = asked.schema(&answers.message().await?.ok_or("an answer without a schema")?)?;
    let mut right = None;
    while let Some(message) = answers.message().await? {
        let is_first = right.is_none();
        right = Some(is_first && is_right(&asked.world, asked.keys(request), &message, &schema, echo));
    }
    Ok(right.unwrap_or(false))
}

/// Keeps the messages of real answers for the echo: of one entity and of a hundred, by exchange and by ticket.
pub(crate) async fn save_answers(address: &str, world: &World) -> Result<()> {
    let mut client = client(channel(address).await?);
    for batch in [1, 100] {
        let (first, requests) = messages(world, batch)?;
        let outgoing = futures::stream::iter([first, requests[0].clone()]);
        let mut answers = client.do_exchange(outgoing).await?.into_inner();
        let mut bytes = vec![];
        while let Some(message) = answers.message().await? {
            message.encode_length_delimited(&mut bytes)?;
        }
        std::fs::write(world.dir.join(format!("exchange_{batch}.bin")), bytes)?;
    }
    let as_of = format!("{}Z", world.instant.replace(' ', "T"));
    let ticket = serde_json::json!({"v": 1, "views": [world.view], "keys": {"user_id": [world.entities[0]]}, "as_of": as_of});
    let mut answers = client.do_get(Ticket::new(ticket.to_string())).await?.into_inner();
    let mut bytes = vec![];
    while let Some(message) = answers.message().await? {
        message.encode_length_delimited(&mut bytes)?;
    }
    std::fs::write(world.dir.join("ticket_1.bin"), bytes)?;
    Ok(())
}

/// A training query that runs over and over beside what is measured, on a thread of its own so that reading its rows holds up no answer here.
pub(crate) struct Training {
    stop: oneshot::Sender<()>,
    thread: std::thread::JoinHandle<Result<u64>>,
}

impl Training {
    /// Stops it; gives how many rows came.
    pub(crate) fn stop(self) -> Result<u64> {
        self.stop.send(()).ok();
        match self.thread.join().map_err(|_| "the training thread failed")?? {
            0 => Err("no row of the training query came while it was to be a load".into()),
            rows => Ok(rows),
        }
    }
}

pub(crate) fn train_until_stopped(address: &str, world: &World) -> Training {
    let (stop, stopped) = oneshot::channel();
    let address = address.to_owned();
    let query = training(&world.view, &world.features, &world.instant);
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let rows = Cell::new(0);
            tokio::select! {
                done = train(&address, &query, &rows) => done?,
                _ = stopped => {}
            }
            Ok(rows.get())
        })
    });
    Training { stop, thread }
}

/// Runs a query again and again, and counts its rows.
async fn train(address: &str, query: &str, rows: &Cell<u64>) -> Result<()> {
    let mut sql = FlightSqlServiceClient::new(channel(address).await?);
    loop {
        let info = sql.execute(query.to_owned(), None).await?;
        for endpoint in info.endpoint {
            let mut stream = sql.do_get(endpoint.ticket.ok_or("an endpoint without a ticket")?).await?;
            while let Some(batch) = stream.next().await {
                rows.set(rows.get() + batch?.num_rows() as u64);
            }
        }
    }
}
