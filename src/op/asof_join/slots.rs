//! The distinct match values of one side, per group in order: the slots that rows of the other side fall into.

use super::keys::{NONE, Value};
use super::logical::MatchOp;

/// Per group its distinct values, ascending.
#[derive(Debug)]
pub(super) struct Slots<V> {
    /// Where each group's values start; one more at the end.
    starts: Vec<u32>,
    values: Vec<V>,
}

impl<V: Value> Slots<V> {
    /// The slots of rows with a group ([`NONE`]: no slot) and a value, and the slot of each row.
    ///
    /// - Cost: a counting sort by group, then one sort per group; about 40 bytes a row while it runs, for values of 8 bytes.
    pub(super) fn build(rows: &[u32], values: Vec<V>, groups: u32) -> (Self, Vec<u32>) {
        let groups = groups as usize;
        let mut at = vec![0usize; groups + 1];
        for g in rows.iter().filter(|g| **g != NONE) {
            at[*g as usize + 1] += 1;
        }
        for g in 0..groups {
            at[g + 1] += at[g];
        }
        let total = at[groups];
        let mut sorted: Vec<(V, u32)> = vec![(V::default(), NONE); total];
        let mut next = at.clone();
        for (i, (g, v)) in rows.iter().zip(values).enumerate() {
            if *g != NONE {
                let place = &mut next[*g as usize];
                sorted[*place] = (v, i as u32);
                *place += 1;
            }
        }
        drop(next);
        let mut slot_of = vec![NONE; rows.len()];
        let mut starts = Vec::with_capacity(groups + 1);
        let mut distinct: Vec<V> = Vec::with_capacity(total);
        starts.push(0);
        for g in 0..groups {
            let group = &mut sorted[at[g]..at[g + 1]];
            group.sort_unstable();
            let first = distinct.len();
            for (v, row) in group {
                if distinct.len() == first || distinct.last() != Some(v) {
                    distinct.push(std::mem::take(v));
                }
                slot_of[*row as usize] = distinct.len() as u32 - 1;
            }
            starts.push(distinct.len() as u32);
        }
        distinct.shrink_to_fit();
        (Self { starts, values: distinct }, slot_of)
    }

    pub(super) fn len(&self) -> usize {
        self.values.len()
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let heap: usize = if std::mem::size_of::<V>() == 8 { 0 } else { self.values.iter().map(V::heap_bytes).sum() };
        self.starts.capacity() * 4 + self.values.capacity() * std::mem::size_of::<V>() + heap
    }

    /// A reader's place in each group, for [`Self::locate`].
    pub(super) fn cursors(&self) -> Vec<u32> {
        vec![0; self.starts.len() - 1]
    }

    /// Turns the groups of rows into slots: the one whose value is nearest with `slot op value`, so the least for `>=` and `>`, the greatest
    /// for `<=` and `<`.
    ///
    /// The search starts where the group's last one ended, since history is nearly in order; any order costs at most twice a binary search.
    pub(super) fn locate(&self, groups: &mut [u32], op: MatchOp, values: &[V], cursors: &mut [u32]) {
        for (g, value) in groups.iter_mut().zip(values) {
            if *g == NONE {
                continue;
            }
            let (start, end) = (self.starts[*g as usize] as usize, self.starts[*g as usize + 1] as usize);
            let slots = &self.values[start..end];
            let cursor = &mut cursors[*g as usize];
            let split = match op {
                MatchOp::AtOrBefore | MatchOp::After => split_near(slots, *cursor as usize, |x| x < value),
                MatchOp::Before | MatchOp::AtOrAfter => split_near(slots, *cursor as usize, |x| x <= value),
            };
            *cursor = split as u32;
            let slot = if op.is_forward() { split.wrapping_sub(1) } else { split };
            *g = if slot < slots.len() { (start + slot) as u32 } else { NONE };
        }
    }

    /// Carries each slot's entry on to the slots of its group that follow (that come before, where `forward`) and have none.
    pub(super) fn fill<T: Copy>(&self, entries: &mut [T], forward: bool, is_empty: impl Fn(&T) -> bool) {
        for bounds in self.starts.windows(2) {
            let group = &mut entries[bounds[0] as usize..bounds[1] as usize];
            let carry = |last: &mut Option<T>, e: &mut T| {
                if !is_empty(e) {
                    *last = Some(*e);
                } else if let Some(l) = last {
                    *e = *l;
                }
            };
            let mut last = None;
            if forward {
                group.iter_mut().rev().for_each(|e| carry(&mut last, e));
            } else {
                group.iter_mut().for_each(|e| carry(&mut last, e));
            }
        }
    }
}

/// The partition point of `values`, sought from `hint` outwards in doubling steps.
fn split_near<V>(values: &[V], hint: usize, before: impl Fn(&V) -> bool) -> usize {
    let hint = hint.min(values.len());
    let mut step = 1;
    let (low, high) = if values.get(hint).is_some_and(&before) {
        let mut low = hint + 1;
        while low + step <= values.len() && before(&values[low + step - 1]) {
            low += step;
            step *= 2;
        }
        (low, values.len().min(low + step - 1))
    } else {
        let mut high = hint;
        while high >= step && !before(&values[high - step]) {
            high -= step;
            step *= 2;
        }
        ((high + 1).saturating_sub(step), high)
    };
    low + values[low..high].partition_point(before)
}
