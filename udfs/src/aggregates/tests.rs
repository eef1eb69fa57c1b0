//! Every aggregate over every frame against its definition, on random runs that grow, shrink and forget.
//!
//! The oracle holds a plain vector of events and computes each value from DESIGN 3 by rational arithmetic; it shares
//! no code with the run. A failure prints its seed.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::*;
use arrow::buffer::ScalarBuffer;
use arrow::datatypes::{DataType, TimeUnit};
use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{ToPrimitive, Zero};
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::exact_sum::tests::{hostile, nearest, rational};
use crate::*;

const NAN: f64 = f64::from_bits(0x7ff8_0000_0000_0000);

/// One event of the oracle: its values in the order of `types()`.
#[derive(Debug, Clone, PartialEq)]
struct Event {
    time: i64,
    key: Vec<u8>,
    values: Vec<Value>,
    masks: Vec<bool>,
}

fn types() -> Vec<DataType> {
    vec![
        DataType::Float64,
        DataType::Utf8View,
        DataType::Int64,
        DataType::Decimal128(38, 3),
        DataType::Float32,
        DataType::Boolean,
        DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        DataType::Int16,
    ]
}

fn random_value(rng: &mut impl Rng, column: usize, wild: bool) -> Value {
    if rng.random_bool(0.15) {
        return Value::Null;
    }
    match column {
        0 if wild => Value::Float(match rng.random_range(0..20) {
            0 => NAN,
            1 => f64::INFINITY,
            2 => f64::NEG_INFINITY,
            _ => hostile(rng),
        }),
        0 => Value::Float([0.0, -0.0, 0.1, 1.5, -2.25, 1e9, 12.34, -12.34][rng.random_range(0..8)]),
        1 => Value::Bytes(["", "a", "b", "ab", "merchant-with-a-longer-name", "zz"][rng.random_range(0..6)].as_bytes().into()),
        2 if wild => Value::Int(rng.random()),
        2 => Value::Int(rng.random_range(-3..4)),
        3 if wild => Value::Decimal(rng.random_range(-(10i128.pow(38) - 1)..10i128.pow(38))),
        3 => Value::Decimal(rng.random_range(-500..500)),
        4 => Value::Float(f64::from([0.0f32, -0.0, 0.1, 3e38, -1e-40, 7.5, f32::from_bits(0x7fc0_0000)][rng.random_range(0..7)])),
        5 => Value::Boolean(rng.random()),
        6 => Value::Int(rng.random_range(0..5)),
        _ => Value::Int(rng.random_range(-300..300)),
    }
}

fn rows(program: &Program, events: &[Event]) -> Rows {
    let column = |index: usize| -> ArrayRef {
        let cells = events.iter().map(|event| &event.values[index]);
        let int = |value: &Value| if let Value::Int(x) = value { Some(*x) } else { None };
        let float = |value: &Value| if let Value::Float(x) = value { Some(*x) } else { None };
        match index {
            0 => Arc::new(cells.map(float).collect::<Float64Array>()),
            1 => Arc::new(
                cells
                    .map(|value| if let Value::Bytes(x) = value { std::str::from_utf8(x).ok() } else { None })
                    .collect::<StringViewArray>(),
            ),
            2 => Arc::new(cells.map(int).collect::<Int64Array>()),
            3 => Arc::new(
                cells
                    .map(|value| if let Value::Decimal(x) = value { Some(*x) } else { None })
                    .collect::<Decimal128Array>()
                    .with_data_type(DataType::Decimal128(38, 3)),
            ),
            4 => Arc::new(cells.map(|value| float(value).map(|x| x as f32)).collect::<Float32Array>()),
            5 => Arc::new(cells.map(|value| if let Value::Boolean(x) = value { Some(*x) } else { None }).collect::<BooleanArray>()),
            6 => Arc::new(cells.map(int).collect::<TimestampMicrosecondArray>().with_timezone("UTC")),
            _ => Arc::new(cells.map(|value| int(value).map(|x| x as i16)).collect::<Int16Array>()),
        }
    };
    let times: ScalarBuffer<i64> = events.iter().map(|event| event.time).collect();
    let keys = BinaryArray::from_iter_values(events.iter().map(|event| &event.key));
    let masks = (0..program.mask_count()).map(|mask| events.iter().map(|event| Some(event.masks[mask])).collect()).collect();
    Rows::try_new(program, times, Some(keys), (0..types().len()).map(column).collect(), masks).expect("columns fit")
}

/// The definition of a frame: the events it holds, in order.
fn naive_frame<'a>(frame: &Frame, events: &'a [Event], at: Instant) -> Vec<&'a Event> {
    let up_to: Vec<&Event> = events.iter().filter(|event| if at.strict { event.time < at.at } else { event.time <= at.at }).collect();
    let back =
        |months: i32, micros: i64| i128::from(crate::time::EventTime(at.at).minus_months(months).expect("in range").0) - i128::from(micros);
    match *frame {
        Frame::Range { start, end } => {
            let low = if let Bound::Back { months, micros } = start { back(months, micros) } else { i128::MIN };
            let high = if let Bound::Back { months, micros } = end { back(months, micros) } else { i128::MAX };
            up_to.into_iter().filter(|event| low <= event.time.into() && i128::from(event.time) <= high).collect()
        }
        Frame::Rows { start, end } => {
            let count = up_to.len();
            let high = count.saturating_sub(end as usize);
            let low = start.map_or(0, |start| count.saturating_sub(start as usize + 1)).min(high);
            up_to[low..high].to_vec()
        }
        Frame::Tumble { size, slide } => {
            let floor = at.at.div_euclid(slide) * slide;
            up_to.into_iter().filter(|event| floor - size <= event.time && event.time < floor).collect()
        }
        Frame::Session { gap } => {
            let Some(last) = up_to.last() else { return Vec::new() };
            if at.at - last.time > gap {
                return Vec::new();
            }
            let mut low = up_to.len() - 1;
            while low > 0 && up_to[low].time - up_to[low - 1].time <= gap {
                low -= 1;
            }
            up_to[low..].to_vec()
        }
    }
}

fn order(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::Float(a), Value::Float(b)) => a.partial_cmp(b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan())),
        (Value::Int(a), Value::Int(b)) => a.cmp(b),
        (Value::Decimal(a), Value::Decimal(b)) => a.cmp(b),
        (Value::Boolean(a), Value::Boolean(b)) => a.cmp(b),
        (Value::Bytes(a), Value::Bytes(b)) => a.cmp(b),
        _ => panic!("mixed values"),
    }
}

fn positive_zero(value: Value) -> Value {
    if let Value::Float(x) = value { Value::Float(if x == 0.0 { 0.0 } else { x }) } else { value }
}

fn exact(value: &Value) -> BigRational {
    match value {
        Value::Float(x) => rational(*x),
        Value::Int(x) => BigRational::from_integer(BigInt::from(*x)),
        Value::Decimal(x) => BigRational::new(BigInt::from(*x), BigInt::from(1000)),
        _ => panic!("no number"),
    }
}

/// What infinities and NaN make of a sum.
fn special(values: &[Value]) -> Option<f64> {
    let floats = || values.iter().filter_map(|value| if let Value::Float(x) = value { Some(*x) } else { None });
    let (nan, up, down) = (floats().any(f64::is_nan), floats().any(|x| x == f64::INFINITY), floats().any(|x| x == f64::NEG_INFINITY));
    match (nan, up, down) {
        (false, false, false) => None,
        (false, true, false) => Some(f64::INFINITY),
        (false, false, true) => Some(f64::NEG_INFINITY),
        _ => Some(NAN),
    }
}

fn sum_as_float(values: &[Value]) -> f64 {
    special(values).unwrap_or_else(|| nearest(&values.iter().map(exact).sum()))
}

fn naive_sum(values: &[Value]) -> Value {
    match values.first() {
        None => Value::Null,
        Some(Value::Float(_)) => Value::Float(sum_as_float(values)),
        Some(Value::Int(_)) => {
            let sum: BigRational = values.iter().map(exact).sum();
            sum.to_integer().to_i64().map_or(Value::Null, Value::Int)
        }
        _ => {
            let sum: BigRational = values.iter().map(exact).sum::<BigRational>() * BigInt::from(1000);
            sum.to_integer().to_i128().filter(|sum| sum.abs() < 10i128.pow(38)).map_or(Value::Null, Value::Decimal)
        }
    }
}

fn naive_variance(values: &[Value], less: usize) -> Option<f64> {
    if values.len() <= less {
        return None;
    }
    if special(values).is_some() {
        return Some(NAN);
    }
    let number = |n: usize| BigRational::from_integer(BigInt::from(n));
    let mean = values.iter().map(exact).sum::<BigRational>() / number(values.len());
    let spread: BigRational = values.iter().map(|value| (exact(value) - &mean) * (exact(value) - &mean)).sum();
    Some(nearest(&(spread / number(values.len() - less))))
}

fn naive_percentile(values: &[Value], p: f64) -> Value {
    if values.is_empty() {
        return Value::Null;
    }
    let mut sorted = values.to_vec();
    sorted.sort_by(order);
    let rank = rational(p) * BigRational::from_integer(BigInt::from(sorted.len() - 1));
    let (index, fraction) = (rank.to_integer().to_usize().expect("an index"), rank.fract());
    let alone = |value: &Value| match value {
        Value::Float(x) if !x.is_finite() => *x,
        value => nearest(&exact(value)),
    };
    if fraction.is_zero() {
        return Value::Float(alone(&sorted[index]));
    }
    let (low, high) = (&sorted[index], &sorted[index + 1]);
    Value::Float(match (special(std::slice::from_ref(low)), special(std::slice::from_ref(high))) {
        (None, None) => nearest(&(exact(low) + fraction * (exact(high) - exact(low)))),
        (Some(a), Some(b)) if a == b => a,
        (Some(_), Some(_)) => NAN,
        (Some(a), None) => a,
        (None, Some(b)) => b,
    })
}

fn naive(program: &Program, events: &[Event], aggregate: &Aggregate, at: Instant) -> Value {
    let up_to = |event: &&Event| if at.strict { event.time < at.at } else { event.time <= at.at };
    let dead = match (program.ttl(), events.iter().rfind(up_to)) {
        (Some(ttl), Some(last)) => last.time + ttl < at.at,
        _ => false,
    };
    let frame = &program.frames()[aggregate.frame];
    let in_frame = if dead { Vec::new() } else { naive_frame(frame, events, at) };
    let bounds = match *frame {
        Frame::Tumble { size, slide } => {
            let floor = at.at.div_euclid(slide) * slide;
            Some((floor - size, floor))
        }
        _ => in_frame.first().map(|first| first.time).zip(in_frame.last().map(|last| last.time)),
    };
    let passing: Vec<&Event> = in_frame.into_iter().filter(|event| aggregate.mask.is_none_or(|mask| event.masks[mask])).collect();
    let all: Vec<Value> = match aggregate.value {
        Some(value) => passing.iter().map(|event| event.values[value].clone()).collect(),
        None => Vec::new(),
    };
    let values: Vec<Value> = all.iter().filter(|value| **value != Value::Null).cloned().collect();
    let mut distinct = values.clone();
    if !distinct.is_empty() {
        distinct.sort_by(order);
        distinct.dedup_by(|a, b| order(a, b).is_eq());
    }
    let list = |items: &[Value]| if items.is_empty() { Value::Null } else { Value::List(items.to_vec()) };
    let mean = |values: &[Value]| if values.is_empty() { Value::Null } else { Value::Float(sum_as_float(values) / values.len() as f64) };
    let float = |x: Option<f64>| x.map_or(Value::Null, Value::Float);
    let result = match aggregate.function {
        Function::CountAll => Value::Int(passing.len() as i64),
        Function::Count => Value::Int(values.len() as i64),
        Function::CountDistinct => Value::Int(distinct.len() as i64),
        Function::Sum => naive_sum(&values),
        Function::SumDistinct => naive_sum(&distinct),
        Function::Avg => mean(&values),
        Function::AvgDistinct => mean(&distinct),
        Function::VarPop => float(naive_variance(&values, 0)),
        Function::VarSamp => float(naive_variance(&values, 1)),
        Function::StddevPop => float(naive_variance(&values, 0).map(f64::sqrt)),
        Function::StddevSamp => float(naive_variance(&values, 1).map(f64::sqrt)),
        Function::Min => distinct.first().cloned().unwrap_or_default(),
        Function::Max => distinct.last().cloned().unwrap_or_default(),
        Function::FirstValue => return all.first().cloned().unwrap_or_default(),
        Function::LastValue => return all.last().cloned().unwrap_or_default(),
        Function::ArrayAgg => return list(&all),
        Function::FirstN(n) => return list(&all[..all.len().min(n as usize)]),
        Function::LastN(n) => return list(&all[all.len().saturating_sub(n as usize)..]),
        Function::Median => naive_percentile(&values, 0.5),
        Function::PercentileCont(p) => naive_percentile(&values, p),
        Function::ApproxDistinct | Function::ApproxPercentileCont(_) => Value::Null,
        Function::WindowStart => bounds.map_or(Value::Null, |bounds| Value::Int(bounds.0)),
        Function::WindowEnd => bounds.map_or(Value::Null, |bounds| Value::Int(bounds.1)),
    };
    positive_zero(result)
}

/// Equality of bits: NaN equals NaN, -0 differs from +0.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Float(a), Value::Float(b)) => a.to_bits() == b.to_bits(),
        (Value::List(a), Value::List(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (a, b) => a == b,
    }
}

fn random_frame(rng: &mut impl Rng, span: i64, ordered: bool) -> Frame {
    let mut width = || rng.random_range(0..span / 2 + 2);
    let (a, b, c) = (width(), width(), width());
    match rng.random_range(0..12) {
        0..3 => Frame::last(a),
        3 => Frame::Range { start: Bound::micros(a.max(b)), end: Bound::micros(a.min(b)) },
        4 => Frame::Range { start: Bound::Back { months: 1, micros: a }, end: Bound::micros(b) },
        5 => Frame::Range { start: Bound::micros(a + 30 * crate::time::DAY_US), end: Bound::Back { months: 1, micros: 0 } },
        6 => Frame::UNBOUNDED,
        7 => Frame::Range { start: Bound::Unbounded, end: Bound::micros(a) },
        8 if ordered => Frame::Rows { start: Some(c as u64 % 9), end: (c as u64 % 9).min(a as u64 % 5) },
        9 if ordered => Frame::Rows { start: None, end: a as u64 % 4 },
        10 => {
            let slide = a + 1;
            Frame::Tumble { size: slide * rng.random_range(1..4), slide }
        }
        _ => Frame::Session { gap: rng.random_range(1..span / 8 + 2) },
    }
}

pub(crate) fn random_program(rng: &mut impl Rng, span: i64) -> Program {
    let ordered = rng.random_bool(0.6);
    let frames: Vec<Frame> = (0..rng.random_range(1..5)).map(|_| random_frame(rng, span, ordered)).collect();
    let functions = [
        Function::CountAll,
        Function::Count,
        Function::CountDistinct,
        Function::Sum,
        Function::SumDistinct,
        Function::Avg,
        Function::AvgDistinct,
        Function::VarPop,
        Function::VarSamp,
        Function::StddevPop,
        Function::StddevSamp,
        Function::Min,
        Function::Max,
        Function::FirstValue,
        Function::LastValue,
        Function::ArrayAgg,
        Function::FirstN(3),
        Function::LastN(2),
        Function::Median,
        Function::PercentileCont(0.3),
        Function::WindowStart,
        Function::WindowEnd,
    ];
    // Programs whose aggregates can all be folded reach other paths than those that keep their rows.
    let foldable_only = rng.random_bool(0.5);
    let mut aggregates = Vec::new();
    let wanted = rng.random_range(1..16);
    while aggregates.len() < wanted {
        let function = *functions.choose(rng).expect("functions");
        let frame = rng.random_range(0..frames.len());
        let keeps_rows = matches!(
            function,
            Function::CountDistinct
                | Function::SumDistinct
                | Function::AvgDistinct
                | Function::ArrayAgg
                | Function::Median
                | Function::PercentileCont(_)
        );
        if foldable_only && keeps_rows && (frames[frame].is_unbounded() || matches!(frames[frame], Frame::Session { .. })) {
            continue;
        }
        let nullary = matches!(function, Function::CountAll | Function::WindowStart | Function::WindowEnd);
        let value = if nullary { None } else { Some(rng.random_range(0..types().len())) };
        let mask = if rng.random_bool(0.4) { Some(rng.random_range(0..2)) } else { None };
        let aggregate = Aggregate { function, value, mask, frame };
        if Program::try_new(types(), 2, ordered, frames.clone(), vec![aggregate], None).is_ok() {
            aggregates.push(aggregate);
        }
    }
    let ttl = if rng.random_bool(0.2) { Some(rng.random_range(0..span)) } else { None };
    Program::try_new(types(), 2, ordered, frames, aggregates, ttl).expect("each aggregate fits")
}

fn random_event(rng: &mut impl Rng, program: &Program, time: i64, wild: bool) -> Event {
    let values = (0..types().len()).map(|column| random_value(rng, column, wild)).collect();
    let key = if program.is_ordered() { vec![rng.random_range(0..200u8); rng.random_range(1..4)] } else { Vec::new() };
    Event { time, key, values, masks: vec![rng.random_bool(0.7), rng.random_bool(0.1)] }
}

fn in_order(a: &Event, b: &Event) -> Ordering {
    (a.time, &a.key).cmp(&(b.time, &b.key))
}

fn check(seed: u64, step: usize, program: &Program, run: Option<&Run>, events: &[Event], at: Instant) {
    let mut got = vec![Value::Null; program.aggregates().len()];
    program.evaluate(run, at, &mut got);
    for (slot, aggregate) in program.aggregates().iter().enumerate() {
        let expected = naive(program, events, aggregate, at);
        assert!(
            same(&got[slot], &expected),
            "seed {seed} step {step}: {aggregate:?} over {:?} at {at:?} ttl {:?} gives {:?}, not {expected:?}",
            program.frames()[aggregate.frame],
            program.ttl(),
            got[slot],
        );
    }
}

/// A run that takes events in any order, loses some, and forgets what no later instant needs.
fn churn(seed: u64) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let long = seed.is_multiple_of(8);
    let span: i64 = [30, 1000, 80 * crate::time::DAY_US][rng.random_range(0..3)];
    let steps = if long { rng.random_range(200..900) } else { rng.random_range(1..100) };
    let program = random_program(&mut rng, span);
    let wild = rng.random_bool(0.25);
    let mut events: Vec<Event> = Vec::new();
    let mut run = Run::new();
    if rng.random_bool(0.2) {
        for _ in 0..rng.random_range(0..400) {
            let time = -rng.random_range(0..span);
            events.push(random_event(&mut rng, &program, time, wild));
        }
        events.sort_by(in_order);
        events.dedup_by(|a, b| program.is_ordered() && in_order(a, b).is_eq());
        run = rebuilt(&program, &events, i64::MIN);
    }
    let mut horizon = -span;
    let evicts = rng.random_bool(0.6);
    let mut clock = 0;
    for step in 0..steps {
        clock += if long { span / 300 } else { span / 40 };
        match rng.random_range(0..20) {
            0..14 => {
                let late = if rng.random_bool(0.3) { rng.random_range(0..span) } else { 0 };
                let event = if !events.is_empty() && rng.random_bool(0.05) {
                    events.choose(&mut rng).expect("events").clone()
                } else {
                    random_event(&mut rng, &program, clock - late, wild)
                };
                // Keys tell events of one time apart, so equal keys must be equal events.
                if program.is_ordered() && events.iter().any(|other| in_order(other, &event).is_eq() && *other != event) {
                    continue;
                }
                let batch = rows(&program, std::slice::from_ref(&event));
                let place = events.partition_point(|other| in_order(other, &event).is_le());
                events.insert(place, event);
                if run.insert(&program, &batch, 0) == Applied::Rebuild {
                    run = rebuilt(&program, &events, horizon);
                }
            }
            14..16 if !events.is_empty() => {
                let event = events.remove(rng.random_range(0..events.len()));
                let batch = rows(&program, &[event]);
                if run.remove(&program, &batch, 0) == Applied::Rebuild {
                    run = rebuilt(&program, &events, horizon);
                }
            }
            16 if evicts => {
                horizon = horizon.max(clock - rng.random_range(0..span));
                run.evict(&program, horizon);
            }
            17 => run = through_bytes(&program, &run),
            _ => {
                for _ in 0..3 {
                    let at = (clock + rng.random_range(-span..span / 2)).max(horizon);
                    let at = match events.choose(&mut rng) {
                        Some(event) if rng.random_bool(0.4) && event.time >= horizon => event.time,
                        _ if rng.random_bool(0.2) => horizon,
                        _ => at,
                    };
                    check(seed, step, &program, Some(&run), &events, Instant { at, strict: rng.random() });
                }
            }
        }
    }
    for strict in [false, true] {
        check(seed, steps, &program, Some(&run), &events, Instant { at: clock.max(horizon), strict });
    }
    assert!(run.memory_bytes() >= size_of::<Run>());
    // The columns handed out are the rows held.
    let range = 0..run.len();
    assert_eq!(run.column(&program, 0, range.clone()).len(), range.len());
    assert_eq!(run.times(range.clone()).len(), run.mask(&program, 0, range).len());
}

/// The run as a checkpoint gives it back.
pub(crate) fn through_bytes(program: &Program, run: &Run) -> Run {
    let mut out = RunsOut::new(program);
    out.push(run);
    let mut writer = crate::codec::Writer::new();
    out.finish(&mut writer);
    let bytes = writer.into_bytes();
    let mut read = RunsIn::new(program, &mut crate::codec::Reader::new(&bytes)).expect("the bytes of a run");
    read.next_run().expect("the bytes of a run").expect("a run")
}

/// Some run of a program: events in any order, some of them gone, some evicted.
pub(crate) fn churned(program: &Program, rng: &mut ChaCha8Rng) -> Run {
    let (span, wild) = (1000, rng.random());
    let most = [20, 20, 300][rng.random_range(0..3)];
    let mut events: Vec<Event> = (0..rng.random_range(0..most))
        .map(|_| {
            let time = rng.random_range(0..span);
            random_event(rng, program, time, wild)
        })
        .collect();
    events.sort_by(in_order);
    events.dedup_by(|a, b| program.is_ordered() && in_order(a, b).is_eq());
    rebuilt(program, &events, if rng.random() { rng.random_range(0..2 * span) } else { i64::MIN })
}

fn rebuilt(program: &Program, events: &[Event], horizon: i64) -> Run {
    let mut run = Run::new();
    let batch = rows(program, events);
    // Every third first, then all others at once: some of them merged, some inserted.
    for row in (0..events.len()).step_by(3) {
        assert_eq!(run.insert(program, &batch, row), Applied::Done);
    }
    let others: Vec<u32> = (0..events.len() as u32).rev().filter(|row| row % 3 != 0).collect();
    assert_eq!(run.insert_many(program, &batch, &others), Applied::Done);
    run.evict(program, horizon);
    run
}

#[test]
fn runs_agree_with_the_definition() {
    let first: u64 = std::env::var("ASOF_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0);
    let count: u64 = std::env::var("ASOF_SEEDS").ok().and_then(|count| count.parse().ok()).unwrap_or(400);
    (first..first + count).for_each(churn);
}

/// One run of many thousand events: full blocks, moves to the front, repacking, shrinking.
#[test]
fn long_runs_agree_with_the_definition() {
    for seed in 0..2u64 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let frames = vec![
            Frame::last(900),
            Frame::Range { start: Bound::micros(2500), end: Bound::micros(40) },
            Frame::Rows { start: Some(70), end: 3 },
            Frame::Session { gap: 9 },
        ];
        let functions = [Function::Sum, Function::StddevPop, Function::Min, Function::Max, Function::CountDistinct, Function::LastN(3)];
        let mut aggregates = Vec::new();
        for (index, function) in functions.into_iter().enumerate() {
            for frame in 0..frames.len() {
                for value in [0, 1, 2, 3] {
                    let aggregate = Aggregate { function, value: Some(value), mask: [None, Some(0)][index % 2], frame };
                    if Program::try_new(types(), 2, true, frames.clone(), vec![aggregate], None).is_ok() {
                        aggregates.push(aggregate);
                    }
                }
            }
        }
        let program = Program::try_new(types(), 2, true, frames, aggregates, None).expect("valid");
        let mut events: Vec<Event> = Vec::new();
        let (mut run, mut time, mut horizon) = (Run::new(), 0, i64::MIN);
        for step in 0..8_000 {
            // Now and then nothing comes for long, and nearly everything leaves.
            time += if step % 3500 == 3499 { 2600 } else { i64::from(rng.random_range(0..10) / 9 * 3) };
            let late = if rng.random_bool(0.03) { rng.random_range(0..200) } else { 0 };
            let mut event = random_event(&mut rng, &program, time - late, seed == 1);
            event.key = (step as u32).to_be_bytes().to_vec();
            let batch = rows(&program, std::slice::from_ref(&event));
            events.insert(events.partition_point(|other| in_order(other, &event).is_le()), event);
            assert_eq!(run.insert(&program, &batch, 0), Applied::Done, "seed {seed} step {step}");
            if rng.random_bool(0.02) {
                let removed = events.remove(events.len() - 1 - rng.random_range(0..events.len().min(100)));
                assert_eq!(run.remove(&program, &rows(&program, &[removed]), 0), Applied::Done, "seed {seed} step {step}");
            }
            if step % 700 == 600 {
                horizon = time - 300;
                run.evict(&program, horizon);
                // The oracle may forget too what no frame reaches, ROWS included.
                let keep = events.partition_point(|event| event.time < horizon - 3000).saturating_sub(100);
                events.drain(..keep);
            }
            if step % 400 == 399 {
                let at = (time - rng.random_range(0..300)).max(horizon);
                check(seed, step, &program, Some(&run), &events, Instant { at, strict: rng.random() });
                check(seed, step, &program, Some(&run), &events, Instant::inclusive(time));
            }
        }
    }
}

/// A scratch run takes one entity after the other, in time order, with evaluations in between.
#[test]
fn scratch_runs_agree_with_the_definition() {
    for seed in 0..300u64 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let span = 500;
        let program = random_program(&mut rng, span);
        let mut run = if rng.random() { Run::scratch() } else { Run::new() };
        for _ in 0..4 {
            run.clear(&program);
            let mut events: Vec<Event> = Vec::new();
            let mut time = 0;
            for step in 0..rng.random_range(0..if seed % 8 == 0 { 700 } else { 50 }) {
                time += rng.random_range(0..4);
                if rng.random_bool(0.2) {
                    let strict = rng.random();
                    check(seed, step, &program, Some(&run), &events, Instant { at: time + rng.random_range(0..20), strict });
                }
                let mut event = random_event(&mut rng, &program, time, false);
                if program.is_ordered() {
                    event.key = (step as u32).to_be_bytes().to_vec();
                }
                assert_eq!(run.insert(&program, &rows(&program, std::slice::from_ref(&event)), 0), Applied::Done);
                events.push(event);
            }
            check(seed, 0, &program, Some(&run), &events, Instant::inclusive(time));
            check(seed, 0, &program, None, &[], Instant::inclusive(time));
        }
    }
}

/// Sketches give the same bits in whatever order the events came, close to the exact answers.
#[test]
fn sketches_depend_only_on_the_set() {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let functions = [Function::ApproxDistinct, Function::CountDistinct, Function::ApproxPercentileCont(0.9)];
    let aggregates: Vec<Aggregate> = functions
        .iter()
        .flat_map(|function| [2, 1].map(|value| Aggregate { function: *function, value: Some(value), mask: None, frame: 0 }))
        .filter(|aggregate| Program::result_type(aggregate.function, Some(&types()[aggregate.value.unwrap_or(0)])).is_ok())
        .collect();
    let program = Program::try_new(types(), 2, false, vec![Frame::last(3000)], aggregates, None).expect("valid");
    let mut events: Vec<Event> = (0..4000).map(|time| random_event(&mut rng, &program, time, false)).collect();
    for event in &mut events {
        event.values[2] = Value::Int(rng.random_range(1..2000));
    }
    let at = Instant::inclusive(4000);
    let mut exact: Vec<i64> = naive_frame(&program.frames()[0], &events, at)
        .iter()
        .map(|event| if let Value::Int(x) = event.values[2] { x } else { 0 })
        .collect();
    exact.sort_unstable();
    let forwards = rebuilt(&program, &events, i64::MIN);
    events.shuffle(&mut rng);
    let shuffled = rebuilt(&program, &events, i64::MIN);
    let evaluate = |run: &Run| {
        let mut row = vec![Value::Null; program.aggregates().len()];
        program.evaluate(Some(run), at, &mut row);
        row
    };
    let row = evaluate(&forwards);
    assert_eq!(row, evaluate(&shuffled));
    let [Value::Int(about), Value::Int(about_text), Value::Int(count), Value::Int(count_text), Value::Float(percentile)] = row[..] else {
        panic!("other types: {row:?}");
    };
    assert!((about - count).abs() * 20 < count && about_text == count_text, "{about} for {count}, {about_text} for {count_text}");
    let rank = exact[(exact.len() - 1) * 9 / 10] as f64;
    assert!((percentile - rank).abs() <= rank * 0.01, "{percentile} for {rank}");
}

/// Times and bounds at the limits of 64 bits neither wrap nor panic.
#[test]
fn limits_of_time_are_no_special_case() {
    let frames = vec![
        Frame::last(10),
        Frame::last(i64::MAX),
        Frame::Range { start: Bound::Back { months: i32::MAX, micros: 0 }, end: Bound::micros(1) },
        Frame::Range { start: Bound::Unbounded, end: Bound::micros(i64::MAX) },
        Frame::Rows { start: Some(u64::MAX), end: 1 },
        Frame::Tumble { size: i64::MAX - 1, slide: i64::MAX - 1 },
        Frame::Session { gap: i64::MAX },
        Frame::UNBOUNDED,
    ];
    let count = |frame| Aggregate { function: Function::CountAll, value: None, mask: None, frame };
    let aggregates = (0..frames.len()).map(count).collect();
    let program = Program::try_new(types(), 2, true, frames, aggregates, Some(i64::MAX)).expect("valid");
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let events: Vec<Event> =
        [i64::MIN, i64::MIN + 1, -1, 0, i64::MAX - 1, i64::MAX].map(|time| random_event(&mut rng, &program, time, false)).into();
    let batch = rows(&program, &events);
    for evict in [false, true] {
        let mut run = Run::new();
        (0..events.len()).for_each(|row| assert_eq!(run.insert(&program, &batch, row), Applied::Done));
        for (at, strict, expected) in [
            (i64::MIN, true, [0, 0, 0, 0, 0, 0, 0, 0]),
            (i64::MIN, false, [1, 1, 0, 0, 0, 0, 1, 1]),
            (i64::MIN + 1, true, [1, 1, 1, 0, 0, 0, 1, 1]),
            (0, false, [2, 3, 3, 2, 3, 1, 4, 4]),
            (i64::MAX, true, [1, 2, 5, 4, 4, 1, 5, 5]),
            (i64::MAX, false, [2, 3, 5, 4, 5, 1, 6, 6]),
        ] {
            if evict {
                run.evict(&program, at);
            }
            let mut got = vec![Value::Null; expected.len()];
            program.evaluate(Some(&run), Instant { at, strict }, &mut got);
            let expected: Vec<Value> = expected.into_iter().map(Value::Int).collect();
            assert_eq!(got, expected, "at {at}, strict {strict}, evicted {evict}");
        }
    }
}

/// The same values through Arrow columns.
#[test]
fn columns_hold_what_values_hold() {
    for seed in 0..200u64 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let program = random_program(&mut rng, 100);
        let mut events: Vec<Event> = (0..40).map(|i| random_event(&mut rng, &program, i, false)).collect();
        events.sort_by(in_order);
        let run = rebuilt(&program, &events, -1000);
        let mut columns = ColumnsOut::new(&program, 3);
        let mut values = Vec::new();
        for at in [-5, 20, 60] {
            program.evaluate(Some(&run), Instant::inclusive(at), &mut columns);
            let mut row = vec![Value::Null; program.aggregates().len()];
            program.evaluate(Some(&run), Instant::inclusive(at), &mut row);
            values.push(row);
        }
        for (slot, (column, data_type)) in columns.finish().iter().zip(program.output_types()).enumerate() {
            assert_eq!(column.data_type(), data_type, "seed {seed}");
            for (row, values) in values.iter().enumerate() {
                assert_eq!(column.is_null(row), values[slot] == Value::Null, "seed {seed} slot {slot} row {row}");
                if let (DataType::Float64, Value::Float(x)) = (data_type, &values[slot]) {
                    assert_eq!(column.as_primitive::<arrow::datatypes::Float64Type>().value(row).to_bits(), x.to_bits());
                }
                if let (DataType::List(_), Value::List(items)) = (data_type, &values[slot]) {
                    assert_eq!(column.as_list::<i32>().value(row).len(), items.len());
                }
            }
        }
    }
}
