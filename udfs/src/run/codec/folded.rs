//! What was folded of a run, as bytes.

use std::collections::VecDeque;

use crate::codec::{CodecError, Reader, Writer, ordered, signed};
use crate::exact_sum::{ExactSum, Fixed, Moments};
use crate::output::{Cell, Value};
use crate::program::{Lane, Program};
use crate::run::base::{Base, FoldedLane, FoldedRows};

/// More rows than any run ever folds; sums of two such counts still fit.
const ROWS_MAX: u64 = 1 << 62;

pub(super) fn encode(base: &Base, program: &Program, into: &mut Writer) {
    into.word(ordered(base.horizon));
    into.string(&base.key);
    rows(base.all.as_ref(), program, into);
    into.number(base.sessions.len() as u64);
    base.sessions.iter().for_each(|session| rows(session.as_ref(), program, into));
}

pub(super) fn decode(program: &Program, from: &mut Reader<'_>) -> Result<Base, CodecError> {
    let horizon = signed(from.word()?);
    let key = from.string()?.into();
    let all = read_rows(program, from)?;
    let count = from.count()?;
    if count > program.layout.session_frames.len() {
        return Err(CodecError("more sessions than frames"));
    }
    let sessions = (0..count).map(|_| read_rows(program, from)).collect::<Result<_, _>>()?;
    Ok(Base { horizon, key, all, sessions })
}

fn rows(rows: Option<&FoldedRows>, program: &Program, into: &mut Writer) {
    into.byte(u8::from(rows.is_some()));
    let Some(rows) = rows else { return };
    into.number(rows.rows);
    into.word(ordered(rows.first_time));
    for (of, lane) in rows.lanes.iter().zip(&program.lanes) {
        into.number(of.count);
        if lane.needs.moments() {
            fixed(&of.moments.part.sum.0, into);
            fixed(&of.moments.part.squares.0, into);
            let general = of.moments.general.as_deref().filter(|(sum, squares)| !sum.is_empty() || !squares.is_empty());
            into.byte(u8::from(general.is_some()));
            if let Some((sum, squares)) = general {
                let mut bytes = Vec::new();
                sum.encode(&mut bytes);
                squares.encode(&mut bytes);
                into.string(&bytes);
            }
        }
        if lane.needs.min | lane.needs.max {
            value(&of.least, into);
            value(&of.greatest, into);
        }
        for values in [of.first.iter().collect::<Vec<_>>(), of.last.iter().collect()] {
            into.number(values.len() as u64);
            values.into_iter().for_each(|one| value(one, into));
        }
    }
}

fn read_rows(program: &Program, from: &mut Reader<'_>) -> Result<Option<FoldedRows>, CodecError> {
    match from.byte()? {
        0 => return Ok(None),
        1 => {}
        _ => return Err(CodecError("folded rows have no such form")),
    }
    let rows = from.number()?;
    let first_time = signed(from.word()?);
    if rows > ROWS_MAX {
        return Err(CodecError("more rows are folded than there can be"));
    }
    let lanes = program.lanes.iter().map(|lane| read_lane(lane, rows, from)).collect::<Result<_, _>>()?;
    Ok(Some(FoldedRows { rows, first_time, lanes }))
}

fn read_lane(lane: &Lane, rows: u64, from: &mut Reader<'_>) -> Result<FoldedLane, CodecError> {
    let count = from.number()?;
    if count > rows {
        return Err(CodecError("more rows count than there are"));
    }
    let mut of = FoldedLane { count, ..FoldedLane::default() };
    if lane.needs.moments() {
        let mut moments = Moments::default();
        moments.part.sum = Fixed(read_fixed(from)?);
        moments.part.squares = Fixed(read_fixed(from)?);
        match from.byte()? {
            0 => {}
            1 => {
                let bytes = from.string()?;
                let sums = ExactSum::decode(bytes).and_then(|(sum, rest)| Some((sum, ExactSum::decode(rest)?)));
                match sums {
                    Some((sum, (squares, []))) => moments.general = Some(Box::new((sum, squares))),
                    _ => return Err(CodecError("an exact sum has no such form")),
                }
            }
            _ => return Err(CodecError("an exact sum has no such form")),
        }
        of.moments = moments;
    }
    if lane.needs.min | lane.needs.max {
        (of.least, of.greatest) = (read_value(from)?, read_value(from)?);
    }
    let mut values = |most: usize| -> Result<Vec<Value>, CodecError> {
        let count = from.count()?;
        if count > most {
            return Err(CodecError("more values are kept than are needed"));
        }
        (0..count).map(|_| read_value(from)).collect()
    };
    of.first = values(lane.folded.first)?;
    of.last = VecDeque::from(values(lane.folded.last)?);
    Ok(of)
}

/// A two's-complement integer without the limbs that only repeat its sign.
fn fixed(limbs: &[u64], into: &mut Writer) {
    let sign = limbs.last().map_or(0, |top| ((*top as i64) >> 63) as u64);
    let used = limbs.iter().rposition(|limb| *limb != sign).map_or(0, |last| last + 1);
    into.byte(used as u8 | if sign == 0 { 0 } else { 0x80 });
    limbs[..used].iter().for_each(|limb| into.word(*limb));
}

fn read_fixed<const N: usize>(from: &mut Reader<'_>) -> Result<[u64; N], CodecError> {
    let head = from.byte()?;
    let used = usize::from(head & 0x7f);
    let mut limbs = [if head & 0x80 == 0 { 0 } else { u64::MAX }; N];
    let part = limbs.get_mut(..used).ok_or(CodecError("a sum has too many limbs"))?;
    for limb in part {
        *limb = from.word()?;
    }
    Ok(limbs)
}

fn value(value: &Value, into: &mut Writer) {
    match value.cell() {
        Cell::Null => into.byte(0),
        Cell::Boolean(x) => into.byte(1 + u8::from(x)),
        Cell::Int(x) => {
            into.byte(3);
            into.number((x << 1 ^ x >> 63) as u64);
        }
        Cell::Float(x) => {
            into.byte(4);
            into.word(x.to_bits());
        }
        Cell::Decimal(x) => {
            into.byte(5);
            into.word(x as u64);
            into.word((x >> 64) as u64);
        }
        Cell::Bytes(x) => {
            into.byte(6);
            into.string(x);
        }
    }
}

fn read_value(from: &mut Reader<'_>) -> Result<Value, CodecError> {
    Ok(match from.byte()? {
        0 => Value::Null,
        1 => Value::Boolean(false),
        2 => Value::Boolean(true),
        3 => {
            let x = from.number()?;
            Value::Int((x >> 1) as i64 ^ -((x & 1) as i64))
        }
        4 => Value::Float(f64::from_bits(from.word()?)),
        5 => {
            let low = from.word()?;
            Value::Decimal((u128::from(from.word()?) << 64 | u128::from(low)) as i128)
        }
        6 => Value::Bytes(from.string()?.into()),
        _ => return Err(CodecError("a value has no such form")),
    })
}
