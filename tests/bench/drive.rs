//! When requests are sent, and what is counted.
//!
//! Open loop: request i is due at `start + i / rate`, whatever became of those before it, and its latency is counted from then, so that a
//! stall of the server is seen by all the requests that it holds up. Closed loop: the next request is sent when an answer comes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::Result;

/// How requests follow each other.
#[derive(Clone, Copy)]
pub(crate) enum Pace {
    /// At this many requests a second.
    Open { rate: f64 },
    /// With this many requests under way on each connection.
    Closed { depth: usize },
}

/// How long, and how.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    pub(crate) pace: Pace,
    pub(crate) warm: Duration,
    pub(crate) counted: Duration,
}

/// A request: its place in the table of requests, and when it is or was due.
#[derive(Clone, Copy)]
pub(crate) struct Job {
    pub(crate) request: usize,
    pub(crate) due: Instant,
}

/// What one case came to.
pub(crate) struct Tally {
    pub(crate) latency: Histogram<u64>,
    /// Answers that count, over `seconds`.
    pub(crate) answers: u64,
    pub(crate) seconds: f64,
    /// Requests that were due in that time; in an open loop all of them were answered, if late.
    pub(crate) due: u64,
    pub(crate) wrong: u64,
}

/// The jobs of one connection, and where it says that one is done.
pub(crate) struct Feed {
    pub(crate) jobs: UnboundedReceiver<Job>,
    again: Option<UnboundedSender<Job>>,
    next: Arc<AtomicU64>,
    latency: Histogram<u64>,
    from: Instant,
    end: Instant,
    counted: u64,
    wrong: u64,
    last: Instant,
}

impl Feed {
    /// Counts an answer; in a closed loop the next request becomes due.
    pub(crate) fn done(&mut self, job: Job, right: bool) {
        let now = Instant::now();
        self.wrong += u64::from(!right);
        // An open loop counts by when a request was due, a closed one by when it was answered.
        let counts = if self.again.is_some() { now >= self.from && now < self.end } else { job.due >= self.from && job.due < self.end };
        if counts {
            let nanos = now.saturating_duration_since(job.due).as_nanos() as u64;
            self.latency.saturating_record(nanos.max(1));
            self.counted += 1;
            self.last = now;
        }
        if now >= self.end {
            self.again = None;
        }
        if let Some(again) = &self.again {
            let request = self.next.fetch_add(1, Ordering::Relaxed) as usize;
            // The receiver is this feed's own.
            again.send(Job { request, due: Instant::now() }).ok();
        }
    }
}

/// Runs one task a connection, made by `connect`, which ends when its jobs do.
pub(crate) async fn drive<F>(connections: usize, load: Load, connect: impl Fn(Feed) -> F) -> Result<Tally>
where
    F: Future<Output = Result<Feed>> + 'static,
{
    let start = Instant::now() + Duration::from_millis(50);
    let (from, end) = (start + load.warm, start + load.warm + load.counted);
    let next = Arc::new(AtomicU64::new(0));
    let mut senders = vec![];
    let local = tokio::task::LocalSet::new();
    let mut tasks = vec![];
    for _ in 0..connections {
        let (sender, jobs) = unbounded_channel();
        let again = match load.pace {
            Pace::Closed { depth } => {
                for _ in 0..depth {
                    let request = next.fetch_add(1, Ordering::Relaxed) as usize;
                    sender.send(Job { request, due: start }).ok();
                }
                Some(sender.clone())
            }
            Pace::Open { .. } => None,
        };
        senders.push(sender);
        let latency = Histogram::new_with_bounds(1, 120_000_000_000, 3)?;
        let feed = Feed { jobs, again, next: next.clone(), latency, from, end, counted: 0, wrong: 0, last: from };
        tasks.push(local.spawn_local(connect(feed)));
    }
    let pacer = match load.pace {
        Pace::Open { rate } => Some(std::thread::spawn(move || pace(start, end, rate, &senders))),
        Pace::Closed { .. } => {
            drop(senders);
            None
        }
    };
    let mut tally = Tally {
        latency: Histogram::new_with_bounds(1, 120_000_000_000, 3)?,
        answers: 0,
        seconds: load.counted.as_secs_f64(),
        due: 0,
        wrong: 0,
    };
    let mut last = end;
    local
        .run_until(async {
            for task in tasks {
                let feed = task.await??;
                tally.latency.add(&feed.latency)?;
                tally.answers += feed.counted;
                tally.wrong += feed.wrong;
                last = last.max(feed.last);
            }
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
        })
        .await?;
    tally.due = match load.pace {
        Pace::Open { rate } => (load.counted.as_secs_f64() * rate) as u64,
        Pace::Closed { .. } => tally.answers,
    };
    if matches!(load.pace, Pace::Open { .. }) {
        // What was answered after the end was not answered in time.
        tally.seconds = last.duration_since(from).as_secs_f64();
    }
    if let Some(pacer) = pacer {
        pacer.join().map_err(|_| "the pacer failed")?;
    }
    Ok(tally)
}

/// Sends each request at its time. A thread of its own sleeps to within some 50 µs, which a runtime's timer of 1 ms does not; what is due
/// already is sent at once, and the lateness is part of its latency.
fn pace(start: Instant, end: Instant, rate: f64, senders: &[UnboundedSender<Job>]) {
    let mut at = 0_usize;
    loop {
        let due = start + Duration::from_secs_f64(at as f64 / rate);
        if due >= end {
            return;
        }
        while let Some(wait) = due.checked_duration_since(Instant::now()).filter(|w| !w.is_zero()) {
            std::thread::sleep(wait);
        }
        if senders[at % senders.len()].send(Job { request: at, due }).is_err() {
            return;
        }
        at += 1;
    }
}
