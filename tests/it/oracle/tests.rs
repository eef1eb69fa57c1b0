//! The oracle against values worked out by hand, and the generator against what it promises to reach.

use std::collections::BTreeMap;

use super::aggregate::{Aggregate, Function, over};
use super::civil::{self, DAY, HOUR, MINUTE, SECOND};
use super::exact;
use super::expr::{Arithmetic, Comparison, Expr, Scope};
use super::frame::{Bound, Frame};
use super::ingest::{Call, CallKind, Cell, Column, Counts, History, Record, Stream};
use super::value::{Type, Value};
use super::view::{Arm, Feature, Relation, Right, Shape, Source, View};
use super::{generate, render};

fn int(x: i64) -> Value {
    Value::Int(x)
}

fn f(x: f64) -> Value {
    Value::float(x)
}

fn check(got: Value, expected: Value) {
    assert!(got.same(&expected), "got {got:?}, expected {expected:?}");
}

fn floats(function: Function, values: &[f64]) -> Value {
    over(function, false, &Type::F64, values.iter().copied().map(f).collect())
}

#[test]
fn sums_of_floats_are_rounded_once() {
    check(floats(Function::Sum, &[1e308, 1e308, -1e308]), f(1e308));
    check(floats(Function::Sum, &[1e16, 1.0, -1e16]), f(1.0));
    check(floats(Function::Sum, &[0.1, 0.2]), f(0.1 + 0.2));
    check(floats(Function::Sum, &[0.1; 10]), f(1.0));
    check(floats(Function::Sum, &[5e-324, 1.0, -1.0]), f(5e-324));
    check(floats(Function::Sum, &[f64::MAX, f64::MAX]), f(f64::INFINITY));
    // Half a unit in the last place rounds to even: up to infinity, down to 2^53.
    check(floats(Function::Sum, &[f64::MAX, 2_f64.powi(969), 2_f64.powi(969)]), f(f64::INFINITY));
    check(floats(Function::Sum, &[f64::MAX, 2_f64.powi(969)]), f(f64::MAX));
    check(floats(Function::Sum, &[9_007_199_254_740_992.0, 1.0]), f(9_007_199_254_740_992.0));
    check(floats(Function::Sum, &[9_007_199_254_740_992.0, 1.0, 5e-324]), f(9_007_199_254_740_994.0));
    check(floats(Function::Sum, &[-0.0, -0.0]), f(0.0));
    check(floats(Function::Sum, &[f64::INFINITY, f64::NEG_INFINITY]), f(f64::NAN));
    check(floats(Function::Sum, &[f64::INFINITY, 1e308]), f(f64::INFINITY));
    check(floats(Function::Avg, &[-5e-324, 0.0]), f(0.0));
    check(floats(Function::Avg, &[f64::MAX, f64::MAX]), f(f64::INFINITY));
}

#[test]
fn rounding_agrees_with_the_processor() {
    // Every double is itself, and a quotient of doubles that are whole numbers is what the processor divides.
    for bits in (0..2_046_u64).map(|e| (e << 52) | (e.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 12)) {
        let x = f64::from_bits(bits);
        check(f(exact::nearest(&exact::numerator(&f(-x)), &exact::denominator(&f(x)))), f(if x == 0.0 { 0.0 } else { -x }));
    }
    for (a, b) in [(1_i64, 3_i64), (2, 3), (10, 7), (1 << 53, 3), ((1 << 53) - 1, 1 << 40), (5, 9_007_199_254_740_991)] {
        check(f(exact::nearest(&a.into(), &b.into())), f(a as f64 / b as f64));
    }
}

#[test]
fn sums_of_integers_and_decimals_fit_or_are_null() {
    let sum = |values: &[i64]| over(Function::Sum, false, &Type::I64, values.iter().copied().map(int).collect());
    check(sum(&[i64::MAX, 1, -1]), int(i64::MAX));
    check(sum(&[i64::MAX, 1]), Value::Null);
    check(sum(&[]), Value::Null);
    let avg = over(Function::Avg, false, &Type::I64, vec![int(i64::MAX), int(i64::MAX), Value::Null]);
    check(avg, f(9_223_372_036_854_775_808.0));
    let most = 10_i128.pow(38) - 1;
    let sum = |values: &[i128]| over(Function::Sum, false, &Type::Dec(38, 2), values.iter().map(|&x| Value::Dec(x, 2)).collect());
    check(sum(&[most, 1, -1]), Value::Dec(most, 2));
    check(sum(&[most, 1]), Value::Null);
    check(over(Function::Avg, false, &Type::Dec(5, 2), vec![Value::Dec(10, 2), Value::Dec(20, 2)]), f(0.3 / 2.0));
}

#[test]
fn variances_are_exact() {
    check(floats(Function::VarPop, &[1e200, 1e200]), f(0.0));
    check(floats(Function::VarPop, &[1.0, 2.0, 3.0, 4.0]), f(1.25));
    check(floats(Function::VarSamp, &[1.0, 2.0, 3.0, 4.0]), f(5.0 / 3.0));
    check(floats(Function::StddevPop, &[1.0, 3.0]), f(1.0));
    check(floats(Function::VarSamp, &[7.0]), Value::Null);
    check(floats(Function::VarPop, &[7.0]), f(0.0));
    check(floats(Function::VarPop, &[1e308, -1e308]), f(f64::INFINITY));
    check(floats(Function::VarPop, &[f64::INFINITY, 1.0]), f(f64::NAN));
    check(floats(Function::VarPop, &[1e16 + 2.0, 1e16]), f(1.0));
}

#[test]
fn min_max_and_distinct_use_one_order() {
    check(floats(Function::Min, &[0.0, -0.0]), f(0.0));
    check(floats(Function::Max, &[-0.0]), f(0.0));
    check(floats(Function::Max, &[f64::INFINITY, f64::NAN]), f(f64::NAN));
    check(floats(Function::Min, &[f64::NAN, f64::INFINITY]), f(f64::INFINITY));
    let distinct = |function, values: &[f64]| over(function, true, &Type::F64, values.iter().copied().map(f).collect());
    check(distinct(Function::Count, &[0.0, -0.0, f64::NAN, f64::NAN, 1.0]), int(3));
    check(distinct(Function::Sum, &[0.5, 0.5, 1.0]), f(1.5));
    check(distinct(Function::Avg, &[0.5, 0.5, 1.0]), f(0.75));
    check(over(Function::Count, true, &Type::I64, vec![Value::Null, int(1)]), int(1));
    check(over(Function::Min, false, &Type::Text, vec![Value::text("é"), Value::text("z")]), Value::text("z"));
}

#[test]
fn first_last_and_arrays_keep_nulls_order_and_bits() {
    let values = vec![Value::Null, f(-0.0), f(2.0)];
    let of = |function| over(function, false, &Type::F64, values.clone());
    check(of(Function::FirstValue), Value::Null);
    check(of(Function::LastN(2)), Value::List(vec![f(-0.0), f(2.0)]));
    check(of(Function::FirstN(2)), Value::List(vec![Value::Null, f(-0.0)]));
    check(of(Function::ArrayAgg), Value::List(values.clone()));
    assert!(!of(Function::FirstN(2)).same(&Value::List(vec![Value::Null, f(0.0)])), "stored bits are kept");
    check(over(Function::ArrayAgg, false, &Type::F64, vec![]), Value::Null);
}

#[test]
fn percentiles_interpolate_exactly() {
    check(floats(Function::Median, &[3.0, 1.0, 2.0]), f(2.0));
    check(floats(Function::Median, &[1.0, 2.0]), f(1.5));
    check(floats(Function::Median, &[f64::MAX, f64::MAX]), f(f64::MAX));
    check(floats(Function::Median, &[-0.0]), f(0.0));
    check(floats(Function::Median, &[1.0, f64::INFINITY]), f(f64::INFINITY));
    check(floats(Function::Median, &[f64::NEG_INFINITY, f64::INFINITY]), f(f64::NAN));
    check(floats(Function::Median, &[f64::NEG_INFINITY, 0.0, f64::NAN]), f(0.0));
    check(floats(Function::PercentileCont(0.25), &[0.0, 1.0, 2.0, 3.0]), f(0.75));
    // 0.1 as a double is a little more than a tenth, so the position is past 1, by 5.55e-17 * 10.
    check(
        floats(Function::PercentileCont(0.1), &[0.0, 0.0, 1e17, 1e17, 1e17, 1e17, 1e17, 1e17, 1e17, 1e17, 1e17]),
        f(1e17 * 5.551_115_123_125_783e-17),
    );
    check(over(Function::Median, false, &Type::I64, vec![int(i64::MAX), int(i64::MAX - 1)]), f(9_223_372_036_854_775_808.0));
    check(over(Function::Median, false, &Type::Dec(5, 2), vec![Value::Dec(10, 2), Value::Dec(11, 2)]), f(0.105));
}

#[test]
fn the_calendar() {
    assert_eq!(civil::timestamp_text(civil::days_of(2024, 2, 29) * DAY + 1, ' '), "2024-02-29 00:00:00.000001");
    assert_eq!(civil::timestamp_text(-1, 'T'), "1969-12-31T23:59:59.999999");
    assert_eq!(civil::days_of(2000, 3, 1), 11_017);
    for days in -200_000..200_000 {
        let (year, month, day) = civil::date_of(days);
        assert_eq!(civil::days_of(year, month, day), days);
    }
    let at = |y, m, d, hour| civil::days_of(y, m, d) * DAY + hour * HOUR;
    assert_eq!(civil::months_before(at(2024, 3, 31, 1), 1), at(2024, 2, 29, 1));
    assert_eq!(civil::months_before(at(2024, 3, 30, 23), 1), at(2024, 2, 29, 23));
    assert_eq!(civil::months_before(at(2024, 1, 31, 0), 12), at(2023, 1, 31, 0));
    assert_eq!(civil::months_before(at(2024, 1, 15, 0), 2), at(2023, 11, 15, 0));
}

#[test]
fn frames_at_their_edges() {
    let times = [0, 10, 10, 25, 40];
    let inside = |frame: Frame, at: i64, strict: bool| {
        let past: Vec<i64> = times.iter().copied().filter(|&time| if strict { time < at } else { time <= at }).collect();
        frame.inside(&past, at).positions
    };
    let range = |a, b| Frame::Range { start: Bound::Back { months: 0, micros: a }, end: Bound::Back { months: 0, micros: b } };
    assert_eq!(inside(range(15, 0), 25, false), [1, 2, 3]);
    assert_eq!(inside(range(15, 0), 25, true), [1, 2]);
    assert_eq!(inside(range(14, 0), 25, false), [3]);
    assert_eq!(inside(range(40, 15), 40, true), [0, 1, 2, 3]);
    assert_eq!(inside(range(0, 0), 10, false), [1, 2]);
    assert_eq!(inside(range(0, 0), 10, true), [0_usize; 0]);
    assert_eq!(inside(Frame::Rows { start: Some(1), end: 0 }, 25, false), [2, 3]);
    assert_eq!(inside(Frame::Rows { start: Some(1), end: 1 }, 25, false), [2]);
    assert_eq!(inside(Frame::Rows { start: None, end: 3 }, 25, false), [0]);
    assert_eq!(inside(Frame::Hop { slide: 10, size: 10 }, 20, false), [1, 2]);
    assert_eq!(inside(Frame::Hop { slide: 10, size: 20 }, 29, true), [0, 1, 2]);
    assert_eq!(inside(Frame::Session { gap: 15 }, 40, false), [0, 1, 2, 3, 4]);
    assert_eq!(inside(Frame::Session { gap: 14 }, 25, false), [3]);
    assert_eq!(inside(Frame::Session { gap: 14 }, 24, false), [0, 1, 2]);
    assert_eq!(inside(Frame::Session { gap: 14 }, 25, true), [0_usize; 0]);
    assert_eq!(inside(Frame::Session { gap: 15 }, 25, true), [0, 1, 2]);
    let closed = Frame::Hop { slide: 10, size: 20 }.inside(&[], -1);
    assert_eq!((closed.start, closed.end), (Some(-30), Some(-10)));
    let march = |d, hour| civil::days_of(2023, 3, d) * DAY + hour * HOUR;
    let month = Frame::Range { start: Bound::Back { months: 1, micros: 0 }, end: Bound::CURRENT };
    let event = civil::days_of(2023, 2, 28) * DAY + 2 * HOUR;
    // The bound steps back as t grows: the event leaves and comes back.
    assert_eq!(month.inside(&[event], march(30, 3)).positions, [0_usize; 0]);
    assert_eq!(month.inside(&[event], march(31, 1)).positions, [0]);
}

#[test]
fn failing_operations_are_null() {
    let eval = |expr: Expr| expr.eval(&Scope::row(&[], &[]));
    let pair = |op, a: i64, b: i64| eval(Expr::Arithmetic(op, Expr::int(a).boxed(), Expr::int(b).boxed()));
    check(pair(Arithmetic::Add, i64::MAX, 1), Value::Null);
    check(pair(Arithmetic::Divide, 7, 0), Value::Null);
    check(pair(Arithmetic::Divide, -7, 2), int(-3));
    check(pair(Arithmetic::Remainder, -7, 2), int(-1));
    check(pair(Arithmetic::Divide, i64::MIN, -1), Value::Null);
    let float = |op, a: f64, b: f64| eval(Expr::Arithmetic(op, Expr::double(a).boxed(), Expr::double(b).boxed()));
    check(float(Arithmetic::Divide, 1.0, 0.0), f(f64::INFINITY));
    check(float(Arithmetic::Divide, 0.0, 0.0), f(f64::NAN));
    let compare = |op, a: f64, b: f64| eval(Expr::Compare(op, Expr::double(a).boxed(), Expr::double(b).boxed()));
    check(compare(Comparison::Equal, f64::NAN, f64::NAN), Value::Bool(true));
    check(compare(Comparison::Greater, f64::NAN, f64::INFINITY), Value::Bool(true));
    check(compare(Comparison::Less, -0.0, 0.0), Value::Bool(false));
    check(eval(Expr::Cast(Expr::double(1e19).boxed(), Type::I64)), Value::Null);
    check(eval(Expr::Cast(Expr::double(-1.9).boxed(), Type::I64)), int(-1));
    check(eval(Expr::Cast(Expr::text("x").boxed(), Type::I64)), Value::Null);
    check(eval(Expr::Coalesce(vec![Expr::Literal(Value::Null, Type::F64), Expr::int(0)])), f(0.0));
}

/// A stream (k VARCHAR, v DOUBLE, ts, id VARCHAR) with a disorder of ten seconds.
fn stream(primary_key: Vec<usize>) -> Stream {
    let column = |name: &str, ty, not_null| Column { name: name.into(), ty, not_null };
    Stream {
        name: "s".into(),
        columns: vec![
            column("k", Type::Text, false),
            column("v", Type::F64, false),
            column("ts", Type::Ts, true),
            column("id", Type::Text, false),
        ],
        primary_key,
        time: 2,
        disorder_us: 10 * SECOND,
    }
}

fn record(k: &str, v: f64, seconds: i64, id: &str) -> Record {
    let cells = vec![Value::text(k), f(v), Value::Ts(seconds * SECOND), Value::text(id)];
    Record::Row { cells: cells.into_iter().map(Cell::Value).collect(), style: 0 }
}

fn push(records: Vec<Record>) -> Call {
    Call { stream: 0, kind: CallKind::Push, records }
}

fn ingest(stream: &Stream, calls: Vec<Call>) -> History {
    let streams = [stream.clone()];
    let mut history = History::new(&streams);
    for call in &calls {
        history.apply(&streams, call);
    }
    history
}

#[test]
fn duplicates_conflicts_lateness_and_rejection() {
    let stream = stream(vec![3]);
    let history = ingest(
        &stream,
        vec![
            push(vec![record("a", 1.0, 100, "x"), record("a", 1.0, 100, "x"), record("a", 1.0, 1, "y")]),
            // 90 is within the disorder of 100, 89 is not; another payload is a conflict, in another entity.
            push(vec![record("a", 2.0, 90, "z"), record("a", 2.0, 89, "z"), record("b", 0.5, 100, "x"), Record::Raw("{".into())]),
            Call { stream: 0, kind: CallKind::Copy, records: vec![record("c", 9.0, 1_000, "x"), record("c", 9.0, 3, "x")] },
            // COPY moved nothing, so 95 is not late. A copy of the hidden row is still a duplicate.
            push(vec![record("a", 3.0, 95, "w"), record("a", 1.0, 100, "x")]),
        ],
    );
    let count = |read, accepted, duplicate, late, rejected, conflicts| Counts { read, accepted, duplicate, late, rejected, conflicts };
    assert_eq!(history.counts, [count(3, 2, 1, 0, 0, 0), count(4, 2, 0, 1, 1, 1), count(2, 2, 0, 0, 0, 0), count(2, 1, 1, 0, 0, 0)]);
    let visible = history.visible(&[stream], 0);
    let of: Vec<String> = visible.iter().map(|row| format!("{:?} {:?}", row[0], row[1])).collect();
    // In time order: 1 y, 3 x, 90 z, 95 w, 100 x (entity b is the greater row), 1000 x.
    assert_eq!(of.len(), 6);
    check(visible[4][0].clone(), Value::text("b"));
    check(visible[1][0].clone(), Value::text("c"));
}

#[test]
fn a_stream_without_a_key_is_a_multiset_in_order() {
    let stream = stream(vec![]);
    let history = ingest(
        &stream,
        vec![push(vec![record("a", 0.0, 5, "x"), record("a", -0.0, 5, "x"), record("a", f64::NAN, 5, "x"), record("a", 0.0, 5, "x")])],
    );
    assert_eq!(history.counts[0].accepted, 4);
    let values: Vec<Value> = history.visible(&[stream], 0).into_iter().map(|row| row[1].clone()).collect();
    check(Value::List(values), Value::List(vec![f(-0.0), f(0.0), f(0.0), f(f64::NAN)]));
}

fn aggregate(function: Function, argument: Option<Expr>, frame: Frame) -> Expr {
    Expr::Aggregate(Box::new(Aggregate { function, distinct: false, argument, filter: None, frame, style: 0 }))
}

fn view(source: Source, shape: Shape, features: Vec<Expr>) -> View {
    let features = features.into_iter().enumerate().map(|(i, expr)| Feature { name: format!("f{i}"), expr }).collect();
    View { name: "v".into(), entity: vec![0], source, filter: None, shape, features, ttl_us: None, style: 0 }
}

fn ask(view: &View, relation: &Relation, key: Value, seconds: i64, strict: bool) -> Value {
    Value::List(view.value(relation, &[key], seconds * SECOND, strict))
}

#[test]
fn a_view_is_evaluated_at_the_instant() {
    let stream = stream(vec![]);
    let streams = [stream.clone()];
    let history = ingest(&stream, vec![push(vec![record("a", 1.0, 0, "x"), record("a", 2.0, 60, "y"), record("b", 5.0, 60, "z")])]);
    let minute = Frame::Range { start: Bound::Back { months: 0, micros: MINUTE }, end: Bound::CURRENT };
    let sum = aggregate(Function::Sum, Some(Expr::Column(1)), minute);
    let count = aggregate(Function::Count, None, minute);
    let ratio =
        Expr::Arithmetic(Arithmetic::Divide, sum.clone().boxed(), Expr::NullIf(count.clone().boxed(), Expr::int(0).boxed()).boxed());
    let since = Expr::Arithmetic(Arithmetic::Subtract, Expr::AsOf.boxed(), aggregate(Function::Max, Some(Expr::Column(2)), minute).boxed());
    let mut view = view(Source::Stream(0), Shape::Windowed, vec![count, sum, Expr::Coalesce(vec![ratio, Expr::int(0)]), since]);
    let relation = view.relate(&streams, &history);
    let a = || Value::text("a");
    check(ask(&view, &relation, a(), 60, false), Value::List(vec![int(2), f(3.0), f(1.5), Value::Duration(0)]));
    check(ask(&view, &relation, a(), 60, true), Value::List(vec![int(1), f(1.0), f(1.0), Value::Duration(MINUTE)]));
    check(ask(&view, &relation, a(), 120, false), Value::List(vec![int(1), f(2.0), f(2.0), Value::Duration(MINUTE)]));
    let empty = || Value::List(vec![int(0), Value::Null, f(0.0), Value::Null]);
    check(ask(&view, &relation, a(), 121, false), empty());
    check(ask(&view, &relation, Value::Null, 60, false), empty());
    check(ask(&view, &relation, Value::text("nobody"), 60, false), empty());
    // ttl: at exactly last + ttl it lives; strictly, the last event is the one before.
    view.ttl_us = Some(30 * SECOND);
    check(ask(&view, &relation, a(), 90, false), Value::List(vec![int(1), f(2.0), f(2.0), Value::Duration(30 * SECOND)]));
    check(ask(&view, &relation, a(), 91, false), empty());
    check(ask(&view, &relation, a(), 60, true), empty());
    // It hides and never forgets.
    check(ask(&view, &relation, a(), 60, false), Value::List(vec![int(2), f(3.0), f(1.5), Value::Duration(0)]));
}

#[test]
fn latest_row_and_its_empty_set() {
    let stream = stream(vec![]);
    let streams = [stream.clone()];
    let history = ingest(&stream, vec![push(vec![record("a", 1.0, 5, "x"), record("a", 1.0, 5, "y"), record("a", -0.0, 9, "w")])]);
    let view = view(Source::Stream(0), Shape::Latest, vec![Expr::Column(1), Expr::Coalesce(vec![Expr::Column(3), Expr::text("none")])]);
    let relation = view.relate(&streams, &history);
    check(ask(&view, &relation, Value::text("a"), 9, false), Value::List(vec![f(-0.0), Value::text("w")]));
    // Ties: the greatest row.
    check(ask(&view, &relation, Value::text("a"), 9, true), Value::List(vec![f(1.0), Value::text("y")]));
    check(ask(&view, &relation, Value::text("a"), 4, false), Value::List(vec![Value::Null, Value::text("none")]));
}

#[test]
fn enrichment_takes_the_newest_right_row() {
    let left = stream(vec![]);
    let right = Stream { name: "r".into(), ..stream(vec![]) };
    let streams = [left, right];
    let mut history = History::new(&streams);
    history.apply(&streams, &push(vec![record("a", 1.0, 10, "x"), record("b", 2.0, 10, "x")]));
    let rates = vec![record("a", 7.0, 10, "p"), record("a", 8.0, 10, "q"), record("a", 6.0, 9, "z")];
    history.apply(&streams, &Call { stream: 1, kind: CallKind::Push, records: rates });
    let newest = |inclusive| {
        let source = Source::Enriched { left: 0, rights: vec![Right { stream: 1, inclusive, on: vec![(0, 0)] }] };
        let view = view(source, Shape::Latest, vec![Expr::Column(5)]);
        let relation = view.relate(&streams, &history);
        (ask(&view, &relation, Value::text("a"), 10, false), ask(&view, &relation, Value::text("b"), 10, false))
    };
    check(newest(true).0, Value::List(vec![f(8.0)]));
    check(newest(false).0, Value::List(vec![f(6.0)]));
    check(newest(true).1, Value::List(vec![Value::Null]));
}

#[test]
fn a_union_is_ordered_by_its_projection() {
    let streams = [stream(vec![]), Stream { name: "r".into(), ..stream(vec![]) }];
    let mut history = History::new(&streams);
    history.apply(&streams, &push(vec![record("a", 2.0, 10, "x"), record("a", 1.0, 10, "z")]));
    history.apply(&streams, &Call { stream: 1, kind: CallKind::Push, records: vec![record("a", 1.0, 10, "y"), record("a", 1.0, 10, "y")] });
    let arm = |stream| Arm { stream, columns: vec![Expr::Column(0), Expr::Column(2), Expr::Column(1), Expr::Column(3)], filter: None };
    let source = Source::Union { arms: vec![arm(0), arm(1)], names: ["k", "ts", "v", "id"].map(str::to_owned).to_vec(), time: 1 };
    let all = Frame::Range { start: Bound::Unbounded, end: Bound::CURRENT };
    let view = view(source, Shape::Windowed, vec![aggregate(Function::ArrayAgg, Some(Expr::Column(3)), all)]);
    let relation = view.relate(&streams, &history);
    let ids = ["y", "y", "z", "x"].map(Value::text).to_vec();
    check(ask(&view, &relation, Value::text("a"), 10, false), Value::List(vec![Value::List(ids)]));
}

/// How many events each question's windows hold.
fn aggregate_sizes(case: &super::Case) -> Vec<Vec<(String, usize)>> {
    let history = case.history(case.calls.len());
    let counted = |view: &View| {
        let count = |feature: &Feature| match &feature.expr {
            Expr::Aggregate(call) => Some(Feature {
                name: format!("{:?}", call.frame).split([' ', '{']).next().expect("a word").to_owned(),
                expr: aggregate(Function::Count, None, call.frame),
            }),
            _ => None,
        };
        View { features: view.features.iter().filter_map(count).collect(), ..view.clone() }
    };
    let views: Vec<View> = case.views.iter().map(counted).collect();
    let relations = case.relations(&history);
    case.questions
        .iter()
        .map(|question| {
            let values = views[question.view].value(&relations[question.view], &question.entity, question.at, question.strict);
            let size =
                |value| if let Value::Int(n) = value { usize::try_from(n).expect("a count") } else { panic!("a count is never NULL") };
            views[question.view].features.iter().zip(values).map(|(feature, value)| (feature.name.clone(), size(value))).collect()
        })
        .collect()
}

/// Every aggregate, frame and shape occurs, on windows that hold something.
#[test]
fn the_generator_reaches_everything() {
    let mut seen: BTreeMap<String, u64> = BTreeMap::new();
    let mut note = |what: String| *seen.entry(what).or_default() += 1;
    let (mut cells, mut nulls) = (0_u64, 0_u64);
    let seeds = 60;
    for seed in 0..seeds {
        let case = generate::case(seed, 60);
        let history = case.history(case.calls.len());
        for (stream, call) in case.calls.iter().enumerate() {
            note(format!("call {:?}", call.kind));
            let counts = history.counts[stream];
            if call.kind == CallKind::Reprocess {
                note(format!("reprocess of {}", counts.read.min(1)));
                continue;
            }
            for (what, n) in
                [("duplicate", counts.duplicate), ("late", counts.late), ("rejected", counts.rejected), ("conflict", counts.conflicts)]
            {
                if n > 0 {
                    note(what.into());
                }
            }
            if call.kind == CallKind::Insert {
                render::insert(&case.streams[call.stream], call);
            } else {
                render::json_lines(&case.streams[call.stream], call);
            }
        }
        for view in &case.views {
            note(format!("shape {:?}", view.shape).split(['{', '(']).next().expect("a word").to_owned());
            let sql = render::create_view(view, &case.streams);
            for feature in &view.features {
                if let Expr::Aggregate(call) = &feature.expr {
                    note(format!("function {:?}", call.function).split('(').next().expect("a word").to_owned());
                    note(format!("frame {:?}", call.frame).split([' ', '{']).take(2).collect::<Vec<_>>().join(" "));
                }
            }
            assert!(sql.contains("ENTITY"));
        }
        let relations = case.relations(&history);
        let everything = aggregate_sizes(&case);
        for (frame, size) in everything.iter().flatten() {
            note(format!(
                "{frame} of {}",
                match size {
                    0 => "0",
                    1 => "1",
                    2..=9 => "2..9",
                    10..=64 => "10..64",
                    _ => "65..",
                }
            ));
        }
        for question in &case.questions {
            let view = &case.views[question.view];
            let values = view.value(&relations[question.view], &question.entity, question.at, question.strict);
            for (value, feature) in values.iter().zip(&view.features) {
                cells += 1;
                nulls += u64::from(value.is_null());
                let _ = feature;
            }
            render::script(&case, question);
        }
    }
    for (what, n) in &seen {
        println!("{n:6} {what}");
    }
    println!("{cells} values, {nulls} NULL");
    for what in [
        "duplicate",
        "late",
        "rejected",
        "conflict",
        "function Median",
        "function Sum",
        "function ArrayAgg",
        "shape Latest",
        "call Copy",
        "call Insert",
    ] {
        assert!(seen.get(what).is_some_and(|&n| n >= 3), "{what} hardly occurs");
    }
    assert!(nulls * 2 < cells, "most windows hold something");
}
