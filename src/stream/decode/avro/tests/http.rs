//! The client against a small registry on a real socket.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;

use super::*;

/// A registry that answers as told, and remembers what it was asked.
struct Registry {
    url: String,
    asked: Arc<Mutex<Vec<String>>>,
}

/// Status and body by path; the connection is cut where there is none.
type Answers = Arc<Mutex<HashMap<&'static str, (u16, String)>>>;

impl Registry {
    fn start(answers: Answers) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/base/", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        // It ends with the process: a test has nothing to wait for.
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let mut lines = BufReader::new(&stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty());
                let path = lines.next().and_then(|line| line.split(' ').nth(1).map(str::to_owned)).unwrap_or_default();
                let login = lines.find_map(|line| line.to_lowercase().strip_prefix("authorization: basic ").map(|_| line[21..].to_owned()));
                log.lock().unwrap().push(format!("{path} {}", login.unwrap_or_default()));
                let Some((status, body)) = answers.lock().unwrap().get(path.as_str()).cloned() else { continue };
                let head = format!("HTTP/1.1 {status} x\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
                // Whoever went away does not read it.
                let _ = (&stream).write_all(format!("{head}{body}").as_bytes());
            }
        });
        Self { url, asked }
    }

    fn client(&self, login: Option<(&str, &str)>) -> Arc<RegistryClient> {
        let login = login.map(|(user, password)| (user.to_owned(), password.to_owned()));
        Arc::new(RegistryClient::try_new(RegistrySettings { url: self.url.clone(), login, authorities: None }).unwrap())
    }
}

fn answer(schema: &str) -> (u16, String) {
    (200, serde_json::json!({ "schema": schema }).to_string())
}

#[test]
fn a_registry_is_asked_once_for_each_schema() {
    let answers: Answers = Arc::default();
    answers.lock().unwrap().insert("/base/schemas/ids/1", answer(PLAIN));
    let registry = Registry::start(Arc::clone(&answers));
    let client = registry.client(Some(("user", "pass")));
    for _ in 0..2 {
        let mut decoder = decoder(around(DataType::Utf8View), &Options::default(), Arc::clone(&client) as Arc<dyn Schemas>);
        for offset in 0..3 {
            decoder.record(offset, None, Some(&message(1, &[long(0), long(offset)].concat()))).unwrap();
        }
        assert_eq!(decoder.take().unwrap().offsets, [0, 1, 2]);
    }
    assert_eq!(*registry.asked.lock().unwrap(), ["/base/schemas/ids/1 dXNlcjpwYXNz"]);
    assert!(!format!("{client:?}").contains("pass"));
}

#[test]
fn only_the_registry_says_that_there_is_no_schema() {
    let answers: Answers = Arc::default();
    let registry = Registry::start(Arc::clone(&answers));
    let schemas = registry.client(None);
    let with = |kind: &str| (200, serde_json::json!({"schema": PLAIN, "schemaType": kind}).to_string());
    let rejected: &[((u16, String), &str)] = &[
        ((404, r#"{"error_code":40403,"message":"Schema 1 not found"}"#.into()), "the registry has none"),
        (with("PROTOBUF"), "it is of type PROTOBUF, not AVRO"),
        (
            (200, serde_json::json!({"schema": PLAIN, "references": [{"name": "x", "subject": "x", "version": 1}]}).to_string()),
            "it refers to other schemas, which is not supported",
        ),
    ];
    for (answer, expected) in rejected {
        answers.lock().unwrap().insert("/base/schemas/ids/1", answer.clone());
        assert_eq!(schemas.schema(1).unwrap().unwrap_err(), *expected);
    }
    let unavailable: &[((u16, &str), &str)] = &[
        ((404, "<html>not here</html>"), "answered 404 without a registry's code, so the URL is probably wrong"),
        ((404, r#"{"error_code":404,"message":"HTTP 404 Not Found"}"#), "answered 404 without a registry's code"),
        ((401, "{}"), "answered 401, so the user or the password is wrong"),
        ((500, "{}"), "answered 500"),
        ((200, "<html>please log in</html>"), "the answer holds no schema"),
        ((200, "{}"), "the answer holds no schema"),
    ];
    for ((status, body), expected) in unavailable {
        answers.lock().unwrap().insert("/base/schemas/ids/1", (*status, (*body).to_owned()));
        let e = schemas.schema(1).unwrap_err();
        assert_eq!(e.kind(), Kind::Unavailable);
        assert!(e.message().contains(expected), "{e}");
    }
    // No answer at all, and nobody there.
    answers.lock().unwrap().clear();
    assert_eq!(schemas.schema(1).unwrap_err().kind(), Kind::Unavailable);
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let settings = RegistrySettings { url: format!("http://{closed}"), login: None, authorities: None };
    assert_eq!(RegistryClient::try_new(settings).unwrap().schema(1).unwrap_err().kind(), Kind::Unavailable);
    // And it comes back.
    answers.lock().unwrap().insert("/base/schemas/ids/1", with("AVRO"));
    assert_eq!(schemas.schema(1).unwrap().unwrap().as_ref(), PLAIN);
    let settings = RegistrySettings { url: registry.url.clone(), login: None, authorities: Some(b"no certificate".to_vec()) };
    assert_eq!(RegistryClient::try_new(settings).unwrap_err().message(), "certificates of the schema registry: there is none in the file");
}
