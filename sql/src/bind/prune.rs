//! Which columns of each stream a view reads: the others are never decoded.

use std::collections::BTreeSet;

use asof_udfs::scalar::Compiled;
use datafusion::physical_expr::utils::collect_columns;

use crate::plan::{AsofJoin, EntityColumn, Filter, Project, Relation, Scan, StoredValue, Union};

type Columns = BTreeSet<usize>;

fn reads(exprs: &Compiled) -> impl Iterator<Item = usize> {
    collect_columns(&exprs.expr).into_iter().map(|c| c.index())
}

/// The relation with every scan narrowed to the columns that anything above it reads.
pub(crate) fn prune(relation: &Relation, entity: &[EntityColumn], values: &[StoredValue], masks: &[Compiled], ordered: bool) -> Relation {
    let mut needed: Columns = entity.iter().map(|e| e.column).collect();
    needed.extend(values.iter().flat_map(|v| reads(&v.expr)));
    needed.extend(masks.iter().flat_map(reads));
    narrow(relation, needed, ordered)
}

fn narrow(relation: &Relation, mut needed: Columns, ordered: bool) -> Relation {
    match relation {
        Relation::Scan(s) => {
            needed.insert(s.event_time);
            if ordered {
                needed.extend(s.order.0.iter().copied());
            }
            Relation::Scan(Scan { columns: needed.into_iter().collect(), ..s.clone() })
        }
        Relation::Filter(f) => {
            needed.extend(reads(&f.predicate));
            Relation::Filter(Filter { input: Box::new(narrow(&f.input, needed, ordered)), predicate: f.predicate.clone() })
        }
        Relation::Project(p) => {
            let below = needed.iter().filter_map(|i| p.exprs.get(*i)).flat_map(reads).collect();
            Relation::Project(Project {
                input: Box::new(narrow(&p.input, below, ordered)),
                exprs: p.exprs.clone(),
                schema: p.schema.clone(),
            })
        }
        Relation::AsofJoin(j) => {
            let width = j.left.schema().fields().len();
            let (mut left, mut right) = (Columns::new(), Columns::new());
            for i in needed {
                if i < width {
                    left.insert(i)
                } else {
                    right.insert(i - width)
                };
            }
            for (l, r) in &j.on {
                left.extend(reads(l));
                right.extend(reads(r));
            }
            // The right side's order decides ties at one time, whether or not the view's own order matters.
            Relation::AsofJoin(AsofJoin {
                left: Box::new(narrow(&j.left, left, ordered)),
                right: Box::new(narrow(&j.right, right, true)),
                ..j.clone()
            })
        }
        Relation::Union(u) => {
            if ordered {
                needed.extend(0..u.schema.fields().len());
            }
            Relation::Union(Union { inputs: u.inputs.iter().map(|i| narrow(i, needed.clone(), false)).collect(), schema: u.schema.clone() })
        }
    }
}
