//! Features by key without SQL: names are resolved once, then each request goes straight to the online states.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::{Array, ArrayRef, BooleanArray};
use arrow::compute::nullif;
use arrow::datatypes::{Field, Schema, SchemaRef};
use asof_flight::ipc::Layout;
use asof_flight::request::{At, pointed_at};
use asof_flight::{Failure, FeatureReader, FeatureRequest, Features, Outcome};
use asof_sql::diagnostic::nearest;
use asof_udfs::Instant;
use async_trait::async_trait;

use super::{READERS_MAX, Shared};
use crate::error::Error;
use crate::op::window::{View, check_readable, entity_column};
use crate::registry::Registry;
use crate::serve::lookup::{features, features_now, keys_served_at};

/// What a reader is kept under: the views and the features, as they were asked for.
pub(super) type ReaderKey = (Vec<String>, Vec<String>);

pub(super) struct Reader {
    shared: Arc<Shared>,
    /// The definitions that the names were resolved with.
    registry: Arc<Registry>,
    outdated: AtomicBool,
    views: Vec<Asked>,
    keys: SchemaRef,
    features: Layout,
    with_keys: Layout,
    /// How many features come back.
    width: usize,
}

struct Asked {
    name: String,
    view: Arc<View>,
    /// Where among the keys its entity columns stand.
    entity: Vec<usize>,
    /// Which of its features come back, and at which place.
    takes: Vec<(usize, usize)>,
}

/// The reader of a request, made anew where there is none or definitions have changed.
pub(super) fn reader(shared: &Arc<Shared>, request: &FeatureRequest) -> Outcome<Arc<Reader>> {
    let registry = shared.engine.inner.registry();
    let lock = || shared.readers.lock().unwrap_or_else(|e| e.into_inner());
    let key = (request.views.clone(), request.features.clone());
    if let Some(reader) = lock().get(&key).filter(|r| Arc::ptr_eq(&r.registry, &registry)) {
        return Ok(reader.clone());
    }
    let made = Arc::new(Reader::try_new(shared, registry, request)?);
    let mut readers = lock();
    if readers.len() >= READERS_MAX {
        readers.clear();
    }
    readers.insert(key, made.clone());
    Ok(made)
}

fn unknown<'a>(what: &str, name: &str, known: impl IntoIterator<Item = &'a str>, request: &FeatureRequest) -> Failure {
    let help = nearest(name, known).map(|near| format!("The nearest known {what} is \"{near}\"."));
    let message = format!("error[E0201]: unknown {what} \"{name}\"");
    pointed_at(&message, request.source, &request.text, name, help.as_deref())
}

impl Reader {
    fn try_new(shared: &Arc<Shared>, registry: Arc<Registry>, request: &FeatureRequest) -> Outcome<Self> {
        let mut views: Vec<Asked> = Vec::new();
        let mut keys: Vec<Field> = Vec::new();
        for name in &request.views {
            let Some(defined) = registry.views.get(name) else {
                if let Some(kind) = registry.kind(name) {
                    let message = format!("error[E0206]: \"{name}\" is a {}, not a feature view", kind.noun());
                    return Err(pointed_at(&message, request.source, &request.text, name, None));
                }
                return Err(unknown("feature view", name, registry.views.keys().map(String::as_str), request));
            };
            if views.iter().any(|v| &v.name == name) {
                let message = format!("error[E0202]: feature view \"{name}\" is asked twice");
                return Err(pointed_at(&message, request.source, &request.text, name, None));
            }
            let mut entity = Vec::new();
            for column in &defined.view.plan.entity {
                match keys.iter().position(|k| k.name() == &column.name) {
                    Some(i) if keys[i].data_type() != &column.data_type => {
                        return Err(Failure::invalid(format!(
                            "entity column \"{}\" has type {} in one view and {} in another",
                            column.name,
                            keys[i].data_type(),
                            column.data_type
                        )));
                    }
                    Some(i) => entity.push(i),
                    None => {
                        entity.push(keys.len());
                        keys.push(Field::new(&column.name, column.data_type.clone(), true));
                    }
                }
            }
            views.push(Asked { name: name.clone(), view: defined.view.clone(), entity, takes: vec![] });
        }
        let mut fields = Vec::new();
        for (view, feature) in picked(&views, request)? {
            let of = &views[view].view.plan.features[feature];
            fields.push(Field::new(&of.name, of.data_type.clone(), true));
            views[view].takes.push((feature, fields.len() - 1));
        }
        let metadata: std::collections::HashMap<String, String> = views
            .iter()
            .map(|v| (format!("asof.view.{}", v.name), v.view.plan.fingerprint.to_string()))
            .chain([("asof.semantics".to_owned(), crate::warehouse::SEMANTICS_VERSION.to_string())])
            .collect();
        let width = fields.len();
        let with_keys = keys.iter().cloned().chain(fields.iter().cloned()).collect::<Vec<_>>();
        let with_keys = Layout::new(&Schema::new_with_metadata(with_keys, metadata.clone()));
        let features = Layout::new(&Schema::new_with_metadata(fields, metadata));
        let keys = Arc::new(Schema::new(keys));
        Ok(Self { shared: shared.clone(), registry, outdated: AtomicBool::new(false), views, keys, features, with_keys, width })
    }
}

/// The keys of one entity column as its type, NULL where no entity can have the one that was given; and which rows these are, where there are any.
fn entity_keys(of: &Field, given: &ArrayRef) -> Result<(ArrayRef, Option<Vec<bool>>), Error> {
    let (keys, unknown) = entity_column(of.name(), of.data_type(), given)?;
    check_readable(of.name(), given, &keys)?;
    if !unknown.contains(&true) {
        return Ok((keys, None));
    }
    let keys = nullif(&keys, &BooleanArray::from(unknown.clone()))?;
    Ok((keys, Some(unknown)))
}

/// The features that are asked for, each as its view and its place there.
fn picked(views: &[Asked], request: &FeatureRequest) -> Outcome<Vec<(usize, usize)>> {
    let all = || views.iter().enumerate().flat_map(|(v, a)| (0..a.view.plan.features.len()).map(move |f| (v, f)));
    let name_of = |(v, f): (usize, usize)| views[v].view.plan.features[f].name.as_str();
    if request.features.is_empty() {
        if let Some(twice) = all().find(|p| all().any(|q| q != *p && name_of(q) == name_of(*p))) {
            let message = format!("error[E0203]: feature \"{}\" is in two of the views, so all of them are ambiguous", name_of(twice));
            let help = "Name the features, qualified by their view.";
            return Err(pointed_at(&message, request.source, &request.text, &views[twice.0].name, Some(help)));
        }
        return Ok(all().collect());
    }
    let mut picks = Vec::with_capacity(request.features.len());
    for name in &request.features {
        let plain: Vec<_> = all().filter(|p| name_of(*p) == name).collect();
        let qualified = || {
            let (view, feature) = name.split_once('.')?;
            all().find(|p| views[p.0].name == view && name_of(*p) == feature)
        };
        match (plain.as_slice(), plain.is_empty().then(qualified).flatten()) {
            ([one], _) => picks.push(*one),
            ([], Some(one)) => picks.push(one),
            ([], None) => return Err(unknown("feature", name, all().map(name_of), request)),
            _ => {
                let of: Vec<String> = plain.iter().map(|p| format!("{}.{name}", views[p.0].name)).collect();
                let help = format!("Write one of {}.", of.join(", "));
                let message = format!("error[E0203]: feature \"{name}\" is ambiguous");
                return Err(pointed_at(&message, request.source, &request.text, name, Some(&help)));
            }
        }
    }
    Ok(picks)
}

#[async_trait]
impl FeatureReader for Reader {
    fn keys(&self) -> &SchemaRef {
        &self.keys
    }

    fn layout(&self, with_keys: bool) -> &Layout {
        if with_keys { &self.with_keys } else { &self.features }
    }

    fn is_outdated(&self) -> bool {
        if !self.outdated.load(Ordering::Relaxed) && !Arc::ptr_eq(&self.registry, &self.shared.engine.inner.registry()) {
            self.outdated.store(true, Ordering::Relaxed);
        }
        self.outdated.load(Ordering::Relaxed)
    }

    async fn served_at(&self, keys: &[ArrayRef]) -> Option<String> {
        let mut found = None;
        for asked in &self.views {
            let own = asked.entity.iter().map(|i| entity_keys(self.keys.field(*i), keys.get(*i)?).ok().map(|(key, _)| key));
            let own: Vec<ArrayRef> = own.collect::<Option<_>>()?;
            let address = keys_served_at(&self.shared.engine.inner, &asked.view, &own).await?;
            if found.replace(address.clone()).is_some_and(|before| before != address) {
                return None;
            }
        }
        found
    }

    async fn read(&self, given: Vec<ArrayRef>, at: At, here: bool) -> Outcome<Features> {
        let engine = &self.shared.engine;
        let at = match at {
            At::Now => Instant { at: engine.inner.now(), strict: false },
            At::AsOf(at) => Instant { at, strict: false },
            At::Before(at) => Instant { at, strict: true },
        };
        let mut out: Vec<Option<ArrayRef>> = vec![None; self.width];
        let mut notes = Vec::new();
        let keys = self.keys.fields().iter().zip(&given).map(|(of, given)| entity_keys(of, given)).collect::<Result<Vec<_>, Error>>()?;
        for asked in &self.views {
            let own = asked.entity.iter().filter_map(|i| keys.get(*i));
            let mut unknown = vec![false; given.first().map_or(0, |k| k.len())];
            own.clone().flat_map(|(_, lost)| lost).for_each(|lost| unknown.iter_mut().zip(lost).for_each(|(u, lost)| *u |= *lost));
            let own: Vec<ArrayRef> = own.map(|(key, _)| key.clone()).collect();
            let values = match features_now(&engine.inner, &asked.name, &asked.view, &own, &unknown, at) {
                Some(values) => values?,
                // From history, or from a state that is built first: not on this runtime.
                None => {
                    let (engine, name, view) = (engine.clone(), asked.name.clone(), asked.view.clone());
                    let work = async move { Ok(features(&engine.inner, &name, &view, &own, &unknown, at, here).await?) };
                    let (values, note) = self.shared.work.read(work).await?;
                    notes.extend(note);
                    values
                }
            };
            for (feature, place) in &asked.takes {
                if let (Some(slot), Some(column)) = (out.get_mut(*place), values.get(*feature)) {
                    *slot = Some(column.clone());
                }
            }
        }
        let out: Option<Vec<ArrayRef>> = out.into_iter().collect();
        let out = out.ok_or_else(|| Failure::internal("a feature was not computed"))?;
        debug_assert!(out.iter().all(|c| given.first().is_none_or(|k| k.len() == c.len())), "invariant: a row a key");
        let keys = keys.into_iter().map(|(key, _)| key).collect();
        Ok(Features { keys, columns: out, note: (!notes.is_empty()).then(|| notes.join("; ")) })
    }
}
