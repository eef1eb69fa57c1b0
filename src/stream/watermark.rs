//! What is late: each source partition's greatest event time, and the judgement of records against it.
//!
//! A record is late when its event time is less than the greatest event time of the valid records earlier in the same partition,
//! minus the stream's disorder. So the judgement is a function of (partition, offset) and a replay repeats it, provided that every
//! valid record is shown, in the order of offsets: late records and duplicates too, rejected ones not. COPY is not shown at all.
//! Not here: where the greatest times are kept with the offsets, what happens to late records.

use std::collections::BTreeMap;

/// What the records of one judgement are compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Granularity {
    /// Each record with all before it: files and logs.
    Record,
    /// All records of one call with those before the call: INSERT and DoPut.
    Call,
}

/// The greatest event time of each source partition of one stream, in microseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PartitionTimes {
    greatest: BTreeMap<String, i64>,
}

impl PartitionTimes {
    /// No partition has a record yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The greatest event time of a partition; None before its first valid record.
    pub fn greatest(&self, partition: &str) -> Option<i64> {
        self.greatest.get(partition).copied()
    }

    /// Every partition with its greatest event time, in the order of names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, i64)> {
        self.greatest.iter().map(|(partition, time)| (partition.as_str(), *time))
    }

    /// Puts a partition's time back to what was stored with its offset; None forgets the partition.
    pub fn restore(&mut self, partition: &str, greatest: Option<i64>) {
        match greatest {
            Some(time) => _ = self.greatest.insert(partition.to_owned(), time),
            None => _ = self.greatest.remove(partition),
        }
    }

    /// Says of each record whether it is late, and advances the partition over all of them.
    ///
    /// - Shapes: `times` are the event times of the valid records in the order of offsets; the result has one entry for each.
    /// - The first record of a partition is never late; a record at exactly the greatest time minus the disorder is not late.
    pub fn judge(&mut self, partition: &str, times: &[i64], disorder_us: i64, granularity: Granularity) -> Vec<bool> {
        if times.is_empty() {
            return Vec::new();
        }
        // Before the first record nothing can be late, and the least time there is says so.
        let mut greatest = self.greatest(partition).unwrap_or(i64::MIN);
        let mut late = Vec::with_capacity(times.len());
        match granularity {
            Granularity::Record => {
                for &time in times {
                    late.push(is_late(time, greatest, disorder_us));
                    greatest = greatest.max(time);
                }
            }
            Granularity::Call => {
                late.extend(times.iter().map(|time| is_late(*time, greatest, disorder_us)));
                greatest = times.iter().fold(greatest, |greatest, time| greatest.max(*time));
            }
        }
        match self.greatest.get_mut(partition) {
            Some(stored) => *stored = greatest,
            None => _ = self.greatest.insert(partition.to_owned(), greatest),
        }
        late
    }
}

fn is_late(time: i64, greatest: i64, disorder_us: i64) -> bool {
    let bound = greatest.saturating_sub(disorder_us);
    if asof_udfs::seeded_bug("late-boundary") { time <= bound } else { time < bound }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(times: &mut PartitionTimes, partition: &str, of: &[i64], granularity: Granularity) -> String {
        let late = times.judge(partition, of, 10, granularity);
        late.iter().map(|late| if *late { 'L' } else { '.' }).collect()
    }

    #[test]
    fn records_are_judged_against_those_before_them() {
        let cases: &[(&[i64], &str)] = &[
            (&[], ""),
            (&[5], "."),
            (&[100, 90, 89, 88], "..LL"),
            (&[100, 200, 190, 189, 201, 191], "...L.."),
            (&[i64::MIN, i64::MIN], ".."),
            (&[i64::MAX, i64::MAX - 10, i64::MAX - 11, i64::MIN], "..LL"),
            (&[i64::MIN + 3, i64::MIN], ".."),
        ];
        for (of, expected) in cases {
            let mut times = PartitionTimes::new();
            assert_eq!(judge(&mut times, "p", of, Granularity::Record), *expected, "{of:?}");
            assert_eq!(times.greatest("p"), of.iter().max().copied());
            // However the log is cut, the judgement is the same.
            for cut in 0..of.len() {
                let mut times = PartitionTimes::new();
                let mut got = judge(&mut times, "p", &of[..cut], Granularity::Record);
                got += &judge(&mut times, "p", &of[cut..], Granularity::Record);
                assert_eq!(got, *expected, "{of:?} cut at {cut}");
            }
        }
    }

    #[test]
    fn calls_are_judged_against_the_time_before_them() {
        let mut times = PartitionTimes::new();
        assert_eq!(judge(&mut times, "p", &[100, 5, 300], Granularity::Call), "...");
        assert_eq!(judge(&mut times, "p", &[290, 289, 1000, 900], Granularity::Call), ".L..");
        assert_eq!(judge(&mut times, "p", &[989], Granularity::Call), "L");
        assert_eq!(judge(&mut times, "q", &[989], Granularity::Call), ".");
        times.restore("p", Some(50));
        assert_eq!(judge(&mut times, "p", &[40, 39], Granularity::Call), ".L");
        times.restore("p", None);
        assert_eq!(judge(&mut times, "p", &[1], Granularity::Call), ".");
        assert_eq!(times.iter().collect::<Vec<_>>(), [("p", 1), ("q", 989)]);
    }
}
