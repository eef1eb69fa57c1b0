//! Random worlds from one seed: streams, arrivals, views and questions that lean on every edge that DESIGN names.
//!
//! Entities are few so that windows hold something; times lie on a grid so that they tie and meet window edges; values lean on what breaks
//! arithmetic. One world in ten is large (an entity of hundreds of events), one in a hundred has thousands.

use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::aggregate::{Aggregate, Function};
use super::civil::{self, DAY, HOUR, MINUTE, SECOND};
use super::expr::{Arithmetic, Comparison, Expr};
use super::frame::{Bound, Frame};
use super::ingest::{Call, CallKind, Cell, Column, FAR_FUTURE, Record, Stream};
use super::value::{Type, Value};
use super::view::{Arm, Feature, Right, Shape, Source, View};
use super::{Case, Question, render};

/// The world of a seed, with about `questions` questions.
pub(crate) fn case(seed: u64, questions: usize) -> Case {
    let mut world = World::new(seed);
    let streams = world.streams();
    let calls = world.calls(&streams);
    let mut case = Case { seed, streams, calls, views: Vec::new(), questions: Vec::new() };
    case.views = world.views(&case);
    case.questions = world.questions(&case, questions);
    case
}

/// How the values of one column are drawn.
#[derive(Debug, Clone)]
struct Draw {
    nulls: f64,
    flavour: u8,
}

struct World {
    rng: ChaCha8Rng,
    base: i64,
    grid: i64,
    /// Grid steps that events lie on.
    steps: i64,
    events: usize,
    /// One or two: their types and the values that occur.
    keys: Vec<(Type, Vec<Value>)>,
    draws: Vec<Vec<Draw>>,
    /// Window widths of this world.
    widths: Vec<i64>,
    /// Slides, sizes and gaps that were used.
    used: Vec<i64>,
}

const JOIN_KEYS: [&str; 3] = ["x", "y", "z"];
const TEXTS: [&str; 12] = ["a", "b", "c", "", "A", "é", "日本", "it's", "\"q\"\\", "12", "-7", "😀"];
const HOSTILE: [f64; 20] = [
    -0.0,
    0.0,
    f64::NAN,
    f64::INFINITY,
    f64::NEG_INFINITY,
    5e-324,
    -5e-324,
    2.225_073_858_507_201e-308,
    1e308,
    -1e308,
    f64::MAX,
    f64::MIN,
    1e-300,
    1.0,
    -1.0,
    0.1,
    0.2,
    0.3,
    9_007_199_254_740_993.0,
    1.000_000_000_000_000_2,
];

impl World {
    fn new(seed: u64) -> World {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let grid = *[1, SECOND, 30 * SECOND, MINUTE, 10 * MINUTE, HOUR, 6 * HOUR, DAY].choose(&mut rng).expect("not empty");
        let dates = [
            (2024, 2, 27),
            (2023, 12, 29),
            (2024, 3, 28),
            (1969, 12, 30),
            (2000, 2, 26),
            (2025, 1, 29),
            (1999, 1, 1),
            (2023, 2, 27),
            (2024, 10, 29),
        ];
        let (year, month, day) = *dates.choose(&mut rng).expect("not empty");
        let events = match rng.random_range(0..100) {
            0 => rng.random_range(4_200..5_500),
            1..=9 => rng.random_range(250..1_200),
            _ => rng.random_range(20..110),
        };
        let steps = match rng.random_range(0..3) {
            0 => events as i64 / 3 + 1,
            1 => events as i64,
            _ => events as i64 * 5,
        };
        let count = if rng.random_bool(0.3) { 2 } else { 1 };
        let entities = if events > 200 { 2 } else { rng.random_range(2..=5) };
        let keys = (0..count).map(|i| key(&mut rng, if i == 0 { entities } else { 2 })).collect();
        let mut widths: Vec<i64> = [1, 2, 3, 5, 10, 50].iter().map(|n| n * grid).collect();
        widths.extend([1, MINUTE, HOUR, DAY, 7 * DAY, 90 * SECOND, 36 * HOUR]);
        let base = civil::days_of(year, month, day) * DAY + rng.random_range(0..24) * HOUR;
        World { rng, base, grid, steps, events, keys, draws: Vec::new(), widths, used: Vec::new() }
    }

    fn chance(&mut self, p: f64) -> bool {
        self.rng.random_bool(p)
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from.choose(&mut self.rng).expect("something to choose from").clone()
    }

    fn below(&mut self, n: usize) -> usize {
        self.rng.random_range(0..n)
    }

    /// A width that will also place instants.
    fn width(&mut self) -> i64 {
        let widths = self.widths.clone();
        // Mostly as wide as some steps of the grid, so that a window holds several events and its edge meets one.
        let width = if self.chance(0.7) { self.pick(&widths[1..6]) } else { self.pick(&widths) };
        self.used.push(width);
        width
    }

    // ---- streams

    fn streams(&mut self) -> Vec<Stream> {
        let count = self.rng.random_range(1..=3);
        (0..count).map(|i| self.stream(i)).collect()
    }

    fn stream(&mut self, index: usize) -> Stream {
        let mut columns = Vec::new();
        let mut draws = Vec::new();
        let mut add = |name: String, ty: Type, not_null: bool, nulls: f64, flavour: u8| {
            columns.push(Column { name, ty, not_null });
            draws.push(Draw { nulls: if not_null { 0.0 } else { nulls }, flavour });
            columns.len() - 1
        };
        for (i, (ty, _)) in self.keys.clone().iter().enumerate() {
            add(format!("k{i}"), ty.clone(), self.chance(0.4), 0.05, 0);
        }
        add("j".into(), Type::Text, false, 0.1, 0);
        let first_payload = self.rng.random_bool(0.5);
        let mut time = 0;
        if first_payload {
            time = add("ts".into(), Type::Ts, true, 0.0, 0);
        }
        let prefix = ["p", "q", "r"][index];
        let payloads = self.rng.random_range(2..=6);
        for i in 0..payloads {
            let ty = if i == 0 { Type::F64 } else { self.payload_type() };
            let (nulls, flavour) = (self.pick(&[0.0, 0.1, 0.4]), self.rng.random_range(0..6));
            add(format!("{prefix}{i}"), ty, self.rng.random_bool(0.1), nulls, flavour);
        }
        if !first_payload {
            time = add("ts".into(), Type::Ts, true, 0.0, 0);
        }
        let primary_key = match self.rng.random_range(0..6) {
            0 | 1 => vec![],
            // One event of an entity at a time: whatever ties is a duplicate or a conflict.
            2 => vec![0],
            3 => vec![add("id".into(), Type::Text, false, 0.0, 1), 0],
            4 => vec![add("id".into(), Type::I64, false, 0.0, 1)],
            _ => vec![add("id".into(), Type::Text, false, 0.0, 1)],
        };
        let disorder_us = self.pick(&[0, 1, self.grid, 3 * self.grid, 20 * self.grid]);
        self.draws.push(draws);
        Stream { name: format!("s{index}"), columns, primary_key, time, disorder_us }
    }

    fn payload_type(&mut self) -> Type {
        match self.rng.random_range(0..20) {
            0..=4 => Type::F64,
            5..=8 => Type::I64,
            9 | 10 => Type::Text,
            11 | 12 => self.pick(&[Type::Dec(10, 2), Type::Dec(38, 0), Type::Dec(18, 6), Type::Dec(38, 10), Type::Dec(5, 0)]),
            13 => Type::F32,
            14 => Type::I32,
            15 => Type::I16,
            16 => Type::I8,
            17 => Type::Bool,
            18 => Type::Date,
            _ => Type::Ts,
        }
    }

    /// A value of a column.
    fn value(&mut self, ty: &Type, draw: &Draw) -> Value {
        if self.chance(draw.nulls) {
            return Value::Null;
        }
        match ty {
            Type::Bool => Value::Bool(self.chance(0.5)),
            ty if ty.is_integer() => Value::Int(self.integer(ty, draw.flavour)),
            Type::F64 => Value::float(self.float(draw.flavour)),
            Type::F32 => Value::F32(super::value::canonical32(self.float(draw.flavour) as f32)),
            Type::Dec(precision, scale) => {
                let greatest = 10_i128.pow((*precision).into()) - 1;
                Value::Dec(
                    match draw.flavour {
                        0 => greatest - self.rng.random_range(0..3),
                        1 => self.pick(&[greatest, -greatest, greatest / 2 + 1, 0, 1, -1]),
                        _ => self.rng.random_range(-1_000..=1_000_i128).clamp(-greatest, greatest),
                    },
                    *scale,
                )
            }
            Type::Text => Value::text(self.pick(&TEXTS)),
            Type::Date => {
                let leap = i32::try_from(civil::days_of(2024, 2, 29)).expect("a day");
                let near = i32::try_from(self.base.div_euclid(DAY)).expect("a day");
                let random = near + self.rng.random_range(-3..3);
                Value::Date(self.pick(&[leap, 0, -1, near, random]))
            }
            Type::Ts => Value::Ts(self.time()),
            other => panic!("no column is a {other:?}"),
        }
    }

    fn integer(&mut self, ty: &Type, flavour: u8) -> i64 {
        let (least, greatest) = ty.bounds();
        match flavour {
            0 => self.pick(&[least, greatest, greatest - 1, least + 1, greatest / 2 + 1, 0, 1, -1]),
            1 => self.rng.random_range(least..=greatest),
            2 => self.rng.random_range(0..3),
            _ => self.rng.random_range(-5..=20),
        }
    }

    fn float(&mut self, flavour: u8) -> f64 {
        match flavour {
            0 => self.pick(&HOSTILE),
            // The same without what is not finite: cancellation, overflow, subnormals.
            1 => loop {
                let x = self.pick(&HOSTILE);
                if x.is_finite() {
                    break x;
                }
            },
            2 => {
                let scale = self.rng.random_range(-1_070..1_020);
                let x = self.rng.random_range(-1.0..1.0_f64);
                // In two steps: 2^-1070 itself is no normal number.
                x * 2_f64.powi(scale / 2) * 2_f64.powi(scale - scale / 2)
            }
            3 => f64::from(self.rng.random_range(-3..=3)),
            _ => f64::from(self.rng.random_range(-10_000..=10_000)) / 100.0,
        }
    }

    fn time(&mut self) -> i64 {
        let step = self.rng.random_range(0..self.steps.max(1));
        let jitter = match self.rng.random_range(0..10) {
            0 => 1,
            1 => -1,
            2 | 3 => self.rng.random_range(0..self.grid),
            _ => 0,
        };
        self.base + step * self.grid + jitter
    }

    // ---- arrivals

    fn row(&mut self, index: usize, stream: &Stream, at: i64) -> Vec<Cell> {
        let draws = self.draws[index].clone();
        let keys = self.keys.clone();
        stream
            .columns
            .iter()
            .enumerate()
            .map(|(i, column)| {
                let mut draw = draws[i].clone();
                if stream.is_not_null(i) {
                    draw.nulls = 0.0;
                }
                if i == stream.time {
                    return Cell::Value(Value::Ts(at));
                }
                if self.chance(draw.nulls) {
                    return if self.chance(0.5) { Cell::Missing } else { Cell::Value(Value::Null) };
                }
                draw.nulls = 0.0;
                Cell::Value(match column.name.as_str() {
                    "k0" | "k1" => {
                        let values = &keys[if column.name == "k0" { 0 } else { 1 }].1;
                        // Skewed: the first entity has about half of the events.
                        if self.chance(0.4) { values[0].clone() } else { self.pick(values) }
                    }
                    "j" => Value::text(self.pick(&JOIN_KEYS)),
                    "id" if column.ty == Type::I64 => Value::Int(self.rng.random_range(-1_000_000..1_000_000)),
                    "id" => Value::Text(format!("e{}", self.below(1_000_000))),
                    _ => self.value(&column.ty, &draw),
                })
            })
            .collect()
    }

    fn record(&mut self, cells: Vec<Cell>) -> Record {
        Record::Row { cells, style: self.rng.random_range(0..1_000) }
    }

    fn malformed(&mut self, index: usize, stream: &Stream, at: i64) -> Record {
        let raw = ["{\"k0\": ", "[]", "42", "nonsense", "{}", "null", "{\"ts\": }"];
        if self.chance(0.3) {
            let text = self.pick(&raw);
            return Record::Raw(text.to_owned());
        }
        let mut cells = self.row(index, stream, at);
        let column = self.below(cells.len());
        if self.chance(0.2) {
            cells[stream.time] = Cell::Value(Value::Ts(FAR_FUTURE + self.rng.random_range(0..DAY)));
        } else if self.chance(0.3) {
            cells[stream.time] = if self.chance(0.5) { Cell::Missing } else { Cell::Value(Value::Null) };
        } else {
            let texts: &[&str] = match stream.columns[column].ty {
                Type::Bool => &["\"maybe\"", "[]"],
                Type::I8 => &["128", "-129", "1.5", "\"abc\""],
                Type::I16 => &["32768", "\"abc\"", "{}"],
                Type::I32 => &["2147483648", "0.5", "[1]"],
                Type::I64 => &["9223372036854775808", "1.5", "\"abc\""],
                Type::F32 | Type::F64 => &["\"abc\"", "[]", "{}"],
                Type::Dec(..) => &["\"abc\"", "[]", "99999999999999999999999999999999999999999"],
                Type::Text => &["[1]", "{\"a\": 1}"],
                Type::Date => &["\"2023-02-29\"", "\"x\""],
                Type::Ts => &["\"2024-13-01T00:00:00Z\"", "12345", "\"x\"", "\"2023-02-29 00:00:00\""],
                ref other => panic!("no column is a {other:?}"),
            };
            cells[column] = Cell::Bad(self.pick(texts).to_owned());
        }
        self.record(cells)
    }

    fn calls(&mut self, streams: &[Stream]) -> Vec<Call> {
        let mut calls: Vec<(f64, Call)> = Vec::new();
        for (index, stream) in streams.iter().enumerate() {
            let count = if index == 0 { self.events } else { (self.events / 2).clamp(5, 300) };
            let records = self.arrivals(index, stream, count);
            let total = records.len();
            let chunk_max = if total > 200 { 400 } else { 25 };
            let mut records = records.into_iter();
            loop {
                let size = self.rng.random_range(1..=chunk_max);
                let records: Vec<Record> = records.by_ref().take(size).collect();
                if records.is_empty() {
                    break;
                }
                let mut call = Call { stream: index, kind: CallKind::Push, records };
                let insertable = call.records.len() < 100 && render::can_insert(stream, &call);
                // COPY takes any time, so a future would be history.
                let future = call.records.iter().any(|record| is_future(stream, record));
                call.kind = match self.rng.random_range(0..10) {
                    0 if !future => CallKind::Copy,
                    1 | 2 if insertable => CallKind::Insert,
                    _ => CallKind::Push,
                };
                // The streams advance side by side, roughly.
                let share = calls.iter().filter(|(_, call)| call.stream == index).count() as f64 / (total as f64 / chunk_max as f64 * 2.0);
                calls.push((share + self.rng.random_range(0.0..0.2), call));
            }
        }
        for stream in 0..streams.len() {
            if self.chance(0.2) {
                calls.push((self.rng.random_range(0.3..1.2), Call { stream, kind: CallKind::Reprocess, records: Vec::new() }));
            }
        }
        // Within a stream the order of calls is free as well: it decides only what is late.
        calls.sort_by(|a, b| a.0.total_cmp(&b.0));
        calls.into_iter().map(|(_, call)| call).collect()
    }

    /// One stream's records in the order of arrival.
    fn arrivals(&mut self, index: usize, stream: &Stream, count: usize) -> Vec<Record> {
        let mut rows: Vec<(i64, Record)> = Vec::new();
        let disorder = stream.disorder_us + stream.disorder_us / 4;
        for _ in 0..count {
            let at = self.time();
            let arrives = |world: &mut World| at + world.rng.random_range(0..=disorder);
            if self.chance(0.03) {
                let record = self.malformed(index, stream, at);
                rows.push((arrives(self), record));
                continue;
            }
            let cells = self.row(index, stream, at);
            // Some come long after their time.
            let when = if self.chance(0.03) { at + self.steps * self.grid / 3 } else { arrives(self) };
            let again = match self.rng.random_range(0..20) {
                0 => Some(cells.clone()),
                1 => {
                    // The same identity, another payload, perhaps another entity.
                    let mut other = self.row(index, stream, at);
                    for &i in &stream.primary_key {
                        other[i] = cells[i].clone();
                    }
                    Some(other)
                }
                _ => None,
            };
            let record = self.record(cells);
            rows.push((when, record));
            if let Some(again) = again {
                let record = self.record(again);
                rows.push((when + self.rng.random_range(0..=disorder), record));
            }
        }
        rows.sort_by_key(|(when, _)| *when);
        if self.chance(0.1) {
            rows.shuffle(&mut self.rng);
        }
        rows.into_iter().map(|(_, record)| record).collect()
    }

    // ---- views

    fn views(&mut self, case: &Case) -> Vec<View> {
        let (streams, history) = (&case.streams, case.history(case.calls.len()));
        let mut views: Vec<View> = Vec::new();
        for i in 0..3 {
            let source = self.source(streams);
            let shape = match self.rng.random_range(0..10) {
                0 | 1 => Shape::Grouped(self.grouped_frame()),
                2 | 3 => Shape::Grouped(self.hop()),
                4 => Shape::Latest,
                _ => Shape::Windowed,
            };
            let types = source.types(streams);
            // Every source begins with the keys.
            let entity: Vec<usize> = (0..self.keys.len()).collect();
            let entity = if entity.len() == 2 && self.chance(0.2) { vec![self.pick(&entity)] } else { entity };
            let filter = if self.chance(0.3) { Some(self.mild(&types)) } else { None };
            let ttl_us = if self.chance(0.18) { Some(self.width()) } else { None };
            let time = source.time(streams);
            let features = self.features(&types, time, shape);
            let mut view =
                View { name: format!("v{i}"), entity, source, filter, shape, features, ttl_us, style: self.rng.random_range(0..16) };
            // A WHERE that leaves next to nothing shows next to nothing.
            let all = View { filter: None, ..view.clone() }.relate(streams, &history).events.len();
            if view.relate(streams, &history).events.len() * 4 < all {
                view.filter = view.filter.map(|filter| Expr::Not(filter.boxed()));
            }
            if view.relate(streams, &history).events.len() * 4 < all {
                view.filter = None;
            }
            views.push(view);
        }
        views
    }

    fn source(&mut self, streams: &[Stream]) -> Source {
        let stream = if self.chance(0.8) { 0 } else { self.below(streams.len()) };
        match self.rng.random_range(0..10) {
            0 | 1 => {
                let arm = self.arm(streams, stream, &[], false);
                let names = (0..arm.columns.len()).map(|i| if i < self.keys.len() { format!("k{i}") } else { format!("c{i}") }).collect();
                Source::Subquery { arm, names, time: self.keys.len(), common: self.chance(0.5) }
            }
            2..=4 if streams.len() > 1 => {
                let mut rights: Vec<usize> = (0..streams.len()).filter(|&i| i != stream).collect();
                rights.shuffle(&mut self.rng);
                let count = self.rng.random_range(1..=rights.len());
                let rights = rights[..count].iter().map(|&right| self.right(stream, right, streams)).collect();
                Source::Enriched { left: stream, rights }
            }
            5 | 6 if streams.len() > 1 => {
                let count = self.rng.random_range(1..=3);
                let shape: Vec<Type> = (0..count).map(|_| self.pick(&[Type::F64, Type::F64, Type::I64, Type::Text, Type::Bool])).collect();
                let mut order: Vec<usize> = (0..streams.len()).collect();
                order.shuffle(&mut self.rng);
                let arms: Vec<Arm> = order.into_iter().map(|stream| self.arm(streams, stream, &shape, true)).collect();
                let keys = self.keys.len();
                let names = (0..arms[0].columns.len()).map(|i| if i < keys { format!("k{i}") } else { format!("c{i}") }).collect();
                Source::Union { arms, names, time: keys }
            }
            _ => Source::Stream(stream),
        }
    }

    /// Keys, event time, then payload expressions: of these types, or of any where the shape is free.
    fn arm(&mut self, streams: &[Stream], stream: usize, shape: &[Type], fixed: bool) -> Arm {
        let declared = &streams[stream];
        let types = declared.types();
        let mut columns: Vec<Expr> = (0..self.keys.len()).map(Expr::Column).collect();
        columns.push(Expr::Column(declared.time));
        if fixed {
            for ty in shape {
                columns.push(self.expr(&types, ty, 2));
            }
        } else {
            for _ in 0..self.rng.random_range(1..=4) {
                let ty = self.pick(&[Type::F64, Type::F64, Type::I64, Type::Text, Type::Bool]);
                // A computed column, or one as it stands.
                let plain: Vec<usize> = (self.keys.len()..types.len()).filter(|&i| i != declared.time).collect();
                let column = if self.chance(0.5) { self.expr(&types, &ty, 2) } else { Expr::Column(self.pick(&plain)) };
                columns.push(column);
            }
        }
        let filter = if self.chance(0.3) { Some(self.mild(&types)) } else { None };
        Arm { stream, columns, filter }
    }

    fn right(&mut self, left: usize, right: usize, streams: &[Stream]) -> Right {
        let join = self.keys.len();
        let (l, r) = (&streams[left].columns, &streams[right].columns);
        assert_eq!((&l[join].name, &r[join].name), (&"j".to_owned(), &"j".to_owned()));
        let on = match self.rng.random_range(0..6) {
            0 => vec![],
            1 | 2 => vec![(0, 0)],
            3 => vec![(0, 0), (join, join)],
            _ => vec![(join, join)],
        };
        Right { stream: right, inclusive: self.chance(0.6), on }
    }

    fn grouped_frame(&mut self) -> Frame {
        if self.chance(0.5) { Frame::All } else { Frame::Session { gap: self.width() } }
    }

    fn hop(&mut self) -> Frame {
        let slide = self.width();
        let times = self.pick(&[1, 1, 2, 3, 6]);
        self.used.push(slide * times);
        Frame::Hop { slide, size: slide * times }
    }

    fn rolling_frame(&mut self) -> Frame {
        let back = |micros| Bound::Back { months: 0, micros };
        match self.rng.random_range(0..20) {
            0..=6 => Frame::Range { start: back(self.width()), end: Bound::CURRENT },
            7..=9 => {
                let (a, b) = (self.width(), self.width());
                Frame::Range { start: back(a.max(b)), end: back(a.min(b)) }
            }
            10 => {
                let months = self.pick(&[1, 2, 3, 12]);
                let micros = self.pick(&[0, 0, DAY, 3 * DAY + 12 * HOUR]);
                Frame::Range { start: Bound::Back { months, micros }, end: Bound::CURRENT }
            }
            11 => {
                // Inverted after a short February: empty there.
                let end = self.pick(&[Bound::Back { months: 0, micros: 30 * DAY }, Bound::Back { months: 1, micros: 0 }, back(29 * DAY)]);
                Frame::Range { start: Bound::Back { months: self.pick(&[1, 2]), micros: 0 }, end }
            }
            12 | 13 => Frame::Range { start: Bound::Unbounded, end: Bound::CURRENT },
            14 => Frame::Range { start: Bound::Unbounded, end: back(self.width()) },
            15 | 16 => Frame::Rows { start: Some(self.pick(&[0, 1, 2, 5, 20, 70])), end: 0 },
            17 => {
                let end = self.pick(&[1, 2, 3, 10]);
                Frame::Rows { start: Some(end + self.pick(&[0, 0, 1, 4, 64])), end }
            }
            18 => Frame::Rows { start: None, end: self.pick(&[0, 0, 1, 5]) },
            _ => Frame::Range { start: Bound::CURRENT, end: Bound::CURRENT },
        }
    }

    fn features(&mut self, types: &[Type], time: usize, shape: Shape) -> Vec<Feature> {
        let count = self.rng.random_range(3..=9);
        let frames: Vec<Frame> = match shape {
            Shape::Grouped(frame) => vec![frame],
            _ => (0..self.rng.random_range(1..=4)).map(|_| self.rolling_frame()).collect(),
        };
        let mut features: Vec<Expr> = (0..count)
            .map(|_| match shape {
                Shape::Latest => self.latest(types, time),
                _ => self.feature(types, time, &frames),
            })
            .collect();
        if let Shape::Grouped(Frame::Hop { .. } | Frame::Session { .. }) = shape {
            if self.chance(0.7) {
                features.push(Expr::WindowStart);
            }
            if self.chance(0.5) {
                features.push(Expr::WindowEnd);
            }
            if self.chance(0.3) {
                features.push(Expr::Arithmetic(Arithmetic::Subtract, Expr::AsOf.boxed(), Expr::WindowEnd.boxed()));
            }
        }
        features.into_iter().enumerate().map(|(i, expr)| Feature { name: format!("f{i}"), expr }).collect()
    }

    fn latest(&mut self, types: &[Type], time: usize) -> Expr {
        match self.rng.random_range(0..8) {
            0 => {
                let ty = self.pick(&[Type::F64, Type::I64, Type::Text, Type::Bool]);
                self.expr(types, &ty, 2)
            }
            1 => Expr::Arithmetic(Arithmetic::Subtract, Expr::AsOf.boxed(), Expr::Column(time).boxed()),
            2 => {
                let columns: Vec<usize> = (0..types.len()).filter(|&i| types[i] == Type::Text).collect();
                if columns.is_empty() {
                    self.expr(types, &Type::Text, 1)
                } else {
                    Expr::Coalesce(vec![Expr::Column(self.pick(&columns)), Expr::text("none")])
                }
            }
            _ => Expr::Column(self.below(types.len())),
        }
    }

    fn feature(&mut self, types: &[Type], time: usize, frames: &[Frame]) -> Expr {
        if self.chance(0.7) {
            return self.aggregate(types, frames);
        }
        let frame = self.pick(frames);
        let count = self.call(Function::Count, None, frame);
        let newest = self.call(Function::Max, Some(Expr::Column(time)), frame);
        let number = self.expr_float_column(types);
        let sum = self.call(Function::Sum, Some(number), frame);
        // Nothing is computed on a sketch: the oracle does not know its value.
        let any = loop {
            let any = self.aggregate(types, frames);
            if !matches!(&any, Expr::Aggregate(call) if matches!(call.function, Function::ApproxDistinct | Function::ApproxPercentileCont(_)))
            {
                break any;
            }
        };
        let any_type = any.type_of(types);
        match self.rng.random_range(0..12) {
            0 | 1 => {
                let ratio = Expr::Arithmetic(Arithmetic::Divide, sum.boxed(), Expr::NullIf(count.boxed(), Expr::int(0).boxed()).boxed());
                Expr::Coalesce(vec![ratio, Expr::int(0)])
            }
            2 => Expr::Arithmetic(Arithmetic::Subtract, Expr::AsOf.boxed(), newest.boxed()),
            3 => Expr::Epoch(Expr::Arithmetic(Arithmetic::Subtract, Expr::AsOf.boxed(), newest.boxed()).boxed()),
            4 => Expr::Compare(Comparison::Less, newest.boxed(), Expr::Earlier(Expr::AsOf.boxed(), self.width()).boxed()),
            5 => Expr::IsNull(any.boxed()),
            6 => {
                let other = self.pick(frames);
                let other = self.call(Function::Count, None, other);
                let op = self.pick(&[Arithmetic::Subtract, Arithmetic::Divide, Arithmetic::Remainder, Arithmetic::Multiply]);
                Expr::Arithmetic(op, count.boxed(), other.boxed())
            }
            7 => {
                let when = Expr::Compare(Comparison::Greater, count.boxed(), Expr::int(self.rng.random_range(0..4)).boxed());
                Expr::Case(vec![(when, sum)], Some(Expr::double(-1.0).boxed()))
            }
            8 if any_type == Type::F64 => Expr::Coalesce(vec![any, Expr::double(0.0)]),
            8 if any_type == Type::I64 => Expr::Coalesce(vec![any, Expr::int(-1)]),
            8 if any_type == Type::Text => Expr::Coalesce(vec![any, Expr::text("none")]),
            9 => Expr::Cast(count.boxed(), Type::Text),
            10 => {
                let other = self.pick(frames);
                let number = self.expr_float_column(types);
                let other = self.call(Function::Avg, Some(number), other);
                let op = self.operator();
                Expr::Arithmetic(op, sum.boxed(), other.boxed())
            }
            _ => Expr::Negate(sum.boxed()),
        }
    }

    fn call(&mut self, function: Function, argument: Option<Expr>, frame: Frame) -> Expr {
        let style = self.rng.random_range(0..8);
        Expr::Aggregate(Box::new(Aggregate { function, distinct: false, argument, filter: None, frame, style }))
    }

    /// One aggregate over a column or a small expression, with or without FILTER and DISTINCT.
    fn aggregate(&mut self, types: &[Type], frames: &[Frame]) -> Expr {
        let frame = self.pick(frames);
        let bounded = match frame {
            Frame::Range { start, .. } => start != Bound::Unbounded,
            Frame::Rows { start, .. } => start.is_some(),
            Frame::Hop { .. } => true,
            Frame::All | Frame::Session { .. } => false,
        };
        let mut filter = if self.chance(0.25) { Some(self.predicate(types, 1)) } else { None };
        let times: Vec<usize> = (0..types.len()).filter(|&i| types[i] == Type::Ts).collect();
        let mut argument = match self.rng.random_range(0..10) {
            0 | 1 => {
                let ty = self.pick(&[Type::F64, Type::F64, Type::I64, Type::Text, Type::Bool]);
                self.expr(types, &ty, 1)
            }
            2 | 3 => self.expr_float_column(types),
            _ => Expr::Column(self.below(types.len())),
        };
        if bounded && !times.is_empty() && self.chance(0.07) {
            let age = Expr::Arithmetic(Arithmetic::Subtract, Expr::AsOf.boxed(), Expr::Column(self.pick(&times)).boxed());
            if self.chance(0.5) {
                let recent = Expr::Earlier(Expr::AsOf.boxed(), self.width());
                filter = Some(Expr::Compare(Comparison::Greater, Expr::Column(self.pick(&times)).boxed(), recent.boxed()));
            } else {
                // A decayed value.
                let weight = Expr::Arithmetic(Arithmetic::Add, Expr::double(1.0).boxed(), Expr::Epoch(age.boxed()).boxed());
                argument = Expr::Arithmetic(Arithmetic::Divide, self.expr_float_column(types).boxed(), weight.boxed());
            }
        }
        let ty = argument.type_of(types);
        let p = self.pick(&[0.0, 0.5, 1.0, 0.25, 0.9, 0.99, 0.1]);
        let n = self.pick(&[1, 2, 3, 5, 100]);
        let mut functions = vec![
            Function::Count,
            Function::Count,
            Function::Min,
            Function::Max,
            Function::Min,
            Function::Max,
            Function::FirstValue,
            Function::LastValue,
            Function::LastValue,
            Function::ArrayAgg,
            Function::FirstN(n),
            Function::LastN(n),
            Function::ApproxDistinct,
        ];
        if ty.is_numeric() {
            functions.extend([Function::Sum; 4]);
            functions.extend([Function::Avg; 3]);
            functions.extend([
                Function::VarPop,
                Function::VarSamp,
                Function::StddevPop,
                Function::StddevSamp,
                Function::Median,
                Function::Median,
            ]);
            functions.extend([Function::PercentileCont(p), Function::PercentileCont(p), Function::ApproxPercentileCont(p)]);
        }
        let function = self.pick(&functions);
        if function == Function::Count && self.chance(0.3) {
            let count = Aggregate { function, distinct: false, argument: None, filter, frame, style: self.rng.random_range(0..8) };
            return Expr::Aggregate(Box::new(count));
        }
        let may_be_distinct = matches!(function, Function::Count | Function::Sum | Function::Avg | Function::Min | Function::Max);
        let distinct = may_be_distinct && self.chance(if function == Function::Count { 0.5 } else { 0.2 });
        Expr::Aggregate(Box::new(Aggregate {
            function,
            distinct,
            argument: Some(argument),
            filter,
            frame,
            style: self.rng.random_range(0..8),
        }))
    }

    // ---- expressions

    fn operator(&mut self) -> Arithmetic {
        self.pick(&[Arithmetic::Add, Arithmetic::Subtract, Arithmetic::Multiply, Arithmetic::Divide])
    }

    fn expr_float_column(&mut self, types: &[Type]) -> Expr {
        let columns: Vec<usize> = (0..types.len()).filter(|&i| types[i] == Type::F64).collect();
        if columns.is_empty() { self.expr(types, &Type::F64, 1) } else { Expr::Column(self.pick(&columns)) }
    }

    fn literal(&mut self, ty: &Type) -> Expr {
        match ty {
            Type::F64 => {
                let flavour = self.rng.random_range(0..6);
                Expr::double(self.float(flavour))
            }
            Type::I64 => {
                let flavour = self.rng.random_range(0..6);
                Expr::int(self.integer(ty, flavour))
            }
            Type::Text => Expr::text(self.pick(&TEXTS)),
            Type::Bool => Expr::Literal(Value::Bool(self.chance(0.5)), Type::Bool),
            other => panic!("no literal of {other:?} is generated"),
        }
    }

    /// An expression of type BOOLEAN, BIGINT, DOUBLE or VARCHAR.
    fn expr(&mut self, types: &[Type], ty: &Type, depth: u32) -> Expr {
        let columns: Vec<usize> = (0..types.len()).filter(|&i| types[i] == *ty).collect();
        let leaf = |world: &mut World| {
            if !columns.is_empty() && world.chance(0.8) { Expr::Column(world.pick(&columns)) } else { world.literal(ty) }
        };
        if depth == 0 || self.chance(0.2) {
            return leaf(self);
        }
        let integers: Vec<usize> = (0..types.len()).filter(|&i| types[i].is_integer()).collect();
        match self.rng.random_range(0..7) {
            0 => {
                let when = self.predicate(types, depth - 1);
                let then = self.expr(types, ty, depth - 1);
                let other = if self.chance(0.6) { Some(self.expr(types, ty, depth - 1).boxed()) } else { None };
                Expr::Case(vec![(when, then)], other)
            }
            1 => Expr::Coalesce(vec![self.expr(types, ty, depth - 1), self.literal(ty)]),
            2 => Expr::NullIf(self.expr(types, ty, depth - 1).boxed(), self.literal(ty).boxed()),
            _ => match ty {
                Type::F64 => match self.rng.random_range(0..6) {
                    0 if !integers.is_empty() => Expr::Cast(Expr::Column(self.pick(&integers)).boxed(), Type::F64),
                    1 => Expr::Negate(leaf(self).boxed()),
                    2 if !integers.is_empty() => {
                        let op = self.operator();
                        Expr::Arithmetic(op, leaf(self).boxed(), Expr::Column(self.pick(&integers)).boxed())
                    }
                    3 => Expr::Arithmetic(Arithmetic::Remainder, leaf(self).boxed(), leaf(self).boxed()),
                    _ => {
                        let op = self.operator();
                        Expr::Arithmetic(op, self.expr(types, ty, depth - 1).boxed(), leaf(self).boxed())
                    }
                },
                Type::I64 => match self.rng.random_range(0..7) {
                    0 => Expr::Cast(self.expr(types, &Type::F64, depth - 1).boxed(), Type::I64),
                    1 => Expr::Cast(self.expr(types, &Type::Text, depth - 1).boxed(), Type::I64),
                    2 => Expr::Cast(self.expr(types, &Type::Bool, depth - 1).boxed(), Type::I64),
                    3 => Expr::Negate(leaf(self).boxed()),
                    4 => Expr::Arithmetic(
                        self.pick(&[Arithmetic::Remainder, Arithmetic::Divide]),
                        leaf(self).boxed(),
                        Expr::int(self.pick_divisor()).boxed(),
                    ),
                    5 if !integers.is_empty() => {
                        let op = self.operator();
                        Expr::Arithmetic(op, Expr::Column(self.pick(&integers)).boxed(), leaf(self).boxed())
                    }
                    _ => {
                        let op = self.operator();
                        Expr::Arithmetic(op, self.expr(types, ty, depth - 1).boxed(), leaf(self).boxed())
                    }
                },
                Type::Text if !integers.is_empty() && self.chance(0.4) => {
                    Expr::Cast(Expr::Column(self.pick(&integers)).boxed(), Type::Text)
                }
                Type::Text => Expr::Concat(leaf(self).boxed(), leaf(self).boxed()),
                Type::Bool => self.predicate(types, depth),
                other => panic!("no expression of {other:?} is generated"),
            },
        }
    }

    fn pick_divisor(&mut self) -> i64 {
        self.pick(&[2, 3, 7, 0, -2, 10])
    }

    /// A predicate that most rows should pass: a WHERE that leaves nothing shows nothing.
    fn mild(&mut self, types: &[Type]) -> Expr {
        let sharp = self.predicate(types, 2);
        if self.chance(0.3) {
            return sharp;
        }
        let column = Expr::Column(self.below(types.len()));
        match self.rng.random_range(0..3) {
            0 => Expr::Or(sharp.boxed(), Expr::IsNotNull(column.boxed()).boxed()),
            1 => Expr::Or(Expr::IsNull(column.boxed()).boxed(), Expr::Not(sharp.boxed()).boxed()),
            _ => Expr::IsNotNull(column.boxed()),
        }
    }

    fn predicate(&mut self, types: &[Type], depth: u32) -> Expr {
        if depth > 0 && self.chance(0.3) {
            let a = self.predicate(types, depth - 1);
            return match self.rng.random_range(0..3) {
                0 => Expr::And(a.boxed(), self.predicate(types, depth - 1).boxed()),
                1 => Expr::Or(a.boxed(), self.predicate(types, depth - 1).boxed()),
                _ => Expr::Not(a.boxed()),
            };
        }
        let ty = self.pick(&[Type::F64, Type::F64, Type::I64, Type::Text, Type::Text]);
        let columns: Vec<usize> = (0..types.len()).filter(|&i| types[i] == ty).collect();
        let column = if columns.is_empty() { self.expr(types, &ty, depth.saturating_sub(1)) } else { Expr::Column(self.pick(&columns)) };
        match self.rng.random_range(0..10) {
            0 => Expr::IsNull(Expr::Column(self.below(types.len())).boxed()),
            1 => Expr::IsNotNull(Expr::Column(self.below(types.len())).boxed()),
            2 => {
                let items = (0..self.rng.random_range(1..4)).map(|_| self.literal(&ty)).collect();
                Expr::In(column.boxed(), items)
            }
            3 => Expr::Between(column.boxed(), self.literal(&ty).boxed(), self.literal(&ty).boxed()),
            4 => {
                let columns: Vec<usize> = (0..types.len()).filter(|&i| types[i] == Type::Bool).collect();
                if columns.is_empty() { Expr::IsNotNull(column.boxed()) } else { Expr::Column(self.pick(&columns)) }
            }
            5 => {
                // The same column twice: NaN equals itself, -0 equals +0.
                let i = self.below(types.len());
                Expr::Compare(Comparison::Equal, Expr::Column(i).boxed(), Expr::Column(i).boxed())
            }
            _ => {
                let ops = [
                    Comparison::Equal,
                    Comparison::NotEqual,
                    Comparison::Less,
                    Comparison::LessOrEqual,
                    Comparison::Greater,
                    Comparison::GreaterOrEqual,
                    Comparison::Greater,
                    Comparison::NotEqual,
                    Comparison::IsDistinctFrom,
                ];
                let op = self.pick(&ops);
                let other = if self.chance(0.8) { self.literal(&ty) } else { self.expr(types, &ty, depth.saturating_sub(1)) };
                Expr::Compare(op, column.boxed(), other.boxed())
            }
        }
    }

    // ---- questions

    fn questions(&mut self, case: &Case, count: usize) -> Vec<Question> {
        let relations = case.relations(&case.history(case.calls.len()));
        let mut questions = Vec::new();
        while questions.len() < count {
            let view = self.below(case.views.len());
            let (declared, events) = (&case.views[view], &relations[view].events);
            // Most instants lie about an event of the entity that is asked for.
            let event = if events.is_empty() || self.chance(0.1) { None } else { Some(self.pick(events)) };
            let times: Vec<i64> = events.iter().map(|event| event.at).collect();
            let about = event.as_ref().map_or(self.base, |event| event.at);
            let at = self.instant(about, &times, declared);
            let strict = self.chance(0.4);
            for i in 0..self.rng.random_range(1..=4) {
                let of_event = event
                    .as_ref()
                    .filter(|_| i == 0)
                    .map(|event| declared.entity.iter().map(|&column| event.cells[column].clone()).collect());
                let entity = of_event.unwrap_or_else(|| declared.entity.iter().map(|&column| self.key(column)).collect());
                questions.push(Question { view, entity, at, strict });
            }
        }
        questions.truncate(count);
        questions
    }

    /// A key that occurs, or rarely one that does not, or NULL.
    fn key(&mut self, column: usize) -> Value {
        let (ty, values) = self.keys[column].clone();
        match self.rng.random_range(0..30) {
            0 => Value::Null,
            1 => unknown(&ty),
            _ => self.pick(&values),
        }
    }

    /// An instant about an event: at it, where it enters or leaves a window, or anywhere.
    fn instant(&mut self, event: i64, times: &[i64], view: &View) -> i64 {
        let (first, last) = (times.first().copied().unwrap_or(self.base), times.last().copied().unwrap_or(self.base));
        let nudge = self.pick(&[-1, 0, 0, 1]);
        let used = if self.used.is_empty() { vec![DAY] } else { self.used.clone() };
        let width = self.pick(&used);
        if let Shape::Grouped(Frame::Hop { slide, size }) = view.shape
            && self.chance(0.6)
        {
            // Where a window with the event closes, and until the next one does.
            let closes = event.div_euclid(slide) * slide + slide * self.rng.random_range(1..=size / slide);
            return closes + if self.chance(0.5) { nudge } else { self.rng.random_range(0..slide) };
        }
        match self.rng.random_range(0..16) {
            0..=3 => event + nudge,
            4 => last - self.rng.random_range(0..self.steps.max(1) * self.grid) / 4,
            5 | 6 => event + width + nudge,
            7 => self.base + self.rng.random_range(0..self.steps.max(1) * self.grid),
            8 => {
                // An instant whose bound, a month or more back, is the event's day.
                let months = self.pick(&[1, 2, 3, 12]);
                civil::months_before(event, -months) + nudge + self.pick(&[0, 0, DAY, 3 * DAY + 12 * HOUR])
            }
            10 => match view.ttl_us {
                Some(ttl) => event + ttl + nudge,
                None => event + 30 * DAY + nudge,
            },
            11 => first - 1 - self.rng.random_range(0..self.grid),
            12 => last + self.pick(&[0, 1, self.grid, DAY, 400 * DAY]),
            _ => event + self.rng.random_range(0..3 * self.grid),
        }
    }
}

fn is_future(stream: &Stream, record: &Record) -> bool {
    match record {
        Record::Row { cells, .. } => matches!(cells[stream.time], Cell::Value(Value::Ts(at)) if at >= FAR_FUTURE),
        Record::Raw(_) => false,
    }
}

/// A key column's type and the values that occur.
fn key(rng: &mut ChaCha8Rng, count: usize) -> (Type, Vec<Value>) {
    let ty = match rng.random_range(0..12) {
        0..=4 => Type::Text,
        5..=7 => Type::I64,
        8 => Type::I32,
        9 => Type::Date,
        10 => Type::Bool,
        _ => [Type::Dec(10, 2), Type::Ts, Type::I16].choose(rng).expect("not empty").clone(),
    };
    let mut values: Vec<Value> = match ty {
        Type::Text => ["u1", "u2", "", "ü", "u'3", "日"].map(Value::text).to_vec(),
        Type::I64 => [7, -1, 0, i64::MAX, i64::MIN + 1, 42].map(Value::Int).to_vec(),
        Type::I32 | Type::I16 => [7, -1, 0, 32_767, -32_768, 42].map(Value::Int).to_vec(),
        Type::Date => [19_782, 0, -1, 11_016, 20_000, 7].map(Value::Date).to_vec(),
        Type::Bool => [true, false].map(Value::Bool).to_vec(),
        Type::Dec(..) => [150, -1, 0, 9_999_999_999, 25, 1].map(|x| Value::Dec(x, 2)).to_vec(),
        Type::Ts => [0, -1, 1_709_164_800_000_000, 5, 1_000_000, 7].map(Value::Ts).to_vec(),
        ref other => panic!("no entity is a {other:?}"),
    };
    values.shuffle(rng);
    values.truncate(count);
    (ty, values)
}

/// A key that no event carries.
fn unknown(ty: &Type) -> Value {
    match ty {
        Type::Text => Value::text("nobody"),
        Type::Bool => Value::Null,
        Type::Date => Value::Date(12_345),
        Type::Dec(..) => Value::Dec(77_777, 2),
        Type::Ts => Value::Ts(1_234_567_890_123_456),
        _ => Value::Int(31_415),
    }
}
