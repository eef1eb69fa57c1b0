//! The port for operators: what is counted, under which names, and that nothing else is answered there.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::server::{Server, cli, rows};

const PATIENCE: Duration = Duration::from_secs(30);

struct Answer {
    status: u16,
    head: String,
    body: String,
}

fn http_address(server: &Server) -> String {
    let file = server.folder().path().join("port.http");
    std::fs::read_to_string(file).expect("it is written before the port file").trim().to_owned()
}

/// Sends bytes and reads until the server closes.
fn raw(server: &Server, request: &[u8]) -> String {
    let mut tcp = TcpStream::connect(http_address(server)).expect("it listens");
    tcp.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    // One that closes early does so by the answer or by resetting; both end the reading.
    let _ = tcp.write_all(request);
    let mut answer = Vec::new();
    let _ = tcp.read_to_end(&mut answer);
    String::from_utf8(answer).expect("UTF-8")
}

fn ask(server: &Server, method: &str, path: &str) -> Answer {
    let answer = raw(server, format!("{method} {path} HTTP/1.1\r\nHost: asof\r\n\r\n").as_bytes());
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer to {method} {path}: {answer:?}"));
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a status");
    Answer { status, head: head.to_lowercase(), body: body.to_owned() }
}

fn metrics(server: &Server) -> String {
    let answer = ask(server, "GET", "/metrics");
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert!(answer.head.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8"), "{}", answer.head);
    assert!(answer.body.ends_with("# EOF\n"), "{}", answer.body);
    answer.body
}

fn value(text: &str, series: &str) -> Option<f64> {
    text.lines().find_map(|l| l.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

fn until_ready(server: &Server) {
    let started = Instant::now();
    while ask(server, "GET", "/ready").status != 200 {
        assert!(started.elapsed() < PATIENCE, "it does not get ready\n{}", server.log());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[tokio::test]
async fn what_is_pushed_is_counted() {
    let server = Server::with(&["--http", "127.0.0.1:0"]).await;
    let client = server.client().await;
    until_ready(&server);
    // One seen before, one late, one without its user, one new.
    let mixed = "INSERT INTO pay VALUES ('a', 'ann', 1, 1.5, '2024-05-01 10:00:00'), ('old', 'ann', 1, 1.0, '2024-05-01 09:00:00'),
        ('nobody', NULL, 1, 1.0, '2024-05-01 10:02:00'), ('new', 'eve', 7, 1.0, '2024-05-01 10:03:00')";
    client.execute(mixed).await.expect("written");
    client.execute("INSERT INTO pay VALUES ('a', 'ann', 1, 1.5, '2024-05-01 10:02:00')").await.expect("written");
    let text = metrics(&server);
    for (series, wanted) in [
        ("asof_stream_events_total{stream=\"pay\",outcome=\"accepted\"}", 5.0),
        ("asof_stream_events_total{stream=\"pay\",outcome=\"duplicate\"}", 1.0),
        ("asof_stream_events_total{stream=\"pay\",outcome=\"late\"}", 1.0),
        ("asof_stream_events_total{stream=\"pay\",outcome=\"rejected\"}", 1.0),
        ("asof_commit_duration_seconds_count{stream=\"pay\"}", 3.0),
        ("asof_commit_duration_seconds_bucket{le=\"+Inf\",stream=\"pay\"}", 3.0),
        // Years old: above every bound but the last.
        ("asof_view_freshness_seconds_count{view=\"spend\"}", 3.0),
        ("asof_view_freshness_seconds_bucket{le=\"86400.0\",view=\"spend\"}", 0.0),
        ("asof_view_freshness_seconds_count{view=\"shops\"}", 3.0),
        ("asof_view_entities{view=\"spend\"}", 3.0),
        ("asof_view_entities{view=\"shops\"}", 3.0),
        ("asof_stream_state{stream=\"pay\",state=\"idle\"}", 1.0),
        ("asof_stream_state{stream=\"pay\",state=\"stopped\"}", 0.0),
        (concat!("asof_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"}"), 1.0),
    ] {
        assert_eq!(value(&text, series), Some(wanted), "{series}\n{text}");
    }
    assert!(value(&text, "asof_view_state_bytes{view=\"spend\"}").is_some_and(|b| b > 0.0), "{text}");
    assert!(value(&text, "process_start_time_seconds").is_some_and(|at| at > 1.7e9), "{text}");
    for family in [
        "# TYPE asof_stream_lag_records gauge",
        "# TYPE asof_stream_events counter",
        "# TYPE asof_commit_duration_seconds histogram",
        "# TYPE asof_view_freshness_seconds histogram",
        "# TYPE asof_view_state_bytes gauge",
    ] {
        assert_eq!(text.lines().filter(|l| *l == family).count(), 1, "{family}\n{text}");
    }
    let status = rows(&client, "SHOW STREAM STATUS FOR pay").await;
    let cells: Vec<&str> = status.split('|').collect();
    assert_eq!(cells[..5], ["pay", "push", "8", "NULL", "NULL"], "{status}");
    assert_eq!(cells[6..10], ["5", "1", "1", "1"], "{status}");
    assert_ne!(cells[10], "NULL", "{status}");
    // From outside the same stream is this server's.
    let (code, out, errors) = cli(&server.warehouse(), &["sql", "-c", "SHOW STREAM STATUS", "--format", "csv"]);
    assert_eq!(code, Some(0), "{errors}");
    assert!(out.contains("pay,push,8,") && out.contains("elsewhere") && out.contains(&server.uri()), "{out}");

    client.execute("DROP FEATURE VIEW spend; DROP FEATURE VIEW shops; DROP STREAM pay").await.expect("dropped");
    let text = metrics(&server);
    assert!(!text.contains("pay") && !text.contains("spend") && !text.contains("shops"), "{text}");
    assert!(server.log().contains("\"message\":\"metrics\""), "{}", server.log());
}

#[tokio::test]
async fn nothing_else_is_answered() {
    let mut server = Server::with(&["--http", "127.0.0.1:0"]).await;
    assert_eq!(ask(&server, "GET", "/health").status, 200);
    for path in ["/", "/metrics/", "/metrics/../health", "/pay", "//", "*", "/%6detrics"] {
        assert_eq!(ask(&server, "GET", path).status, 404, "{path}");
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "BREW"] {
        let refused = ask(&server, method, "/metrics");
        assert_eq!(refused.status, 405, "{method}");
        assert!(refused.head.contains("allow: get, head"), "{}", refused.head);
    }
    let head = ask(&server, "HEAD", "/metrics");
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert_eq!(ask(&server, "GET", "/health?of=it").status, 200);
    // A head without an end, none at all, and what is no HTTP.
    let long = format!("GET /health HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(1 << 20));
    assert!(!raw(&server, long.as_bytes()).starts_with("HTTP/1.1 200"));
    assert!(!raw(&server, &[0xff; 4096]).contains(" 200 "));
    assert!(!raw(&server, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").contains(" 200 "));
    // More connections than are taken, none of which says a word.
    let silent: Vec<_> = (0..64).map(|_| TcpStream::connect(http_address(&server))).collect();
    drop(silent);
    let started = Instant::now();
    while !raw(&server, b"GET /health HTTP/1.1\r\nHost: asof\r\n\r\n").starts_with("HTTP/1.1 200") {
        assert!(started.elapsed() < PATIENCE, "{}", server.log());
    }
    server.is_unharmed().await;
}

#[tokio::test]
async fn a_server_without_state_is_alive_and_not_ready() {
    let server = Server::with(&["--http", "127.0.0.1:0"]).await;
    until_ready(&server);
    let folder = server.folder();
    tokio::task::spawn_blocking(move || server.stop()).await.expect("stopped");
    let stream = folder.path().join("warehouse").join("streams").join("pay");
    std::fs::rename(&stream, folder.path().join("away")).expect("a folder that is there");
    let server = Server::start(folder.clone(), &["--http", "127.0.0.1:0"]);
    let client = server.client().await;
    let started = Instant::now();
    // Once it was looked for, the stream's state says what is wrong.
    while value(&metrics(&server), "asof_stream_state{stream=\"pay\",state=\"stopped\"}") != Some(1.0) {
        assert!(started.elapsed() < PATIENCE, "{}", metrics(&server));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!((ask(&server, "GET", "/health").status, ask(&server, "GET", "/ready").status), (200, 503));
    let status = rows(&client, "SHOW STREAM STATUS").await;
    assert!(status.starts_with("pay|NULL|") && status.contains("|stopped|"), "{status}");
    std::fs::rename(folder.path().join("away"), &stream).expect("it comes back");
    until_ready(&server);
    assert!(rows(&client, "SHOW STREAM STATUS").await.starts_with("pay|push|3|"));
}

#[test]
fn only_loopback_unless_it_is_wanted() {
    let folder = tempfile::tempdir().expect("a folder");
    let (code, _, errors) = cli(&folder.path().join("w"), &["serve", "--listen", "127.0.0.1:0", "--http", "0.0.0.0:0"]);
    assert_eq!(code, Some(2), "{errors}");
    assert!(errors.contains("--insecure"), "{errors}");
}
