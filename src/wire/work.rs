//! Work on the other runtime: what only reads stops when nobody waits for it, what writes goes on to its end.

use std::future::Future;

use asof_flight::backend::RowStream;
use asof_flight::{Failure, Outcome};
use futures::StreamExt;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::engine::PendingRows;

/// Batches that wait to be sent.
const BATCHES_AHEAD: usize = 2;

/// The runtime of queries and writes.
pub(super) struct Work(pub(super) Handle);

/// A task that ends with its handle.
struct Stopping<T>(JoinHandle<T>);

impl<T> Drop for Stopping<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn defect(e: &tokio::task::JoinError) -> Failure {
    match e.is_cancelled() {
        true => Failure::new(asof_flight::Remedy::Unavailable, "the server is stopping"),
        false => Failure::internal("the request met a defect of the server; its log says where"),
    }
}

impl Work {
    /// Runs what may be stopped at any point: dropping the future stops it.
    pub(super) async fn read<T: Send + 'static>(&self, work: impl Future<Output = Outcome<T>> + Send + 'static) -> Outcome<T> {
        let mut task = Stopping(self.0.spawn(work));
        (&mut task.0).await.map_err(|e| defect(&e))?
    }

    /// Runs what must come to its end, whether or not somebody still waits for it.
    pub(super) async fn write<T: Send + 'static>(&self, work: impl Future<Output = Outcome<T>> + Send + 'static) -> Outcome<T> {
        self.0.spawn(work).await.map_err(|e| defect(&e))?
    }

    /// The rows of an answer, computed a little ahead of whoever reads them.
    pub(super) fn rows(&self, rows: PendingRows) -> RowStream {
        let (send, batches) = mpsc::channel(BATCHES_AHEAD);
        let task = Stopping(self.0.spawn(async move {
            let mut rows = rows.stream().await.map_err(Failure::from)?;
            while let Some(batch) = rows.next().await {
                if send.send(batch.map_err(Failure::from)?).await.is_err() {
                    break;
                }
            }
            Ok(())
        }));
        // The channel also closes when the task fails or panics: only its end says whether all rows came.
        futures::stream::unfold(Some((batches, task)), |state| async move {
            let (mut batches, mut task) = state?;
            match batches.recv().await {
                Some(batch) => Some((Ok(batch), Some((batches, task)))),
                None => match (&mut task.0).await {
                    Ok(Ok(())) => None,
                    Ok(Err(failure)) => Some((Err(failure), None)),
                    Err(e) => Some((Err(defect(&e)), None)),
                },
            }
        })
        .boxed()
    }
}
