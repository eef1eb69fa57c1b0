//! `asof sql`: scripts run one after the other, their answers written as they come.

use std::io::{self, BufWriter, Read, Stdout};
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use datafusion::common::ScalarValue;

use super::args::{Script, SqlOptions};
use super::exit::{Code, Failure};
use super::format::Printer;
use super::interrupt::or_interrupt;
use super::progress::Progress;
use super::remote::Target;
use crate::engine::Engine;
use crate::error::{Error, Kind};

/// Giving back a lease takes a request or two; a store that does not answer must not hold the exit for longer.
pub(super) const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// A script's text and the name that its errors show.
struct Text {
    source: String,
    sql: String,
}

/// Runs `asof sql`.
pub(super) async fn run(warehouse: &str, options: SqlOptions) -> Result<Code, Failure> {
    // All texts first: a file that is not there stops the run before it has done anything.
    let texts = read(&options.scripts)?;
    let progress = Progress::new();
    let mut printer = Printer::new(options.format, output());
    let engine = super::target(warehouse, &options.remote, &progress).await?;
    let done = or_interrupt(scripts(&engine, &texts, &options.params, &mut printer, &progress)).await.and_then(|done| done);
    progress.end();
    let closed = engine.close().await;
    done.and(closed).map(|()| Code::Done)
}

/// Standard output, written in large pieces.
pub(super) fn output() -> BufWriter<Stdout> {
    BufWriter::with_capacity(1 << 16, io::stdout())
}

/// Gives back what the process holds of the warehouse.
pub(super) async fn close(engine: Engine, within: Duration) -> Result<(), Failure> {
    match tokio::time::timeout(within, engine.close()).await {
        Ok(closed) => Ok(closed?),
        Err(_) => Err(Error::unavailable("closing the warehouse took too long; what it holds expires by itself").into()),
    }
}

async fn scripts(
    engine: &Target,
    texts: &[Text],
    params: &[ScalarValue],
    printer: &mut Printer<BufWriter<Stdout>>,
    progress: &Progress,
) -> Result<(), Failure> {
    for text in texts {
        let mut statement = 1;
        let mut failed = None;
        progress.begin(label(text, statement));
        let done = engine
            .execute_each(&text.sql, &text.source, params, &mut |output| {
                progress.end();
                if let Err(failure) = printer.print(&output) {
                    failed = Some(failure);
                    return ControlFlow::Break(());
                }
                statement += 1;
                progress.begin(label(text, statement));
                ControlFlow::Continue(())
            })
            .await;
        progress.end();
        failed.map_or(Ok(()), Err)?;
        done?;
    }
    Ok(())
}

fn label(text: &Text, statement: usize) -> String {
    format!("{} statement {statement}", text.source)
}

fn read(scripts: &[Script]) -> Result<Vec<Text>, Failure> {
    let commands = scripts.iter().filter(|s| matches!(s, Script::Text(_))).count();
    let mut command = 0;
    let mut texts = Vec::new();
    for script in scripts {
        texts.push(match script {
            Script::Text(sql) => {
                command += 1;
                let source = if commands > 1 { format!("<command {command}>") } else { "<command>".into() };
                Text { source, sql: sql.clone() }
            }
            Script::File(path) => read_text(&path.display().to_string(), std::fs::read(path))?,
            Script::StandardInput => {
                let mut bytes = Vec::new();
                let read = io::stdin().lock().read_to_end(&mut bytes).map(|_| bytes);
                read_text("<stdin>", read)?
            }
        });
    }
    Ok(texts)
}

fn read_text(source: &str, bytes: io::Result<Vec<u8>>) -> Result<Text, Error> {
    let bytes = bytes.map_err(|e| Error::new(Kind::Invalid, format!("reading {}: {e}", quoted(source))))?;
    let sql = String::from_utf8(bytes).map_err(|e| {
        let line = 1 + e.as_bytes()[..e.utf8_error().valid_up_to()].iter().filter(|b| **b == b'\n').count();
        Error::invalid(format!("{} is not UTF-8 in line {line}", quoted(source)))
    })?;
    // A byte order mark is not part of the text.
    let sql = sql.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(sql);
    Ok(Text { source: source.into(), sql })
}

fn quoted(source: &str) -> String {
    if Path::new(source).exists() || !source.starts_with('<') { format!("\"{source}\"") } else { source.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_have_names() {
        let one = read(&[Script::Text("SELECT 1".into())]).unwrap();
        assert_eq!((one[0].source.as_str(), one[0].sql.as_str()), ("<command>", "SELECT 1"));
        let two = read(&[Script::Text("SELECT 1".into()), Script::Text("SELECT 2".into())]).unwrap();
        assert_eq!(two[1].source, "<command 2>");
    }

    #[test]
    fn a_file_that_cannot_be_read_is_an_invalid_request() {
        let failure = read(&[Script::File("no/such/file.sql".into())]).map(|_| ()).unwrap_err();
        assert_eq!(failure.code(), Code::Invalid);
        let error = read_text("a.sql", Ok(b"SELECT 1;\n\xff".to_vec())).map(|_| ()).unwrap_err();
        assert_eq!(error.to_string(), "\"a.sql\" is not UTF-8 in line 2");
    }

    #[test]
    fn a_byte_order_mark_is_no_text() {
        assert_eq!(read_text("a.sql", Ok(b"\xef\xbb\xbfSELECT 1".to_vec())).unwrap().sql, "SELECT 1");
    }
}
