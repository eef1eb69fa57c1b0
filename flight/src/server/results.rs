//! Results between `GetFlightInfo` and the pulls of their endpoints.
//!
//! All endpoints of a result draw from one stream of batches: whoever pulls gets the next batch. So each row comes out exactly once,
//! whether endpoints are pulled in parallel or one after the other, with nothing buffered but the batch under way. An endpoint is pulled
//! once. A reader that goes away before its end takes rows with it: where nobody else reads, the work stops and the result is void.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use futures::{Stream, StreamExt};
use tokio::sync::{mpsc, watch};

use crate::backend::{RowStream, Rows};
use crate::ipc::{plain_batch, plain_schema};
use crate::status::{Failure, Outcome, Remedy};

/// What names a result.
pub(super) type ResultId = [u8; 16];

pub(super) struct Results {
    entries: Mutex<HashMap<ResultId, Entry>>,
    max: usize,
    wait: Duration,
}

struct Entry {
    shared: Arc<Shared>,
    taken: Vec<bool>,
    expires: Instant,
}

enum State {
    Waiting(Box<dyn FnOnce() -> RowStream + Send>),
    Running(RowStream),
    Ended,
    Failed(Failure),
}

struct Shared {
    schema: SchemaRef,
    state: tokio::sync::Mutex<State>,
    readers: AtomicUsize,
    cancelled: watch::Sender<bool>,
}

impl Results {
    pub(super) fn new(max: usize, wait: Duration) -> Self {
        Self { entries: Mutex::default(), max, wait }
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<ResultId, Entry>> {
        self.entries.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Keeps a result until its endpoints are pulled or its time is over.
    pub(super) fn add(&self, rows: Rows, endpoints: usize) -> Outcome<(ResultId, SchemaRef)> {
        let schema = plain_schema(&rows.schema);
        let shared = Shared {
            schema: schema.clone(),
            state: tokio::sync::Mutex::new(State::Waiting(rows.start)),
            readers: AtomicUsize::new(0),
            cancelled: watch::Sender::new(false),
        };
        let entry = Entry { shared: Arc::new(shared), taken: vec![false; endpoints], expires: Instant::now() + self.wait };
        let id = *uuid::Uuid::new_v4().as_bytes();
        let mut entries = self.entries();
        if entries.len() >= self.max {
            entries.retain(|_, e| e.expires > Instant::now());
        }
        if entries.len() >= self.max {
            let message = format!("{} results wait to be pulled, which is the limit; pull or cancel some", self.max);
            return Err(Failure::new(Remedy::Exhausted, message));
        }
        entries.insert(id, entry);
        Ok((id, schema))
    }

    /// The rows of one endpoint.
    pub(super) fn take(
        self: &Arc<Self>,
        id: ResultId,
        endpoint: usize,
    ) -> Outcome<(SchemaRef, impl Stream<Item = Outcome<RecordBatch>> + Send + use<>)> {
        let gone = || Failure::new(Remedy::NotFound, "the result was pulled before, was cancelled or has expired; run the query again");
        let mut entries = self.entries();
        let entry = entries.get_mut(&id).filter(|e| e.expires > Instant::now()).ok_or_else(gone)?;
        let taken = entry.taken.get_mut(endpoint).ok_or_else(|| Failure::new(Remedy::NotFound, "the result has no such endpoint"))?;
        if std::mem::replace(taken, true) {
            return Err(gone());
        }
        let shared = entry.shared.clone();
        shared.readers.fetch_add(1, Ordering::AcqRel);
        if entry.taken.iter().all(|t| *t) {
            entries.remove(&id);
        }
        drop(entries);
        let reading = Reading { shared: shared.clone(), results: self.clone(), id, done: false };
        let (sender, mut receiver) = mpsc::channel(1);
        tokio::spawn(reading.run(sender));
        let rows = futures::stream::poll_fn(move |context| receiver.poll_recv(context));
        Ok((shared.schema.clone(), rows))
    }

    /// Stops a result; false where there is none of that name.
    pub(super) fn cancel(&self, id: &ResultId) -> bool {
        match self.entries().remove(id) {
            Some(entry) => {
                entry.shared.cancelled.send_replace(true);
                true
            }
            None => false,
        }
    }

    /// Drops what has expired, again and again.
    pub(super) async fn sweep(&self) {
        let mut ticks = tokio::time::interval((self.wait / 4).clamp(Duration::from_millis(100), Duration::from_secs(10)));
        loop {
            ticks.tick().await;
            self.entries().retain(|_, e| e.expires > Instant::now());
        }
    }
}

impl Shared {
    async fn next(&self) -> Option<Outcome<RecordBatch>> {
        let mut cancelled = self.cancelled.subscribe();
        tokio::select! {
            biased;
            _ = cancelled.wait_for(|c| *c) => Some(Err(Failure::new(Remedy::Cancelled, "the result was cancelled"))),
            next = self.advance() => next,
        }
    }

    async fn advance(&self) -> Option<Outcome<RecordBatch>> {
        let mut state = self.state.lock().await;
        loop {
            match &mut *state {
                State::Waiting(_) => {
                    if let State::Waiting(start) = std::mem::replace(&mut *state, State::Ended) {
                        *state = State::Running(start());
                    }
                }
                State::Running(rows) => {
                    let next = rows.next().await.map(|b| b.and_then(|b| plain_batch(b.columns(), b.num_rows(), &self.schema)));
                    match &next {
                        Some(Ok(batch)) if batch.num_rows() == 0 => continue,
                        Some(Ok(_)) => {}
                        Some(Err(e)) => *state = State::Failed(e.clone()),
                        None => *state = State::Ended,
                    }
                    return next;
                }
                State::Ended => return None,
                // Each reader hears of it: none may take what it has for all there is.
                State::Failed(e) => return Some(Err(e.clone())),
            }
        }
    }
}

/// One endpoint being pulled.
struct Reading {
    shared: Arc<Shared>,
    results: Arc<Results>,
    id: ResultId,
    done: bool,
}

impl Reading {
    /// Hands batches on to whoever pulls. A task of its own takes them, and only where there is room: a client that stops reading stops the
    /// polling of its answer, and what is not polled must not hold what the other endpoints wait for.
    async fn run(mut self, to: mpsc::Sender<Outcome<RecordBatch>>) {
        while let Ok(room) = to.reserve().await {
            let next = tokio::select! {
                () = to.closed() => return,
                next = self.shared.next() => next,
            };
            self.done = !matches!(next, Some(Ok(_)));
            match next {
                Some(batch) => room.send(batch),
                None => return,
            }
            if self.done {
                return;
            }
        }
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        let others = self.shared.readers.fetch_sub(1, Ordering::AcqRel) - 1;
        if !self.done && others == 0 {
            self.shared.cancelled.send_replace(true);
            self.results.entries().remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use arrow::array::{ArrayRef, Int64Array};
    use arrow::datatypes::Int64Type;

    use super::*;

    fn rows(n: i64) -> Rows {
        let batch = |i: i64| RecordBatch::try_from_iter([("i", Arc::new(Int64Array::from(vec![i])) as ArrayRef)]).unwrap();
        let schema = batch(0).schema();
        Rows {
            schema,
            start: Box::new(move || futures::stream::iter((0..n).map(move |i| Ok(batch(i)))).boxed()),
            unordered: true,
            location: None,
        }
    }

    fn value(batch: &RecordBatch) -> i64 {
        use arrow::array::AsArray;
        batch.column(0).as_primitive::<Int64Type>().value(0)
    }

    fn results() -> Arc<Results> {
        Arc::new(Results::new(2, Duration::from_secs(60)))
    }

    #[tokio::test]
    async fn each_row_comes_once_over_all_endpoints() {
        let results = results();
        let (id, _) = results.add(rows(100), 2).unwrap();
        let (first, second) = (results.take(id, 0).unwrap().1, results.take(id, 1).unwrap().1);
        let mut got: Vec<i64> = futures::stream::select(first.boxed(), second.boxed()).map(|b| value(&b.unwrap())).collect().await;
        got.sort_unstable();
        assert_eq!(got, (0..100).collect::<Vec<_>>());
        let (id, _) = results.add(rows(10), 2).unwrap();
        assert_eq!(results.take(id, 1).unwrap().1.count().await, 10);
        assert_eq!(results.take(id, 0).unwrap().1.count().await, 0);
    }

    #[tokio::test]
    async fn an_endpoint_that_is_not_read_holds_nothing_up() {
        let results = results();
        let (id, _) = results.add(rows(100), 2).unwrap();
        let (first, second) = (results.take(id, 0).unwrap().1, results.take(id, 1).unwrap().1);
        let mut first = Box::pin(first);
        // It is polled once, wants more, and is left alone.
        assert!(first.next().await.is_some());
        let more = usize::from(matches!(futures::poll!(first.next()), Poll::Ready(Some(_))));
        let rest = second.count().await;
        assert_eq!(1 + more + rest + first.count().await, 100);
        assert!(rest >= 96, "{rest}");
    }

    #[tokio::test]
    async fn an_endpoint_is_pulled_once() {
        let results = results();
        let (id, _) = results.add(rows(1), 2).unwrap();
        assert_eq!(results.take(id, 0).unwrap().1.count().await, 1);
        assert_eq!(results.take(id, 0).map(|_| ()).unwrap_err().remedy, Remedy::NotFound);
        assert_eq!(results.take(id, 7).map(|_| ()).unwrap_err().remedy, Remedy::NotFound);
    }

    #[tokio::test]
    async fn a_reader_that_goes_away_voids_the_result() {
        let results = results();
        let (id, _) = results.add(rows(10), 2).unwrap();
        let mut reading = Box::pin(results.take(id, 0).unwrap().1);
        assert!(reading.next().await.is_some());
        drop(reading);
        while results.entries().contains_key(&id) {
            tokio::task::yield_now().await;
        }
        assert_eq!(results.take(id, 1).map(|_| ()).unwrap_err().remedy, Remedy::NotFound);
    }

    #[tokio::test]
    async fn what_is_cancelled_says_so_and_what_waits_is_bounded() {
        let results = results();
        let (id, _) = results.add(rows(10), 2).unwrap();
        let mut reading = Box::pin(results.take(id, 0).unwrap().1);
        assert!(results.cancel(&id));
        assert_eq!(reading.next().await.unwrap().unwrap_err().remedy, Remedy::Cancelled);
        assert!(!results.cancel(&id));
        results.add(rows(1), 1).unwrap();
        results.add(rows(1), 1).unwrap();
        assert_eq!(results.add(rows(1), 1).unwrap_err().remedy, Remedy::Exhausted);
        let short = Arc::new(Results::new(1, Duration::ZERO));
        let (id, _) = short.add(rows(1), 1).unwrap();
        assert!(short.take(id, 0).is_err());
        short.add(rows(1), 1).unwrap();
    }
}
