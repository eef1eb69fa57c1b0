//! The bits that say something about a row's neighbours: session starts, and last occurrences of values.
//!
//! They follow every insertion and removal, so that reading them never looks further than the words of a frame.

use std::collections::HashSet;

use super::Run;
use super::base::within;
use super::lane::LaneView;
use super::store::low_mask;
use crate::program::{Lane, Program};

impl Run {
    /// Sets the bits of a new row.
    pub(super) fn mark(&mut self, program: &Program, at: usize) {
        self.mark_session(program, at);
        for (index, lane) in program.lanes.iter().enumerate().filter(|(_, lane)| lane.needs.distinct) {
            let column = program.layout.distinct(lane.distinct_slot);
            self.store.set_bit(&program.layout, column, at, false);
            let Some((key, last)) = self.last_occurrence(program, index, lane, at) else { continue };
            if last.is_some_and(|last| last > at) {
                continue;
            }
            if let Some(last) = last
                && !crate::seeded::seeded_bug("distinct-bit-kept")
            {
                self.set_distinct(program, index, lane, last, false);
            }
            self.set_distinct(program, index, lane, at, true);
            self.index_occurrence(program, index, lane, key, last, Some(at));
        }
    }

    /// Sets the bits of all rows; the directory is to be built after it.
    pub(super) fn mark_all(&mut self, program: &Program) {
        if let Some(extra) = &mut self.extra {
            extra.directory = None;
        }
        let rows = self.start()..self.end();
        rows.clone().for_each(|row| self.mark_session(program, row));
        for lane in program.lanes.iter().filter(|lane| lane.needs.distinct) {
            let view = LaneView::new(self, program, lane);
            let Some(values) = view.column else { continue };
            let mut seen: HashSet<i128> = HashSet::new();
            let last: Vec<bool> = rows.clone().rev().map(|row| view.counts(row) && seen.insert(values.key(row))).collect();
            for (row, last) in rows.clone().rev().zip(last) {
                self.store.set_bit(&program.layout, program.layout.distinct(lane.distinct_slot), row, last);
            }
        }
    }

    /// Clears what a row stands for before it is removed: its value's last occurrence moves back.
    pub(super) fn unmark(&mut self, program: &Program, at: usize) {
        for (index, lane) in program.lanes.iter().enumerate().filter(|(_, lane)| lane.needs.distinct) {
            let column = program.layout.distinct(lane.distinct_slot);
            if !self.store.bit(&program.layout, column, at) {
                continue;
            }
            let view = LaneView::new(self, program, lane);
            let Some(values) = view.column else { continue };
            let key = values.key(at);
            let before = (self.start()..at).rev().find(|row| view.counts(*row) && values.key(*row) == key);
            self.set_distinct(program, index, lane, at, false);
            if let Some(before) = before {
                self.set_distinct(program, index, lane, before, true);
            }
            self.index_occurrence(program, index, lane, key, Some(at), before);
        }
    }

    /// After rows from `from` on moved up (a row was inserted before them) or down (one was removed): puts right what
    /// refers to their places, and the session bit of the first of them.
    pub(super) fn remark_behind(&mut self, program: &Program, from: usize, up: bool) {
        if from >= self.end() {
            return;
        }
        self.mark_session(program, from);
        let Some(mut directory) = self.take_directory() else { return };
        for (index, lane) in program.lanes.iter().enumerate().filter(|(_, lane)| lane.needs.distinct) {
            let view = LaneView::new(self, program, lane);
            let Some(values) = view.column else { continue };
            let bits = self.store.bits(&program.layout, program.layout.distinct(lane.distinct_slot));
            let occurrences = &mut directory.lane_mut(index).occurrences;
            // In the direction in which no entry meets a place that is still taken.
            let mut move_one = |row: usize| {
                let before = if up { row - 1 } else { row + 1 };
                occurrences.set(values.kind, values.key(row), Some(before), Some(row));
            };
            let set = |row: &usize| bits[row / 64] >> (row % 64) & 1 == 1;
            if up {
                (from..self.end()).rev().filter(set).for_each(&mut move_one);
            } else {
                (from..self.end()).filter(set).for_each(&mut move_one);
            }
            // The row that was inserted is not counted yet.
            let end = self.end();
            occurrences.recount(bits, from - usize::from(up), from, end);
        }
        self.extra_mut().directory = Some(directory);
    }

    /// The key of a row that counts in a lane, and the last row held that has the same.
    fn last_occurrence(&self, program: &Program, index: usize, lane: &Lane, at: usize) -> Option<(i128, Option<usize>)> {
        let view = LaneView::new(self, program, lane);
        let values = view.column.filter(|_| view.counts(at))?;
        let key = values.key(at);
        if let Some(directory) = self.directory() {
            return Some((key, directory.lane(index).occurrences.find(&view, key, self.start())));
        }
        let bits = self.store.bits(&program.layout, program.layout.distinct(lane.distinct_slot));
        let (start, mut end) = (self.start(), self.end());
        while end > start {
            let group = (end - 1) / 64;
            let mut set = bits[group] & low_mask(end - group * 64);
            while set != 0 {
                let bit = 63 - set.leading_zeros() as usize;
                let row = group * 64 + bit;
                if row < start {
                    return Some((key, None));
                }
                if values.key(row) == key {
                    return Some((key, Some(row)));
                }
                set &= !(1 << bit);
            }
            end = group * 64;
        }
        Some((key, None))
    }

    fn set_distinct(&mut self, program: &Program, index: usize, lane: &Lane, row: usize, set: bool) {
        self.store.set_bit(&program.layout, program.layout.distinct(lane.distinct_slot), row, set);
        if let Some(directory) = self.extra.as_mut().and_then(|extra| extra.directory.as_mut()) {
            directory.lane_mut(index).occurrences.count_bit(row, set);
        }
    }

    fn index_occurrence(&mut self, program: &Program, index: usize, lane: &Lane, key: i128, before: Option<usize>, row: Option<usize>) {
        let Some(value) = lane.value else { return };
        if let Some(directory) = self.extra.as_mut().and_then(|extra| extra.directory.as_mut()) {
            directory.lane_mut(index).occurrences.set(program.kinds[value], key, before, row);
        }
    }

    fn mark_session(&mut self, program: &Program, at: usize) {
        let layout = &program.layout;
        for (slot, (_, gap)) in layout.session_frames.iter().enumerate() {
            let time = self.store.word(0, at) as i64;
            let before = if at > self.start() { Some(self.store.word(0, at - 1) as i64) } else { self.boundary() };
            let starts = !before.is_some_and(|before| within(time, before, *gap));
            self.store.set_bit(layout, layout.session(slot), at, starts);
        }
    }
}
