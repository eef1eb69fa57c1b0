//! The wall clock, behind a trait, so that tests and simulations decide what time it is.
//!
//! Event time is `asof_udfs::time::EventTime`; it never comes from here and never compares with [`WallTime`] but at the future guard
//! and at the instant "now" of a read.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

/// When this process noticed something: microseconds since the Unix epoch, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WallTime(pub i64);

/// Where the time of day comes from.
pub trait Clock: fmt::Debug + Send + Sync {
    /// Now.
    fn now(&self) -> WallTime;
}

/// The system's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods)]
    fn now(&self) -> WallTime {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        WallTime(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }
}
