//! What nobody in their right mind would send: the right code, a message that says what is wrong, and nobody else notices.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::{Any, CommandPreparedStatementQuery, ProstMessageExt, TicketStatementQuery};
use arrow_flight::{FlightData, FlightDescriptor, Ticket};
use asof::flight::ipc::{batch_message, schema_message};
use asof::flight::{Client, ExchangeRequest, FeatureRequest, PutRequest, Remedy};
use prost::Message;
use rand::{Rng, RngCore, SeedableRng};
use tonic::Code;

use super::server::{Server, refused};

async fn ticket(client: &Client, bytes: impl Into<bytes::Bytes>) -> asof::flight::Failure {
    match client.pull(Ticket::new(bytes)).await {
        Err(e) => e,
        Ok(rows) => rows.collect().await.expect_err("the ticket is refused"),
    }
}

fn key_schema(name: &str, data_type: DataType) -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new(name, data_type, true)]))
}

fn exchange(views: &[&str], features: &[&str]) -> ExchangeRequest {
    let own = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
    ExchangeRequest {
        features: FeatureRequest { views: own(views), features: own(features), ..FeatureRequest::default() },
        with_keys: false,
    }
}

#[tokio::test]
async fn tickets_that_are_forged_truncated_or_oversized() {
    let mut server = Server::new().await;
    let client = server.client().await;
    let good = br#"{"v":1,"views":["spend"],"keys":{"u":["ann"]}}"#;
    for n in 0..good.len() {
        assert_eq!(ticket(&client, good[..n].to_vec()).await.remedy, Remedy::Invalid, "{n} bytes");
    }
    let long = format!(r#"{{"v":1,"sql":"SELECT 1 -- {}"}}"#, "x".repeat(1 << 20));
    let e = ticket(&client, long).await;
    assert!(e.remedy == Remedy::Invalid && e.message.contains("the limit is 65536"), "{e}");
    let forged = |handle: &[u8]| TicketStatementQuery { statement_handle: handle.to_vec().into() }.as_any().encode_to_vec();
    assert_eq!(ticket(&client, forged(&[7; 17])).await.remedy, Remedy::NotFound);
    assert_eq!(ticket(&client, forged(b"short")).await.remedy, Remedy::Invalid);
    let other = Any { type_url: "type.googleapis.com/some.Other".into(), value: vec![1, 2, 3].into() };
    assert_eq!(ticket(&client, other.encode_to_vec()).await.remedy, Remedy::Invalid);
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(4);
    for _ in 0..200 {
        let mut bytes = vec![0u8; random.random_range(0..200)];
        random.fill_bytes(&mut bytes);
        ticket(&client, bytes).await;
        let mut bytes = good.to_vec();
        let at = random.random_range(0..bytes.len());
        bytes[at] = random.random();
        let _ = client.pull(Ticket::new(bytes)).await;
    }
    server.is_unharmed().await;
}

#[tokio::test]
async fn unknown_names_and_wrong_keys_point_at_their_place() {
    let mut server = Server::new().await;
    let client = server.client().await;
    for (bytes, says) in [
        (r#"{"v":1,"views":["spent"],"keys":{"u":["ann"]}}"#, "unknown feature view \"spent\"\n --> <ticket>:1:18"),
        (r#"{"v":1,"views":["spent"],"keys":{"u":["ann"]}}"#, "nearest known feature view is \"spend\""),
        (r#"{"v":1,"views":["pay"],"keys":{"u":["ann"]}}"#, "not a feature view"),
        (r#"{"v":1,"views":["spend"],"features":["m"],"keys":{"u":["ann"]}}"#, "unknown feature \"m\""),
        (r#"{"v":1,"views":["spend","shops"],"keys":{"u":["ann"],"shop":[1]}}"#, "ambiguous"),
        (r#"{"v":1,"views":["spend"],"keys":{"u":[42]}}"#, "entity column \"u\" is a string, found a number"),
        (r#"{"v":1,"views":["shops"],"keys":{"shop":["one"]}}"#, "entity column \"shop\" is a number, found a string"),
        (r#"{"v":1,"views":["spend"],"keys":{"user":["ann"]}}"#, "\"user\" is no entity column; the entity is (u)"),
        (r#"{"v":1,"views":["spend"],"keys":{}}"#, "entity column \"u\" is not given"),
        (r#"{"v":1,"views":["spend"],"keys":{"u":["ann"],"u":["bob"]}}"#, "entity column \"u\" is given twice\n --> <ticket>:1:"),
        (r#"{"v":1,"views":["spend"],"keys":{"u":["ann"]},"as_of":"soon"}"#, "\"as_of\" is no timestamp"),
        (r#"{"v":1,"sql":"SELECT * FROM spend FOR ENTITY 42"}"#, "^^"),
        (r#"{"v":1,"sql":"SELECT $1"}"#, "the statement has 1 parameters, 0 are given"),
    ] {
        let e = ticket(&client, bytes).await;
        assert!(e.remedy == Remedy::Invalid && e.message.contains(says), "{bytes}: {e}");
    }
    let e = refused(&client, "SELECT * FROM spend FOR ENTITY 42").await;
    assert!(e.message.contains("error[E0501]") && e.message.contains("^^"), "{e}");
    for (request, keys, says) in [
        (exchange(&["spent"], &[]), key_schema("u", DataType::Utf8), "--> <descriptor>:1:"),
        (exchange(&["spent"], &[]), key_schema("u", DataType::Utf8), "nearest known feature view is \"spend\""),
        (exchange(&["spend"], &["m"]), key_schema("u", DataType::Utf8), "unknown feature"),
        (exchange(&[], &[]), key_schema("u", DataType::Utf8), "no \"views\""),
    ] {
        let e = client.exchange(&request, &keys).await.map(drop).expect_err("refused");
        assert!(e.remedy == Remedy::Invalid && e.message.contains(says), "{e}");
    }
    for (name, column, says) in [
        ("u", Arc::new(Int64Array::from(vec![1])) as ArrayRef, "entity column \"u\" is a string, found a number"),
        ("user", Arc::new(StringArray::from(vec!["ann"])), "\"user\" is no entity column"),
    ] {
        let mut session =
            client.exchange(&exchange(&["spend"], &[]), &key_schema(name, column.data_type().clone())).await.expect("a session");
        let e = session.features(&RecordBatch::try_from_iter([(name, column)]).expect("keys")).await.expect_err("refused");
        assert!(e.remedy == Remedy::Invalid && e.message.contains(says), "{e}");
    }
    let e =
        client.put(&PutRequest { stream: "payy".into(), token: None }, &key_schema("u", DataType::Utf8), futures::stream::empty()).await;
    assert!(e.expect_err("no such stream").message.contains("\"pay\""));
    let e =
        client.put(&PutRequest { stream: "spend".into(), token: None }, &key_schema("u", DataType::Utf8), futures::stream::empty()).await;
    assert!(e.expect_err("a view").message.contains("only streams are written"));
    server.is_unharmed().await;
}

#[tokio::test]
async fn handles_and_parameters_that_do_not_fit() {
    let mut server = Server::new().await;
    let (client, other) = (server.client().await, server.client().await);
    let unknown = CommandPreparedStatementQuery { prepared_statement_handle: vec![1, 2, 3].into() };
    let e = client.info_of(FlightDescriptor::new_cmd(unknown.as_any().encode_to_vec())).await.expect_err("no such handle");
    assert!(e.remedy == Remedy::NotFound && e.message.contains("unknown prepared statement"), "{e}");
    let prepared = client.prepare("SELECT * FROM spend FOR ENTITY u = $1").await.expect("prepared");
    let e = prepared.execute(None).await.map(drop).expect_err("nothing is bound");
    assert!(e.remedy == Remedy::Invalid && e.message == "the statement has 1 parameters, 0 are given", "{e}");
    let two = RecordBatch::try_from_iter(["a", "b"].map(|n| (n, Arc::new(StringArray::from(vec!["x"])) as ArrayRef))).expect("two columns");
    let e = prepared.execute(Some(&two)).await.map(drop).expect_err("two are bound");
    assert!(e.remedy == Remedy::Invalid && e.message == "the statement has 1 parameters, 2 are given", "{e}");
    assert!(other.prepare("SELECT").await.is_err());
    server.is_unharmed().await;
}

#[tokio::test]
async fn ipc_that_is_malformed() {
    let mut server = Server::new().await;
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", server.address)).expect("an address").connect().await;
    let mut raw = FlightServiceClient::new(channel.expect("a channel"));
    let batch = RecordBatch::try_from_iter([("u", Arc::new(StringArray::from(vec!["ann", "bob"])) as ArrayRef)]).expect("keys");
    let (schema, rows) = (schema_message(&batch.schema()), batch_message(&batch).expect("a message"));
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(5);
    for case in 0..300 {
        let mut damaged = rows.clone();
        let mut first = schema.clone();
        let target = if case % 5 == 0 {
            &mut first.data_header
        } else if case % 2 == 0 {
            &mut damaged.data_header
        } else {
            &mut damaged.data_body
        };
        let mut bytes = target.to_vec();
        match case % 3 {
            0 => bytes.truncate(random.random_range(0..bytes.len())),
            _ => {
                let at = random.random_range(0..bytes.len());
                bytes[at] ^= random.random_range(1..=255);
            }
        }
        *target = bytes.into();
        let descriptor =
            if case % 2 == 0 { FlightDescriptor::new_path(vec!["pay".into()]) } else { FlightDescriptor::new_path(vec!["spend".into()]) };
        let messages = futures::stream::iter([first.with_descriptor(descriptor), damaged]);
        let status = if case % 2 == 0 {
            raw.do_put(messages).await.map(drop)
        } else {
            match raw.do_exchange(messages).await {
                Ok(answers) => {
                    let mut answers = answers.into_inner();
                    loop {
                        match answers.message().await {
                            Ok(Some(_)) => {}
                            Ok(None) => break Ok(()),
                            Err(e) => break Err(e),
                        }
                    }
                }
                Err(e) => Err(e),
            }
        };
        if let Err(e) = status {
            assert!(matches!(e.code(), Code::InvalidArgument | Code::DataLoss), "case {case}: {e:?}");
        }
    }
    let nothing = raw.do_put(futures::stream::iter([FlightData::new()])).await.map(drop).expect_err("no descriptor");
    assert_eq!(nothing.code(), Code::InvalidArgument, "{nothing:?}");
    let empty = raw.do_put(futures::stream::empty()).await.map(drop).expect_err("no message");
    assert_eq!(empty.code(), Code::InvalidArgument, "{empty:?}");
    server.is_unharmed().await;
}

#[tokio::test]
async fn a_million_keys_at_once() {
    let mut server = Server::new().await;
    let client = server.client().await;
    let keys = RecordBatch::try_from_iter([("u", Arc::new(StringArray::from(vec!["ann"; 1_000_000])) as ArrayRef)]).expect("keys");
    let mut session = client.exchange(&exchange(&["spend"], &[]), &keys.schema()).await.expect("a session");
    let e = session.features(&keys).await.expect_err("too many");
    assert!(e.remedy == Remedy::Invalid && e.message.contains("1000000 entities are asked for, the limit is"), "{e}");
    let prepared = client.prepare("SELECT * FROM spend FOR ENTITY u = $1").await.expect("prepared");
    let e = prepared.execute(Some(&keys)).await.map(drop).expect_err("too many");
    assert!(e.message.contains("1000000"), "{e}");
    server.is_unharmed().await;
}

#[tokio::test]
async fn a_client_that_says_nothing_is_closed() {
    let mut server = Server::with(&["--idle-seconds", "1", "2"]).await;
    let address = server.address.clone();
    let silent = tokio::task::spawn_blocking(move || {
        let mut nothing = TcpStream::connect(&address).expect("it connects");
        let mut something = TcpStream::connect(&address).expect("it connects");
        something.write_all(b"GET / HTTP/1.1").expect("sent");
        for socket in [&mut nothing, &mut something] {
            socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
            let mut rest = Vec::new();
            let closed = socket.read_to_end(&mut rest);
            let timed_out = matches!(&closed, Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut));
            assert!(!timed_out, "the socket is still open");
        }
    });
    silent.await.expect("both are closed");
    let client = server.client().await;
    let mut session = client.exchange(&exchange(&["spend"], &[]), &key_schema("u", DataType::Utf8)).await.expect("a session");
    assert_eq!(session.receive().await.expect_err("nothing was said").remedy, Remedy::Cancelled);
    server.is_unharmed().await;
}
