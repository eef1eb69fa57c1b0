//! What a window at an instant is, in microseconds: frames and the bounds they take.
//!
//! Both ends of a RANGE are included. A strict instant only lowers an upper end that is the instant itself. A bound
//! below the smallest representable time stands for "from the start" as a lower end and for "nothing" as an upper
//! end, so arithmetic near the limits never wraps. Not here: positions of rows (`run`).

use crate::time::minus_months;

/// How far a frame's end lies before the instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Bound {
    /// `UNBOUNDED PRECEDING`; as a frame's start only.
    Unbounded,
    /// `INTERVAL ... PRECEDING`, calendar months first and then microseconds; both zero is `CURRENT ROW`.
    Back {
        /// Calendar months, not negative.
        months: i32,
        /// Microseconds; not negative unless there are months.
        micros: i64,
    },
}

impl Bound {
    /// `CURRENT ROW`: the instant itself.
    pub const NOW: Bound = Bound::Back { months: 0, micros: 0 };

    /// A fixed distance.
    pub const fn micros(micros: i64) -> Bound {
        Bound::Back { months: 0, micros }
    }

    /// `at` minus the bound, never after `at`; `None` for unbounded and below the smallest time.
    pub(crate) fn before(self, at: i64) -> Option<i64> {
        match self {
            Bound::Unbounded => None,
            Bound::Back { months, micros } => match minus_months(at, months) {
                Some(base) if micros < 0 => Some(base.saturating_sub(micros).min(at)),
                Some(base) => base.checked_sub(micros),
                None => None,
            },
        }
    }

    /// A time that `before(t)` never falls below for any `t >= at`: a month counts 31 days. `None` as in `before`.
    pub(crate) fn before_all(self, at: i64) -> Option<i64> {
        match self {
            Bound::Unbounded => None,
            Bound::Back { months, micros } => {
                let back = i128::from(months) * 31 * i128::from(crate::time::DAY_US) + i128::from(micros);
                i64::try_from(i128::from(at) - back.max(0)).ok()
            }
        }
    }

    /// Whether the bound is the instant itself.
    pub(crate) fn is_now(self) -> bool {
        self == Bound::NOW
    }
}

/// Which of an entity's events an aggregate sees at an instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Frame {
    /// `[t - start, t - end]`, both ends included.
    Range {
        /// The older end.
        start: Bound,
        /// The newer end, never unbounded.
        end: Bound,
    },
    /// Of the events up to t, newest first, those from `end` to `start`, counted from 0, both included.
    Rows {
        /// The older end; `None` is unbounded.
        start: Option<u64>,
        /// The newer end.
        end: u64,
    },
    /// TUMBLE (`slide == size`) and HOP: `[floor(t) - size, floor(t))`, floor to a multiple of `slide`.
    Tumble {
        /// The window's length, microseconds.
        size: i64,
        /// The distance of two windows' ends, microseconds; divides `size`.
        slide: i64,
    },
    /// The run of events up to t in which neighbours are at most `gap` apart, if its last is within `gap` of t.
    Session {
        /// The longest silence inside a session, microseconds.
        gap: i64,
    },
}

impl Frame {
    /// All events up to the instant.
    pub const UNBOUNDED: Frame = Frame::Range { start: Bound::Unbounded, end: Bound::NOW };

    /// `RANGE INTERVAL micros PRECEDING`.
    pub const fn last(micros: i64) -> Frame {
        Frame::Range { start: Bound::micros(micros), end: Bound::NOW }
    }

    /// The bounds of a TUMBLE or HOP window at `at`: `[start, end)`, saturating.
    pub(crate) fn tumble_bounds(size: i64, slide: i64, at: i64) -> (i64, i64) {
        let end = at.saturating_sub(at.rem_euclid(slide.max(1)));
        (end.saturating_sub(size), end)
    }

    /// Whether rows that were evicted can lie inside the frame, folded into the base.
    pub(crate) fn is_unbounded(&self) -> bool {
        matches!(self, Frame::Range { start: Bound::Unbounded, .. } | Frame::Rows { start: None, .. })
    }
}

/// A point on the event-time axis at which features are evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Instant {
    /// Microseconds since the Unix epoch.
    pub at: i64,
    /// Whether only events strictly before `at` count.
    pub strict: bool,
}

impl Instant {
    /// Events up to and at `at` count.
    pub const fn inclusive(at: i64) -> Instant {
        Instant { at, strict: false }
    }

    /// Events strictly before `at` count.
    pub const fn strict(at: i64) -> Instant {
        Instant { at, strict: true }
    }
}
