//! A server as a process, on a port of its own choosing.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arrow::array::{Array, RecordBatch, StringArray};
use asof::flight::client::ClientOptions;
use asof::flight::{Client, Failure, Response};

pub(super) const BINARY: &str = env!("CARGO_BIN_EXE_asof");
const START: Duration = Duration::from_secs(60);
const STOP: Duration = Duration::from_secs(60);

/// A stream, a view over it and a few events, all in the past of any clock.
pub(super) const SETUP: &str = "
    CREATE STREAM pay (id VARCHAR, u VARCHAR NOT NULL, shop BIGINT, x DOUBLE, ts TIMESTAMP NOT NULL, PRIMARY KEY (id),
        WATERMARK FOR ts AS ts - INTERVAL '1 minute');
    CREATE FEATURE VIEW spend ENTITY (u) AS
        SELECT count(*) OVER w AS n, sum(x) OVER w AS s, last_value(id) OVER w AS latest FROM pay WINDOW w AS (RANGE UNBOUNDED PRECEDING);
    CREATE FEATURE VIEW shops ENTITY (shop) AS SELECT count(*) OVER w AS n, max(x) OVER w AS dearest FROM pay WINDOW w AS (RANGE UNBOUNDED PRECEDING);
    INSERT INTO pay VALUES ('a', 'ann', 1, 1.5, '2024-05-01 10:00:00'), ('b', 'bob', 1, 2.0, '2024-05-01 10:00:30'), ('c', 'ann', 2, 4.0, '2024-05-01 10:01:00');
";

/// A running server and its warehouse.
pub(super) struct Server {
    child: Child,
    pub(super) address: String,
    log: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
    folder: Arc<tempfile::TempDir>,
}

impl Server {
    /// A server over a new warehouse with what [`SETUP`] makes.
    pub(super) async fn new() -> Self {
        Self::with(&[]).await
    }

    pub(super) async fn with(options: &[&str]) -> Self {
        let server = Self::start(Arc::new(tempfile::tempdir().expect("a temporary folder")), options);
        let client = server.client().await;
        client.execute(SETUP).await.map(drop).unwrap_or_else(|e| panic!("{e}\n{}", server.log()));
        server
    }

    /// A server over a warehouse that may be there already.
    pub(super) fn start(folder: Arc<tempfile::TempDir>, options: &[&str]) -> Self {
        let port = folder.path().join("port");
        let _ = std::fs::remove_file(&port);
        let mut child = Command::new(BINARY)
            .arg("--warehouse")
            .arg(folder.path().join("warehouse"))
            .args(["serve", "--listen", "127.0.0.1:0", "--port-file"])
            .arg(&port)
            .args(options)
            .env_remove("ASOF_LOG")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let log = Arc::new(Mutex::new(String::new()));
        let (lines, to) = (BufReader::new(child.stderr.take().expect("standard error is piped")), log.clone());
        let reader = std::thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                let mut log = to.lock().expect("no thread panics with the log");
                log.push_str(&line);
                log.push('\n');
            }
        });
        let started = Instant::now();
        let address = loop {
            if let Ok(text) = std::fs::read_to_string(&port) {
                break text.trim().to_owned();
            }
            let ended = child.try_wait().expect("the server's state");
            assert!(ended.is_none() && started.elapsed() < START, "no address; ended: {ended:?}\n{}", log.lock().expect("the log"));
            std::thread::sleep(Duration::from_millis(5));
        };
        Self { child, address, log, reader: Some(reader), folder }
    }

    pub(super) fn uri(&self) -> String {
        format!("grpc://{}", self.address)
    }

    pub(super) fn folder(&self) -> Arc<tempfile::TempDir> {
        self.folder.clone()
    }

    pub(super) fn warehouse(&self) -> std::path::PathBuf {
        self.folder.path().join("warehouse")
    }

    pub(super) fn log(&self) -> String {
        self.log.lock().expect("the log").clone()
    }

    /// A connection of its own.
    pub(super) async fn client(&self) -> Client {
        Client::connect(&self.uri(), ClientOptions::default()).await.expect("the server answers")
    }

    /// The server answers as before: nobody else has noticed what was just done to it.
    pub(super) async fn is_unharmed(&mut self) {
        assert_eq!(self.child.try_wait().expect("the server's state"), None, "{}", self.log());
        let rows = rows(&self.client().await, "SELECT * FROM spend FOR ENTITY 'ann'").await;
        assert_eq!(rows, "ann|2|5.5|c");
        let log = self.log();
        assert!(!log.contains("panicked") && !log.contains("\"ERROR\""), "{log}");
    }

    /// Stops it as an operator does.
    pub(super) fn stop(mut self) -> (ExitStatus, String) {
        terminate(self.child.id());
        let started = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("the server's state") {
                break status;
            }
            assert!(started.elapsed() < STOP, "the server does not stop\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        };
        if let Some(reader) = self.reader.take() {
            reader.join().expect("the log's reader");
        }
        (status, self.log())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(super) fn terminate(process: u32) {
    let status = Command::new("kill").args(["-TERM", &process.to_string()]).status().expect("kill runs");
    assert!(status.success());
}

/// Runs the binary to its end.
pub(super) fn cli(warehouse: &Path, args: &[&str]) -> (Option<i32>, String, String) {
    let done = Command::new(BINARY).arg("--warehouse").arg(warehouse).args(args).stdin(Stdio::null()).output().expect("the binary runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("output is UTF-8");
    (done.status.code(), text(done.stdout), text(done.stderr))
}

/// Batches as text: a row a line, `|` between columns.
pub(super) fn text(batches: &[RecordBatch]) -> String {
    let mut lines = Vec::new();
    for batch in batches {
        let columns: Vec<_> =
            batch.columns().iter().map(|c| arrow::compute::cast(c, &arrow::datatypes::DataType::Utf8).expect("a text")).collect();
        for row in 0..batch.num_rows() {
            let cell = |c: &arrow::array::ArrayRef| {
                let c = c.as_any().downcast_ref::<StringArray>().expect("a text");
                if c.is_null(row) { "NULL".to_owned() } else { c.value(row).to_owned() }
            };
            lines.push(columns.iter().map(cell).collect::<Vec<_>>().join("|"));
        }
    }
    lines.join("\n")
}

pub(super) async fn rows(client: &Client, sql: &str) -> String {
    text(&client.query(sql).await.unwrap_or_else(|e| panic!("{e}\nin: {sql}")))
}

pub(super) async fn refused(client: &Client, sql: &str) -> Failure {
    match client.execute(sql).await {
        Err(e) => e,
        Ok(Response::Done { message, .. }) => panic!("{message}\nin: {sql}"),
        Ok(Response::Rows(rows)) => rows.collect().await.err().unwrap_or_else(|| panic!("not refused: {sql}")),
    }
}
