//! Letting go of what no instant from a horizon on can see, and folding what unbounded frames and sessions still need.

use super::base::{Base, within};
use super::dictionary::Dictionary;
use super::keys::Keys;
use super::locate::last_set;
use super::store::{Place, Store, row_number};
use super::{Extra, LARGE, Run, capacity_above};
use crate::program::{Holding, Kind, Program, holding};
use crate::window::{Bound, Frame};

impl Run {
    /// Lets go of what no instant at or after `horizon` needs; each of those stays exact, strict ones too.
    ///
    /// - Cost: O(rows that leave), now and then O(rows held).
    pub fn evict(&mut self, program: &Program, horizon: i64) {
        let high = (0..program.frames.len()).map(|index| self.keep_from(program, index, horizon)).min();
        let high = if self.len == 0 { self.start() } else { high.unwrap_or_else(|| self.first_at(horizon)) };
        let low = self.start();
        if program.needed.any
            && let Some(base) = self.base_mut()
        {
            base.horizon = base.horizon.max(horizon);
        }
        if high == low {
            return;
        }
        self.fold(program, horizon, low, high);
        self.boundary = self.boundary().unwrap_or(i64::MIN).max(self.store.word(0, high - 1) as i64);
        self.evicted = true;
        if let (Some(column), Some(extra)) = (program.layout.key, &mut self.extra) {
            (low..high).for_each(|row| extra.keys.forget(self.store.word(column, row)));
        }
        self.start = row_number(high);
        self.len -= row_number(high - low);
        self.shrink(program);
    }

    /// The first physical row that a frame may still need at an instant from the horizon on.
    fn keep_from(&self, program: &Program, index: usize, horizon: i64) -> usize {
        let start = self.start();
        if self.len == 0 {
            return start;
        }
        let before = || self.first_at(horizon);
        let back = |count: u64| usize::try_from(count).map_or(start, |count| before().saturating_sub(count).max(start));
        let folded = holding(index, &program.aggregates) == Holding::Folded;
        match program.frames[index] {
            Frame::Range { start: Bound::Unbounded, .. } | Frame::Rows { start: None, .. } if !folded => start,
            // Folded rows must lie inside the frame at every later instant, so only its newer end matters.
            Frame::Range { start: Bound::Unbounded, end } => end.before_all(horizon).map_or(start, |time| self.first_at(time)),
            Frame::Range { start: from, .. } => {
                let exact = !crate::seeded::seeded_bug("evict-edge");
                from.before_all(horizon).map_or(start, |time| if exact { self.first_at(time) } else { self.first_after(time) })
            }
            Frame::Rows { start: Some(from), .. } => back(from.saturating_add(1)),
            Frame::Rows { start: None, end } => back(end),
            Frame::Tumble { size, slide } => self.first_at(Frame::tumble_bounds(size, slide, horizon).0),
            Frame::Session { .. } if folded => before(),
            Frame::Session { gap } => {
                let end = before();
                let reaches = end > start && within(horizon, self.store.word(0, end - 1) as i64, gap);
                let layout = &program.layout;
                let slot = layout.session_frames.iter().position(|(frame, _)| *frame == index).unwrap_or_default();
                if reaches { last_set(self.store.bits(layout, layout.session(slot)), start, end).unwrap_or(start) } else { end }
            }
        }
    }

    fn fold(&mut self, program: &Program, horizon: i64, low: usize, high: usize) {
        if !program.needed.any {
            return;
        }
        let mut base = self.extra_mut().base.take().unwrap_or_else(|| Box::new(Base { horizon, ..Base::default() }));
        base.fold(self, program, program.needed, self.boundary(), low, high);
        if let (Some(column), Some(extra)) = (program.layout.key, &self.extra) {
            let key = extra.keys.get(self.store.word(column, high - 1));
            // Rows may have been held before the boundary only where no base is needed, so the last one is the newest.
            base.key = key.into();
        }
        base.horizon = base.horizon.max(horizon);
        self.extra_mut().base = Some(base);
    }

    /// Gives memory back after rows left the front.
    fn shrink(&mut self, program: &Program) {
        if self.len == 0 {
            (self.store, self.start) = (Store::default(), 0);
            if let Some(extra) = &mut self.extra {
                (extra.dictionaries, extra.keys, extra.directory) = (Vec::new(), Keys::default(), None);
            }
            self.drop_extra();
            return;
        }
        let is_large = self.directory().is_some();
        if is_large && self.len() * 2 <= LARGE && !self.scratch {
            self.extra_mut().directory = None;
            self.pack(program);
        } else if !is_large {
            self.pack(program);
        } else if self.start() >= 64 && self.len() * 2 < self.store.capacity() && self.store.capacity() > 1024 {
            let (dropped, end) = (self.start() / 64 * 64, self.end());
            let capacity = (end - dropped + (end - dropped) / 8).next_multiple_of(64);
            self.store.resize(&program.layout, capacity, dropped, end);
            self.moved_down(program, dropped);
        }
        self.pack_keys(program);
        self.pack_dictionaries(program);
        self.drop_extra();
    }

    /// Moves the rows of a small run to the front of a store of fitting capacity.
    fn pack(&mut self, program: &Program) {
        let dropped = self.start() / 64 * 64;
        let mut fit = 0;
        while fit < self.len() {
            fit = capacity_above(fit, false);
        }
        if dropped > 0 {
            self.store.shift_blocks(&program.layout, dropped, self.end());
            self.start -= row_number(dropped);
        }
        if self.start > 0 {
            self.store.close(&program.layout, 0, self.start(), self.end());
            self.start = 0;
        }
        if fit * 3 <= self.store.capacity() * 2 && !self.scratch {
            self.store.resize(&program.layout, fit, 0, self.len());
        }
    }

    fn pack_keys(&mut self, program: &Program) {
        let (Some(column), Some(extra)) = (program.layout.key, &mut self.extra) else { return };
        if !extra.keys.is_sparse() {
            return;
        }
        let mut keys = Keys::default();
        for row in self.start as usize..(self.start + self.len) as usize {
            let place = keys.push(extra.keys.get(self.store.word(column, row)));
            self.store.set_word(column, row, place);
        }
        extra.keys = keys;
    }

    /// Drops the entries of dictionaries that mostly belong to rows that are gone.
    fn pack_dictionaries(&mut self, program: &Program) {
        let (start, end, limit) = (self.start(), self.end(), self.len() * 2 + 16);
        let mut packed = false;
        for value in (0..program.kinds.len()).filter(|value| program.kinds[*value] == Kind::Bytes) {
            let Place::Half(column) = program.layout.values[value] else { continue };
            let Some(extra) = &mut self.extra else { return };
            let Some(dictionary) = extra.dictionaries.get_mut(program.layout.dictionaries[value]).filter(|one| one.len() > limit) else {
                continue;
            };
            let layout = &program.layout;
            let mut fresh = Dictionary::default();
            for row in start..end {
                if self.store.bit(layout, layout.validity(value), row) {
                    let code = fresh.code(dictionary.get(self.store.half(layout, column, row)));
                    self.store.set_half(layout, column, row, code);
                }
            }
            // Rows that are gone but still stored have no value any more, so that no block looks their code up.
            for row in 0..start {
                self.store.set_bit(layout, layout.validity(value), row, false);
            }
            *dictionary = fresh;
            packed = true;
        }
        if packed && self.directory().is_some() {
            self.build_directory(program);
        }
    }

    fn drop_extra(&mut self) {
        let unused = |extra: &Extra| {
            extra.dictionaries.is_empty() && extra.keys.heap_bytes() == 0 && extra.directory.is_none() && extra.base.is_none()
        };
        if self.extra.as_deref().is_some_and(unused) {
            self.extra = None;
        }
    }
}
