//! What a feature means, as a number that is stable over processes, restarts and releases of one version of the semantics.
//!
//! Names, owners and descriptions are not part of it; expressions, FROM, WHERE, entity, frames and ttl are.

use std::fmt;

use xxhash_rust::xxh3::xxh3_128;

use super::{FeatureValue, Relation};

/// A stable 128-bit hash of a meaning; shown as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(pub u128);

impl Fingerprint {
    /// The fingerprint of a canonical text.
    pub fn of(text: &str) -> Self {
        Self(xxh3_128(text.as_bytes()))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

/// The canonical text of a relation: operators from the outside in, expressions as they were compiled.
pub(crate) fn relation_text(relation: &Relation) -> String {
    match relation {
        Relation::Scan(s) => format!("scan({})", s.stream),
        Relation::Filter(x) => format!("filter({}; {})", x.predicate.text(), relation_text(&x.input)),
        Relation::Project(p) => {
            let columns = p.exprs.iter().zip(p.schema.fields()).map(|(e, f)| format!("{} AS {}", e.text(), f.name()));
            format!("project({}; {})", columns.collect::<Vec<_>>().join(", "), relation_text(&p.input))
        }
        Relation::AsofJoin(j) => {
            let on = j.on.iter().map(|(l, r)| format!("{} = {}", l.text(), r.text())).collect::<Vec<_>>().join(" AND ");
            let match_ = if j.strict { ">" } else { ">=" };
            format!("asof({match_}; {on}; {}; {})", relation_text(&j.left), relation_text(&j.right))
        }
        Relation::Union(u) => format!("union({})", u.inputs.iter().map(relation_text).collect::<Vec<_>>().join("; ")),
    }
}

/// The canonical text of one feature over the names and texts of the aggregates.
pub(crate) fn feature_text(value: &FeatureValue, aggregates: &[(String, String)]) -> String {
    match value {
        FeatureValue::Aggregate(i) => aggregates[*i].1.clone(),
        FeatureValue::Computed(c) => {
            // The longest names first, so that `__aggregate_1` does not eat the head of `__aggregate_12`.
            let mut named: Vec<_> = aggregates.iter().collect();
            named.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
            let mut text = c.text();
            for (name, meaning) in named {
                text = text.replace(name, meaning);
            }
            text
        }
    }
}
