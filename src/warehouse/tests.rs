use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use object_store::path::Path;
use object_store::{ObjectStoreExt, memory::InMemory};

use super::*;
use crate::error::Kind;
use crate::time::{Clock, SystemClock, WallTime};

#[derive(Debug, Default)]
struct TestClock(AtomicI64);

impl Clock for TestClock {
    fn now(&self) -> WallTime {
        WallTime(self.0.load(Ordering::SeqCst))
    }
}

/// Two openings of one store, as two processes have it.
async fn shared() -> (Arc<InMemory>, Warehouse) {
    let store = Arc::new(InMemory::new());
    let warehouse = open(&store).await.expect("warehouse");
    (store, warehouse)
}

async fn open(store: &Arc<InMemory>) -> Result<Warehouse> {
    let url = Url::parse("memory:///some/prefix").expect("url");
    Warehouse::open_with_store(url, Arc::clone(store) as Arc<dyn ObjectStore>).await
}

#[tokio::test]
async fn opening_makes_a_warehouse_and_opening_again_finds_it() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("a b").join("warehouse");
    let location = path.to_str().expect("path");
    let first = Warehouse::open(location).await.expect("first");
    assert_eq!(first.format(), Format::CURRENT);
    assert!(path.join("format").is_file());
    let url = first.url().to_string();
    assert_eq!(Warehouse::open(&url).await.expect("by url").url(), first.url());
    let file = folder.path().join("file");
    std::fs::write(&file, "x").expect("write");
    let error = Warehouse::open(file.to_str().expect("path")).await.expect_err("a file");
    assert!(error.message().starts_with("cannot open warehouse"), "{error}");
    assert_eq!(Warehouse::open("").await.expect_err("empty").kind(), Kind::Invalid);
    assert_eq!(Warehouse::open("gopher://x/y").await.expect_err("scheme").kind(), Kind::Invalid);
}

#[tokio::test]
async fn a_newer_or_damaged_format_is_refused_by_name() {
    let (store, _) = shared().await;
    let path = Path::from("some/prefix/format");
    store.put(&path, "{\"layout\": 1, \"semantics\": 7}".into()).await.expect("put");
    let error = open(&store).await.expect_err("newer");
    assert_eq!(error.kind(), Kind::Data);
    assert_eq!(
        error.message(),
        "warehouse \"memory:///some/prefix/\" was written by a newer program: layout 1 and semantics 7, where this program knows \
         layout 1 and semantics 1"
    );
    for damaged in ["", "{", "[1]", "{\"layout\": -1, \"semantics\": 1}", "{\"layout\": 0, \"semantics\": 1}", "\u{0}"] {
        store.put(&path, damaged.into()).await.expect("put");
        let error = open(&store).await.expect_err(damaged);
        assert_eq!(error.kind(), Kind::Data, "{damaged}");
        assert!(error.message().starts_with("format of warehouse \"memory:///some/prefix/\" is damaged"), "{error}");
    }
}

#[tokio::test]
async fn catalog_entries_are_numbered_and_each_number_is_given_once() {
    let (store, warehouse) = shared().await;
    let (one, two) = (warehouse.catalog(), open(&store).await.expect("again").catalog());
    assert!(one.load().await.expect("load").is_empty());
    for sequence in 0..5 {
        let (a, b) = futures::join!(one.append(sequence, b"{\"by\": 1}"), two.append(sequence, b"{\"by\": 2}"));
        let mut outcomes = [a.expect("one"), b.expect("two")];
        outcomes.sort_by_key(|o| *o == Append::Done);
        assert_eq!(outcomes, [Append::Conflict, Append::Done]);
    }
    let loaded = one.load().await.expect("load");
    assert_eq!(loaded, two.load().await.expect("load"));
    assert_eq!(loaded.iter().map(|(s, _)| *s).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    assert_eq!(one.append(5, b"{").await.expect_err("no JSON").kind(), Kind::Internal);

    let path = |name: &str| Path::from(format!("some/prefix/catalog/{name}"));
    store.put(&path("00000000000000000003.json"), "{\"cut".into()).await.expect("put");
    let error = one.load().await.expect_err("damaged");
    assert_eq!(error.kind(), Kind::Data);
    assert!(error.message().contains("00000000000000000003.json"), "{error}");
    store.delete(&path("00000000000000000003.json")).await.expect("delete");
    let error = one.load().await.expect_err("gap");
    assert_eq!(error.message(), "catalog entry is missing: \"memory:///some/prefix/catalog/00000000000000000003.json\"");
    store.put(&path("3.json"), "{}".into()).await.expect("put");
    assert!(one.load().await.expect_err("stranger").message().contains("catalog/3.json"));
}

#[tokio::test]
async fn a_lease_has_one_holder_until_released_or_expired() {
    let (_, warehouse) = shared().await;
    let clock = Arc::new(TestClock::default());
    let dyn_clock = || Arc::clone(&clock) as Arc<dyn Clock>;
    assert_eq!(warehouse.lease_holder("s/0").await.expect("holder"), None);
    let first = warehouse.acquire("s/0", Some("localhost:50051"), dyn_clock()).await.expect("first");
    assert_eq!(first.epoch(), 0);
    first.check().await.expect("holds");
    let error = warehouse.acquire("s/0", None, dyn_clock()).await.expect_err("held");
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(error.message().contains("--connect localhost:50051"), "{error}");
    assert!(error.message().contains(&format!("process {}", std::process::id())), "{error}");
    warehouse.acquire("s/1", None, dyn_clock()).await.expect("another name");

    clock.0.store(lease::LEASE_US - 1, Ordering::SeqCst);
    first.renew().await.expect("renew");
    clock.0.store(2 * lease::LEASE_US - 2, Ordering::SeqCst);
    warehouse.acquire("s/0", None, dyn_clock()).await.expect_err("renewed");
    clock.0.store(2 * lease::LEASE_US - 1, Ordering::SeqCst);
    let second = warehouse.acquire("s/0", None, dyn_clock()).await.expect("expired");
    assert_eq!(second.epoch(), 1);
    for error in [first.check().await, first.renew().await].map(|r| r.expect_err("fenced")) {
        assert_eq!(error.kind(), Kind::Closed);
        assert!(error.message().starts_with("\"s/0\" was taken over by process "), "{error}");
    }
    first.release().await.expect("nothing to give back");
    second.check().await.expect("still holds");
    second.release().await.expect("release");
    assert_eq!(warehouse.acquire("s/0", None, dyn_clock()).await.expect("third").epoch(), 2);
}

#[tokio::test]
async fn of_several_that_want_a_lease_one_gets_it() {
    let (store, warehouse) = shared().await;
    let other = open(&store).await.expect("again");
    let clock = || Arc::new(SystemClock) as Arc<dyn Clock>;
    for round in 0..20_u64 {
        let (a, b) = futures::join!(warehouse.acquire("s", None, clock()), other.acquire("s", None, clock()));
        let got = [a, b].into_iter().flatten().collect::<Vec<_>>();
        assert_eq!(got.len(), 1);
        for lease in got {
            assert_eq!(lease.epoch(), round);
            lease.release().await.expect("release");
        }
    }
    let left = warehouse.lease_epochs("s").await.expect("epochs");
    assert!(left.len() <= 6, "{left:?}");
    assert_eq!(left.last(), Some(&19));
}

/// A process of this machine that is gone, or a number that belongs to another process by now, holds nothing.
#[tokio::test]
async fn a_dead_process_of_this_machine_is_not_waited_for() {
    let (store, warehouse) = shared().await;
    let clock = || Arc::new(SystemClock) as Arc<dyn Clock>;
    let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("sleep");
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).expect("stat");
    let started = stat.rsplit(')').next().and_then(|s| s.split_whitespace().nth(19)).expect("start").to_owned();
    let mut holder = Holder::this_process(None);
    let machine = holder.identity.rsplit_once('/').expect("identity").0.to_owned();
    holder.process = child.id();
    holder.identity = format!("{machine}/{started}");
    let put = async |name: &str, holder: &Holder| {
        let expires_at_us = clock().now().0 + lease::LEASE_US;
        let record = LeaseRecord { holder: holder.clone(), renewed_at_us: 0, expires_at_us, released: false };
        let path = Path::from_iter(["some", "prefix", "leases", name, "00000000000000000000"]);
        store.put(&path, serde_json::to_vec(&record).expect("json").into()).await.expect("put");
    };
    put("alive", &holder).await;
    warehouse.acquire("alive", None, clock()).await.expect_err("alive");
    let reused = Holder { identity: format!("{machine}/1"), ..holder.clone() };
    put("reused", &reused).await;
    warehouse.acquire("reused", None, clock()).await.expect("another process has its number");
    let elsewhere = Holder { host: "elsewhere".into(), process: 1, ..holder.clone() };
    put("elsewhere", &elsewhere).await;
    warehouse.acquire("elsewhere", None, clock()).await.expect_err("cannot be known");
    child.kill().expect("kill");
    // Not waited for yet, it is still listed, as a dead one.
    while std::fs::read_to_string(format!("/proc/{}/stat", child.id())).is_ok_and(|s| !s.contains(") Z")) {
        std::thread::yield_now();
    }
    warehouse.acquire("alive", None, clock()).await.expect("dead");
    put("gone", &holder).await;
    child.wait().expect("wait");
    warehouse.acquire("gone", None, clock()).await.expect("gone");
}
