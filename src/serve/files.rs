//! Results written to files: `COPY (query) TO 'path'`. A file appears whole or not at all.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::csv::WriterBuilder as CsvBuilder;
use arrow::datatypes::Schema;
use arrow::json::LineDelimitedWriter;
use asof_sql::ast::FileFormat;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::basic::{Compression, ZstdLevel};
use datafusion::parquet::file::properties::WriterProperties;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::prelude::SessionContext;
use futures::StreamExt;

use crate::error::{Error, Result};

enum Writer {
    Parquet(Box<ArrowWriter<std::fs::File>>),
    Csv(Box<arrow::csv::Writer<std::io::BufWriter<std::fs::File>>>),
    Json(Box<LineDelimitedWriter<std::io::BufWriter<std::fs::File>>>),
}

/// Runs a plan into one file of a format; the schema's metadata gets `lineage`. Returns the number of rows.
pub async fn write(
    context: &SessionContext,
    plan: Arc<dyn ExecutionPlan>,
    path: &str,
    format: FileFormat,
    lineage: HashMap<String, String>,
) -> Result<u64> {
    let path = std::path::Path::new(path.strip_prefix("file://").unwrap_or(path));
    let fail = |e: &dyn std::fmt::Display| Error::unavailable(format!("cannot write \"{}\": {e}", path.display()));
    if let Some(folder) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(|e| fail(&e))?;
    }
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".part");
    let temporary = std::path::PathBuf::from(temporary);
    let written = async {
        let file = std::fs::File::create(&temporary).map_err(|e| fail(&e))?;
        let mut metadata = plan.schema().metadata().clone();
        metadata.extend(lineage);
        let schema = Arc::new(Schema::new_with_metadata(plan.schema().fields().clone(), metadata));
        let buffered = |f| std::io::BufWriter::with_capacity(1 << 20, f);
        let mut writer = match format {
            FileFormat::Parquet => {
                let properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?)).build();
                Writer::Parquet(Box::new(ArrowWriter::try_new(file, schema.clone(), Some(properties))?))
            }
            FileFormat::Csv => Writer::Csv(Box::new(CsvBuilder::new().with_header(true).build(buffered(file)))),
            FileFormat::Json => Writer::Json(Box::new(LineDelimitedWriter::new(buffered(file)))),
            FileFormat::Delta => return Err(Error::invalid("COPY TO writes parquet, csv or json")),
        };
        let mut rows = 0;
        let mut batches = execute_stream(plan.clone(), context.task_ctx())?;
        while let Some(batch) = batches.next().await {
            let batch = batch?.with_schema(schema.clone())?;
            rows += batch.num_rows() as u64;
            match &mut writer {
                Writer::Parquet(w) => w.write(&batch)?,
                Writer::Csv(w) => w.write(&batch)?,
                Writer::Json(w) => w.write(&batch)?,
            }
        }
        match writer {
            Writer::Parquet(w) => drop(w.close()?),
            Writer::Csv(w) => drop(w.into_inner().into_inner().map_err(|e| fail(&e))?),
            Writer::Json(mut w) => {
                w.finish()?;
                drop(w.into_inner().into_inner().map_err(|e| fail(&e))?);
            }
        }
        std::fs::rename(&temporary, path).map_err(|e| fail(&e))?;
        Ok(rows)
    }
    .await;
    if written.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    written
}
