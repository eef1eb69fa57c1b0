//! A writer's Avro schema: its JSON, with every name resolved.
//!
//! Types lie in one list and name one another by their place in it, so that a type may contain itself. What Avro's specification calls a
//! logical type becomes a type of its own where a column can hold it; one that is unknown or does not fit its type is passed over, as
//! the specification has it. Defaults, aliases and the order of fields are a reader's matter and are not looked at.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value as Json};

use crate::stream::decode::TimeUnit;

/// A schema of Avro.
#[derive(Debug)]
pub(super) struct Schema {
    nodes: Vec<Node>,
    pub(super) root: usize,
}

/// One type; the types in it by their places.
#[derive(Debug)]
pub(super) enum Node {
    Scalar(Scalar),
    Array(usize),
    Map(usize),
    Union(Vec<usize>),
    Record(Vec<(Box<str>, usize)>),
}

/// A type without types in it.
#[derive(Debug, Clone)]
pub(super) enum Scalar {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    Text,
    Fixed(usize),
    Enum(Vec<Box<str>>),
    Date,
    Timestamp(TimeUnit),
    /// An integer and how many of its digits are behind the point; of as many bytes as are given here, else as many as it says itself.
    Decimal {
        scale: i8,
        fixed: Option<usize>,
    },
    /// Sixteen bytes that are shown as text.
    Uuid,
}

impl Schema {
    /// The schema of a text, or what is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let json: Json = serde_json::from_str(text).map_err(|e| format!("no JSON: {e}"))?;
        let mut parser = Parser { nodes: Vec::new(), names: HashMap::new() };
        let root = parser.schema(&json, "")?;
        Ok(Self { nodes: parser.nodes, root })
    }

    pub(super) fn node(&self, node: usize) -> &Node {
        &self.nodes[node]
    }

    /// What a value of a type is called in a reason.
    pub(super) fn found(&self, node: usize) -> &'static str {
        match self.node(node) {
            Node::Array(_) => "an array",
            Node::Map(_) => "a map",
            Node::Record(_) => "a record",
            Node::Union(_) => "a union",
            Node::Scalar(_) => "a plain value",
        }
    }
}

struct Parser {
    nodes: Vec<Node>,
    /// Where each named type lies, by its full name.
    names: HashMap<String, usize>,
}

impl Parser {
    fn add(&mut self, node: Node) -> usize {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    /// A schema inside a namespace. How deep it nests was bounded when its JSON was read.
    fn schema(&mut self, json: &Json, namespace: &str) -> Result<usize, String> {
        match json {
            Json::String(name) => self.by_name(name, namespace),
            Json::Array(branches) => {
                let branches = branches.iter().map(|branch| self.schema(branch, namespace));
                let branches = branches.collect::<Result<Vec<_>, _>>()?;
                if branches.iter().any(|b| matches!(self.nodes[*b], Node::Union(_))) {
                    return Err("a union stands directly in a union".to_owned());
                }
                Ok(self.add(Node::Union(branches)))
            }
            Json::Object(object) => match object.get("type") {
                Some(Json::String(name)) => self.object(name, object, namespace),
                Some(inner) => self.schema(inner, namespace),
                None => Err("a type has no \"type\"".to_owned()),
            },
            other => Err(format!("{other} is no type")),
        }
    }

    fn by_name(&mut self, name: &str, namespace: &str) -> Result<usize, String> {
        if let Some(scalar) = primitive(name) {
            return Ok(self.add(Node::Scalar(scalar)));
        }
        let known = self.names.get(&full_name(name, namespace)).or_else(|| self.names.get(name));
        known.copied().ok_or_else(|| format!("type \"{name}\" is not defined"))
    }

    fn object(&mut self, kind: &str, object: &Map<String, Json>, namespace: &str) -> Result<usize, String> {
        match kind {
            "array" => {
                let items = self.part(object, "items", namespace)?;
                Ok(self.add(Node::Array(items)))
            }
            "map" => {
                let values = self.part(object, "values", namespace)?;
                Ok(self.add(Node::Map(values)))
            }
            "record" | "error" => self.record(object, namespace),
            "enum" => {
                let symbols = object.get("symbols").and_then(Json::as_array).ok_or("an enum has no \"symbols\"")?;
                let symbols = symbols.iter().map(|s| s.as_str().map(Into::into));
                let symbols = symbols.collect::<Option<Vec<_>>>().ok_or("a symbol of an enum is no string")?;
                let node = self.add(Node::Scalar(Scalar::Enum(symbols)));
                self.define(object, namespace, node)?;
                Ok(node)
            }
            "fixed" => {
                let size = object.get("size").and_then(Json::as_u64).and_then(|size| usize::try_from(size).ok());
                let size = size.ok_or("a fixed has no \"size\"")?;
                let node = self.add(Node::Scalar(logical(Scalar::Fixed(size), object)));
                self.define(object, namespace, node)?;
                Ok(node)
            }
            _ => match primitive(kind) {
                Some(scalar) => Ok(self.add(Node::Scalar(logical(scalar, object)))),
                None => self.by_name(kind, namespace),
            },
        }
    }

    fn part(&mut self, object: &Map<String, Json>, key: &str, namespace: &str) -> Result<usize, String> {
        let part = object.get(key).ok_or_else(|| format!("a type has no \"{key}\""))?;
        self.schema(part, namespace)
    }

    /// Gives a type the name that its object says; returns the namespace inside of it.
    fn define(&mut self, object: &Map<String, Json>, namespace: &str, node: usize) -> Result<String, String> {
        let name = object.get("name").and_then(Json::as_str).ok_or("a named type has no \"name\"")?;
        let namespace = object.get("namespace").and_then(Json::as_str).unwrap_or(namespace);
        let name = full_name(name, namespace);
        let inside = name.rsplit_once('.').map_or("", |(namespace, _)| namespace).to_owned();
        if self.names.insert(name.clone(), node).is_some() {
            return Err(format!("type \"{name}\" is defined twice"));
        }
        Ok(inside)
    }

    fn record(&mut self, object: &Map<String, Json>, namespace: &str) -> Result<usize, String> {
        // Its name is known inside of it.
        let node = self.add(Node::Record(Vec::new()));
        let namespace = self.define(object, namespace, node)?;
        let of = object.get("fields").and_then(Json::as_array).ok_or("a record has no \"fields\"")?;
        let mut fields: Vec<(Box<str>, usize)> = Vec::with_capacity(of.len());
        let mut seen = HashSet::new();
        for field in of {
            let name = field.get("name").and_then(Json::as_str).ok_or("a field has no \"name\"")?;
            let of_type = field.get("type").ok_or_else(|| format!("field \"{name}\" has no \"type\""))?;
            if !seen.insert(name) {
                return Err(format!("field \"{name}\" is defined twice"));
            }
            fields.push((name.into(), self.schema(of_type, &namespace)?));
        }
        self.nodes[node] = Node::Record(fields);
        Ok(node)
    }
}

fn full_name(name: &str, namespace: &str) -> String {
    if name.contains('.') || namespace.is_empty() { name.to_owned() } else { format!("{namespace}.{name}") }
}

fn primitive(name: &str) -> Option<Scalar> {
    Some(match name {
        "null" => Scalar::Null,
        "boolean" => Scalar::Boolean,
        "int" => Scalar::Int,
        "long" => Scalar::Long,
        "float" => Scalar::Float,
        "double" => Scalar::Double,
        "bytes" => Scalar::Bytes,
        "string" => Scalar::Text,
        _ => return None,
    })
}

/// The type that the logical type of an object makes of its own.
fn logical(scalar: Scalar, object: &Map<String, Json>) -> Scalar {
    let name = object.get("logicalType").and_then(Json::as_str).unwrap_or_default();
    match (name, &scalar) {
        ("date", Scalar::Int) => Scalar::Date,
        ("timestamp-millis" | "local-timestamp-millis", Scalar::Long) => Scalar::Timestamp(TimeUnit::Millisecond),
        ("timestamp-micros" | "local-timestamp-micros", Scalar::Long) => Scalar::Timestamp(TimeUnit::Microsecond),
        ("timestamp-nanos" | "local-timestamp-nanos", Scalar::Long) => Scalar::Timestamp(TimeUnit::Nanosecond),
        ("uuid", Scalar::Fixed(16)) => Scalar::Uuid,
        ("decimal", Scalar::Bytes | Scalar::Fixed(_)) => {
            let number = |key: &str| object.get(key).map(Json::as_u64);
            let (Some(Some(precision)), Some(scale)) = (number("precision"), number("scale").unwrap_or(Some(0))) else { return scalar };
            match i8::try_from(scale) {
                Ok(small) if precision > 0 && scale <= precision => {
                    let fixed = if let Scalar::Fixed(size) = scalar { Some(size) } else { None };
                    Scalar::Decimal { scale: small, fixed }
                }
                _ => scalar,
            }
        }
        _ => scalar,
    }
}
