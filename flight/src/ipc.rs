//! Arrow IPC on the wire: what is sent in types that every client reads, what is received checked before it is decoded.
//!
//! The decoder of the arrow crates trusts lengths and offsets of a message and panics on wrong ones. Here a message is checked against its
//! body first, and what it would allocate against a limit.

use std::cell::Cell;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Once};

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::buffer::Buffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use arrow::ipc::convert::try_schema_from_flatbuffer_bytes;
use arrow::ipc::reader::{read_dictionary, read_record_batch};
use arrow::ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteOptions};
use arrow::ipc::{Message, MessageHeader, TimeUnit, Type, root_as_message};
use arrow_flight::{FlightData, SchemaAsIpc};

use crate::status::{Failure, Outcome};

/// The most that one message may become once it is decompressed, bytes.
const DECODED_BYTES_MAX: i64 = 1 << 30;
/// The most rows of one message, nested ones included.
const ROWS_MAX: i64 = 1 << 26;

/// The type that is sent for a type: views, dictionaries and runs as their plain kin, which every client reads.
pub fn plain_type(t: &DataType) -> DataType {
    let inner = |f: &FieldRef| Arc::new(f.as_ref().clone().with_data_type(plain_type(f.data_type())));
    match t {
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        DataType::Dictionary(_, value) => plain_type(value),
        DataType::RunEndEncoded(_, value) => plain_type(value.data_type()),
        DataType::List(f) | DataType::ListView(f) => DataType::List(inner(f)),
        DataType::LargeList(f) | DataType::LargeListView(f) => DataType::LargeList(inner(f)),
        DataType::FixedSizeList(f, n) => DataType::FixedSizeList(inner(f), *n),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(inner).collect()),
        other => other.clone(),
    }
}

/// The schema that is sent for a schema.
pub fn plain_schema(schema: &Schema) -> SchemaRef {
    let fields = schema.fields().iter().map(|f| f.as_ref().clone().with_data_type(plain_type(f.data_type())));
    Arc::new(Schema::new_with_metadata(fields.collect::<Vec<Field>>(), schema.metadata().clone()))
}

/// Columns as a batch of a plain schema.
pub fn plain_batch(columns: &[ArrayRef], rows: usize, schema: &SchemaRef) -> Outcome<RecordBatch> {
    let columns = columns
        .iter()
        .zip(schema.fields())
        .map(|(c, f)| if c.data_type() == f.data_type() { Ok(c.clone()) } else { cast(c, f.data_type()) })
        .collect::<Result<Vec<_>, _>>();
    let columns = columns.map_err(|e| Failure::internal(format!("an answer does not fit its schema: {e}")))?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(schema.clone(), columns, &options)
        .map_err(|e| Failure::internal(format!("an answer does not fit its schema: {e}")))
}

/// The message that announces a schema.
pub fn schema_message(schema: &Schema) -> FlightData {
    SchemaAsIpc::new(schema, &IpcWriteOptions::default()).into()
}

/// One batch of a plain schema as one message.
pub fn batch_message(batch: &RecordBatch) -> Outcome<FlightData> {
    let mut dictionaries = DictionaryTracker::new(false);
    let (_, batch) = IpcDataGenerator::default()
        .encode(batch, &mut dictionaries, &IpcWriteOptions::default(), &mut Default::default())
        .map_err(|e| Failure::internal(format!("encoding an answer: {e}")))?;
    Ok(batch.into())
}

/// What a message holds.
#[derive(Debug)]
pub enum Received {
    /// A schema, or a dictionary: what the batches that follow need.
    Preamble,
    /// Rows.
    Batch(RecordBatch),
    /// Nothing but metadata.
    Nothing,
}

/// The columns of an answer, with the message that announces them made once.
#[derive(Debug, Clone)]
pub struct Layout {
    /// The columns in plain types.
    pub schema: SchemaRef,
    /// The first message of each answer.
    pub message: FlightData,
}

impl Layout {
    /// The layout of answers with these columns.
    pub fn new(schema: &Schema) -> Self {
        let schema = plain_schema(schema);
        let message = schema_message(&schema);
        Self { schema, message }
    }
}

/// Decodes the messages of one stream.
#[derive(Debug, Default)]
pub struct Decoder {
    schema: Option<SchemaRef>,
    dictionaries: HashMap<i64, ArrayRef>,
    /// The schema of the batches that come out, where it is not the one that was sent.
    plain: Option<SchemaRef>,
    /// What the messages so far take in memory, bytes.
    pub bytes: usize,
}

impl Decoder {
    /// The schema, once it is there.
    pub fn schema(&self) -> Option<&SchemaRef> {
        self.plain.as_ref().or(self.schema.as_ref())
    }

    /// Takes the next message.
    pub fn take(&mut self, data: &FlightData) -> Outcome<Received> {
        if data.data_header.is_empty() {
            return match data.data_body.is_empty() {
                true => Ok(Received::Nothing),
                false => Err(malformed("a body without a header")),
            };
        }
        let message = root_as_message(&data.data_header).map_err(|e| malformed(&e.to_string()))?;
        self.bytes = self.bytes.saturating_add(check(&message, &data.data_body)?);
        // What the checks do not see must not take the server down either.
        QUIET.set(true);
        let decoded = catch_unwind(AssertUnwindSafe(|| self.decode(&message, data)));
        QUIET.set(false);
        decoded.unwrap_or_else(|_| Err(malformed("it cannot be decoded")))
    }

    fn decode(&mut self, message: &Message<'_>, data: &FlightData) -> Outcome<Received> {
        let wrong = |e: arrow::error::ArrowError| malformed(&e.to_string());
        if message.header_type() == MessageHeader::Schema {
            if self.schema.is_some() {
                return Err(malformed("a second schema"));
            }
            let schema = message.header_as_schema().ok_or_else(|| malformed("no schema in a message of that kind"))?;
            let columns = schema.fields().map_or(0, |f| f.len());
            if columns > COLUMNS_MAX {
                return Err(Failure::invalid(format!("the schema has {columns} columns, the limit is {COLUMNS_MAX}")));
            }
            if !schema.fields().iter().flatten().all(|f| is_sound(f, 0)) {
                return Err(malformed("a column has no name or no type that is known"));
            }
            let schema = arrow::ipc::convert::fb_to_schema(schema);
            if schema.fields().iter().any(|f| is_encoded(f.data_type())) {
                self.plain = Some(plain_schema(&schema));
            }
            self.schema = Some(Arc::new(schema));
            return Ok(Received::Preamble);
        }
        let schema = self.schema.clone().ok_or_else(|| malformed("rows before the schema"))?;
        let body = Buffer::from(data.data_body.clone());
        if let Some(dictionary) = message.header_as_dictionary_batch() {
            read_dictionary(&body, dictionary, &schema, &mut self.dictionaries, &message.version()).map_err(wrong)?;
            return Ok(Received::Preamble);
        }
        let batch = message.header_as_record_batch().ok_or_else(|| malformed("neither a schema, a dictionary nor rows"))?;
        let batch = read_record_batch(&body, batch, schema, &self.dictionaries, None, &message.version()).map_err(wrong)?;
        match &self.plain {
            // Dictionaries and runs are how a value travels, not what it is.
            Some(plain) => Ok(Received::Batch(plain_batch(batch.columns(), batch.num_rows(), plain)?)),
            None => Ok(Received::Batch(batch)),
        }
    }
}

/// The most columns of a schema.
const COLUMNS_MAX: usize = 4096;

/// How deep columns nest.
const DEPTH_MAX: usize = 16;

thread_local! {
    /// Whether this thread decodes what a client sent: a panic there is the client's error, and is answered as one.
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Keeps what malformed messages do to the decoder out of the log; to be called once by a process that serves.
pub(crate) fn keep_decoding_quiet() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !QUIET.get() {
                usual(panic);
            }
        }));
    });
}

/// Whether a type says how values are encoded rather than what they are.
fn is_encoded(t: &DataType) -> bool {
    match t {
        DataType::Dictionary(..) | DataType::RunEndEncoded(..) | DataType::ListView(_) | DataType::LargeListView(_) => true,
        DataType::List(f) | DataType::LargeList(f) | DataType::FixedSizeList(f, _) => is_encoded(f.data_type()),
        DataType::Struct(fields) => fields.iter().any(|f| is_encoded(f.data_type())),
        _ => false,
    }
}

/// Whether a column has a name and a type that the decoder knows.
fn is_sound(f: arrow::ipc::Field<'_>, depth: usize) -> bool {
    let children = f.children().map_or(0, |c| c.len());
    let dictionary = f.dictionary().and_then(|d| d.indexType()).is_none_or(|i| matches!(i.bitWidth(), 8 | 16 | 32 | 64));
    let known = match f.type_type() {
        Type::Null | Type::Bool | Type::Binary | Type::BinaryView | Type::LargeBinary => true,
        Type::Utf8 | Type::Utf8View | Type::LargeUtf8 | Type::Struct_ => true,
        Type::Int => f.type_as_int().is_some_and(|i| matches!(i.bitWidth(), 8 | 16 | 32 | 64)),
        Type::FloatingPoint => f.type_as_floating_point().is_some_and(|t| t.precision().variant_name().is_some()),
        Type::FixedSizeBinary => f.type_as_fixed_size_binary().is_some_and(|t| t.byteWidth() >= 0),
        Type::Date => f.type_as_date().is_some_and(|t| t.unit().variant_name().is_some()),
        Type::Time => f.type_as_time().is_some_and(|t| {
            matches!(
                (t.bitWidth(), t.unit()),
                (32, TimeUnit::SECOND | TimeUnit::MILLISECOND) | (64, TimeUnit::MICROSECOND | TimeUnit::NANOSECOND)
            )
        }),
        Type::Timestamp => f.type_as_timestamp().is_some_and(|t| t.unit().variant_name().is_some()),
        Type::Interval => f.type_as_interval().is_some_and(|t| t.unit().variant_name().is_some()),
        Type::Duration => f.type_as_duration().is_some_and(|t| t.unit().variant_name().is_some()),
        Type::List | Type::LargeList | Type::ListView | Type::LargeListView => children == 1,
        Type::FixedSizeList => children == 1 && f.type_as_fixed_size_list().is_some_and(|t| t.listSize() >= 0),
        Type::Map => children == 1 && f.type_as_map().is_some(),
        Type::RunEndEncoded => children == 2,
        Type::Decimal => f.type_as_decimal().is_some_and(|t| {
            let fits = u8::try_from(t.precision()).is_ok() && i8::try_from(t.scale()).is_ok();
            fits && matches!(t.bitWidth(), 32 | 64 | 128 | 256)
        }),
        // Unions among them: no column of ours is one.
        _ => false,
    };
    known && dictionary && depth < DEPTH_MAX && f.name().is_some() && f.children().iter().flatten().all(|c| is_sound(c, depth + 1))
}

fn malformed(what: &str) -> Failure {
    Failure::invalid(format!("the Arrow IPC message is malformed: {what}"))
}

/// Checks the lengths and offsets of a message against its body; returns what it takes in memory, bytes.
fn check(message: &Message<'_>, body: &[u8]) -> Outcome<usize> {
    let batch = match message.header_type() {
        MessageHeader::RecordBatch => message.header_as_record_batch(),
        MessageHeader::DictionaryBatch => message.header_as_dictionary_batch().and_then(|d| d.data()),
        _ => return Ok(0),
    };
    let Some(batch) = batch else { return Err(malformed("no rows in a message of that kind")) };
    let in_range = |n: i64| (0..=ROWS_MAX).contains(&n);
    if !in_range(batch.length()) {
        return Err(Failure::invalid(format!("a message has {} rows, the limit is {ROWS_MAX}", batch.length())));
    }
    if batch.nodes().is_some_and(|nodes| nodes.iter().any(|n| !in_range(n.length()) || !(0..=n.length()).contains(&n.null_count()))) {
        return Err(malformed("a column's length or null count is out of range"));
    }
    let (mut decoded, compressed) = (0i64, batch.compression().is_some());
    for buffer in batch.buffers().iter().flatten() {
        let end = buffer.offset().checked_add(buffer.length());
        let Some(end) = end.filter(|end| buffer.offset() >= 0 && buffer.length() >= 0 && *end as u64 <= body.len() as u64) else {
            return Err(malformed("a buffer lies outside of the body"));
        };
        if compressed && buffer.length() > 0 {
            let bytes = &body[buffer.offset() as usize..end as usize];
            let Some(Ok(length)) = bytes.get(..8).map(<[u8; 8]>::try_from) else {
                return Err(malformed("a compressed buffer is too short"));
            };
            let length = i64::from_le_bytes(length);
            // -1: the buffer is not compressed.
            if length < -1 {
                return Err(malformed("a compressed buffer has a negative length"));
            }
            decoded = decoded.saturating_add(length.max(0));
        }
    }
    if decoded > DECODED_BYTES_MAX {
        return Err(Failure::invalid(format!("a message has {decoded} bytes once decompressed, the limit is {DECODED_BYTES_MAX}")));
    }
    Ok(body.len() + usize::try_from(decoded).unwrap_or(usize::MAX))
}

/// The schema of an encapsulated message, as `FlightInfo` carries it.
pub fn schema_of(bytes: &[u8]) -> Outcome<SchemaRef> {
    Ok(Arc::new(try_schema_from_flatbuffer_bytes(bytes.get(8..).unwrap_or_default()).map_err(|e| malformed(&e.to_string()))?))
}

#[cfg(test)]
mod tests {
    use arrow::array::{DictionaryArray, Int64Array, StringViewArray};
    use arrow::datatypes::Int32Type;

    use super::*;

    fn batch() -> RecordBatch {
        let names: ArrayRef = Arc::new(StringViewArray::from_iter_values(["a", "b", "a string beyond the twelve bytes of a view"]));
        let kinds: ArrayRef = Arc::new(["x", "y", "x"].into_iter().collect::<DictionaryArray<Int32Type>>());
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None, Some(3)]));
        RecordBatch::try_from_iter([("names", names), ("kinds", kinds), ("numbers", numbers)]).unwrap()
    }

    #[test]
    fn batches_travel_in_plain_types() {
        let batch = batch();
        let schema = plain_schema(&batch.schema());
        assert_eq!(schema.field(0).data_type(), &DataType::Utf8);
        assert_eq!(schema.field(1).data_type(), &DataType::Utf8);
        let plain = plain_batch(batch.columns(), 3, &schema).unwrap();
        let mut decoder = Decoder::default();
        assert!(matches!(decoder.take(&schema_message(&schema)).unwrap(), Received::Preamble));
        let Received::Batch(read) = decoder.take(&batch_message(&plain).unwrap()).unwrap() else { panic!("rows") };
        assert_eq!(read, plain);
    }

    #[test]
    fn no_damage_of_a_message_panics() {
        let batch = batch();
        let schema = plain_schema(&batch.schema());
        let good = batch_message(&plain_batch(batch.columns(), 3, &schema).unwrap()).unwrap();
        let take = |data: &FlightData| {
            let mut decoder = Decoder::default();
            decoder.take(&schema_message(&schema)).unwrap();
            decoder.take(data)
        };
        for at in 0..good.data_header.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut header = good.data_header.to_vec();
                header[at] ^= flip;
                let _ = take(&FlightData { data_header: header.into(), ..good.clone() });
            }
        }
        for n in 0..good.data_header.len() {
            assert!(take(&FlightData { data_header: good.data_header.slice(..n.max(1)), ..good.clone() }).is_err());
        }
        assert!(take(&FlightData { data_body: good.data_body.slice(..8), ..good.clone() }).is_err());
        assert!(Decoder::default().take(&good).is_err(), "rows before the schema");
    }
}
