//! Which field of a record goes into which column, also below the top; and the reading of one record by it.
//!
//! An object that columns are read from is one [`Level`]. A stream without paths has one level, each name of which is a column;
//! deeper levels hang on it as [`Branch`]es and cost nothing where there are none.

use std::collections::HashMap;

use super::super::Options;
use super::super::columns::{Collector, Record, Value, shortened, wanted};
use super::super::path::Wanted;
use super::reader::{Fault, Name, Reader, resolve};
/// A field that the stream does not have.
const IGNORED: usize = usize::MAX;

/// The fields of a stream's records.
#[derive(Debug)]
pub(in super::super) struct Fields {
    root: Level,
    depth_max: usize,
    scratch: Scratch,
}

/// What reading a record needs beside the record.
#[derive(Debug, Default)]
struct Scratch {
    /// The ignored fields of the objects being read, outermost first.
    ignored: Vec<Name>,
    /// The number of the record being read, from 1.
    stamp: u64,
}

/// The names of one object's fields, and the order in which the last record had them.
///
/// A name stands for a *target*: a column, or behind the columns a branch.
#[derive(Debug)]
struct Level {
    /// By target: name and closing quote, as a record holds them; None for a name that JSON can only write with escapes.
    quoted: Vec<Option<Box<[u8]>>>,
    by_name: HashMap<Box<str>, usize>,
    expected: Vec<usize>,
    branches: Vec<Branch>,
    /// The path to the object, with its dot; empty for the record.
    prefix: String,
}

/// A value that is no single column: an object or array that columns are read from, or a value that several columns share.
#[derive(Debug)]
struct Branch {
    path: String,
    columns: Vec<usize>,
    fields: Level,
    /// Places of an array and their targets, whose branches are those of `fields`.
    items: Vec<(usize, usize)>,
    /// The record that had it last.
    seen: u64,
}

impl Fields {
    /// The fields of a stream with so many columns.
    pub(in super::super) fn new(wanted: &Wanted, columns: usize, options: &Options) -> Self {
        let root = Level::new(&wanted.fields, columns, String::new());
        Self { root, depth_max: options.depth_max.clamp(1, 128), scratch: Scratch::default() }
    }
}

impl Level {
    fn new(fields: &[(Box<str>, Wanted)], columns: usize, prefix: String) -> Self {
        let mut level = Self { quoted: vec![None; columns], by_name: HashMap::new(), expected: Vec::new(), branches: Vec::new(), prefix };
        for (name, wanted) in fields {
            let target = level.target(wanted, columns, format!("{}{name}", level.prefix));
            let plain = !name.bytes().any(|b| b == b'"' || b == b'\\' || b < 0x20);
            level.quoted[target] = plain.then(|| format!("{name}\"").into_bytes().into_boxed_slice());
            level.by_name.insert(name.clone(), target);
            level.expected.push(target);
        }
        level
    }

    /// The target of what is wanted at one place.
    fn target(&mut self, wanted: &Wanted, columns: usize, path: String) -> usize {
        if let Some(column) = wanted.only_column() {
            return column;
        }
        let mut fields = Self::new(&wanted.fields, columns, format!("{path}."));
        let items = wanted.items.iter().map(|(i, wanted)| (*i, fields.target(wanted, columns, format!("{path}[{i}]"))));
        let items = items.collect();
        self.branches.push(Branch { path, columns: wanted.columns.clone(), fields, items, seen: 0 });
        self.quoted.push(None);
        columns + self.branches.len() - 1
    }
}

/// Reads one record into `record`, or says why it is none.
pub(in super::super) fn read_record(fields: &mut Fields, record: &mut Record, collector: &Collector, text: &str) -> Result<(), String> {
    let Fields { root, depth_max, scratch } = fields;
    record.clear(collector.kinds.len());
    scratch.ignored.clear();
    scratch.stamp += 1;
    let mut reader = Reader::new(text);
    reader.space();
    if reader.peek() != b'{' {
        let found = reader.found();
        // A line that is no JSON at all is told so.
        reader.skip_value(*depth_max)?;
        return Err(format!("record is {found}, not an object"));
    }
    // The record is one level, so its fields have one less.
    object(&mut reader, root, record, collector, scratch, *depth_max - 1)?;
    reader.space();
    if reader.at < reader.bytes.len() {
        return Err(reader.malformed("nothing after the object"));
    }
    root.check_ignored(&scratch.ignored, text, record)
}

/// Reads the object that begins here, whose values may nest `depth` levels deep.
///
/// That no ignored field stands twice is left to the caller.
fn object(
    reader: &mut Reader<'_>,
    level: &mut Level,
    record: &mut Record,
    collector: &Collector,
    scratch: &mut Scratch,
    depth: usize,
) -> Result<(), String> {
    reader.at += 1;
    reader.space();
    if reader.peek() == b'}' {
        reader.at += 1;
        return Ok(());
    }
    let mut position = 0;
    loop {
        let target = level.name(reader, record, position)?;
        position += 1;
        reader.space();
        reader.expect(b':', "a colon after a field's name")?;
        reader.space();
        if target < collector.kinds.len() {
            column(reader, target, record, collector)?;
        } else {
            other(reader, level, target, record, collector, scratch, depth)?;
        }
        reader.space();
        match reader.peek() {
            b',' => reader.at += 1,
            b'}' => {
                reader.at += 1;
                return Ok(());
            }
            _ => return Err(reader.malformed("a comma or the end of the object")),
        }
        reader.space();
    }
}

/// Reads the value of a column.
#[inline(always)]
fn column(reader: &mut Reader<'_>, column: usize, record: &mut Record, collector: &Collector) -> Result<(), String> {
    let Record { values, text: unescaped, bytes } = record;
    let slot = &mut values[column];
    if !matches!(slot, Value::Absent) {
        return Err(format!("field \"{}\": stands twice in the record", collector.label(column)));
    }
    reader.value(collector.kinds[column], unescaped, bytes, slot).map_err(|fault| match *fault {
        Fault::Syntax(why) => format!("field \"{}\": {why}", collector.label(column)),
        Fault::Type(found) => wanted(collector.label(column), &collector.schema().columns()[column].data_type, &found),
    })
}

/// Reads the value of a field that is no column: of a branch, or ignored.
fn other(
    reader: &mut Reader<'_>,
    level: &mut Level,
    target: usize,
    record: &mut Record,
    collector: &Collector,
    scratch: &mut Scratch,
    depth: usize,
) -> Result<(), String> {
    if let Some(branch) = level.branches.get_mut(target - collector.kinds.len()) {
        return branch.read(reader, record, collector, scratch, depth);
    }
    let name = reader.name;
    scratch.ignored.push(name);
    reader
        .skip_value(depth)
        .map_err(|why| format!("field \"{}{}\": {why}", level.prefix, shortened(resolve(name, reader.text, &record.text))))
}

impl Branch {
    fn read(
        &mut self,
        reader: &mut Reader<'_>,
        record: &mut Record,
        collector: &Collector,
        scratch: &mut Scratch,
        depth: usize,
    ) -> Result<(), String> {
        if self.seen == scratch.stamp {
            return Err(format!("field \"{}\": stands twice in the record", self.path));
        }
        self.seen = scratch.stamp;
        let start = reader.at;
        match reader.peek() {
            b'{' if self.columns.is_empty() && !self.fields.by_name.is_empty() => {
                let depth = self.below(reader, depth)?;
                let outer = scratch.ignored.len();
                object(reader, &mut self.fields, record, collector, scratch, depth)?;
                self.fields.check_ignored(&scratch.ignored[outer..], reader.text, record)?;
                scratch.ignored.truncate(outer);
                Ok(())
            }
            b'[' if self.columns.is_empty() && !self.items.is_empty() => {
                let depth = self.below(reader, depth)?;
                self.array(reader, record, collector, scratch, depth)
            }
            // Nothing of it is wanted below: the columns are absent.
            _ if self.columns.is_empty() => reader.skip_value(depth).map_err(|why| format!("field \"{}\": {why}", self.path)),
            // An object or array is no value of a column, so there is nothing to read below either.
            _ => self.columns.iter().try_for_each(|c| {
                reader.at = start;
                column(reader, *c, record, collector)
            }),
        }
    }

    fn below(&self, reader: &Reader<'_>, depth: usize) -> Result<usize, String> {
        depth.checked_sub(1).ok_or_else(|| format!("field \"{}\": nested too deep at byte {}", self.path, reader.at))
    }

    fn array(
        &mut self,
        reader: &mut Reader<'_>,
        record: &mut Record,
        collector: &Collector,
        scratch: &mut Scratch,
        depth: usize,
    ) -> Result<(), String> {
        reader.at += 1;
        reader.space();
        if reader.peek() == b']' {
            reader.at += 1;
            return Ok(());
        }
        for index in 0.. {
            reader.space();
            match self.items.iter().find(|(i, _)| *i == index) {
                Some((_, target)) if *target < collector.kinds.len() => column(reader, *target, record, collector)?,
                Some((_, target)) => other(reader, &mut self.fields, *target, record, collector, scratch, depth)?,
                None => reader.skip_value(depth).map_err(|why| format!("field \"{}[{index}]\": {why}", self.path))?,
            }
            reader.space();
            match reader.peek() {
                b',' => reader.at += 1,
                b']' => break,
                _ => return Err(format!("field \"{}\": {}", self.path, reader.malformed("a comma or the end of the array"))),
            }
        }
        reader.at += 1;
        Ok(())
    }
}

impl Level {
    /// The target of the field whose name begins here, expected to be the one that the last record had at this position.
    #[inline]
    fn name(&mut self, reader: &mut Reader<'_>, record: &mut Record, position: usize) -> Result<usize, String> {
        reader.expect(b'"', "a field's name in quotes")?;
        let expected = self.expected.get(position).copied().unwrap_or(IGNORED);
        if let Some(Some(quoted)) = self.quoted.get(expected)
            && reader.bytes[reader.at..].starts_with(quoted)
        {
            reader.at += quoted.len();
            return Ok(expected);
        }
        self.unexpected_name(reader, record, position)
    }

    fn unexpected_name(&mut self, reader: &mut Reader<'_>, record: &mut Record, position: usize) -> Result<usize, String> {
        let mut name = Value::Null;
        reader.string(&mut record.text, &mut name)?;
        reader.name = match name {
            Value::Unescaped(start, end) => Name::Unescaped(start, end),
            Value::Text(start, end) => Name::Plain(start, end),
            _ => Name::Plain(0, 0),
        };
        let target = self.by_name.get(resolve(reader.name, reader.text, &record.text)).copied().unwrap_or(IGNORED);
        match self.expected.get_mut(position) {
            Some(expected) => *expected = target,
            // As many as any record of sense has; the rest are looked up.
            None if position < 4096 => self.expected.push(target),
            None => {}
        }
        Ok(target)
    }

    /// Rejects an ignored field of this object that stands twice.
    #[inline]
    fn check_ignored(&self, ignored: &[Name], text: &str, record: &Record) -> Result<(), String> {
        match twice(ignored, text, &record.text) {
            Some(name) => Err(format!("field \"{}{}\": stands twice in the record", self.prefix, shortened(name))),
            None => Ok(()),
        }
    }
}

/// The name that stands twice among the ignored fields.
fn twice<'a>(names: &[Name], text: &'a str, unescaped: &'a str) -> Option<&'a str> {
    const FEW: usize = 8;
    let name = |i: usize| resolve(names[i], text, unescaped);
    if names.len() <= FEW {
        return (1..names.len()).map(name).enumerate().find(|(i, n)| (0..=*i).any(|j| name(j) == *n)).map(|(_, n)| n);
    }
    let mut sorted: Vec<&str> = (0..names.len()).map(name).collect();
    sorted.sort_unstable();
    sorted.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0])
}
