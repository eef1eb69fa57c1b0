//! Which partition of a topic a key lies in, as the producers that wrote the topic have it.
//!
//! The hash is over the key's bytes: the text of a VARCHAR in UTF-8, an integer as decimal digits. It is part of
//! what a shared stream means: a process answers for the entities whose keys hash to its partitions, and a record that lies elsewhere
//! is rejected, since nobody would find it there.

use std::collections::BTreeMap;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, Int8Type, Int16Type, Int32Type, Int64Type};

use crate::error::{Error, Result};

/// How producers hash keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Partitioner {
    /// Java's producer by default; librdkafka's `murmur2` and `murmur2_random`.
    Murmur2,
    /// librdkafka's default; its `consistent` and, but for the empty key, which that puts anywhere, `consistent_random`.
    Crc32,
    /// librdkafka's `fnv1a` and `fnv1a_random`; Sarama's default.
    Fnv1a,
}

impl Partitioner {
    /// The names of all, as the option `partitioner` spells them.
    pub const NAMES: &[&str] = &["murmur2", "crc32", "fnv1a"];

    /// The partitioner of an option's text; None for a text that names none.
    pub fn find(name: &str) -> Option<Self> {
        match name {
            "murmur2" => Some(Self::Murmur2),
            "crc32" => Some(Self::Crc32),
            "fnv1a" => Some(Self::Fnv1a),
            _ => None,
        }
    }

    /// The partition of a key among `partitions`, which are at least one.
    pub fn partition(self, key: &[u8], partitions: i32) -> i32 {
        let hash = match self {
            Self::Murmur2 => murmur2(key) & 0x7fff_ffff,
            Self::Crc32 => crc32(key),
            // The absolute value of the hash as a signed number.
            Self::Fnv1a => fnv1a(key).cast_signed().unsigned_abs(),
        };
        let partitions = u32::try_from(partitions).unwrap_or(1).max(1);
        (hash % partitions).cast_signed()
    }
}

/// <https://github.com/apache/kafka/blob/4.1/clients/src/main/java/org/apache/kafka/common/utils/Utils.java>, `murmur2`.
fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    const SEED: u32 = 0x9747_b28c;
    let (words, rest) = data.as_chunks::<4>();
    let mut hash = SEED ^ data.len() as u32;
    for word in words {
        let k = u32::from_le_bytes(*word).wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ (k ^ (k >> 24)).wrapping_mul(M);
    }
    if !rest.is_empty() {
        for (i, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * i);
        }
        hash = hash.wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    hash ^ (hash >> 15)
}

/// The CRC-32 of Ethernet and zlib, reflected.
fn crc32(data: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0u32; 256];
        let mut i = 0;
        while i < 256 {
            let (mut value, mut bit) = (i as u32, 0);
            while bit < 8 {
                value = if value & 1 == 1 { 0xedb8_8320 ^ (value >> 1) } else { value >> 1 };
                bit += 1;
            }
            table[i] = value;
            i += 1;
        }
        table
    };
    !data.iter().fold(u32::MAX, |crc, byte| TABLE[usize::from((crc as u8) ^ byte)] ^ (crc >> 8))
}

/// FNV-1a of 32 bits.
fn fnv1a(data: &[u8]) -> u32 {
    data.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

/// Where the rows of a stream lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    /// The column that producers partition by.
    pub column: usize,
    /// How they do.
    pub partitioner: Partitioner,
    /// How many partitions the topic has.
    pub partitions: i32,
}

/// Whether a column of this type can be what producers partition by.
pub fn is_key_type(data_type: &DataType) -> bool {
    data_type.is_signed_integer() || *data_type == DataType::Utf8View
}

impl Placement {
    /// The partition of a key's bytes.
    pub fn of_bytes(&self, key: &[u8]) -> i32 {
        self.partitioner.partition(key, self.partitions)
    }

    /// The partition of an integer.
    pub fn of_integer(&self, key: i64) -> i32 {
        self.of_bytes(key.to_string().as_bytes())
    }

    /// The partition of each key; `None` for a NULL.
    pub fn of_keys(&self, keys: &ArrayRef) -> Result<Vec<Option<i32>>> {
        macro_rules! integers {
            ($type:ty) => {
                keys.as_primitive::<$type>().iter().map(|k| k.map(|k| self.of_integer(k.into()))).collect()
            };
        }
        Ok(match keys.data_type() {
            DataType::Utf8View => keys.as_string_view().iter().map(|k| k.map(|k| self.of_bytes(k.as_bytes()))).collect(),
            DataType::Int8 => integers!(Int8Type),
            DataType::Int16 => integers!(Int16Type),
            DataType::Int32 => integers!(Int32Type),
            DataType::Int64 => integers!(Int64Type),
            other => return Err(Error::internal(format!("a key of type {other} that producers partition by"))),
        })
    }

    /// Rows of the stream by the partition that they lie in.
    pub fn split(&self, rows: &RecordBatch) -> Result<Vec<(i32, RecordBatch)>> {
        let mut places: BTreeMap<i32, Vec<u32>> = BTreeMap::new();
        for (row, partition) in self.of_keys(self.keys(rows)?)?.into_iter().enumerate() {
            // The key is never NULL.
            places.entry(partition.unwrap_or(0)).or_default().push(row as u32);
        }
        if let (1, Some((partition, _))) = (places.len(), places.first_key_value()) {
            return Ok(vec![(*partition, rows.clone())]);
        }
        places.into_iter().map(|(partition, places)| Ok((partition, take_record_batch(rows, &UInt32Array::from(places))?))).collect()
    }

    fn keys<'a>(&self, rows: &'a RecordBatch) -> Result<&'a ArrayRef> {
        rows.columns().get(self.column).ok_or_else(|| Error::internal("rows without the column that they lie by"))
    }

    /// Of some rows of the stream those that lie in a partition.
    pub fn rows_in(&self, partition: i32, rows: &RecordBatch) -> Result<RecordBatch> {
        let of = self.of_keys(self.keys(rows)?)?;
        if of.iter().all(|p| *p == Some(partition)) {
            return Ok(rows.clone());
        }
        let places = of.iter().enumerate().filter(|(_, p)| **p == Some(partition)).map(|(row, _)| row as u32);
        Ok(take_record_batch(rows, &UInt32Array::from_iter_values(places))?)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, StringViewArray};
    use arrow::datatypes::{Field, Schema};

    use super::*;

    #[test]
    fn hashes_are_those_of_the_clients() {
        // Kafka's own UtilsTest.
        let java: [(&str, i32); 7] = [
            ("21", -973932308),
            ("foobar", -790332482),
            ("a-little-bit-long-string", -985981536),
            ("a-little-bit-longer-string", -1486304829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
            ("abc", 479470107),
            ("", 275646681),
        ];
        for (key, hash) in java {
            assert_eq!(murmur2(key.as_bytes()).cast_signed(), hash, "{key}");
        }
        // The check values of the algorithms' own catalogues.
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(fnv1a(b"foobar"), 0xbf9c_f968);
        // librdkafka's unit test, itself from Go's hash/fnv as Sarama uses it.
        assert_eq!(fnv1a(b"kafka").cast_signed().unsigned_abs(), 0x0d33_c4e1);
        assert_eq!(fnv1a(b"giberish123456789").cast_signed().unsigned_abs(), 0x77a5_8295);
    }

    #[test]
    fn rows_are_told_apart_by_their_key() {
        let placement = Placement { column: 1, partitioner: Partitioner::Crc32, partitions: 3 };
        let keys = ["a", "b", "c", "d", "e"];
        let schema = Schema::new(vec![Field::new("n", DataType::Int64, false), Field::new("k", DataType::Utf8View, false)]);
        let columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from_iter(0..5)), Arc::new(StringViewArray::from_iter_values(keys))];
        let rows = RecordBatch::try_new(Arc::new(schema), columns).unwrap();
        let mut found: Vec<i64> =
            (0..3).flat_map(|p| placement.rows_in(p, &rows).unwrap().column(0).as_primitive::<Int64Type>().values().to_vec()).collect();
        found.sort_unstable();
        assert_eq!(found, [0, 1, 2, 3, 4]);
        let one = Placement { partitions: 1, ..placement };
        assert_eq!(one.rows_in(0, &rows).unwrap(), rows);
        let integers: ArrayRef = Arc::new(Int64Array::from(vec![Some(-12), None]));
        assert_eq!(placement.of_keys(&integers).unwrap(), [Some(placement.of_bytes(b"-12")), None]);
    }
}
