//! The server as a process: where it may listen, who may ask, how it stops, and the command line as its client.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use asof::flight::client::ClientOptions;
use asof::flight::{Client, ExchangeRequest, FeatureRequest, Remedy};

use super::server::{BINARY, Server, cli, rows};

#[tokio::test]
async fn it_stops_when_told_to_and_says_so() {
    let server = Server::new().await;
    let client = server.client().await;
    let folder = server.folder();
    // An open session does not hold it up.
    let request =
        ExchangeRequest { features: FeatureRequest { views: vec!["spend".into()], ..FeatureRequest::default() }, with_keys: false };
    let keys = Arc::new(arrow::datatypes::Schema::new(vec![arrow::datatypes::Field::new("u", arrow::datatypes::DataType::Utf8, true)]));
    let mut session = client.exchange(&request, &keys).await.expect("a session");
    let (status, log) = tokio::task::spawn_blocking(move || server.stop()).await.expect("stopped");
    assert_eq!(status.code(), Some(0), "{log}");
    for line in log.lines() {
        serde_json::from_str::<serde_json::Value>(line).unwrap_or_else(|e| panic!("{e}: {line}"));
    }
    for message in ["listening", "ready", "stopping", "stopped"] {
        assert!(log.contains(&format!("\"message\":\"{message}\"")), "{message}: {log}");
    }
    assert_eq!(session.receive().await.expect_err("the session is over").remedy, Remedy::Unavailable);
    // The lease is free at once.
    let (code, _, errors) =
        cli(&folder.path().join("warehouse"), &["sql", "-c", "INSERT INTO pay VALUES ('z', 'zoe', 1, 1.0, '2024-05-01 10:02:00')"]);
    assert_eq!(code, Some(0), "{errors}");
}

#[tokio::test]
async fn a_session_that_goes_on_is_not_waited_for() {
    let server = Server::new().await;
    let client = server.client().await;
    let keys = RecordBatch::try_from_iter([("u", Arc::new(StringArray::from(vec!["ann"; 5000])) as ArrayRef)]).expect("keys");
    let features = FeatureRequest { views: vec!["spend".into()], ..FeatureRequest::default() };
    let mut session = client.exchange(&ExchangeRequest { features, with_keys: false }, &keys.schema()).await.expect("a session");
    // So many ahead that the server always has keys to answer.
    for _ in 0..16 {
        session.send(&keys).await.expect("sent");
    }
    session.receive().await.expect("an answer");
    let asking = tokio::spawn(async move {
        loop {
            // Where nothing can be sent any more, the last word comes all the same.
            let _ = session.send(&keys).await;
            match session.receive().await {
                Ok(answer) => assert!(answer.is_some(), "the session ended without a word"),
                Err(e) => return e,
            }
        }
    });
    let began = Instant::now();
    let (status, log) = tokio::task::spawn_blocking(move || server.stop()).await.expect("stopped");
    assert_eq!(status.code(), Some(0), "{log}");
    // Requests that run have 20 seconds to end.
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert_eq!(asking.await.expect("an error").remedy, Remedy::Unavailable);
}

#[tokio::test]
async fn health_is_told_two_ways() {
    let server = Server::new().await;
    let client = server.client().await;
    let ready = async {
        while !client.is_serving().await.expect("an answer") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), ready).await.expect("it gets ready");
}

#[tokio::test]
async fn a_token_is_asked_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("token");
    std::fs::write(&file, "open sesame\n").expect("the token is written");
    let server = Server::start(Arc::new(tempfile::tempdir().expect("a folder")), &["--token-file", file.to_str().expect("a path")]);
    let with = async |token: Option<&str>| {
        let options = ClientOptions { token: token.map(str::to_owned), ..ClientOptions::default() };
        Client::connect(&server.uri(), options).await.expect("it connects").query("SELECT 1").await
    };
    assert_eq!(with(None).await.expect_err("no token").remedy, Remedy::Unauthenticated);
    assert_eq!(with(Some("open sesam")).await.expect_err("another token").remedy, Remedy::Unauthenticated);
    assert_eq!(with(Some("open sesame")).await.expect("the token").len(), 1);
    let args =
        ["sql", "--connect", &server.uri(), "--token-file", file.to_str().expect("a path"), "-c", "SELECT 41 + 1 AS x", "--format", "csv"];
    assert_eq!(cli(folder.path(), &args), (Some(0), "x\n42\n".into(), String::new()));
}

#[test]
fn only_loopback_without_protection() {
    let folder = tempfile::tempdir().expect("a folder");
    let (code, _, errors) = cli(&folder.path().join("w"), &["serve", "--listen", "0.0.0.0:0"]);
    assert_eq!(code, Some(2), "{errors}");
    assert!(errors.contains("--insecure"), "{errors}");
    let (code, _, errors) = cli(&folder.path().join("w"), &["serve", "--listen", "127.0.0.1:0", "--tls-cert", "c.pem"]);
    assert_eq!(code, Some(2), "{errors}");
}

#[tokio::test]
async fn the_command_line_asks_a_server() {
    let server = Server::new().await;
    let folder = server.folder();
    let uri = server.uri();
    let script = folder.path().join("script.sql");
    std::fs::write(&script, "SELECT count(*) AS n FROM pay;\n\n  SELECT * FROM spent FOR ENTITY 'ann';\n").expect("a script");
    let path = script.to_str().expect("a path");
    let (code, out, errors) = cli(folder.path(), &["sql", "--connect", &uri, "-f", path, "--format", "csv"]);
    assert_eq!((code, out.as_str()), (Some(3), "n\n3\n"));
    assert!(errors.starts_with(&format!("error[E0201]: unknown feature view \"spent\"\n --> {path}:3:17\n")), "{errors}");
    let by_param = ["sql", "--connect", &uri, "-c", "SELECT n FROM spend FOR ENTITY u = $1", "--param", "ann", "--format", "json"];
    assert_eq!(cli(folder.path(), &by_param).1, "{\"n\":2}\n");
    let unfinished = cli(folder.path(), &["sql", "--connect", &uri, "-c", "SELEC 1"]);
    assert!(unfinished.2.contains("<command>:1:1"), "{}", unfinished.2);
    let mut shell = Command::new(BINARY)
        .args(["shell", "--connect", &uri])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the shell starts");
    use std::io::Write;
    shell.stdin.take().expect("piped").write_all(b"SELECT n FROM spend FOR ENTITY 'bob';\n\\q\n").expect("typed");
    let out = shell.wait_with_output().expect("the shell ends");
    assert!(String::from_utf8_lossy(&out.stdout).contains("(1 row)"), "{out:?}");
    assert_eq!(rows(&server.client().await, "SELECT 1").await, "1");
    let (code, _, errors) = cli(folder.path(), &["sql", "--connect", "grpc://127.0.0.1:1", "-c", "SELECT 1"]);
    assert_eq!(code, Some(4), "{errors}");
}
