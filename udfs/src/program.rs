//! What to compute over one entity's events: value columns, masks, frames and aggregates, checked and laid out once.
//!
//! A program is immutable and shared by all runs of a view. It decides which partial results a run has to keep: a
//! *lane* is a value column seen through one mask, and it keeps only what some aggregate needs. Not here: events (`run`).

mod retention;
mod types;

use std::fmt;

use arrow::datatypes::{DataType, TimeUnit};

pub use retention::Retention;
pub(crate) use retention::{Holding, holding};
pub(crate) use types::Kind;

use crate::run::{Layout, Needed};
use crate::window::{Bound, Frame};

/// An aggregate function of DESIGN 3.3.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Function {
    /// `count(*)`.
    CountAll,
    /// `count(x)`.
    Count,
    /// `count(DISTINCT x)`.
    CountDistinct,
    /// `sum(x)`.
    Sum,
    /// `sum(DISTINCT x)`.
    SumDistinct,
    /// `avg(x)`.
    Avg,
    /// `avg(DISTINCT x)`.
    AvgDistinct,
    /// `var_pop(x)`.
    VarPop,
    /// `var_samp(x)`: NULL for fewer than two values.
    VarSamp,
    /// `stddev_pop(x)`.
    StddevPop,
    /// `stddev_samp(x)`: NULL for fewer than two values.
    StddevSamp,
    /// `min(x)`, with or without DISTINCT.
    Min,
    /// `max(x)`, with or without DISTINCT.
    Max,
    /// `first_value(x)`.
    FirstValue,
    /// `last_value(x)`.
    LastValue,
    /// `array_agg(x)`, oldest first, NULLs kept.
    ArrayAgg,
    /// `first_n(x, n)`, oldest first, NULLs kept.
    FirstN(u32),
    /// `last_n(x, n)`, oldest first, NULLs kept.
    LastN(u32),
    /// `median(x)`.
    Median,
    /// `percentile_cont(x, p)`.
    PercentileCont(f64),
    /// `approx_distinct(x)`: see [`crate::sketch::hll`].
    ApproxDistinct,
    /// `approx_percentile_cont(x, p)`: see [`crate::sketch::ddsketch`].
    ApproxPercentileCont(f64),
    /// `window_start()` of TUMBLE, HOP and SESSION.
    WindowStart,
    /// `window_end()` of TUMBLE, HOP and SESSION.
    WindowEnd,
}

/// One aggregate: a function of a value column through a mask, over a frame.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Aggregate {
    /// What is computed.
    pub function: Function,
    /// The value column; `None` for `CountAll`, `WindowStart` and `WindowEnd`.
    pub value: Option<usize>,
    /// The FILTER mask; `None` takes all rows.
    pub mask: Option<usize>,
    /// The frame.
    pub frame: usize,
}

/// Why a program cannot be built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgramError(pub(crate) String);

impl fmt::Display for ProgramError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ProgramError {}

/// What to compute over one entity's events; immutable and shared.
#[derive(Debug, Clone)]
pub struct Program {
    pub(crate) kinds: Vec<Kind>,
    pub(crate) types: Vec<DataType>,
    pub(crate) mask_count: usize,
    pub(crate) ordered: bool,
    pub(crate) frames: Vec<Frame>,
    pub(crate) aggregates: Vec<Aggregate>,
    pub(crate) ttl: Option<i64>,
    pub(crate) output_types: Vec<DataType>,
    pub(crate) lanes: Vec<Lane>,
    pub(crate) raw: Vec<RawUse>,
    pub(crate) layout: Layout,
    pub(crate) retention: Retention,
    pub(crate) needed: Needed,
}

/// A value column (or none: the rows themselves) through a mask, with the partial results that its aggregates need.
#[derive(Debug, Clone)]
pub(crate) struct Lane {
    pub(crate) value: Option<usize>,
    pub(crate) mask: Option<usize>,
    pub(crate) needs: Needs,
    /// The frames read through this lane; those that end together stand next to each other, narrower first.
    pub(crate) uses: Vec<LaneUse>,
    /// The number of this lane among those with `needs.distinct`.
    pub(crate) distinct_slot: usize,
    /// What the base keeps for this lane over unbounded and session frames.
    pub(crate) folded: Folded,
}

/// Which partial results are needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Needs {
    pub(crate) count: bool,
    pub(crate) sum: bool,
    pub(crate) squares: bool,
    pub(crate) min: bool,
    pub(crate) max: bool,
    pub(crate) distinct: bool,
}

impl Needs {
    fn of(function: Function) -> Option<Needs> {
        let none = Needs::default();
        Some(match function {
            Function::CountAll | Function::Count => Needs { count: true, ..none },
            Function::Sum | Function::Avg => Needs { count: true, sum: true, ..none },
            Function::VarPop | Function::VarSamp | Function::StddevPop | Function::StddevSamp => {
                Needs { count: true, sum: true, squares: true, ..none }
            }
            Function::Min => Needs { count: true, min: true, ..none },
            Function::Max => Needs { count: true, max: true, ..none },
            Function::CountDistinct => Needs { distinct: true, ..none },
            _ => return None,
        })
    }

    fn or(self, other: Needs) -> Needs {
        Needs {
            count: self.count | other.count,
            sum: self.sum | other.sum,
            squares: self.squares | other.squares,
            min: self.min | other.min,
            max: self.max | other.max,
            distinct: self.distinct | other.distinct,
        }
    }

    pub(crate) fn moments(self) -> bool {
        self.sum | self.squares
    }
}

/// What the base of evicted rows keeps beside the partial results of a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Folded {
    /// How many of the oldest values.
    pub(crate) first: usize,
    /// How many of the newest values.
    pub(crate) last: usize,
}

/// One frame of a lane and the aggregates that read it.
#[derive(Debug, Clone)]
pub(crate) struct LaneUse {
    pub(crate) frame: usize,
    pub(crate) outputs: Vec<(usize, Function)>,
}

/// An aggregate that is computed from the rows of its frame.
#[derive(Debug, Clone)]
pub(crate) struct RawUse {
    pub(crate) slot: usize,
    pub(crate) function: Function,
    /// Unused by `WindowStart` and `WindowEnd`.
    pub(crate) lane: usize,
    pub(crate) frame: usize,
}

impl Program {
    /// Checks and lays out a program.
    ///
    /// - `values`: the types of the value columns; `mask_count`: the number of FILTER masks.
    /// - `ordered`: whether events of equal time are told apart by an order key; needed by first, last, arrays and ROWS.
    /// - `frames` that no aggregate uses are read raw by the caller, and their rows are kept.
    /// - `ttl`: microseconds after the last event at which the value is still that of the events.
    pub fn try_new(
        values: Vec<DataType>,
        mask_count: usize,
        ordered: bool,
        frames: Vec<Frame>,
        aggregates: Vec<Aggregate>,
        ttl: Option<i64>,
    ) -> Result<Program, ProgramError> {
        let kinds = values.iter().map(Kind::of).collect::<Result<Vec<_>, _>>()?;
        for frame in &frames {
            check_frame(frame, ordered)?;
        }
        if ttl.is_some_and(|ttl| ttl < 0) {
            return Err(ProgramError("ttl is negative".into()));
        }
        let mut output_types = Vec::with_capacity(aggregates.len());
        for aggregate in &aggregates {
            output_types.push(check_aggregate(aggregate, &values, mask_count, ordered, &frames)?);
        }
        let (lanes, raw) = lanes_of(&aggregates, &frames);
        let layout = Layout::new(&kinds, mask_count, ordered, &lanes, &frames);
        let retention = Retention::of(&frames, &aggregates, ttl);
        let needed = Needed::by(&frames, &aggregates);
        Ok(Program {
            kinds,
            types: values,
            mask_count,
            ordered,
            frames,
            aggregates,
            ttl,
            output_types,
            lanes,
            raw,
            layout,
            retention,
            needed,
        })
    }

    /// The type of a function's result over a value of this type; the error says why there is none.
    pub fn result_type(function: Function, value: Option<&DataType>) -> Result<DataType, ProgramError> {
        types::result_type(function, value)
    }

    /// The type of each aggregate's result.
    pub fn output_types(&self) -> &[DataType] {
        &self.output_types
    }

    /// The value columns' types.
    pub fn value_types(&self) -> &[DataType] {
        &self.types
    }

    /// The number of FILTER masks.
    pub fn mask_count(&self) -> usize {
        self.mask_count
    }

    /// Whether events carry an order key.
    pub fn is_ordered(&self) -> bool {
        self.ordered
    }

    /// The frames.
    pub fn frames(&self) -> &[Frame] {
        &self.frames
    }

    /// The aggregates, in the order of the output's slots.
    pub fn aggregates(&self) -> &[Aggregate] {
        &self.aggregates
    }

    /// The ttl in microseconds.
    pub fn ttl(&self) -> Option<i64> {
        self.ttl
    }

    /// What a run has to hold so that every instant from a horizon on is exact.
    pub fn retention(&self) -> &Retention {
        &self.retention
    }
}

/// The type of event times and window bounds.
pub(crate) fn timestamp_type() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

fn check_frame(frame: &Frame, ordered: bool) -> Result<(), ProgramError> {
    let refuse = |why: &str| Err(ProgramError(why.into()));
    let bad = |bound: &Bound| matches!(bound, Bound::Back { months, micros } if *months < 0 || (*months == 0 && *micros < 0));
    match frame {
        Frame::Range { end: Bound::Unbounded, .. } => refuse("frame ends at unbounded preceding"),
        Frame::Range { start, end } if bad(start) || bad(end) => refuse("frame bound is negative"),
        Frame::Rows { .. } if !ordered => refuse("a ROWS frame needs an order key"),
        Frame::Tumble { size, slide } if *size <= 0 || *slide <= 0 => refuse("window size and slide must be positive"),
        Frame::Tumble { size, slide } if size % slide != 0 => refuse("window size is no multiple of its slide"),
        Frame::Session { gap } if *gap <= 0 => refuse("session gap must be positive"),
        _ => Ok(()),
    }
}

fn check_aggregate(
    aggregate: &Aggregate,
    values: &[DataType],
    mask_count: usize,
    ordered: bool,
    frames: &[Frame],
) -> Result<DataType, ProgramError> {
    let function = aggregate.function;
    let value = match aggregate.value {
        Some(index) => Some(values.get(index).ok_or_else(|| ProgramError(format!("no value column {index}")))?),
        None => None,
    };
    if aggregate.mask.is_some_and(|mask| mask >= mask_count) {
        return Err(ProgramError(format!("no mask {}", aggregate.mask.unwrap_or_default())));
    }
    let Some(frame) = frames.get(aggregate.frame) else {
        return Err(ProgramError(format!("no frame {}", aggregate.frame)));
    };
    let by_order =
        matches!(function, Function::FirstValue | Function::LastValue | Function::ArrayAgg | Function::FirstN(_) | Function::LastN(_));
    if by_order && !ordered {
        return Err(ProgramError(format!("{} needs an order key", types::name(function))));
    }
    let bounds = matches!(function, Function::WindowStart | Function::WindowEnd);
    if bounds && !matches!(frame, Frame::Tumble { .. } | Frame::Session { .. }) {
        return Err(ProgramError(format!("{} stands outside of TUMBLE, HOP and SESSION", types::name(function))));
    }
    types::result_type(function, value)
}

/// Groups the aggregates by lane and frame, and orders each lane's frames so that a wider one extends a narrower one.
fn lanes_of(aggregates: &[Aggregate], frames: &[Frame]) -> (Vec<Lane>, Vec<RawUse>) {
    let mut lanes: Vec<Lane> = Vec::new();
    let mut raw = Vec::new();
    for (slot, aggregate) in aggregates.iter().enumerate() {
        let Aggregate { function, value, mask, frame } = *aggregate;
        // Null values are kept by the lanes of first, last and arrays, so only partial results look at validity.
        let lane = match lanes.iter().position(|lane| lane.value == value && lane.mask == mask) {
            Some(lane) => lane,
            None => {
                let (needs, uses, folded) = (Needs::default(), Vec::new(), Folded::default());
                lanes.push(Lane { value, mask, needs, uses, distinct_slot: usize::MAX, folded });
                lanes.len() - 1
            }
        };
        let at = &mut lanes[lane];
        match Needs::of(function) {
            Some(needs) => {
                at.needs = at.needs.or(needs);
                match at.uses.iter_mut().find(|other| other.frame == frame) {
                    Some(other) => other.outputs.push((slot, function)),
                    None => at.uses.push(LaneUse { frame, outputs: vec![(slot, function)] }),
                }
            }
            None => raw.push(RawUse { slot, function, lane, frame }),
        }
        if frames[frame].is_unbounded() || matches!(frames[frame], Frame::Session { .. }) {
            match function {
                Function::FirstValue => at.folded.first = at.folded.first.max(1),
                Function::LastValue => at.folded.last = at.folded.last.max(1),
                Function::FirstN(n) => at.folded.first = at.folded.first.max(n as usize),
                Function::LastN(n) => at.folded.last = at.folded.last.max(n as usize),
                _ => {}
            }
        }
    }
    let mut distinct_slots = 0;
    for lane in &mut lanes {
        lane.uses.sort_by_key(|lane_use| nesting(&frames[lane_use.frame]));
        if lane.needs.distinct {
            lane.distinct_slot = distinct_slots;
            distinct_slots += 1;
        }
    }
    (lanes, raw)
}

/// A sort key that puts frames with the same end side by side, narrower before wider.
fn nesting(frame: &Frame) -> (u8, i128, i128) {
    let width = |months: i32, micros: i64| i128::from(months) * 31 * i128::from(crate::time::DAY_US) + i128::from(micros);
    match *frame {
        Frame::Range { start, end } => {
            let end = if let Bound::Back { months, micros } = end { width(months, micros) } else { 0 };
            let start = if let Bound::Back { months, micros } = start { width(months, micros) } else { i128::MAX };
            (0, end, start)
        }
        Frame::Rows { start, end } => (1, i128::from(end), start.map_or(i128::MAX, i128::from)),
        Frame::Tumble { size, slide } => (2, i128::from(slide), i128::from(size)),
        Frame::Session { gap } => (3, 0, i128::from(gap)),
    }
}
