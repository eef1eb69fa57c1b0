//! `SHOW STREAM STATUS`: how far each stream is.
//!
//! Whoever feeds a stream keeps its status up ([`crate::connect::status`]); what earlier or other processes read is looked up in history
//! when it is asked for. Only that first look waits for a stream's pipeline, so that a load that takes long can be watched.

use std::sync::{Arc, PoisonError};

use arrow::array::{ArrayRef, DurationMicrosecondArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use asof_sql::Diagnostic;
use asof_sql::ast::Name;
use asof_sql::codes;
use asof_sql::plan::instant_type;

use super::{Inner, Output};
use crate::connect::ingest::{Pipeline, Step};
use crate::connect::status::{PartitionStatus, SourceState, StreamStatus};
use crate::error::{Error, Kind, Result};
use crate::registry::{Connector, Stream};

/// The columns of `SHOW STREAM STATUS`.
pub(super) fn status_schema() -> SchemaRef {
    let of = |name: &str, data_type: DataType| Field::new(name, data_type, true);
    let text = |name: &str| of(name, DataType::Utf8);
    let number = |name: &str| of(name, DataType::Int64);
    Arc::new(Schema::new(vec![
        text("stream"),
        text("partition"),
        number("offset"),
        number("end_offset"),
        number("lag"),
        of("watermark", instant_type()),
        number("accepted"),
        number("duplicate"),
        number("late"),
        number("rejected"),
        of("last_commit", instant_type()),
        // What the difference of two timestamps is.
        of("checkpoint_age", DataType::Duration(TimeUnit::Microsecond)),
        text("state"),
        text("message"),
    ]))
}

/// One row for each partition; one for a stream without any. Each stream with the time of its checkpoint.
fn status_rows(streams: &[(StreamStatus, Option<i64>)], now: i64) -> Result<RecordBatch> {
    let rows: Vec<(&StreamStatus, Option<&PartitionStatus>, Option<i64>)> = streams
        .iter()
        .flat_map(|(s, checkpoint)| {
            let none = s.partitions.is_empty().then_some((s, None, *checkpoint));
            s.partitions.iter().map(move |p| (s, Some(p), *checkpoint)).chain(none)
        })
        .collect();
    let text = |of: fn(&StreamStatus) -> Option<&str>| -> ArrayRef { Arc::new(rows.iter().map(|(s, ..)| of(s)).collect::<StringArray>()) };
    let values = |of: fn(&PartitionStatus) -> Option<i64>| rows.iter().map(move |(_, p, _)| p.and_then(of));
    let number = |of: fn(&PartitionStatus) -> Option<i64>| -> ArrayRef { Arc::new(values(of).collect::<Int64Array>()) };
    let instant = |of: fn(&PartitionStatus) -> Option<i64>| -> ArrayRef {
        Arc::new(values(of).collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
    };
    let ages = rows.iter().map(|(_, p, checkpoint)| p.and(*checkpoint).map(|at| now.saturating_sub(at).max(0)));
    let partitions: StringArray = rows.iter().map(|(_, p, _)| p.map(|p| p.partition.as_str())).collect();
    let columns: Vec<ArrayRef> = vec![
        text(|s| Some(&s.stream)),
        Arc::new(partitions),
        number(|p| Some(p.offset)),
        number(|p| p.end_offset),
        number(PartitionStatus::lag),
        instant(|p| p.watermark),
        number(|p| i64::try_from(p.accepted).ok()),
        number(|p| i64::try_from(p.duplicate).ok()),
        number(|p| i64::try_from(p.late).ok()),
        number(|p| i64::try_from(p.rejected).ok()),
        instant(|p| p.last_commit),
        Arc::new(ages.collect::<DurationMicrosecondArray>()),
        text(|s| Some(s.state.as_str())),
        text(|s| s.message.as_deref()),
    ];
    Ok(RecordBatch::try_new(status_schema(), columns)?)
}

impl Inner {
    /// `SHOW STREAM STATUS [FOR stream]`.
    pub(super) async fn show_stream_status(&self, only: Option<&Name>) -> Result<std::result::Result<Output, Vec<Diagnostic>>> {
        let registry = self.registry();
        let names: Vec<&String> = match only {
            None => registry.streams.keys().collect(),
            Some(name) if registry.streams.contains_key(&name.value) => vec![&name.value],
            Some(name) => {
                let d = match registry.kind(&name.value) {
                    Some(kind) => {
                        let message = format!("\"{}\" is a {}; only streams have a status", name.value, kind.noun());
                        Diagnostic::error(codes::E0206, name.span, message)
                    }
                    None => registry.unknown(&name.value, "stream", name.span),
                };
                return Ok(Err(vec![d]));
            }
        };
        let mut found = Vec::with_capacity(names.len());
        for name in names {
            let looked_up = self.look_up_positions(name, &registry.streams[name]).await;
            let mut status = self.statuses.get(name).unwrap_or_else(|| StreamStatus { stream: name.clone(), ..StreamStatus::default() });
            if let Err(e) = looked_up {
                // The other streams are shown all the same.
                status.say(state_after(&e), Some(e.message().to_owned()));
            }
            found.push((status, self.checkpointed_at(name)));
        }
        let batch = status_rows(&found, self.now())?;
        Ok(Ok(Output::Rows { schema: batch.schema(), batches: vec![batch], note: None }))
    }

    /// Looks up in history how far a stream is, where no process or another one feeds it, or this one did not say it of all partitions.
    async fn look_up_positions(&self, name: &str, definition: &Stream) -> Result<()> {
        let written = self.is_written(name);
        let state = self.statuses.get(name).map_or(SourceState::Idle, |s| s.state);
        let tells_itself = !is_passive(&definition.options.connector) && !matches!(state, SourceState::Idle | SourceState::Elsewhere);
        let known = written && self.positions_known.lock().unwrap_or_else(PoisonError::into_inner).contains(name);
        if tells_itself || known {
            return Ok(());
        }
        let open = self.stream(name).await?;
        let (history, partitions) = {
            let open = open.lock().await;
            let pipeline = &open.pipeline;
            let one = |partition: &str| (partition.to_owned(), pipeline.watermark(partition));
            (pipeline.history().clone(), pipeline.partitions().map(one).collect::<Vec<_>>())
        };
        let mut found = Vec::with_capacity(partitions.len());
        for (partition, watermark) in partitions {
            let offset = Pipeline::committed_in(&history, &partition).await?.unwrap_or(0);
            found.push((partition, watermark, offset));
        }
        self.statuses.update(name, |status| {
            for (partition, watermark, offset) in found {
                let p = status.partition(&partition);
                // What this process committed meanwhile is newer.
                if p.offset <= offset {
                    (p.offset, p.watermark) = (offset, watermark);
                }
            }
        });
        if written {
            self.positions_known.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned());
        } else {
            let holder = self.holder_of(definition).await?;
            self.note_writer(name, definition, holder);
        }
        Ok(())
    }

    /// Who holds the lease of a stream that this process does not write, as a message says it.
    pub(super) async fn holder_of(&self, definition: &Stream) -> Result<Option<String>> {
        let held = self.warehouse.lease_holder(&definition.folder).await?.filter(|l| l.is_held(self.now()));
        Ok(held.map(|l| format!("it is written by {}", l.holder)))
    }

    /// Takes note of who writes a stream without a source of its own: another process, or whoever pushes here.
    fn note_writer(&self, name: &str, definition: &Stream, elsewhere: Option<String>) {
        if !is_passive(&definition.options.connector) {
            return;
        }
        self.statuses.update(name, |status| match elsewhere {
            Some(message) => status.say(SourceState::Elsewhere, Some(message)),
            None if matches!(status.state, SourceState::Elsewhere | SourceState::Paused | SourceState::Stopped) => {
                status.say(SourceState::Idle, None)
            }
            None => {}
        });
    }

    /// Takes note of whether this process could take a stream for writing.
    pub(super) async fn note_lease(&self, name: &str, failed: Option<&Error>) {
        let registry = self.registry();
        let Some(definition) = registry.streams.get(name) else { return };
        let elsewhere = match failed {
            None => None,
            Some(e) if e.kind() == Kind::Closed => {
                self.positions_known.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
                Some(e.message().to_owned())
            }
            Some(_) if self.is_written(name) => None,
            Some(_) => self.holder_of(definition).await.unwrap_or(None),
        };
        match failed.filter(|_| elsewhere.is_none() && is_passive(&definition.options.connector)) {
            // There is no room, the storage does not answer, or what it holds is damaged.
            Some(e) => self.statuses.say(name, state_after(e), Some(e.message().to_owned())),
            None => self.note_writer(name, definition, elsewhere),
        }
    }

    /// Takes note of whether the files of a stream that is followed could be read.
    pub(super) fn note_files(&self, stream: &str, failed: Option<&Error>) {
        match failed {
            None => self.statuses.say(stream, SourceState::Running, None),
            Some(e) => self.statuses.say(stream, state_after(e), Some(e.message().to_owned())),
        }
    }

    /// Takes note of a step of one partition that is in history.
    pub(super) async fn note_step(&self, stream: &str, pipeline: &Pipeline, partition: &str, step: &Step) {
        if step.changes.is_none() {
            return;
        }
        // Known from the commit just made; nothing is read.
        let Ok(Some(next)) = pipeline.committed_offset(partition).await else { return };
        let (watermark, now) = (pipeline.watermark(partition), self.now());
        self.statuses.update(stream, |status| status.partition(partition).committed(next, watermark, &step.counts, now));
    }
}

/// Whether a stream has no source that runs in this process and says what it does.
fn is_passive(connector: &Connector) -> bool {
    matches!(connector, Connector::Push | Connector::File { .. })
}

/// What a stream is that an error keeps from going on.
pub(super) fn state_after(e: &Error) -> SourceState {
    if e.kind() == Kind::Unavailable { SourceState::Paused } else { SourceState::Stopped }
}

#[cfg(test)]
mod tests {
    use arrow::util::display::array_value_to_string;

    use super::*;

    #[test]
    fn ages_are_told_from_now_and_what_is_not_known_is_null() {
        let partition = PartitionStatus {
            partition: "t/0".into(),
            offset: 10,
            end_offset: Some(25),
            watermark: Some(1_000_000),
            accepted: 1,
            duplicate: 2,
            late: 3,
            rejected: 4,
            last_commit: Some(2_000_000),
        };
        let ahead = PartitionStatus::default();
        let s = StreamStatus {
            stream: "s".into(),
            state: SourceState::Paused,
            message: Some("no room".into()),
            partitions: vec![partition, ahead],
        };
        let t = StreamStatus { stream: "t".into(), ..StreamStatus::default() };
        let batch = status_rows(&[(s, Some(4_000_000)), (t, Some(9_000_000))], 7_500_000).expect("rows");
        let row = |row: usize| -> String {
            let cells = batch.columns().iter().map(|c| array_value_to_string(c, row).expect("a text"));
            cells.collect::<Vec<_>>().join("|")
        };
        assert_eq!(row(0), "s|t/0|10|25|15|1970-01-01T00:00:01Z|1|2|3|4|1970-01-01T00:00:02Z|PT3.5S|paused|no room");
        assert_eq!(row(1), "s||0||||0|0|0|0||PT3.5S|paused|no room");
        assert_eq!(row(2), "t||||||||||||idle|");
    }
}
