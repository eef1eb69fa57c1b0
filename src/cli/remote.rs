//! What statements are run by: an engine in this process, or a server.
//!
//! A script for a server is parsed here too, so that its statements are answered one by one and its errors name the file. Each is sent at
//! the line and column where it stands, behind blank space, so that places in errors are those of the script.

use std::ops::ControlFlow;

use arrow::array::RecordBatch;
use arrow::datatypes::{Field, Schema};
use asof_flight::{Client, ClientOptions, Response};
use asof_sql::ast::Statement;
use datafusion::common::ScalarValue;
use std::sync::Arc;

use super::args::Remote;
use super::exit::Failure;
use super::interrupt::or_interrupt;
use super::progress::Progress;
use super::sql::{CLOSE_TIMEOUT, close};
use crate::engine::{Engine, Output};
use crate::error::{Error, Result, SqlError};

/// What runs statements.
#[derive(Debug, Clone)]
pub(super) enum Target {
    /// An engine in this process.
    Local(Engine),
    /// A server.
    Remote(Box<Client>),
}

impl Target {
    /// Connects to a server.
    pub(super) async fn connect(uri: &str, remote: &Remote, progress: &Progress) -> Result<Self, Failure> {
        let token = remote.token_file.as_deref().map(super::serve::token).transpose()?;
        let read =
            |path: &std::path::PathBuf| std::fs::read(path).map_err(|e| Failure::usage(format!("reading \"{}\": {e}", path.display())));
        let certificate = remote.tls_ca.as_ref().map(read).transpose()?;
        progress.begin("connecting");
        let client = or_interrupt(Client::connect(uri, ClientOptions { token, certificate, server_name: None })).await;
        progress.end();
        Ok(Target::Remote(Box::new(client?.map_err(Error::from)?)))
    }

    /// Runs a script and hands each statement's output on as it is there.
    pub(super) async fn execute_each(
        &self,
        sql: &str,
        source: &str,
        params: &[ScalarValue],
        each: &mut (dyn FnMut(Output) -> ControlFlow<()> + Send),
    ) -> Result<()> {
        let client = match self {
            Target::Local(engine) => return engine.execute_each(sql, source, params, each).await,
            Target::Remote(client) => client,
        };
        let statements = asof_sql::parse::parse(sql, source).map_err(|d| crate::engine::rendered(&d, source, sql))?;
        for statement in &statements {
            let output = run(client, statement, params).await.map_err(|e| renamed(&e, source))?;
            if each(output).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// The names of streams, views and tables.
    pub(super) async fn names(&self) -> Vec<String> {
        match self {
            Target::Local(engine) => engine.names(),
            // Completion does without where the server does not answer.
            Target::Remote(client) => {
                let names = client.query("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'").await;
                let names = names.unwrap_or_default();
                let column = |b: &RecordBatch| {
                    let texts = b.columns().first().and_then(|c| arrow::compute::cast(c, &arrow::datatypes::DataType::Utf8).ok());
                    texts.map(|t| arrow::array::AsArray::as_string::<i32>(&t).iter().flatten().map(str::to_owned).collect::<Vec<_>>())
                };
                names.iter().filter_map(column).flatten().collect()
            }
        }
    }

    /// Gives back what is held.
    pub(super) async fn close(self) -> Result<(), Failure> {
        match self {
            Target::Local(engine) => close(engine, CLOSE_TIMEOUT).await,
            Target::Remote(_) => Ok(()),
        }
    }
}

async fn run(client: &Client, statement: &Statement, params: &[ScalarValue]) -> Result<Output> {
    let start = statement.span.start;
    let lines = "\n".repeat(start.line.saturating_sub(1) as usize);
    let text = format!("{lines}{}{}", " ".repeat(start.column.saturating_sub(1) as usize), statement.text);
    let response = if statement.parameters == 0 {
        client.execute(&text).await?
    } else {
        let given = params
            .get(..statement.parameters)
            .ok_or_else(|| Error::invalid(format!("the statement has {} parameters, {} are given", statement.parameters, params.len())))?;
        let fields = given.iter().enumerate().map(|(i, p)| Field::new(format!("${}", i + 1), p.data_type(), true));
        let columns = given.iter().map(|p| p.to_array()).collect::<std::result::Result<Vec<_>, _>>()?;
        let row = RecordBatch::try_new(Arc::new(Schema::new(fields.collect::<Vec<_>>())), columns)?;
        let prepared = client.prepare(&text).await?;
        let response = prepared.execute(Some(&row)).await;
        // What it leaves behind ends with the connection.
        let _ = prepared.close().await;
        response?
    };
    Ok(match response {
        Response::Rows(rows) => {
            let mut schema = rows.schema().clone();
            let batches = rows.collect().await?;
            let note = schema.metadata().get("asof.note").cloned();
            if let Some(first) = batches.first() {
                schema = first.schema();
            }
            Output::Rows { schema, batches, note }
        }
        Response::Done { message, counts } => Output::Done { message, counts: counts.map(Into::into) },
    })
}

/// The server's error with the name of the script in place of its own for a text.
fn renamed(e: &Error, source: &str) -> Error {
    let message = e.message().replace("--> <sql>:", &format!("--> {source}:"));
    match message.strip_prefix("error[").and_then(|rest| rest.split_once(']')).map(|(code, _)| code.to_owned()) {
        Some(code) => Error::sql(vec![SqlError { code, line: 0, column: 0, rendered: message }]),
        None => Error::new(e.kind(), message),
    }
}
