//! The catalog as Flight SQL shows it: one catalog, one schema, streams, views and tables, their keys and types.

use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, Int32Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use arrow_flight::sql::metadata::{SqlInfoData, SqlInfoDataBuilder, XdbcTypeInfo, XdbcTypeInfoData, XdbcTypeInfoDataBuilder};
use arrow_flight::sql::{Command, Nullable, Searchable, SqlInfo, SqlSupportedTransaction, XdbcDataType};
use arrow_flight::{FlightDescriptor, FlightEndpoint, FlightInfo, Ticket};
use prost::Message;

use super::Core;
use super::connection::Connection;
use crate::backend::TableKind;
use crate::ipc::plain_schema;
use crate::status::{Failure, Outcome, Remedy};

const CATALOG: &str = "asof";
const SCHEMA: &str = "public";

fn broken(e: impl std::fmt::Display) -> Failure {
    Failure::internal(format!("the catalog cannot be shown: {e}"))
}

/// The shape of the answers about foreign keys, of which there are none.
fn no_foreign_keys() -> RecordBatch {
    let text = |name: &str, nullable| Field::new(name, DataType::Utf8, nullable);
    RecordBatch::new_empty(Arc::new(Schema::new(vec![
        text("pk_catalog_name", true),
        text("pk_db_schema_name", true),
        text("pk_table_name", false),
        text("pk_column_name", false),
        text("fk_catalog_name", true),
        text("fk_db_schema_name", true),
        text("fk_table_name", false),
        text("fk_column_name", false),
        Field::new("key_sequence", DataType::Int32, false),
        text("fk_key_name", true),
        text("pk_key_name", true),
        Field::new("update_rule", DataType::UInt8, false),
        Field::new("delete_rule", DataType::UInt8, false),
    ])))
}

fn primary_keys(table: Option<(&str, &[String])>) -> Outcome<RecordBatch> {
    let text = |name: &str, nullable| Field::new(name, DataType::Utf8, nullable);
    let schema = Schema::new(vec![
        text("catalog_name", true),
        text("db_schema_name", true),
        text("table_name", false),
        text("column_name", false),
        Field::new("key_sequence", DataType::Int32, false),
        text("key_name", true),
    ]);
    let (name, key) = table.unwrap_or(("", &[]));
    let all = |value: &str| Arc::new(StringArray::from(vec![value; key.len()])) as ArrayRef;
    let columns = vec![
        all(CATALOG),
        all(SCHEMA),
        all(name),
        Arc::new(StringArray::from(key.iter().map(String::as_str).collect::<Vec<_>>())) as ArrayRef,
        Arc::new(Int32Array::from_iter_values(1..=i32::try_from(key.len()).unwrap_or(i32::MAX))),
        Arc::new(StringArray::new_null(key.len())),
    ];
    RecordBatch::try_new(Arc::new(schema), columns).map_err(broken)
}

impl Core {
    /// The information on a question about the catalog: the ticket is the question.
    pub(super) async fn catalog_info(
        &self,
        connection: &Connection,
        command: Command,
        descriptor: FlightDescriptor,
    ) -> Outcome<FlightInfo> {
        let ticket = Ticket::new(command.clone().into_any().encode_to_vec());
        let schema = self.catalog(connection, command).await?.schema();
        super::sql::info(&schema, vec![FlightEndpoint::new().with_ticket(ticket)], descriptor)
    }

    /// The answer to a question about the catalog.
    pub(super) async fn catalog(&self, connection: &Connection, command: Command) -> Outcome<RecordBatch> {
        match command {
            Command::CommandGetCatalogs(c) => {
                let mut out = c.into_builder();
                out.append(CATALOG);
                out.build().map_err(broken)
            }
            Command::CommandGetDbSchemas(c) => {
                let mut out = c.into_builder();
                out.append(CATALOG, SCHEMA);
                out.build().map_err(broken)
            }
            Command::CommandGetTableTypes(c) => {
                let mut out = c.into_builder();
                TableKind::ALL.iter().for_each(|k| out.append(k.name()));
                out.build().map_err(broken)
            }
            Command::CommandGetTables(c) => {
                let mut out = c.into_builder();
                for table in connection.session.tables().await? {
                    out.append(CATALOG, SCHEMA, &table.name, table.kind.name(), &plain_schema(&table.schema)).map_err(broken)?;
                }
                out.build().map_err(broken)
            }
            Command::CommandGetPrimaryKeys(c) => {
                let tables = connection.session.tables().await?;
                let table = tables.iter().find(|t| t.name == c.table);
                primary_keys(table.map(|t| (t.name.as_str(), t.key.as_slice())))
            }
            Command::CommandGetExportedKeys(_) | Command::CommandGetImportedKeys(_) | Command::CommandGetCrossReference(_) => {
                Ok(no_foreign_keys())
            }
            Command::CommandGetSqlInfo(c) => c.into_builder(&sql_info(self.backend.name())?).build().map_err(broken),
            Command::CommandGetXdbcTypeInfo(c) => match &*TYPES {
                Some(types) => c.into_builder(types).build().map_err(broken),
                None => Err(broken("types")),
            },
            Command::CommandStatementSubstraitPlan(_) => Err(Failure::new(Remedy::Unimplemented, "Substrait plans are not run; send SQL")),
            other => Err(Failure::invalid(format!("the request \"{}\" is not known here", other.type_url()))),
        }
    }
}

fn sql_info((name, version): (&str, &str)) -> Outcome<SqlInfoData> {
    let mut out = SqlInfoDataBuilder::new();
    out.append(SqlInfo::FlightSqlServerName, name);
    out.append(SqlInfo::FlightSqlServerVersion, version);
    out.append(SqlInfo::FlightSqlServerArrowVersion, "1.3");
    out.append(SqlInfo::FlightSqlServerReadOnly, false);
    out.append(SqlInfo::FlightSqlServerSql, true);
    out.append(SqlInfo::FlightSqlServerSubstrait, false);
    out.append(SqlInfo::FlightSqlServerTransaction, SqlSupportedTransaction::None as i32);
    out.append(SqlInfo::FlightSqlServerCancel, true);
    out.append(SqlInfo::FlightSqlServerBulkIngestion, true);
    out.append(SqlInfo::FlightSqlServerIngestTransactionsSupported, false);
    out.append(SqlInfo::FlightSqlServerStatementTimeout, 0i32);
    out.append(SqlInfo::FlightSqlServerTransactionTimeout, 0i32);
    out.append(SqlInfo::SqlDdlCatalog, false);
    out.append(SqlInfo::SqlDdlSchema, false);
    out.append(SqlInfo::SqlDdlTable, true);
    // Unquoted names are lower case, quoted ones as written.
    out.append(SqlInfo::SqlIdentifierCase, 3i64);
    out.append(SqlInfo::SqlIdentifierQuoteChar, "\"");
    out.append(SqlInfo::SqlQuotedIdentifierCase, 1i64);
    out.append(SqlInfo::SqlAllTablesAreSelectable, false);
    out.append(SqlInfo::SqlNullOrdering, 0i64);
    out.append(SqlInfo::SqlMaxColumnsInTable, 4096i64);
    out.append(SqlInfo::SqlTransactionsSupported, false);
    out.append(SqlInfo::SqlBatchUpdatesSupported, true);
    out.append(SqlInfo::SqlSavepointsSupported, false);
    out.append(SqlInfo::SqlExtraNameCharacters, "$");
    out.append(SqlInfo::SqlSchemaTerm, "schema");
    out.append(SqlInfo::SqlCatalogTerm, "catalog");
    out.append(SqlInfo::SqlSupportsColumnAliasing, true);
    out.append(SqlInfo::SqlNullPlusNullIsNull, true);
    out.append(SqlInfo::SqlCorrelatedSubqueriesSupported, true);
    let keywords = ["STREAM", "FEATURE", "ENTITY", "WATERMARK", "ASOF", "MATCH_CONDITION", "REPROCESS"];
    out.append(SqlInfo::SqlKeywords, keywords.as_slice());
    out.build().map_err(broken)
}

/// The types of columns, by their number.
static TYPES: LazyLock<Option<XdbcTypeInfoData>> = LazyLock::new(|| {
    use XdbcDataType::*;
    let types = [
        ("BIGINT", XdbcBigint, 64, None),
        ("VARBINARY", XdbcVarbinary, i32::MAX, Some("X'")),
        ("BOOLEAN", XdbcBit, 1, None),
        ("DECIMAL", XdbcDecimal, 38, None),
        ("INTEGER", XdbcInteger, 32, None),
        ("SMALLINT", XdbcSmallint, 16, None),
        ("TINYINT", XdbcTinyint, 8, None),
        ("REAL", XdbcReal, 24, None),
        ("DOUBLE", XdbcDouble, 53, None),
        ("VARCHAR", XdbcVarchar, i32::MAX, Some("'")),
        ("DATE", XdbcDate, 10, Some("DATE '")),
        ("TIMESTAMP", XdbcTimestamp, 26, Some("TIMESTAMP '")),
    ];
    let mut out = XdbcTypeInfoDataBuilder::new();
    for (name, data_type, size, prefix) in types {
        let numeric = prefix.is_none() && data_type != XdbcBit;
        out.append(XdbcTypeInfo {
            type_name: name.into(),
            data_type,
            column_size: Some(size),
            literal_prefix: prefix.map(Into::into),
            literal_suffix: prefix.map(|_| "'".into()),
            create_params: (data_type == XdbcDecimal).then(|| vec!["precision".into(), "scale".into()]),
            nullable: Nullable::NullabilityNullable,
            case_sensitive: data_type == XdbcVarchar,
            searchable: Searchable::Full,
            unsigned_attribute: numeric.then_some(false),
            fixed_prec_scale: false,
            auto_increment: numeric.then_some(false),
            local_type_name: Some(name.into()),
            minimum_scale: (data_type == XdbcDecimal).then_some(0),
            maximum_scale: (data_type == XdbcDecimal).then_some(38),
            sql_data_type: data_type,
            datetime_subcode: None,
            num_prec_radix: numeric.then_some(if data_type == XdbcDecimal { 10 } else { 2 }),
            interval_precision: None,
        });
    }
    out.build().ok()
});
