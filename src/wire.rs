//! The engine behind the wire: it implements what `asof_flight` serves.
//!
//! Two runtimes: requests are answered on the serving one, and whatever plans, scans, joins or writes runs on the other, so that a
//! training query does not stand before a look-up. Look-ups that the online state answers never leave the serving runtime. Not here:
//! how requests are told apart and encoded (`asof_flight`).

mod reader;
mod session;
mod work;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use asof_flight::{Backend, Failure, PutCounts, Remedy, Session};
use tokio::runtime::Handle;

use self::reader::{Reader, ReaderKey};
use self::session::WireSession;
use self::work::Work;
use crate::engine::{Engine, IngestCounts};
use crate::error::{Error, Kind};

/// Readers that are kept for those who ask for the same.
const READERS_MAX: usize = 1024;

/// An engine that is served.
pub struct Served {
    shared: Arc<Shared>,
}

struct Shared {
    engine: Engine,
    work: Work,
    readers: Mutex<HashMap<ReaderKey, Arc<Reader>>>,
}

impl Served {
    /// Serves an engine whose queries and writes run on the runtime of `work`.
    pub fn new(engine: Engine, work: Handle) -> Self {
        Self { shared: Arc::new(Shared { engine, work: Work(work), readers: Mutex::default() }) }
    }
}

impl Backend for Served {
    fn connect(&self) -> Arc<dyn Session> {
        Arc::new(WireSession::new(self.shared.clone()))
    }

    fn now_us(&self) -> i64 {
        self.shared.engine.inner.now()
    }

    fn name(&self) -> (&str, &str) {
        ("asof", env!("CARGO_PKG_VERSION"))
    }
}

impl From<Error> for Failure {
    fn from(e: Error) -> Self {
        let remedy = match e.kind() {
            Kind::Invalid => Remedy::Invalid,
            Kind::Unavailable => Remedy::Unavailable,
            Kind::Data => Remedy::Data,
            Kind::Closed => Remedy::Closed,
            Kind::Internal => Remedy::Internal,
        };
        Failure::new(remedy, e.message())
    }
}

impl From<Failure> for Error {
    fn from(f: Failure) -> Self {
        let kind = match f.remedy {
            Remedy::Invalid | Remedy::NotFound | Remedy::Exists | Remedy::Unauthenticated | Remedy::Unimplemented => Kind::Invalid,
            Remedy::Unavailable | Remedy::Exhausted => Kind::Unavailable,
            Remedy::Data => Kind::Data,
            Remedy::Closed | Remedy::Cancelled => Kind::Closed,
            Remedy::Internal => Kind::Internal,
        };
        Error::new(kind, f.message)
    }
}

impl From<IngestCounts> for PutCounts {
    fn from(c: IngestCounts) -> Self {
        let IngestCounts { read, accepted, duplicate, late, rejected, conflicts } = c;
        Self { read, accepted, duplicate, late, rejected, conflicts }
    }
}

impl From<PutCounts> for IngestCounts {
    fn from(c: PutCounts) -> Self {
        let PutCounts { read, accepted, duplicate, late, rejected, conflicts } = c;
        Self { read, accepted, duplicate, late, rejected, conflicts }
    }
}
