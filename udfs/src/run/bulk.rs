//! Many events at once, in any order: where they fall among many rows, one merge replaces their single insertions.

use super::store::row_number;
use super::{Applied, Run};
use crate::program::Program;
use crate::rows::Rows;

impl Run {
    /// Adds the events `selection` of `rows`, in any order; `Rebuild` leaves some of them added.
    ///
    /// - Cost: that of appending for events at the end; else at most that of building the run anew.
    pub fn insert_many(&mut self, program: &Program, rows: &Rows, selection: &[u32]) -> Applied {
        let mut order = selection.to_vec();
        let by_order = |a: &u32, b: &u32| {
            let (a, b) = (*a as usize, *b as usize);
            rows.times[a].cmp(&rows.times[b]).then_with(|| rows.key(a).cmp(rows.key(b)))
        };
        if !order.is_sorted_by(|a, b| by_order(a, b).is_le()) {
            order.sort_by(by_order);
        }
        if self.evicted || !self.worth_merging(program, rows, &order) {
            for row in order {
                if self.insert(program, rows, row as usize) == Applied::Rebuild {
                    return Applied::Rebuild;
                }
            }
            return Applied::Done;
        }
        self.merge(program, rows, &order);
        Applied::Done
    }

    /// Whether single insertions would move more rows than a merge writes.
    fn worth_merging(&self, program: &Program, rows: &Rows, order: &[u32]) -> bool {
        let mut moved = 0;
        for row in order {
            let moves = self.end() - self.place(program, rows.times[*row as usize], rows.key(*row as usize));
            moved += moves;
            if moves == 0 || moved / 8 > self.len() + order.len() {
                break;
            }
        }
        moved / 8 > self.len() + order.len()
    }

    /// Merges events in order into the rows from the last one down, each row moving once; then marks them anew.
    fn merge(&mut self, program: &Program, rows: &Rows, order: &[u32]) {
        let capacity = (self.end() + order.len()).next_multiple_of(64);
        if capacity > self.store.capacity() {
            let end = self.end();
            self.store.resize(&program.layout, capacity, 0, end);
        }
        let mut from = self.end();
        let mut to = from + order.len();
        self.len = row_number(self.len() + order.len());
        for row in order.iter().rev().map(|row| *row as usize) {
            while from > self.start() && self.compare_row(program, from - 1, rows.times[row], rows.key(row)).is_gt() {
                (from, to) = (from - 1, to - 1);
                self.store.copy_row(&program.layout, from, to);
            }
            to -= 1;
            self.write(program, rows, row, to);
        }
        let is_large = self.directory().is_some();
        self.mark_all(program);
        if is_large || self.scratch || self.len() > super::LARGE {
            self.build_directory(program);
        }
    }
}
