//! Which value: CASE, `coalesce`, `nvl`, `nvl2`, `nullif`, `greatest`, `least`, IN and BETWEEN.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, make_comparator, new_null_array};
use arrow::compute::{SortOptions, interleave, nullif};
use arrow::datatypes::{DataType, Float32Type, Float64Type};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::expr::InList;
use datafusion::logical_expr::{BinaryExpr, Case, Expr, Operator};

use super::compare::{self, float_order};
use super::compile::CompileError;
use super::kernel::{Kernel, Nulls, Operand, canonical_f32, canonical_f64, operation, pair};
use super::lower::{Lower, Typed};
use super::types::{self, is_decimal, is_float, sql_name, suffix};

type Lowered = std::result::Result<Typed, CompileError>;

/// All operands cast to the type in which they are branches of one expression.
fn union(lower: &Lower<'_>, what: &str, operands: Vec<Typed>) -> std::result::Result<(Vec<Typed>, DataType), CompileError> {
    let mut common = DataType::Null;
    for operand in &operands {
        common = types::union_common(&common, &operand.data_type).ok_or_else(|| {
            CompileError::new(format!("{what} has no type that both {} and {} can become", sql_name(&common), sql_name(&operand.data_type)))
        })?;
    }
    let operands = operands.into_iter().map(|operand| lower.cast(operand, &common)).collect::<std::result::Result<Vec<_>, _>>()?;
    Ok((operands, common))
}

/// CASE with its parts lowered. `CASE x WHEN v` compares x with each v as `=` does.
pub(super) fn case(lower: &Lower<'_>, base: Option<Typed>, branches: Vec<(Typed, Typed)>, otherwise: Option<Typed>) -> Lowered {
    let (whens, thens): (Vec<_>, Vec<_>) = branches.into_iter().unzip();
    let whens = whens
        .into_iter()
        .map(|when| match &base {
            Some(base) => compare::lower(lower, base.clone(), Operator::Eq, when),
            None => lower.condition("WHEN", when),
        })
        .collect::<std::result::Result<Vec<_>, _>>()?;
    let mut results = thens;
    let has_else = otherwise.is_some();
    results.extend(otherwise);
    let (mut results, data_type) = union(lower, "CASE", results)?;
    let nullable = !has_else || results.iter().any(|result| result.nullable);
    let otherwise = if has_else { results.pop() } else { None };
    let branches = whens.into_iter().zip(results).map(|(when, then)| (Box::new(when.expr), Box::new(then.expr)));
    let expr = Expr::Case(Case::new(None, branches.collect(), otherwise.map(|otherwise| Box::new(otherwise.expr))));
    Ok(Typed { expr, data_type, nullable })
}

/// The first operand that is not NULL.
pub(super) fn coalesce(lower: &Lower<'_>, operands: Vec<Typed>) -> Lowered {
    let (operands, common) = union(lower, "coalesce", operands)?;
    let nullable = operands.iter().all(|operand| operand.nullable);
    let nulls = if nullable { Nulls::Any } else { Nulls::Never };
    Ok(operation(format!("coalesce_{}", suffix(&common)), Coalesce, common, nulls, operands))
}

/// NULL where the operands are equal, else the first.
pub(super) fn null_if(lower: &Lower<'_>, left: Typed, right: Typed) -> Lowered {
    // As DataFusion has it, the result takes the wider of two numbers, so that `nullif(count, 0)` is BIGINT whatever it counts.
    let value = match types::numeric_common(&left.data_type, &right.data_type) {
        Some(common) if !is_decimal(&common) => lower.cast(left.clone(), &common)?,
        _ => left.clone(),
    };
    let equal = compare::lower(lower, left, Operator::Eq, right)?;
    let data_type = value.data_type.clone();
    Ok(operation(format!("null_where_{}", suffix(&data_type)), NullWhere, data_type, Nulls::Any, vec![value, equal]))
}

/// The greatest or least operand that is not NULL; NULL where all are.
pub(super) fn extreme(lower: &Lower<'_>, wanted: Ordering, operands: Vec<Typed>) -> Lowered {
    let name = if wanted == Ordering::Greater { "greatest" } else { "least" };
    let (operands, common) = union(lower, name, operands)?;
    if matches!(common, DataType::List(_)) || common == types::MONTHS {
        return Err(CompileError::new(format!("{name} does not take {}", sql_name(&common))));
    }
    let nulls = if operands.iter().all(|operand| operand.nullable) { Nulls::Any } else { Nulls::Never };
    Ok(operation(format!("{name}_{}", suffix(&common)), Extreme { wanted }, common, nulls, operands))
}

/// `value [NOT] IN (list)`.
pub(super) fn in_list(lower: &Lower<'_>, value: Typed, list: Vec<Typed>, negated: bool) -> Lowered {
    let mut common = value.data_type.clone();
    for item in &list {
        common = types::comparison_common(&common, &item.data_type)
            .ok_or_else(|| CompileError::new(format!("{} cannot be IN a list with {}", sql_name(&common), sql_name(&item.data_type))))?;
    }
    let simple = !is_float(&common) && !is_decimal(&common) && common != DataType::Null;
    if simple && list.iter().all(|item| matches!(item.expr, Expr::Literal(..))) {
        let value = lower.cast(value, &common)?;
        let list = list.into_iter().map(|item| lower.cast(item, &common)).collect::<std::result::Result<Vec<_>, _>>()?;
        let nullable = value.nullable || list.iter().any(|item| item.nullable);
        let list = list.into_iter().map(|item| item.expr).collect();
        let expr = Expr::InList(InList::new(Box::new(value.expr), list, negated));
        return Ok(Typed { expr, data_type: DataType::Boolean, nullable });
    }
    let equal = list
        .into_iter()
        .map(|item| compare::lower(lower, value.clone(), Operator::Eq, item))
        .collect::<std::result::Result<Vec<_>, _>>()?;
    let any = balanced(Operator::Or, equal).unwrap_or_else(|| Typed::literal(ScalarValue::Boolean(Some(false)), DataType::Boolean));
    Ok(if negated { not(any) } else { any })
}

/// `value [NOT] BETWEEN low AND high`, as the two comparisons it stands for.
pub(super) fn between(lower: &Lower<'_>, value: Typed, low: Typed, high: Typed, negated: bool) -> Lowered {
    let above = compare::lower(lower, value.clone(), Operator::GtEq, low)?;
    let below = compare::lower(lower, value, Operator::LtEq, high)?;
    let inside = logical(Operator::And, above, below);
    Ok(if negated { not(inside) } else { inside })
}

pub(super) fn not(operand: Typed) -> Typed {
    Typed { expr: Expr::Not(Box::new(operand.expr)), data_type: DataType::Boolean, nullable: operand.nullable }
}

/// AND or OR of two conditions.
pub(super) fn logical(operator: Operator, left: Typed, right: Typed) -> Typed {
    let nullable = left.nullable || right.nullable;
    let expr = Expr::BinaryExpr(BinaryExpr::new(Box::new(left.expr), operator, Box::new(right.expr)));
    Typed { expr, data_type: DataType::Boolean, nullable }
}

/// AND or OR of many conditions as a tree of least depth, so that a long list does not nest deep.
pub(super) fn balanced(operator: Operator, mut conditions: Vec<Typed>) -> Option<Typed> {
    while conditions.len() > 1 {
        let mut next = Vec::with_capacity(conditions.len().div_ceil(2));
        let mut rest = conditions.into_iter();
        while let Some(left) = rest.next() {
            next.push(match rest.next() {
                Some(right) => logical(operator, left, right),
                None => left,
            });
        }
        conditions = next;
    }
    conditions.pop()
}

#[derive(Debug)]
struct Coalesce;

impl Kernel for Coalesce {
    fn evaluate(&self, operands: &[Operand], rows: usize) -> Result<ArrayRef> {
        if let Some(first) = operands.first()
            && !first.is_constant()
            && first.array().null_count() == 0
        {
            return Ok(Arc::clone(first.array()));
        }
        pick(operands, rows, |row| operands.iter().position(|operand| !operand.is_null(row)))
    }
}

/// Row by row the value of the operand that `choose` names; where it names none, the last operand's, which is NULL then.
fn pick(operands: &[Operand], rows: usize, choose: impl Fn(usize) -> Option<usize>) -> Result<ArrayRef> {
    if rows == 1 {
        let chosen = &operands[choose(0).unwrap_or(operands.len() - 1)];
        return Ok(Arc::clone(chosen.array()));
    }
    let arrays: Vec<&dyn Array> = operands.iter().map(|operand| operand.array().as_ref()).collect();
    let indices: Vec<(usize, usize)> = (0..rows)
        .map(|row| {
            let chosen = choose(row).unwrap_or(operands.len() - 1);
            (chosen, operands[chosen].index(row))
        })
        .collect();
    Ok(interleave(&arrays, &indices)?)
}

#[derive(Debug)]
struct NullWhere;

impl Kernel for NullWhere {
    fn evaluate(&self, operands: &[Operand], rows: usize) -> Result<ArrayRef> {
        let [value, equal] = pair(operands)?;
        if rows == 1 {
            let equal = equal.array().as_boolean();
            let null = equal.is_valid(0) && equal.value(0);
            return Ok(if null { new_null_array(value.array().data_type(), 1) } else { Arc::clone(value.array()) });
        }
        let equal = equal.column(rows)?;
        Ok(nullif(&value.column(rows)?, equal.as_boolean())?)
    }
}

#[derive(Debug)]
struct Extreme {
    wanted: Ordering,
}

impl Kernel for Extreme {
    fn evaluate(&self, operands: &[Operand], rows: usize) -> Result<ArrayRef> {
        let data_type = operands[0].array().data_type().clone();
        // order[i][j] compares operand i with operand j, j < i.
        let mut order = Vec::with_capacity(operands.len());
        for (i, left) in operands.iter().enumerate() {
            let row: Result<Vec<_>> = operands[..i].iter().map(|right| comparator(left.array(), right.array())).collect();
            order.push(row?);
        }
        let picked = pick(operands, rows, |row| {
            let mut best: Option<usize> = None;
            for (i, operand) in operands.iter().enumerate() {
                if operand.is_null(row) {
                    continue;
                }
                let better = best.is_none_or(|best| order[i][best](operand.index(row), operands[best].index(row)) == self.wanted);
                if better {
                    best = Some(i);
                }
            }
            best
        })?;
        // Of two zeros either may have been picked; the result is +0, as that of `min` is.
        Ok(match data_type {
            DataType::Float64 => Arc::new(picked.as_primitive::<Float64Type>().unary::<_, Float64Type>(|v| canonical_f64(v + 0.0))),
            DataType::Float32 => Arc::new(picked.as_primitive::<Float32Type>().unary::<_, Float32Type>(|v| canonical_f32(v + 0.0))),
            _ => picked,
        })
    }
}

type Comparator = Box<dyn Fn(usize, usize) -> Ordering>;

fn comparator(left: &ArrayRef, right: &ArrayRef) -> Result<Comparator> {
    Ok(match left.data_type() {
        DataType::Float64 => {
            let (left, right) = (left.as_primitive::<Float64Type>().clone(), right.as_primitive::<Float64Type>().clone());
            Box::new(move |i, j| float_order(left.value(i), right.value(j)))
        }
        DataType::Float32 => {
            let (left, right) = (left.as_primitive::<Float32Type>().clone(), right.as_primitive::<Float32Type>().clone());
            Box::new(move |i, j| float_order(left.value(i).into(), right.value(j).into()))
        }
        _ => Box::new(make_comparator(left, right, SortOptions::default())?),
    })
}
