//! Runs `quickstart.sql` in a fresh warehouse under `target/quickstart` and prints what each statement returns.

use std::error::Error;
use std::path::Path;

use arrow::util::pretty::pretty_format_batches;
use asof::{Engine, Output};

const WAREHOUSE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/quickstart");

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    if Path::new(WAREHOUSE).exists() {
        std::fs::remove_dir_all(WAREHOUSE)?;
    }
    let engine = Engine::builder().warehouse(WAREHOUSE).build().await?;
    for output in engine.execute_named(include_str!("quickstart.sql"), "examples/quickstart.sql", &[]).await? {
        match output {
            Output::Rows { batches, note, .. } => {
                println!("{}", pretty_format_batches(&batches)?);
                if let Some(note) = note {
                    println!("note: {note}");
                }
            }
            Output::Done { message, .. } => println!("{message}"),
        }
    }
    engine.close().await?;
    Ok(())
}
