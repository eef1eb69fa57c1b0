//! What a run holds so that every instant from a horizon on is exact, said in one sentence for EXPLAIN.

use std::fmt;

use super::{Aggregate, Function};
use crate::time::DAY_US;
use crate::window::{Bound, Frame};

/// What has to be held for instants at or after a horizon E; see [`crate::Run::evict`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retention {
    /// Rows from E minus this many microseconds (a month counts 31 days); `None` where no frame reaches back by time.
    pub reach_us: Option<i64>,
    /// The newest rows before E, however old.
    pub rows: u64,
    /// The widest session gap: the rows of the session that reaches within it of E.
    pub session_gap_us: Option<i64>,
    /// Whether what left is kept folded, as partial results.
    pub folded: bool,
    /// Whether every row of an unbounded frame is kept, because an aggregate over it cannot be folded.
    pub everything: bool,
    /// Whether the time of the last event is kept, for the ttl.
    pub last_time: bool,
}

/// How the rows of one frame are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holding {
    /// Rows stay as rows for as long as the frame can see them.
    Rows,
    /// Rows before the horizon may be folded into the base.
    Folded,
}

/// Whether an aggregate can be continued from a partial result of rows that are gone.
pub(crate) fn foldable(function: Function) -> bool {
    !matches!(
        function,
        Function::CountDistinct
            | Function::SumDistinct
            | Function::AvgDistinct
            | Function::ArrayAgg
            | Function::Median
            | Function::PercentileCont(_)
            | Function::ApproxDistinct
            | Function::ApproxPercentileCont(_)
    )
}

/// How a frame is held: a frame of no aggregate is read raw by the caller, so its rows stay.
pub(crate) fn holding(frame: usize, aggregates: &[Aggregate]) -> Holding {
    let mut of_frame = aggregates.iter().filter(|aggregate| aggregate.frame == frame).peekable();
    if of_frame.peek().is_some() && of_frame.all(|aggregate| foldable(aggregate.function)) { Holding::Folded } else { Holding::Rows }
}

impl Retention {
    pub(super) fn of(frames: &[Frame], aggregates: &[Aggregate], ttl: Option<i64>) -> Retention {
        let mut all = Retention { last_time: ttl.is_some(), ..Retention::default() };
        for (index, frame) in frames.iter().enumerate() {
            let held = holding(index, aggregates);
            let reach = match *frame {
                Frame::Range { start: Bound::Unbounded, end } if held == Holding::Folded => reach_of(end),
                Frame::Range { start: Bound::Unbounded, .. } | Frame::Rows { start: None, .. } if held == Holding::Rows => {
                    all.everything = true;
                    continue;
                }
                Frame::Range { start, .. } => reach_of(start),
                Frame::Rows { start: Some(start), .. } => {
                    all.rows = all.rows.max(start.saturating_add(1));
                    continue;
                }
                Frame::Rows { start: None, end } => {
                    all.folded = true;
                    all.rows = all.rows.max(end);
                    continue;
                }
                Frame::Tumble { size, slide } => size.saturating_add(slide),
                Frame::Session { gap } => {
                    all.session_gap_us = all.session_gap_us.max(Some(gap));
                    all.folded |= held == Holding::Folded;
                    continue;
                }
            };
            all.folded |= frame.is_unbounded();
            all.reach_us = all.reach_us.max(Some(reach));
        }
        all
    }
}

fn reach_of(bound: Bound) -> i64 {
    match bound {
        Bound::Unbounded => i64::MAX,
        Bound::Back { months, micros } => {
            let reach = i128::from(months) * 31 * i128::from(DAY_US) + i128::from(micros);
            i64::try_from(reach.max(0)).unwrap_or(i64::MAX)
        }
    }
}

impl fmt::Display for Retention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.everything {
            return f.write_str("every event (an aggregate over an unbounded window cannot be folded): grows with the entity");
        }
        let mut parts = Vec::new();
        if let Some(reach) = self.reach_us {
            parts.push(if reach == 0 {
                "events from the horizon on".to_string()
            } else {
                format!("events of {} before the horizon", duration(reach))
            });
        }
        if self.rows > 0 {
            parts.push(format!("the newest {} events before the horizon", self.rows));
        }
        if let Some(gap) = self.session_gap_us {
            parts.push(format!("the session that reaches within {} of the horizon", duration(gap)));
        }
        if self.folded {
            parts.push("a running partial of what left".to_string());
        }
        if self.last_time {
            parts.push("the time of the last event".to_string());
        }
        if parts.is_empty() {
            parts.push("nothing".to_string());
        }
        f.write_str(&parts.join("; "))
    }
}

/// A duration in the largest units that name it exactly.
fn duration(micros: i64) -> String {
    const UNITS: [(i64, &str); 5] =
        [(DAY_US, "day"), (3_600_000_000, "hour"), (60_000_000, "minute"), (1_000_000, "second"), (1, "microsecond")];
    let mut rest = micros;
    let mut parts = Vec::new();
    for (unit, name) in UNITS {
        let count = rest / unit;
        rest %= unit;
        if count > 0 {
            parts.push(format!("{count} {name}{}", if count == 1 { "" } else { "s" }));
        }
    }
    parts.join(" ")
}
