//! A case as text: the SQL that Asof accepts and the JSON lines that it takes in.
//!
//! One meaning is written in several ways (named windows, spelled-out frames, qualified names, escapes, zones); `style` chooses among them.

use std::collections::BTreeMap;

use super::aggregate::{Aggregate, Function};
use super::civil::{self, DAY, HOUR, MINUTE, SECOND};
use super::expr::{Arithmetic, Comparison, Expr};
use super::frame::{Bound, Frame};
use super::ingest::{Call, CallKind, Cell, Record, Stream};
use super::value::{Type, Value};
use super::view::{Arm, Shape, Source, View};
use super::{Case, Question};

pub(crate) fn type_name(ty: &Type) -> String {
    match ty {
        Type::Bool => "BOOLEAN".into(),
        Type::I8 => "TINYINT".into(),
        Type::I16 => "SMALLINT".into(),
        Type::I32 => "INT".into(),
        Type::I64 => "BIGINT".into(),
        Type::F32 => "REAL".into(),
        Type::F64 => "DOUBLE".into(),
        Type::Dec(precision, scale) => format!("DECIMAL({precision}, {scale})"),
        Type::Text => "VARCHAR".into(),
        Type::Date => "DATE".into(),
        Type::Ts => "TIMESTAMP".into(),
        Type::Duration | Type::List(_) => panic!("no column is a {ty:?}"),
    }
}

fn decimal_text(digits: i128, scale: i8) -> String {
    let scale = usize::try_from(scale).expect("scales are not negative");
    let sign = if digits < 0 { "-" } else { "" };
    let text = format!("{:0width$}", digits.unsigned_abs(), width = scale + 1);
    let (whole, part) = text.split_at(text.len() - scale);
    if part.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{part}") }
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn float_text(x: f64) -> String {
    if x.is_nan() {
        "NaN".into()
    } else if x.is_infinite() {
        if x > 0.0 { "Infinity".into() } else { "-Infinity".into() }
    } else {
        format!("{x:?}")
    }
}

/// A literal of a type.
pub(crate) fn literal(value: &Value, ty: &Type) -> String {
    match (value, ty) {
        (Value::Null, ty) => format!("CAST(NULL AS {})", type_name(ty)),
        (Value::Bool(x), _) => {
            if *x {
                "TRUE".into()
            } else {
                "FALSE".into()
            }
        }
        (Value::Int(x), Type::I64) if *x >= 0 => x.to_string(),
        (Value::Int(x), Type::I64) if *x > i64::MIN => format!("({x})"),
        (Value::Int(x), ty) => format!("CAST('{x}' AS {})", type_name(ty)),
        // What an exponent or a plain fraction says is a double; the rest is cast from its name.
        (Value::F64(x), _) if x.is_finite() && (*x > 0.0 || x.to_bits() == 0) => float_text(*x),
        (Value::F64(x), _) if x.is_finite() && *x < 0.0 => format!("({})", float_text(*x)),
        (Value::F64(x), _) => format!("CAST('{}' AS DOUBLE)", float_text(*x)),
        (Value::F32(x), _) if x.is_finite() => format!("CAST('{x:?}' AS REAL)"),
        (Value::F32(x), _) => format!("CAST('{}' AS REAL)", float_text((*x).into())),
        (Value::Dec(digits, scale), ty) => format!("CAST('{}' AS {})", decimal_text(*digits, *scale), type_name(ty)),
        (Value::Text(x), _) => quoted(x),
        (Value::Date(x), _) => format!("DATE '{}'", civil::date_text((*x).into())),
        (Value::Ts(x), _) => format!("TIMESTAMP '{}'", civil::timestamp_text(*x, ' ')),
        (other, ty) => panic!("no literal of {other:?} as {ty:?}"),
    }
}

/// An interval's text without the word INTERVAL: the greatest units that say it exactly.
fn interval_text(months: i32, micros: i64) -> String {
    let mut parts = Vec::new();
    let mut part = |count: i64, unit: &str| {
        if count != 0 {
            parts.push(format!("{count} {unit}{}", if count == 1 { "" } else { "s" }));
        }
    };
    part((months / 12).into(), "year");
    part((months % 12).into(), "month");
    let mut rest = micros;
    // 24 hours and 1 day are the same; both are written.
    for (unit, name) in [(DAY, "day"), (HOUR, "hour"), (MINUTE, "minute"), (SECOND, "second"), (1_000, "millisecond"), (1, "microsecond")] {
        if unit == DAY && micros == DAY {
            continue;
        }
        part(rest / unit, name);
        rest %= unit;
    }
    if parts.is_empty() { "0 seconds".into() } else { parts.join(" ") }
}

fn interval(months: i32, micros: i64) -> String {
    format!("INTERVAL '{}'", interval_text(months, micros))
}

fn bound(bound: Bound) -> String {
    match bound {
        Bound::Unbounded => "UNBOUNDED PRECEDING".into(),
        Bound::CURRENT => "CURRENT ROW".into(),
        Bound::Back { months, micros } => format!("{} PRECEDING", interval(months, micros)),
    }
}

/// The frame of an OVER.
fn frame(frame: Frame, style: u8) -> String {
    let rows = |n: u64| if n == 0 { "CURRENT ROW".to_owned() } else { format!("{n} PRECEDING") };
    match frame {
        Frame::Range { start, end: Bound::CURRENT } if style.is_multiple_of(2) => format!("RANGE {}", bound(start)),
        Frame::Range { start, end } => format!("RANGE BETWEEN {} AND {}", bound(start), bound(end)),
        Frame::Rows { start, end: 0 } if style.is_multiple_of(2) => format!("ROWS {}", start.map_or("UNBOUNDED PRECEDING".into(), rows)),
        Frame::Rows { start, end } => format!("ROWS BETWEEN {} AND {}", start.map_or("UNBOUNDED PRECEDING".into(), rows), rows(end)),
        other => panic!("{other:?} is written in GROUP BY"),
    }
}

/// Writes the expressions of one view.
struct Writer<'a> {
    columns: &'a [String],
    /// `PARTITION BY ... ORDER BY ...`, which may be left out.
    implied: String,
    /// None in a grouped view.
    windows: Option<&'a std::cell::RefCell<BTreeMap<String, String>>>,
}

impl Writer<'_> {
    fn expr(&self, expr: &Expr) -> String {
        let list = |parts: &[Expr]| parts.iter().map(|part| self.expr(part)).collect::<Vec<_>>().join(", ");
        match expr {
            Expr::Column(i) => self.columns[*i].clone(),
            Expr::Literal(value, ty) => literal(value, ty),
            Expr::AsOf => "as_of()".into(),
            Expr::WindowStart => "window_start()".into(),
            Expr::WindowEnd => "window_end()".into(),
            Expr::Aggregate(aggregate) => self.aggregate(aggregate),
            Expr::Negate(a) => format!("(- {})", self.expr(a)),
            Expr::Arithmetic(op, a, b) => {
                let op = match op {
                    Arithmetic::Add => "+",
                    Arithmetic::Subtract => "-",
                    Arithmetic::Multiply => "*",
                    Arithmetic::Divide => "/",
                    Arithmetic::Remainder => "%",
                };
                format!("({} {op} {})", self.expr(a), self.expr(b))
            }
            Expr::Compare(op, a, b) => {
                let op = match op {
                    Comparison::Equal => "=",
                    Comparison::NotEqual => "<>",
                    Comparison::Less => "<",
                    Comparison::LessOrEqual => "<=",
                    Comparison::Greater => ">",
                    Comparison::GreaterOrEqual => ">=",
                    Comparison::IsDistinctFrom => "IS DISTINCT FROM",
                };
                format!("({} {op} {})", self.expr(a), self.expr(b))
            }
            Expr::And(a, b) => format!("({} AND {})", self.expr(a), self.expr(b)),
            Expr::Or(a, b) => format!("({} OR {})", self.expr(a), self.expr(b)),
            Expr::Not(a) => format!("(NOT {})", self.expr(a)),
            Expr::IsNull(a) => format!("({} IS NULL)", self.expr(a)),
            Expr::IsNotNull(a) => format!("({} IS NOT NULL)", self.expr(a)),
            Expr::In(a, items) => format!("({} IN ({}))", self.expr(a), list(items)),
            Expr::Between(a, low, high) => format!("({} BETWEEN {} AND {})", self.expr(a), self.expr(low), self.expr(high)),
            Expr::Case(arms, other) => {
                let arms: String = arms.iter().map(|(when, then)| format!(" WHEN {} THEN {}", self.expr(when), self.expr(then))).collect();
                let other = other.as_ref().map_or(String::new(), |other| format!(" ELSE {}", self.expr(other)));
                format!("(CASE{arms}{other} END)")
            }
            Expr::Coalesce(parts) => format!("coalesce({})", list(parts)),
            Expr::NullIf(a, b) => format!("nullif({}, {})", self.expr(a), self.expr(b)),
            Expr::Cast(a, ty) => format!("CAST({} AS {})", self.expr(a), type_name(ty)),
            Expr::Concat(a, b) => format!("({} || {})", self.expr(a), self.expr(b)),
            Expr::Earlier(a, micros) => format!("({} - {})", self.expr(a), interval(0, *micros)),
            Expr::Epoch(a) => format!("extract(epoch FROM {})", self.expr(a)),
        }
    }

    fn aggregate(&self, call: &Aggregate) -> String {
        let argument = call.argument.as_ref().map_or("*".into(), |argument| self.expr(argument));
        let (name, more) = match call.function {
            Function::Count => ("count", String::new()),
            Function::Sum => ("sum", String::new()),
            Function::Avg => ("avg", String::new()),
            Function::VarPop => ("var_pop", String::new()),
            Function::VarSamp => ("var_samp", String::new()),
            Function::StddevPop => ("stddev_pop", String::new()),
            Function::StddevSamp => ("stddev_samp", String::new()),
            Function::Min => ("min", String::new()),
            Function::Max => ("max", String::new()),
            Function::FirstValue => ("first_value", String::new()),
            Function::LastValue => ("last_value", String::new()),
            Function::ArrayAgg => ("array_agg", String::new()),
            Function::FirstN(n) => ("first_n", format!(", {n}")),
            Function::LastN(n) => ("last_n", format!(", {n}")),
            Function::Median => ("median", String::new()),
            Function::PercentileCont(p) => ("percentile_cont", format!(", {}", float_text(p))),
            Function::ApproxDistinct => ("approx_distinct", String::new()),
            Function::ApproxPercentileCont(p) => ("approx_percentile_cont", format!(", {}", float_text(p))),
        };
        let distinct = if call.distinct { "DISTINCT " } else { "" };
        let filter = call.filter.as_ref().map_or(String::new(), |filter| format!(" FILTER (WHERE {})", self.expr(filter)));
        let over = self.windows.map_or(String::new(), |windows| {
            let implied = if call.style & 2 != 0 { self.implied.as_str() } else { "" };
            let text = format!("{implied}{}", frame(call.frame, call.style));
            if call.style & 4 == 0 {
                return format!(" OVER ({text})");
            }
            let next = format!("w{}", windows.borrow().len());
            format!(" OVER {}", windows.borrow_mut().entry(text).or_insert(next))
        });
        format!("{name}({distinct}{argument}{more}){filter}{over}")
    }
}

fn plain(expr: &Expr, columns: &[String]) -> String {
    Writer { columns, implied: String::new(), windows: None }.expr(expr)
}

fn names(stream: &Stream) -> Vec<String> {
    stream.columns.iter().map(|column| column.name.clone()).collect()
}

pub(crate) fn create_stream(stream: &Stream) -> String {
    let mut lines: Vec<String> = stream
        .columns
        .iter()
        .map(|column| format!("  {} {}{}", column.name, type_name(&column.ty), if column.not_null { " NOT NULL" } else { "" }))
        .collect();
    if !stream.primary_key.is_empty() {
        let key: Vec<&str> = stream.primary_key.iter().map(|&i| stream.columns[i].name.as_str()).collect();
        lines.push(format!("  PRIMARY KEY ({})", key.join(", ")));
    }
    let time = &stream.columns[stream.time].name;
    lines.push(format!("  WATERMARK FOR {time} AS {time} - {}", interval(0, stream.disorder_us)));
    format!("CREATE STREAM {} (\n{}\n)", stream.name, lines.join(",\n"))
}

fn arm(arm: &Arm, aliases: &[String], streams: &[Stream]) -> String {
    let stream = &streams[arm.stream];
    let columns = names(stream);
    let list: Vec<String> =
        arm.columns.iter().zip(aliases).map(|(column, alias)| format!("{} AS {alias}", plain(column, &columns))).collect();
    let filter = arm.filter.as_ref().map_or(String::new(), |filter| format!(" WHERE {}", plain(filter, &columns)));
    format!("SELECT {} FROM {}{filter}", list.join(", "), stream.name)
}

/// How the columns of a view's relation are written.
fn relation_columns(source: &Source, streams: &[Stream]) -> Vec<String> {
    match source {
        Source::Stream(stream) => names(&streams[*stream]),
        Source::Subquery { names, .. } | Source::Union { names, .. } => names.clone(),
        Source::Enriched { left, rights } => {
            let left = names(&streams[*left]).into_iter().map(|name| format!("l.{name}"));
            let right = rights
                .iter()
                .enumerate()
                .flat_map(|(i, right)| names(&streams[right.stream]).into_iter().map(move |name| format!("r{i}.{name}")));
            left.chain(right).collect()
        }
    }
}

/// The view's entity columns by name.
pub(crate) fn entity_names(view: &View, streams: &[Stream]) -> Vec<String> {
    let columns = relation_columns(&view.source, streams);
    view.entity.iter().map(|&i| columns[i].rsplit('.').next().expect("a name").to_owned()).collect()
}

/// The view's event-time column by name.
pub(crate) fn time_name(view: &View, streams: &[Stream]) -> String {
    let columns = relation_columns(&view.source, streams);
    columns[view.source.time(streams)].rsplit('.').next().expect("a name").to_owned()
}

pub(crate) fn create_view(view: &View, streams: &[Stream]) -> String {
    let columns = relation_columns(&view.source, streams);
    let entity: Vec<&str> = view.entity.iter().map(|&i| columns[i].as_str()).collect();
    let time = &columns[view.source.time(streams)];
    let windows = std::cell::RefCell::new(BTreeMap::new());
    let writer = Writer {
        columns: &columns,
        implied: format!("PARTITION BY {} ORDER BY {time} ", entity.join(", ")),
        windows: (view.shape == Shape::Windowed).then_some(&windows),
    };
    let features: Vec<String> =
        view.features.iter().map(|feature| format!("  {} AS {}", writer.expr(&feature.expr), feature.name)).collect();
    let mut with = String::new();
    let from = match &view.source {
        Source::Stream(stream) => streams[*stream].name.clone(),
        Source::Subquery { arm: query, names, common: false, .. } => format!("({}) AS q", arm(query, names, streams)),
        Source::Subquery { arm: query, names, common: true, .. } => {
            with = format!("WITH q AS ({})\n", arm(query, names, streams));
            "q".into()
        }
        Source::Union { arms, names, .. } => {
            let arms: Vec<String> = arms.iter().map(|one| arm(one, names, streams)).collect();
            format!("(\n  {}\n) AS u", arms.join("\n  UNION ALL\n  "))
        }
        Source::Enriched { left, rights } => {
            let mut text = format!("{} AS l", streams[*left].name);
            for (i, right) in rights.iter().enumerate() {
                let (l, r) = (&streams[*left], &streams[right.stream]);
                let (lt, rt) = (format!("l.{}", l.columns[l.time].name), format!("r{i}.{}", r.columns[r.time].name));
                let matched = match (right.inclusive, view.style.is_multiple_of(2)) {
                    (true, true) => format!("{lt} >= {rt}"),
                    (true, false) => format!("{rt} <= {lt}"),
                    (false, true) => format!("{lt} > {rt}"),
                    (false, false) => format!("{rt} < {lt}"),
                };
                let on: Vec<String> =
                    right.on.iter().map(|&(a, b)| format!("l.{} = r{i}.{}", l.columns[a].name, r.columns[b].name)).collect();
                // The join keys have one name on both sides.
                let using: Vec<&str> = right.on.iter().map(|&(a, _)| l.columns[a].name.as_str()).collect();
                let on = if on.is_empty() {
                    String::new()
                } else if view.style & 8 != 0 {
                    format!(" USING ({})", using.join(", "))
                } else {
                    format!(" ON {}", on.join(" AND "))
                };
                text += &format!("\n  ASOF JOIN {} AS r{i} MATCH_CONDITION ({matched}){on}", r.name);
            }
            text
        }
    };
    let options = view.ttl_us.map_or(String::new(), |ttl| format!(" WITH (ttl = '{}')", interval_text(0, ttl)));
    let filter = view.filter.as_ref().map_or(String::new(), |filter| format!("\nWHERE {}", plain(filter, &columns)));
    let group = match view.shape {
        Shape::Windowed | Shape::Latest => String::new(),
        Shape::Grouped(frame) => {
            let window = match frame {
                Frame::All => String::new(),
                Frame::Hop { slide, size } if slide == size && view.style & 2 == 0 => format!(", TUMBLE({time}, {})", interval(0, size)),
                Frame::Hop { slide, size } => format!(", HOP({time}, {}, {})", interval(0, slide), interval(0, size)),
                Frame::Session { gap } => format!(", SESSION({time}, {})", interval(0, gap)),
                other => panic!("{other:?} is written in OVER"),
            };
            format!("\nGROUP BY {}{window}", entity.join(", "))
        }
    };
    let windows = windows.into_inner();
    let windows: Vec<String> = windows.into_iter().map(|(text, name)| format!("{name} AS ({text})")).collect();
    let windows = if windows.is_empty() { String::new() } else { format!("\nWINDOW {}", windows.join(", ")) };
    format!(
        "CREATE FEATURE {}{} ENTITY ({}){options} AS\n{with}SELECT\n{}\nFROM {from}{filter}{group}{windows}",
        if view.style & 4 == 0 { "VIEW " } else { "" },
        view.name,
        entity_names(view, streams).join(", "),
        features.join(",\n")
    )
}

fn json_string(text: &str, escape: bool) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out += "\\\"",
            '\\' => out += "\\\\",
            c if (c as u32) < 0x20 || (escape && !c.is_ascii()) => {
                let mut units = [0; 2];
                for unit in c.encode_utf16(&mut units) {
                    out += &format!("\\u{unit:04x}");
                }
            }
            c => out.push(c),
        }
    }
    out + "\""
}

/// A timestamp as producers write it: with and without a zone, with an offset, finer than a microsecond.
fn json_timestamp(at: i64, style: u32) -> String {
    let text = match style % 6 {
        0 => format!("{}Z", civil::timestamp_text(at, 'T')),
        1 => civil::timestamp_text(at, 'T'),
        2 => civil::timestamp_text(at, ' '),
        3 => format!("{}+02:00", civil::timestamp_text(at + 2 * HOUR, 'T')),
        4 => format!("{}-05:30", civil::timestamp_text(at - 5 * HOUR - 30 * MINUTE, 'T')),
        // Nanoseconds are truncated toward the past.
        _ => {
            let micro = at.rem_euclid(SECOND);
            format!("{}.{micro:06}789Z", civil::timestamp_text(at - micro, 'T'))
        }
    };
    format!("\"{text}\"")
}

pub(crate) fn json_value(value: &Value, style: u32) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(x) => x.to_string(),
        Value::Int(x) => x.to_string(),
        Value::F64(x) if x.is_finite() => float_text(*x),
        Value::F64(x) => format!("\"{}\"", float_text(*x)),
        Value::F32(x) if x.is_finite() => format!("{x:?}"),
        Value::F32(x) => format!("\"{}\"", float_text((*x).into())),
        Value::Dec(digits, scale) if style.is_multiple_of(2) => format!("\"{}\"", decimal_text(*digits, *scale)),
        Value::Dec(digits, scale) => decimal_text(*digits, *scale),
        Value::Text(x) => json_string(x, style.is_multiple_of(3)),
        Value::Date(x) => format!("\"{}\"", civil::date_text((*x).into())),
        Value::Ts(x) => json_timestamp(*x, style),
        other => panic!("no field holds {other:?}"),
    }
}

pub(crate) fn json_line(stream: &Stream, record: &Record) -> String {
    let (cells, style) = match record {
        Record::Raw(text) => return text.clone(),
        Record::Row { cells, style } => (cells, *style),
    };
    let mut fields = Vec::new();
    for (column, cell) in stream.columns.iter().zip(cells) {
        let text = match cell {
            Cell::Missing => continue,
            Cell::Bad(text) => text.clone(),
            Cell::Value(value) => json_value(value, style),
        };
        fields.push(format!("\"{}\": {text}", column.name));
    }
    // Fields come in any order.
    if !fields.is_empty() {
        let turn = style as usize % fields.len();
        fields.rotate_left(turn);
    }
    format!("{{{}}}", fields.join(", "))
}

/// The records of a call as JSON lines.
pub(crate) fn json_lines(stream: &Stream, call: &Call) -> String {
    call.records.iter().map(|record| json_line(stream, record) + "\n").collect()
}

/// The records of a call as one INSERT.
pub(crate) fn insert(stream: &Stream, call: &Call) -> String {
    let rows: Vec<String> = call
        .records
        .iter()
        .map(|record| {
            let Record::Row { cells, .. } = record else { panic!("only JSON carries malformed records") };
            let cells: Vec<String> = stream
                .columns
                .iter()
                .zip(cells)
                .map(|(column, cell)| match cell {
                    Cell::Value(value) => literal(value, &column.ty),
                    Cell::Missing => literal(&Value::Null, &column.ty),
                    Cell::Bad(_) => panic!("only JSON carries malformed records"),
                })
                .collect();
            format!("  ({})", cells.join(", "))
        })
        .collect();
    format!("INSERT INTO {} ({}) VALUES\n{}", stream.name, names(stream).join(", "), rows.join(",\n"))
}

pub(crate) fn reprocess(stream: &Stream) -> String {
    format!("REPROCESS LATE EVENTS FOR {}", stream.name)
}

/// A question as a statement that serves one row for each of `entities`.
pub(crate) fn serve(view: &View, streams: &[Stream], entities: &[&[Value]], at: i64, strict: bool) -> String {
    format!("SELECT * FROM {} {}", view.name, for_entity(view, streams, entities, at, strict))
}

/// Several views with the same entity columns in one statement: every feature by its qualified name.
pub(crate) fn serve_together(views: &[&View], streams: &[Stream], entities: &[&[Value]], at: i64, strict: bool) -> String {
    let of_view =
        |view: &&View| view.features.iter().map(|feature| format!("{0}.{1} AS {0}_{1}", view.name, feature.name)).collect::<Vec<_>>();
    let list: Vec<String> = views.iter().flat_map(of_view).collect();
    let from: Vec<&str> = views.iter().map(|view| view.name.as_str()).collect();
    format!("SELECT {} FROM {} {}", list.join(", "), from.join(", "), for_entity(views[0], streams, entities, at, strict))
}

fn for_entity(view: &View, streams: &[Stream], entities: &[&[Value]], at: i64, strict: bool) -> String {
    let types = view.entity_types(streams);
    let names = entity_names(view, streams);
    let keys: Vec<String> = entities
        .iter()
        .map(|entity| {
            let parts: Vec<String> = entity.iter().zip(&types).map(|(key, ty)| serve_key(key, ty)).collect();
            if parts.len() == 1 { parts[0].clone() } else { format!("({})", parts.join(", ")) }
        })
        .collect();
    let entity = match (names.len(), keys.len()) {
        (1, 1) if view.style & 8 == 0 => keys[0].clone(),
        (1, 1) => format!("{} = {}", names[0], keys[0]),
        (1, _) => format!("{} IN ({})", names[0], keys.join(", ")),
        (_, 1) => {
            let parts: Vec<String> = names
                .iter()
                .zip(entities[0].iter().zip(&types))
                .map(|(name, (key, ty))| format!("{name} = {}", serve_key(key, ty)))
                .collect();
            format!("({})", parts.join(", "))
        }
        _ => format!("({}) IN ({})", names.join(", "), keys.join(", ")),
    };
    let when = if strict { "BEFORE" } else { "AS OF" };
    format!("FOR ENTITY {entity} {when} TIMESTAMP '{}'", civil::timestamp_text(at, ' '))
}

/// Keys are plain literals: a number is cast to the entity's type, a date or timestamp also stands as a string.
fn serve_key(key: &Value, ty: &Type) -> String {
    match (key, ty) {
        (Value::Null, _) => "NULL".into(),
        (Value::Int(x), _) => x.to_string(),
        (Value::Dec(digits, scale), _) => decimal_text(*digits, *scale),
        (Value::Date(x), _) if x % 2 == 0 => quoted(&civil::date_text((*x).into())),
        (key, ty) => literal(key, ty),
    }
}

/// The case as a script, one question at its end. Pushed lines that INSERT can say are an INSERT; others stand as comments.
pub(crate) fn script(case: &Case, question: &Question) -> String {
    let mut out = format!("-- seed {}\n", case.seed);
    for stream in &case.streams {
        out += &format!("{};\n", create_stream(stream));
    }
    for (i, call) in case.calls.iter().enumerate().filter(|(_, call)| call.kind == CallKind::Reprocess || !call.records.is_empty()) {
        let stream = &case.streams[call.stream];
        match call.kind {
            CallKind::Reprocess => out += &format!("{};\n", reprocess(stream)),
            CallKind::Push | CallKind::Insert if can_insert(stream, call) => out += &format!("{};\n", insert(stream, call)),
            CallKind::Push | CallKind::Insert | CallKind::Copy => {
                out += &format!("-- {:?} into {} (call {i}):\n", call.kind, stream.name);
                out += &json_lines(stream, call).lines().map(|line| format!("-- {line}\n")).collect::<String>();
            }
        }
    }
    let view = &case.views[question.view];
    out += &format!("{};\n", create_view(view, &case.streams));
    out + &format!("{};\n", serve(view, &case.streams, &[&question.entity], question.at, question.strict))
}

/// Whether one INSERT says the same: every record is a row of the right types.
pub(crate) fn can_insert(stream: &Stream, call: &Call) -> bool {
    call.records.iter().all(|record| match record {
        Record::Row { cells, .. } => cells.iter().enumerate().all(|(i, cell)| match cell {
            Cell::Value(value) => !(value.is_null() && stream.is_not_null(i)),
            Cell::Missing => !stream.is_not_null(i),
            Cell::Bad(_) => false,
        }),
        Record::Raw(_) => false,
    })
}
