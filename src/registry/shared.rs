//! Streams that several processes share, each reading some of the topic's partitions: what their definitions and views must be, so that
//! all that a value is made of lies in one partition.
//!
//! All copies of an event have one key, since the primary key contains it; so duplicates and conflicts meet in one process. All events
//! of an entity have one key, since the entity contains it; and so have the rows that an `ASOF JOIN` brings together.

use asof_sql::ast::OptionEntry;
use asof_sql::catalog::StreamInfo;
use asof_sql::plan::{AsofJoin, FeaturePlan, Relation};
use asof_sql::{Diagnostic, Span, codes};
use asof_udfs::scalar::Compiled;
use datafusion::physical_expr::expressions::Column;

use super::Registry;
use super::options::{Connector, StreamOptions};
use crate::stream::decode::MessageFormat;
use crate::stream::placement::is_key_type;
use crate::stream::schema::sql_name;

type Checked = Result<(), Vec<Diagnostic>>;

/// A stream's key and partitioner fit its columns and its connector.
pub(super) fn check_stream(options: &StreamOptions, info: &StreamInfo, entries: &[OptionEntry], span: Span) -> Checked {
    let entry = |key: &str| entries.iter().find(|e| e.key == key);
    let at = |key: &str| entry(key).map_or(span, |e| e.value_span);
    let Some(key) = &options.key else {
        return match entry("partitioner") {
            None => Ok(()),
            Some(e) => one(Diagnostic::error(codes::E0603, e.key_span, "option \"partitioner\" needs the option \"key\"")
                .help("Add key = 'column': what the topic's producers partition by.")),
        };
    };
    let wrong = |message: String| Diagnostic::error(codes::E0602, at("key"), message);
    let Some(column) = info.columns.iter().position(|c| c.name == *key) else {
        if key.contains(',') {
            let d = wrong("the key of a shared stream is one column".into());
            return one(d.remark("How producers write several columns as one key is not a matter of any standard."));
        }
        let d = Diagnostic::error(codes::E0201, at("key"), format!("unknown column \"{key}\""));
        return one(d.help_nearest(key, info.columns.iter().map(|c| c.name.as_str())));
    };
    if !is_key_type(&info.columns[column].data_type) {
        let of = sql_name(&info.columns[column].data_type);
        return one(wrong(format!("key \"{key}\" is {of}; producers partition by a VARCHAR or an integer")));
    }
    if !info.primary_key.contains(&column) {
        let d = wrong(format!("the primary key does not contain the key \"{key}\""));
        let d = d.remark("Copies of one event must meet in one process, which reads one partition.");
        return one(d.help(format!("Add \"{key}\" to PRIMARY KEY, or leave the key out: then one process reads the whole topic.")));
    }
    let Connector::Kafka(kafka) = &options.connector else {
        let d = Diagnostic::error(codes::E0602, span, format!("a stream with the key \"{key}\" is read from Kafka"));
        return one(d.help("Create another stream for another connector."));
    };
    if kafka.format == MessageFormat::Debezium {
        let d = wrong("a stream of format \"debezium\" has no key".into());
        return one(d
            .remark("Its producers partition by a JSON object, not by a column.")
            .help("Leave the key out: one process reads the whole topic."));
    }
    if kafka.group.is_none() {
        let d = Diagnostic::error(codes::E0603, at("key"), "a stream with a key needs the option \"group\"");
        return one(d.help("Add group = 'name': its members share the topic's partitions."));
    }
    Ok(())
}

/// What says where records lie stays as it is: those that are there lie by it.
pub(super) fn check_kept(entries: &[OptionEntry]) -> Checked {
    let fixed = |e: &&OptionEntry| ["key", "partitioner"].contains(&e.key.as_str());
    entries.iter().find(fixed).map_or(Ok(()), |e| {
        let d = Diagnostic::error(codes::E0602, e.key_span, format!("option \"{}\" of a stream cannot be changed", e.key));
        one(d.remark("Where its records lie is said once, when it is created.").help("Create another stream."))
    })
}

/// All that a value of the view is made of lies in one partition.
pub(super) fn check_view(registry: &Registry, plan: &FeaturePlan, span: Span) -> Checked {
    let refused = |message: String| Diagnostic::error(codes::E0605, span, message);
    let shared: Vec<&str> = plan.streams().into_iter().filter(|s| registry.streams.get(*s).is_some_and(|s| s.key().is_some())).collect();
    let help = "Leave the option \"key\" of the stream out: then one process reads the whole topic.";
    let (stream, key) = match shared.as_slice() {
        [] => return Ok(()),
        [one] => (*one, registry.streams.get(*one).and_then(|s| s.key()).map(|(column, _)| column).unwrap_or_default()),
        [a, b, ..] => {
            let d = refused(format!("the view reads two streams that several processes share, \"{a}\" and \"{b}\""));
            return one(d.remark("One process need not have the same partitions of both.").help(help));
        }
    };
    let column = &registry.streams[stream].info.columns[key].name;
    let is_key = |relation: &Relation, column: usize| is_key(relation, column, (stream, key));
    if !plan.entity.iter().any(|e| is_key(&plan.relation, e.column)) {
        let d = refused(format!("no column of the entity is \"{column}\" in every row, the key of stream \"{stream}\""));
        return one(d.remark("The events of one entity must lie in one partition, which one process reads.").help(help));
    }
    let mut joins = Vec::new();
    visit_joins(&plan.relation, &mut joins);
    for join in joins {
        let mut right_is_shared = false;
        join.right.visit_scans(&mut |s| right_is_shared |= s.stream == stream);
        let of_key = |expr: &Compiled, relation: &Relation| plain(expr).is_some_and(|column| is_key(relation, column));
        let meets = |(l, r): &(Compiled, Compiled)| of_key(l, &join.left) && (!right_is_shared || of_key(r, &join.right));
        if !join.on.iter().any(meets) {
            let d = refused(format!("ON of an ASOF JOIN does not contain \"{column}\", the key of stream \"{stream}\""));
            return one(d.remark("The rows that it brings together must lie in one partition, which one process reads.").help(help));
        }
    }
    Ok(())
}

/// Whether the values of a relation's column are those of a stream's column, as they are.
pub(super) fn is_key(relation: &Relation, column: usize, of: (&str, usize)) -> bool {
    let origins = origins(relation, column);
    !origins.is_empty() && origins.iter().all(|o| *o == Some(of))
}

fn one(d: Diagnostic) -> Checked {
    Err(vec![d])
}

/// Which column of the rows below an expression is, if it is just that.
fn plain(expr: &Compiled) -> Option<usize> {
    expr.expr.downcast_ref::<Column>().map(Column::index)
}

/// Which columns of streams the values of a relation's column are, as they are; `None` for one that is something else.
fn origins(relation: &Relation, column: usize) -> Vec<Option<(&str, usize)>> {
    match relation {
        // The rows have all columns of the stream, those that are not read as NULL.
        Relation::Scan(s) => vec![Some((s.stream.as_str(), column))],
        Relation::Filter(f) => origins(&f.input, column),
        Relation::Project(p) => match p.exprs.get(column).and_then(plain) {
            Some(column) => origins(&p.input, column),
            None => vec![None],
        },
        Relation::AsofJoin(j) => {
            let left = j.left.schema().fields().len();
            // A right column is NULL where no right row is there.
            if column < left { origins(&j.left, column) } else { vec![None] }
        }
        Relation::Union(u) => u.inputs.iter().flat_map(|input| origins(input, column)).collect(),
    }
}

fn visit_joins<'a>(relation: &'a Relation, found: &mut Vec<&'a AsofJoin>) {
    match relation {
        Relation::Scan(_) => {}
        Relation::Filter(f) => visit_joins(&f.input, found),
        Relation::Project(p) => visit_joins(&p.input, found),
        Relation::AsofJoin(j) => {
            found.push(j);
            visit_joins(&j.left, found);
            visit_joins(&j.right, found);
        }
        Relation::Union(u) => u.inputs.iter().for_each(|input| visit_joins(input, found)),
    }
}
