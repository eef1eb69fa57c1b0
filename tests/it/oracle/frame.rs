//! Windows: which of an entity's events are inside at an instant (DESIGN 3.1 and 3.2).

use super::civil;

/// How far before the instant a RANGE bound lies.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Bound {
    Unbounded,
    /// `CURRENT ROW` is no months and no microseconds. Months are taken off first, then the rest, as SQL's date arithmetic does.
    Back {
        months: i32,
        micros: i64,
    },
}

/// One window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Frame {
    Range {
        start: Bound,
        end: Bound,
    },
    /// Rows counted backwards from the newest, which is 0; no start is unbounded.
    Rows {
        start: Option<u64>,
        end: u64,
    },
    /// Plain GROUP BY: all up to the instant.
    All,
    /// TUMBLE is a HOP whose slide is its size.
    Hop {
        slide: i64,
        size: i64,
    },
    Session {
        gap: i64,
    },
}

/// The events of a window, as positions, and what `window_start()` and `window_end()` say of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Inside {
    pub(crate) positions: Vec<usize>,
    pub(crate) start: Option<i64>,
    pub(crate) end: Option<i64>,
}

impl Bound {
    pub(crate) const CURRENT: Bound = Bound::Back { months: 0, micros: 0 };

    fn of(self, at: i64) -> i64 {
        match self {
            Bound::Unbounded => i64::MIN,
            Bound::Back { months: 0, micros } => at - micros,
            Bound::Back { months, micros } => civil::months_before(at, months) - micros,
        }
    }
}

impl Frame {
    /// `times` are those of one entity's events in order, up to the instant: at most `at`, or before it under a strict match.
    ///
    /// A strict match needs no further rule: `times` already lacks what it excludes, and no other bound changes.
    pub(crate) fn inside(&self, times: &[i64], at: i64) -> Inside {
        let all = 0..times.len();
        match *self {
            Frame::All => Inside { positions: all.collect(), ..Inside::default() },
            Frame::Range { start, end } => {
                let (low, high) = (start.of(at), end.of(at));
                Inside { positions: all.filter(|&i| low <= times[i] && times[i] <= high).collect(), ..Inside::default() }
            }
            Frame::Rows { start, end } => {
                let newest_first = |i: usize| (times.len() - 1 - i) as u64;
                let inside = |&i: &usize| newest_first(i) >= end && start.is_none_or(|start| newest_first(i) <= start);
                Inside { positions: all.filter(inside).collect(), ..Inside::default() }
            }
            Frame::Hop { slide, size } => {
                let high = at.div_euclid(slide) * slide;
                let low = high - size;
                let positions = all.filter(|&i| low <= times[i] && times[i] < high).collect();
                Inside { positions, start: Some(low), end: Some(high) }
            }
            Frame::Session { gap } => {
                let Some(&last) = times.last() else { return Inside::default() };
                if at - last > gap {
                    return Inside::default();
                }
                let mut first = times.len() - 1;
                while first > 0 && times[first] - times[first - 1] <= gap {
                    first -= 1;
                }
                Inside { positions: (first..times.len()).collect(), start: Some(times[first]), end: Some(last) }
            }
        }
    }
}
