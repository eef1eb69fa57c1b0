//! The plan as people read it: what `EXPLAIN FEATURE VIEW` shows above the two lowerings.

use std::fmt::{self, Write as _};

use asof_udfs::{Bound, Frame};

use super::{FeaturePlan, FeatureValue, Relation, Shape};

/// A length of time in the largest unit that divides it.
pub fn duration_text(micros: i64) -> String {
    for (unit, size) in
        [("day", 86_400_000_000), ("hour", 3_600_000_000), ("minute", 60_000_000), ("second", 1_000_000), ("millisecond", 1_000)]
    {
        if micros != 0 && micros % size == 0 {
            let n = micros / size;
            return format!("{n} {unit}{}", if n == 1 { "" } else { "s" });
        }
    }
    format!("{micros} microseconds")
}

fn bound_text(bound: &Bound) -> String {
    match bound {
        Bound::Unbounded => "UNBOUNDED PRECEDING".into(),
        Bound::Back { months: 0, micros: 0 } => "CURRENT ROW".into(),
        Bound::Back { months: 0, micros } => format!("{} PRECEDING", duration_text(*micros)),
        Bound::Back { months, micros: 0 } => format!("{months} months PRECEDING"),
        Bound::Back { months, micros } => format!("{months} months {} PRECEDING", duration_text(*micros)),
    }
}

/// A frame in the words of SQL.
pub fn frame_text(frame: &Frame) -> String {
    match frame {
        Frame::Range { start, end } => format!("RANGE BETWEEN {} AND {}", bound_text(start), bound_text(end)),
        Frame::Rows { start, end } => {
            let start = start.map_or("UNBOUNDED PRECEDING".into(), |n| format!("{n} PRECEDING"));
            format!("ROWS BETWEEN {start} AND {end} PRECEDING")
        }
        Frame::Tumble { size, slide } if size == slide => format!("TUMBLE {}", duration_text(*size)),
        Frame::Tumble { size, slide } => format!("HOP {} EVERY {}", duration_text(*size), duration_text(*slide)),
        Frame::Session { gap } => format!("SESSION GAP {}", duration_text(*gap)),
    }
}

fn write_relation(f: &mut String, relation: &Relation, depth: usize) {
    let pad = "  ".repeat(depth);
    let _ = match relation {
        Relation::Scan(s) => {
            let names: Vec<_> = s.columns.iter().filter_map(|c| s.schema.fields().get(*c)).map(|f| f.name().as_str()).collect();
            writeln!(f, "{pad}Scan {} [{}]", s.stream, names.join(", "))
        }
        Relation::Filter(x) => writeln!(f, "{pad}Filter {}", x.predicate.logical),
        Relation::Project(p) => {
            let columns: Vec<_> = p.exprs.iter().zip(p.schema.fields()).map(|(e, n)| format!("{} AS {}", e.logical, n.name())).collect();
            writeln!(f, "{pad}Project {}", columns.join(", "))
        }
        Relation::AsofJoin(j) => {
            let on: Vec<_> = j.on.iter().map(|(l, r)| format!("{} = {}", l.logical, r.logical)).collect();
            writeln!(f, "{pad}AsofJoin {} ON [{}]", if j.strict { ">" } else { ">=" }, on.join(", "))
        }
        Relation::Union(_) => writeln!(f, "{pad}Union"),
    };
    match relation {
        Relation::Scan(_) => {}
        Relation::Filter(x) => write_relation(f, &x.input, depth + 1),
        Relation::Project(x) => write_relation(f, &x.input, depth + 1),
        Relation::AsofJoin(j) => {
            write_relation(f, &j.left, depth + 1);
            write_relation(f, &j.right, depth + 1);
        }
        Relation::Union(u) => u.inputs.iter().for_each(|i| write_relation(f, i, depth + 1)),
    }
}

/// A relation alone, one operator a line, indented.
pub fn relation_tree(relation: &Relation) -> String {
    let mut text = String::new();
    write_relation(&mut text, relation, 0);
    text
}

impl fmt::Display for FeaturePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shape = match self.shape {
            Shape::Windowed => "windowed",
            Shape::Grouped => "grouped",
            Shape::LatestRow => "latest row",
        };
        let entity: Vec<_> = self.entity.iter().map(|e| e.name.as_str()).collect();
        writeln!(f, "FeatureView {} ENTITY ({}) {shape}, instant \"{}\"", self.name, entity.join(", "), self.time_column)?;
        writeln!(f, "  fingerprint {}", self.fingerprint)?;
        if let Some(ttl) = self.ttl {
            writeln!(f, "  ttl {}", duration_text(ttl))?;
        }
        for feature in &self.features {
            let how = match &feature.value {
                FeatureValue::Aggregate(_) => feature.text.clone(),
                FeatureValue::Computed(c) => c.logical.to_string(),
            };
            writeln!(f, "  feature {} {} = {how}", feature.name, feature.data_type)?;
        }
        for call in &self.aggregates {
            let filter = call.mask.map_or(String::new(), |m| format!(" FILTER {}", self.masks[m].logical));
            let value = call.value.map_or(String::new(), |v| self.values[v].expr.logical.to_string());
            writeln!(f, "  aggregate {} = {:?}({value}){filter} {}", call.name, call.function, frame_text(&self.frames[call.frame]))?;
        }
        for call in &self.deferred {
            let text = &call.text;
            writeln!(f, "  aggregate {} = {text}: evaluated over the raw events of its window at each read", call.name)?;
        }
        for line in relation_tree(&self.relation).lines() {
            writeln!(f, "  {line}")?;
        }
        Ok(())
    }
}
