//! Random schemas and records, read by paths and by a walk over the value that was encoded; and random bytes.

use serde_json::Value as Json;

use super::*;

/// A type of Avro, of which values are made.
enum Type {
    Null,
    Long,
    Text,
    Union(Vec<Type>),
    Record(Vec<(&'static str, Type)>),
    Array(Box<Type>),
    Map(Box<Type>),
}

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

impl Type {
    fn random(rng: &mut StdRng, depth: u32) -> Self {
        let below = |rng: &mut StdRng| Box::new(Self::random(rng, depth - 1));
        match rng.random_range(0..if depth == 0 { 4 } else { 10 }) {
            0..=2 => Self::Long,
            3 => Self::Text,
            4 => Self::Union(vec![Self::Null, Self::Long]),
            // A union holds one record at most, and no union.
            5 => Self::Union(vec![Self::record(rng, depth - 1), Self::Null, Self::Long]),
            6 => Self::Array(below(rng)),
            7 => Self::Map(below(rng)),
            _ => Self::record(rng, depth - 1),
        }
    }

    fn record(rng: &mut StdRng, depth: u32) -> Self {
        let names: Vec<_> = NAMES.into_iter().filter(|_| rng.random_range(0..4) > 0).collect();
        Self::Record(names.into_iter().map(|name| (name, Self::random(rng, depth))).collect())
    }

    fn schema(&self, names: &mut u32) -> Json {
        match self {
            Self::Null => "null".into(),
            Self::Long => "long".into(),
            Self::Text => "string".into(),
            Self::Union(branches) => branches.iter().map(|b| b.schema(names)).collect(),
            Self::Array(items) => serde_json::json!({"type": "array", "items": items.schema(names)}),
            Self::Map(values) => serde_json::json!({"type": "map", "values": values.schema(names)}),
            Self::Record(fields) => {
                *names += 1;
                let name = format!("r{names}");
                let fields: Vec<_> = fields.iter().map(|(n, t)| serde_json::json!({"name": n, "type": t.schema(names)})).collect();
                serde_json::json!({"type": "record", "name": name, "fields": fields})
            }
        }
    }

    /// A value, its binary appended to `bytes`.
    fn value(&self, rng: &mut StdRng, bytes: &mut Vec<u8>) -> Json {
        match self {
            Self::Null => Json::Null,
            Self::Long => {
                let value = rng.random::<i64>() >> rng.random_range(0..64);
                bytes.extend(long(value));
                value.into()
            }
            Self::Text => {
                let value: String = (0..rng.random_range(0..20)).map(|_| rng.random::<char>()).collect();
                bytes.extend(text(&value));
                value.into()
            }
            Self::Union(branches) => {
                let branch = rng.random_range(0..branches.len());
                bytes.extend(long(branch as i64));
                branches[branch].value(rng, bytes)
            }
            Self::Record(fields) => fields.iter().map(|(name, t)| ((*name).to_owned(), t.value(rng, bytes))).collect(),
            Self::Array(items) => {
                let count = rng.random_range(0..4);
                let blocks = (0..count).map(|_| {
                    let mut block = Vec::new();
                    (items.value(rng, &mut block), block)
                });
                let blocks: Vec<_> = blocks.collect();
                in_blocks(rng, bytes, blocks.iter().map(|(_, block)| block.as_slice()));
                blocks.into_iter().map(|(value, _)| value).collect()
            }
            Self::Map(values) => {
                let names: Vec<_> = NAMES.into_iter().filter(|_| rng.random()).collect();
                let blocks = names.iter().map(|name| {
                    let mut block = text(name);
                    (((*name).to_owned(), values.value(rng, &mut block)), block)
                });
                let blocks: Vec<_> = blocks.collect();
                in_blocks(rng, bytes, blocks.iter().map(|(_, block)| block.as_slice()));
                blocks.into_iter().map(|(value, _)| value).collect()
            }
        }
    }
}

/// Values cut into blocks, some of which say how long they are.
fn in_blocks<'a>(rng: &mut StdRng, bytes: &mut Vec<u8>, values: impl Iterator<Item = &'a [u8]>) {
    let mut values: Vec<_> = values.collect();
    while !values.is_empty() {
        let block: Vec<_> = values.drain(..rng.random_range(1..=values.len())).collect();
        let (count, block) = (block.len() as i64, block.concat());
        if rng.random() {
            bytes.extend([long(-count), long(block.len() as i64)].concat());
        } else {
            bytes.extend(long(count));
        }
        bytes.extend(block);
    }
    bytes.push(0);
}

const PATHS: [&str; 8] = ["$.a.b", "$.a.c.d", "$.a[1]", "$.b[0].a", "$.b[0][2]", "$.c", "$.d.d.d.d", "$.a.b"];
const POINTERS: [&str; 8] = ["/a/b", "/a/c/d", "/a/1", "/b/0/a", "/b/0/2", "/c", "/d/d/d/d", "/a/b"];

fn stream() -> (Arc<StreamSchema>, Options) {
    let names: Vec<String> = (0..PATHS.len()).map(|i| format!("p{i}")).collect();
    let mut columns = vec![("ts", utc(), false)];
    columns.extend(names.iter().map(|name| (name.as_str(), DataType::Int64, true)));
    let paths = names.iter().zip(PATHS).map(|(name, path)| (name.clone(), FieldPath::parse(path).unwrap())).collect();
    (schema_of(&columns), Options { paths, ..micros() })
}

/// A record of the time and fields of random types, and one value of it.
fn record(rng: &mut StdRng) -> (String, Vec<u8>, Json) {
    let mut fields = vec![("ts", Type::Long)];
    fields.extend(NAMES.map(|name| (name, Type::random(rng, 4))));
    let (_, rest) = fields.split_at(1);
    let mut bytes = long(0);
    let tree = rest.iter().map(|(name, t)| ((*name).to_owned(), t.value(rng, &mut bytes))).collect();
    (Type::Record(fields).schema(&mut 0).to_string(), bytes, tree)
}

#[test]
fn paths_agree_with_a_walk_over_the_encoded_value() {
    let (schema, options) = stream();
    let (mut accepted, mut found) = (0, 0);
    for seed in 0..10_000 {
        let mut rng = StdRng::seed_from_u64(seed);
        let (text, bytes, tree) = record(&mut rng);
        let mut decoder = decoder(Arc::clone(&schema), &options, AtHand::of(&text));
        decoder.record(0, None, Some(&message(1, &bytes))).unwrap();
        let decoded = decoder.take().unwrap();
        let walk = |pointer: &str| {
            pointer.split('/').skip(1).try_fold(&tree, |at, step| match step.parse::<usize>() {
                Ok(index) => at.as_array()?.get(index),
                Err(_) => at.as_object()?.get(step),
            })
        };
        let expected: Vec<_> = POINTERS.iter().map(|p| walk(p)).collect();
        if expected.iter().flatten().any(|v| !v.is_null() && !v.is_i64()) {
            let reason = &decoded.rejected[0].reason;
            assert!(reason.contains("BIGINT wanted, found"), "seed {seed}: {text} {tree}: {reason}");
            continue;
        }
        let expected = expected.iter().map(|v| v.and_then(Json::as_i64).map_or("NULL".to_owned(), |v| v.to_string()));
        let expected: Vec<_> = expected.collect();
        found += expected.iter().filter(|v| *v != "NULL").count();
        assert_eq!(shown(&decoded), [format!("1970-01-01T00:00:00Z {}", expected.join(" "))], "seed {seed}: {text} {tree}");
        accepted += 1;
    }
    assert!(accepted > 1000 && found > 1000, "{accepted} {found}");
}

#[test]
fn random_bytes_never_panic() {
    let (schema, options) = stream();
    for seed in 0..5000 {
        let mut rng = StdRng::seed_from_u64(seed);
        let (text, bytes, _) = record(&mut rng);
        let mut decoder = decoder(Arc::clone(&schema), &options, AtHand::of(&text));
        let mut payload = message(1, &bytes);
        for offset in 0..8 {
            match rng.random_range(0..3) {
                0 => payload.truncate(rng.random_range(0..=payload.len())),
                1 => payload.push(rng.random()),
                _ if payload.len() > 5 => {
                    let at = rng.random_range(5..payload.len());
                    payload[at] = rng.random();
                }
                _ => payload = message(1, &(0..rng.random_range(0..40)).map(|_| rng.random()).collect::<Vec<u8>>()),
            }
            decoder.record(offset, None, Some(&payload)).unwrap_or_default();
        }
        let decoded = decoder.take().unwrap();
        assert!(decoded.read() <= 8);
    }
}

#[test]
fn random_schemas_never_panic() {
    let words = [
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"type\"",
        "\"record\"",
        "\"name\"",
        "\"r\"",
        "\"fields\"",
        "\"ts\"",
        "\"long\"",
        "\"null\"",
        "\"array\"",
        "\"items\"",
        "\"fixed\"",
        "\"size\"",
        "16",
        "-1",
        "\"logicalType\"",
        "\"decimal\"",
        "\"precision\"",
        "\"uuid\"",
        "{\"type\":\"record\",\"name\":\"r\",\"fields\":[{\"name\":\"ts\",\"type\":",
        "\"long\"}",
        "]}",
        "{\"type\":\"fixed\",\"name\":\"f\",\"size\":",
        "99999999999999999999",
        "9223372036854775807",
        "{\"name\":\"v\",\"type\":",
    ];
    let mut readable = 0;
    for seed in 0..20_000 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut text = String::new();
        if rng.random() {
            text.push_str("{\"type\":\"record\",\"name\":\"r\",\"fields\":[{\"name\":\"ts\",\"type\":\"long\"},{\"name\":\"v\",\"type\":");
        }
        for _ in 0..rng.random_range(0..10) {
            text.push_str(words[rng.random_range(0..words.len())]);
        }
        if rng.random() {
            text.push_str("}]}");
        }
        let mut decoder = decoder(around(DataType::Int64), &Options::default(), AtHand::of(&text));
        let bytes: Vec<u8> = (0..rng.random_range(0..20)).map(|_| rng.random()).collect();
        decoder.record(0, None, Some(&message(1, &bytes))).unwrap();
        let decoded = decoder.take().unwrap();
        assert_eq!(decoded.read(), 1);
        readable += u32::from(!decoded.rejected.iter().any(|r| r.reason.starts_with("schema")));
    }
    assert!(readable > 10, "{readable}");
}
