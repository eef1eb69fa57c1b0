//! What is asked, and what must be answered: both lie in the folder that `load fill` writes.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float64Type, Int64Type};

use super::Result;

#[path = "../../benches/asof/data.rs"]
mod data;

pub(crate) use data::{DAY_US, START_US, Zipf, below, chance};

/// How many keys are drawn; a run that asks for more begins again.
const KEYS: usize = 100_000;
/// The streams of chance.
const ASKED: u64 = 11;

/// The entities of one view and their features at the instant. Cheap to clone.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) view: String,
    pub(crate) instant: String,
    pub(crate) entities: Arc<[String]>,
    pub(crate) features: Vec<String>,
    /// The features' bits, entity after entity; `None` is NULL.
    bits: Arc<[Option<u64>]>,
    /// Entities in the order in which they are asked for.
    asked: Arc<[u32]>,
    /// The messages of a real answer, for the echo.
    pub(crate) dir: PathBuf,
}

/// The name of the view with so many features.
pub(crate) fn view(features: usize) -> String {
    format!("spend{features}")
}

impl World {
    pub(crate) fn read(dir: &Path, features: usize) -> Result<Self> {
        let path = dir.join(format!("{}.arrow", view(features)));
        let file = File::open(&path).map_err(|e| format!("{}: {e}; `load fill` writes it", path.display()))?;
        let reader = arrow::ipc::reader::FileReader::try_new(file, None)?;
        let schema = reader.schema();
        let batches = reader.collect::<std::result::Result<Vec<_>, _>>()?;
        let instant = std::fs::read_to_string(dir.join("instant"))?;
        Self::new(dir, view(features), instant, arrow::compute::concat_batches(&schema, &batches)?)
    }

    fn new(dir: &Path, view: String, instant: String, values: RecordBatch) -> Result<Self> {
        let entities: Vec<String> = values.column(0).as_string::<i32>().iter().map(|e| e.unwrap_or_default().to_owned()).collect();
        let features = values.schema().fields()[1..].iter().map(|f| f.name().clone()).collect();
        let mut bits = vec![None; entities.len() * (values.num_columns() - 1)];
        for (f, column) in values.columns()[1..].iter().enumerate() {
            for e in 0..entities.len() {
                bits[e * (values.num_columns() - 1) + f] = bits_of(column.as_ref(), e)?;
            }
        }
        let mut rng = chance(ASKED);
        let zipf = Zipf::new(entities.len(), &mut rng);
        let asked = (0..KEYS).map(|_| zipf.draw(&mut rng)).collect();
        Ok(Self { view, instant, entities: entities.into(), features, bits: bits.into(), asked, dir: dir.to_owned() })
    }

    /// The entities of a request.
    pub(crate) fn keys(&self, request: usize, batch: usize) -> &[u32] {
        let requests = self.asked.len() / batch;
        let at = request % requests * batch;
        &self.asked[at..at + batch]
    }

    /// How many different requests there are.
    pub(crate) fn requests(&self, batch: usize) -> usize {
        self.asked.len() / batch
    }

    /// The features of an entity: the bits of each, or NULL.
    pub(crate) fn bits(&self, entity: u32) -> &[Option<u64>] {
        let n = self.features.len();
        &self.bits[entity as usize * n..][..n]
    }

    /// Whether the last columns of a batch are the features of these entities, bit for bit.
    pub(crate) fn is_right(&self, keys: &[u32], found: &RecordBatch) -> bool {
        let Some(first) = found.num_columns().checked_sub(self.features.len()) else { return false };
        found.num_rows() == keys.len()
            && found.columns()[first..].iter().enumerate().all(|(f, column)| {
                keys.iter().enumerate().all(|(row, key)| bits_of(column.as_ref(), row).is_ok_and(|b| b == self.bits(*key)[f]))
            })
    }
}

fn bits_of(column: &dyn Array, row: usize) -> Result<Option<u64>> {
    if column.is_null(row) {
        return Ok(None);
    }
    match column.data_type() {
        DataType::Float64 => Ok(Some(column.as_primitive::<Float64Type>().value(row).to_bits())),
        DataType::Int64 => Ok(Some(column.as_primitive::<Int64Type>().value(row) as u64)),
        other => Err(format!("a feature of type {other}").into()),
    }
}
