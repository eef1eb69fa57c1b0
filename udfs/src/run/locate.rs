//! From frames and instants to rows: where each frame's rows begin and end, and which folded rows belong to it.

use std::hint::black_box;

use super::Run;
use super::base::{FoldedRows, within};
use super::store::low_mask;
use crate::program::Program;
use crate::window::{Frame, Instant};

/// The rows of a frame at an instant: physical rows `low..high`, behind folded ones where there are any.
#[derive(Clone, Copy, Default)]
pub(crate) struct Located<'a> {
    pub(crate) low: usize,
    pub(crate) high: usize,
    pub(crate) folded: Option<&'a FoldedRows>,
}

impl Run {
    /// The first physical row with a time of at least `time`.
    pub(crate) fn first_at(&self, time: i64) -> usize {
        self.first_not(|at| at < time)
    }

    /// The first physical row with a time after `time`.
    pub(crate) fn first_after(&self, time: i64) -> usize {
        let times = &self.store.words(0)[self.start()..self.end()];
        if times.last().is_none_or(|last| *last as i64 <= time) {
            return self.end();
        }
        self.first_not(|at| at <= time)
    }

    /// The first physical row whose time is not before a bound.
    fn first_not(&self, is_before: impl Fn(i64) -> bool) -> usize {
        let (start, end) = (self.start(), self.end());
        let (low, high) = self.directory().map_or((start, end), |directory| directory.narrow(start, end, &is_before));
        low + self.store.words(0)[low..high].partition_point(|at| is_before(*at as i64))
    }

    /// Begins to read what evaluating needs whatever the frames.
    ///
    /// An entity that nobody asked about for a while is in no cache, and each of its lines costs as much as adding a
    /// dozen rows. Reading one word of each of them in a row, for nothing, lets those waits overlap.
    pub(crate) fn warm(&self, program: &Program) {
        if self.scratch || self.len == 0 {
            return;
        }
        black_box(match self.directory() {
            Some(directory) => self.store.warm_at(&program.layout, self.end() - 1) ^ directory.warm(),
            None => self.store.warm(),
        });
    }

    /// Begins to read what evaluating frames needs of a run with a directory.
    pub(crate) fn warm_frames(&self, program: &Program, located: &[Located<'_>]) {
        let Some(directory) = self.directory().filter(|_| !self.scratch && self.len > 0) else { return };
        let mut read = 0;
        let mut before = self.end();
        for place in located {
            for row in [place.high, place.low] {
                if row != before {
                    read ^= directory.warm_at(row) ^ self.store.warm_at(&program.layout, row);
                    before = row;
                }
            }
        }
        black_box(read);
    }

    /// The end of the events that count at an instant.
    pub(crate) fn up_to(&self, at: Instant) -> usize {
        if at.strict && !crate::seeded::seeded_bug("strict-ignored") { self.first_at(at.at) } else { self.first_after(at.at) }
    }

    /// Finds a frame's rows. `end` is `up_to(at)`; `index` is the frame's number, `None` for a frame of the caller's own.
    pub(crate) fn locate<'a>(&'a self, program: &Program, frame: &Frame, index: Option<usize>, at: Instant, end: usize) -> Located<'a> {
        let start = self.start();
        let empty = Located { low: start, high: start, folded: None };
        let all = || self.base().and_then(|base| base.all.as_ref());
        match *frame {
            Frame::Range { start: from, end: to } => {
                let high = if to.is_now() {
                    end
                } else {
                    match to.before(at.at) {
                        Some(time) if time == at.at => end,
                        Some(time) => self.first_after(time).min(end),
                        None => return empty,
                    }
                };
                if from == crate::window::Bound::Unbounded {
                    return Located { low: start, high, folded: all() };
                }
                let low = match from.before(at.at) {
                    Some(time) if crate::seeded::seeded_bug("range-start") => self.first_after(time),
                    Some(time) => self.first_at(time),
                    None => start,
                };
                Located { low: low.min(high), high, folded: None }
            }
            Frame::Rows { start: from, end: to } => {
                let back = |count: u64| usize::try_from(count).map_or(start, |count| end.saturating_sub(count).max(start));
                let high = back(to);
                match from {
                    Some(from) => Located { low: back(from.saturating_add(1)).min(high), high, folded: None },
                    None => Located { low: start, high, folded: all() },
                }
            }
            Frame::Tumble { size, slide } => {
                let (from, to) = Frame::tumble_bounds(size, slide, at.at);
                let high = self.first_at(to);
                Located { low: self.first_at(from).min(high), high, folded: None }
            }
            Frame::Session { gap } => self.locate_session(program, gap, index, at, end),
        }
    }

    fn locate_session<'a>(&'a self, program: &Program, gap: i64, index: Option<usize>, at: Instant, end: usize) -> Located<'a> {
        let (start, times) = (self.start(), self.store.words(0));
        let last = if end > start { Some(times[end - 1] as i64) } else { self.boundary() };
        if !last.is_some_and(|last| within(at.at, last, gap)) {
            return Located { low: start, high: start, folded: None };
        }
        let frames = &program.layout.session_frames;
        let slot = index.and_then(|index| frames.iter().position(|(frame, _)| *frame == index));
        let slot = slot.or_else(|| frames.iter().position(|(_, other)| *other == gap));
        let first = match slot {
            Some(slot) => last_set(self.store.bits(&program.layout, program.layout.session(slot)), start, end),
            None => (start + 1..end).rev().find(|row| !within(times[*row] as i64, times[*row - 1] as i64, gap)),
        };
        match (first, slot) {
            (Some(low), _) => Located { low, high: end, folded: None },
            // No row held starts the session: it began with rows that left.
            (None, Some(slot)) => {
                let folded = self.base().and_then(|base| base.sessions.get(slot)).and_then(Option::as_ref);
                Located { low: start, high: end, folded }
            }
            (None, None) => Located { low: start, high: end, folded: None },
        }
    }
}

/// The last set bit of `low..high`.
pub(crate) fn last_set(bits: &[u64], low: usize, high: usize) -> Option<usize> {
    let mut end = high;
    while end > low {
        let group = (end - 1) / 64;
        let set = bits[group] & low_mask(end - group * 64);
        if set != 0 {
            let row = group * 64 + 63 - set.leading_zeros() as usize;
            return (row >= low).then_some(row);
        }
        end = group * 64;
    }
    None
}
