//! What an engine tells about itself, as OpenMetrics: events, commits, checkpoints, freshness, state.
//!
//! A step of ingestion costs a few counters and each view one histogram entry; no look-up counts anything. What can be read off when it
//! is asked for (lag, state, entities) is: [`Observed`]. Every label is a stream, a partition or a view of this warehouse, and goes with
//! it. Not here: who asks (`cli`), what `SHOW STREAM STATUS` says (`status`).

use std::fmt;
use std::sync::Weak;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeLabelValue, LabelValueEncoder, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use super::Inner;
use crate::connect::ingest::IngestCounts;
use crate::connect::status::SourceState;
use crate::error::{Error, Result};

/// Upper bounds of buckets, seconds: a commit to a disk, to an object store, to one in trouble.
const COMMIT_S: [f64; 14] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// A small state, a large one.
const CHECKPOINT_S: [f64; 12] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 10.0, 60.0, 300.0];
/// Live events in milliseconds, then a source that lags, then one that is read from its beginning.
const FRESHNESS_S: [f64; 16] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 600.0, 3600.0, 86400.0];

/// The name of a user's object as a label. The encoder writes values as they are, so what would end one is escaped here.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Label(String);

impl Label {
    fn new(name: &str) -> Self {
        if !name.contains(['\\', '"', '\n']) {
            return Self(name.to_owned());
        }
        Self(name.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
    }
}

impl EncodeLabelValue for Label {
    fn encode(&self, encoder: &mut LabelValueEncoder) -> fmt::Result {
        fmt::Write::write_str(encoder, &self.0)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfStream {
    stream: Label,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfPartition {
    stream: Label,
    partition: Label,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfOutcome {
    stream: Label,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfState {
    stream: Label,
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfView {
    view: Label,
}

type Histograms<S> = Family<S, Histogram, fn() -> Histogram>;

/// The metrics of one engine.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    events: Family<OfOutcome, Counter>,
    commits: Histograms<OfStream>,
    checkpoints: Histograms<OfView>,
    freshness: Histograms<OfView>,
}

const OUTCOMES: [&str; 4] = ["accepted", "duplicate", "late", "rejected"];

impl Metrics {
    /// The metrics of an engine that was opened at a time, microseconds.
    pub(super) fn new(engine: Weak<Inner>, opened_us: i64) -> Self {
        let events = Family::default();
        let commits = Histograms::<OfStream>::new_with_constructor(|| Histogram::new(COMMIT_S));
        let checkpoints = Histograms::<OfView>::new_with_constructor(|| Histogram::new(CHECKPOINT_S));
        let freshness = Histograms::<OfView>::new_with_constructor(|| Histogram::new(FRESHNESS_S));
        let mut registry = Registry::default();
        let opened = ConstGauge::new(opened_us as f64 / 1e6);
        registry.register_with_unit(
            "process_start_time",
            "When the process opened the warehouse, since the Unix epoch",
            Unit::Seconds,
            opened,
        );
        registry.register("asof_build", "The program", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        registry.register("asof_stream_events", "Records read since the process started, by what became of them", events.clone());
        registry.register_with_unit("asof_commit_duration", "How long commits of a stream's steps took", Unit::Seconds, commits.clone());
        let help = "How long checkpoints of a view's state took";
        registry.register_with_unit("asof_checkpoint_duration", help, Unit::Seconds, checkpoints.clone());
        let help = "The age of the newest event of each step when a view could be asked for it";
        registry.register_with_unit("asof_view_freshness", help, Unit::Seconds, freshness.clone());
        registry.register_collector(Box::new(Observed { engine }));
        Self { registry, events, commits, checkpoints, freshness }
    }

    /// Takes note of a step that is in history, and of how long its commit took.
    pub(crate) fn step(&self, stream: &str, counts: &IngestCounts, commit: Option<Duration>) {
        let stream = Label::new(stream);
        for (outcome, n) in OUTCOMES.into_iter().zip([counts.accepted, counts.duplicate, counts.late, counts.rejected]) {
            self.events.get_or_create(&OfOutcome { stream: stream.clone(), outcome }).inc_by(n);
        }
        if let Some(took) = commit {
            self.commits.get_or_create(&OfStream { stream }).observe(took.as_secs_f64());
        }
    }

    /// Takes note of a checkpoint of a view's state.
    pub(crate) fn checkpointed(&self, view: &str, took: Duration) {
        self.checkpoints.get_or_create(&OfView { view: Label::new(view) }).observe(took.as_secs_f64());
    }

    /// Takes note of how old the newest event of a step was when a view had applied it, microseconds.
    pub(crate) fn fresh(&self, view: &str, age_us: i64) {
        // An event may lie a little in the future.
        self.freshness.get_or_create(&OfView { view: Label::new(view) }).observe(age_us.max(0) as f64 / 1e6);
    }

    /// Forgets a stream that was dropped.
    pub(super) fn forget_stream(&self, stream: &str) {
        let stream = Label::new(stream);
        for outcome in OUTCOMES {
            self.events.remove(&OfOutcome { stream: stream.clone(), outcome });
        }
        self.commits.remove(&OfStream { stream });
    }

    /// Forgets a view that was dropped.
    pub(super) fn forget_view(&self, view: &str) {
        let view = OfView { view: Label::new(view) };
        self.checkpoints.remove(&view);
        self.freshness.remove(&view);
    }

    /// All of it in the text format of OpenMetrics. Cost: a look at every shard of every view.
    pub(super) fn encode(&self) -> Result<String> {
        let mut out = String::new();
        text::encode(&mut out, &self.registry).map_err(|e| Error::internal(format!("metrics cannot be written: {e}")))?;
        Ok(out)
    }
}

/// What is read off when somebody asks.
#[derive(Debug)]
struct Observed {
    engine: Weak<Inner>,
}

impl Collector for Observed {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(engine) = self.engine.upgrade() else { return Ok(()) };
        // A step that ends after its stream was dropped may have left a status.
        let registry = engine.registry();
        let statuses = engine.statuses.all().into_iter().filter(|s| registry.streams.contains_key(&s.stream)).collect::<Vec<_>>();
        let views = engine.views.sizes();
        let mut gauge = |name: &str, help: &str, unit: Option<Unit>, of: &mut dyn FnMut(&mut Gauges<'_>) -> fmt::Result| {
            of(&mut Gauges(encoder.encode_descriptor(name, help, unit.as_ref(), MetricType::Gauge)?))
        };
        let records = || Some(Unit::Other("records".into()));
        gauge("asof_stream_lag", "Records of the source that are not read yet.", records(), &mut |g| {
            for status in &statuses {
                for partition in &status.partitions {
                    let Some(lag) = partition.lag() else { continue };
                    g.put(&OfPartition { stream: Label::new(&status.stream), partition: Label::new(&partition.partition) }, lag)?;
                }
            }
            Ok(())
        })?;
        gauge("asof_stream_state", "What the source of a stream is doing: 1 for that, 0 for the rest.", None, &mut |g| {
            for status in &statuses {
                for state in SourceState::ALL {
                    let labels = OfState { stream: Label::new(&status.stream), state: state.as_str() };
                    g.put(&labels, i64::from(state == status.state))?;
                }
            }
            Ok(())
        })?;
        gauge("asof_view_state", "The memory of a view's online state.", Some(Unit::Bytes), &mut |g| {
            views.iter().try_for_each(|(name, (bytes, _))| g.put(&OfView { view: Label::new(name) }, count(*bytes)))
        })?;
        gauge("asof_view_entities", "The entities in a view's online state.", None, &mut |g| {
            views.iter().try_for_each(|(name, (_, entities))| g.put(&OfView { view: Label::new(name) }, count(*entities)))
        })
    }
}

/// One family of gauges while it is written.
struct Gauges<'a>(prometheus_client::encoding::MetricEncoder<'a>);

impl Gauges<'_> {
    fn put(&mut self, labels: &impl EncodeLabelSet, value: i64) -> fmt::Result {
        self.0.encode_family(labels)?.encode_gauge(&value)
    }
}

fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(accepted: u64, late: u64) -> IngestCounts {
        IngestCounts { read: accepted + late, accepted, late, ..IngestCounts::default() }
    }

    fn lines(metrics: &Metrics, holding: &str) -> Vec<String> {
        metrics.encode().expect("text").lines().filter(|l| l.contains(holding)).map(str::to_owned).collect()
    }

    #[test]
    fn steps_add_up_and_go_with_their_stream() {
        let metrics = Metrics::new(Weak::new(), 1_500_000);
        metrics.step("s", &counts(3, 1), Some(Duration::from_millis(7)));
        metrics.step("s", &counts(2, 0), None);
        metrics.fresh("v", 40_000);
        metrics.fresh("v", -1);
        metrics.checkpointed("v", Duration::from_secs(2));
        assert_eq!(
            lines(&metrics, "stream=\"s\",outcome").into_iter().collect::<std::collections::BTreeSet<_>>().into_iter().collect::<Vec<_>>(),
            [
                "asof_stream_events_total{stream=\"s\",outcome=\"accepted\"} 5",
                "asof_stream_events_total{stream=\"s\",outcome=\"duplicate\"} 0",
                "asof_stream_events_total{stream=\"s\",outcome=\"late\"} 1",
                "asof_stream_events_total{stream=\"s\",outcome=\"rejected\"} 0",
            ]
        );
        assert_eq!(lines(&metrics, "asof_commit_duration_seconds_count"), ["asof_commit_duration_seconds_count{stream=\"s\"} 1"]);
        assert_eq!(lines(&metrics, "freshness_seconds_count"), ["asof_view_freshness_seconds_count{view=\"v\"} 2"]);
        assert_eq!(
            lines(&metrics, "freshness_seconds_bucket{le=\"0.005\""),
            ["asof_view_freshness_seconds_bucket{le=\"0.005\",view=\"v\"} 1"]
        );
        assert_eq!(lines(&metrics, "le=\"5.0\",view=\"v\"").len(), 2);
        assert_eq!(lines(&metrics, "process_start_time_seconds 1"), ["process_start_time_seconds 1.5"]);
        assert_eq!(lines(&metrics, "asof_build_info{")[0], format!("asof_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION")));
        metrics.forget_stream("s");
        metrics.forget_view("v");
        assert_eq!(lines(&metrics, "stream=\"s\"").len() + lines(&metrics, "view=\"v\"").len(), 0);
        assert_eq!(metrics.encode().expect("text").lines().last(), Some("# EOF"));
    }

    #[test]
    fn no_name_ends_its_label() {
        let metrics = Metrics::new(Weak::new(), 0);
        metrics.step("a\"} 1\n\\", &counts(1, 0), None);
        assert_eq!(lines(&metrics, "accepted"), ["asof_stream_events_total{stream=\"a\\\"} 1\\n\\\\\",outcome=\"accepted\"} 1"]);
    }

    #[tokio::test]
    async fn what_is_read_off_is_of_streams_that_are_there() {
        let engine = crate::engine::Engine::builder().warehouse("memory://").build().await.expect("a warehouse");
        engine.execute("CREATE STREAM \"s\"\"\" (ts TIMESTAMP, WATERMARK FOR ts AS ts)", &[]).await.expect("created");
        for stream in ["s\"", "dropped"] {
            engine.inner.statuses.update(stream, |status| {
                status.say(SourceState::Stopped, None);
                status.partition("t/1").offset = 3;
                (status.partition("t/0").offset, status.partition("t/0").end_offset) = (10, Some(15));
            });
        }
        let text = engine.metrics().expect("text");
        let lines = |holding: &str| text.lines().filter(|l| l.contains(holding)).collect::<Vec<_>>();
        assert_eq!(lines("asof_stream_lag_records{"), ["asof_stream_lag_records{stream=\"s\\\"\",partition=\"t/0\"} 5"]);
        assert_eq!(lines("} 1"), [&lines("asof_build_info")[..], &["asof_stream_state{stream=\"s\\\"\",state=\"stopped\"} 1"]].concat());
        assert!(!text.contains("dropped"), "{text}");
        engine.execute("DROP STREAM \"s\"\"\"", &[]).await.expect("dropped");
        assert!(!engine.metrics().expect("text").contains("s\\\""));
    }

    #[test]
    fn buckets_rise() {
        for bounds in [&COMMIT_S[..], &CHECKPOINT_S, &FRESHNESS_S] {
            assert!(bounds.is_sorted() && bounds.len() <= 16);
        }
    }
}
