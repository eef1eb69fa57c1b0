import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.sql.Connection;
import java.sql.DatabaseMetaData;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;

/**
 * The Arrow Flight SQL JDBC driver against a running server: {@code java Jdbc.java URL EXPECTED}.
 *
 * <p>EXPECTED has lines of instant, user, count, sum (the bits of the double, or NULL) and merchant, separated by tabs: what training has for
 * the user at the instant. Prints {@code passed NAME} or {@code failed NAME: why} for each check, and ends with 0 when it has run them all.
 */
public final class Jdbc {
    private interface Check {
        void run() throws Exception;
    }

    private record Row(String instant, String user, long count, Long sumBits, String merchant) {}

    private final Connection db;
    private final List<Row> expected;

    private Jdbc(Connection db, List<Row> expected) {
        this.db = db;
        this.expected = expected;
    }

    public static void main(String[] args) throws Exception {
        List<Row> expected = read(Path.of(args[1]));
        try (Connection db = DriverManager.getConnection(args[0])) {
            new Jdbc(db, expected).all();
        }
    }

    private static List<Row> read(Path path) throws IOException {
        List<Row> rows = new ArrayList<>();
        for (String line : Files.readAllLines(path)) {
            String[] parts = line.split("\t", -1);
            Long sum = parts[3].equals("NULL") ? null : Long.parseUnsignedLong(parts[3], 16);
            rows.add(new Row(parts[0], parts[1], Long.parseLong(parts[2]), sum, parts[4].equals("NULL") ? null : parts[4]));
        }
        return rows;
    }

    private void all() {
        Map<String, Check> checks = new LinkedHashMap<>();
        checks.put("statement", this::statement);
        checks.put("prepared", this::prepared);
        checks.put("types", this::types);
        checks.put("ddl_and_update", this::ddlAndUpdate);
        checks.put("prepared_update", this::preparedUpdate);
        checks.put("error_text", this::errorText);
        checks.put("prepared_error_text", this::preparedErrorText);
        checks.put("tables", this::tables);
        checks.put("columns", this::columns);
        checks.put("primary_keys", this::primaryKeys);
        checks.put("catalogs_and_schemas", this::catalogsAndSchemas);
        checks.put("product", this::product);
        checks.forEach((name, check) -> {
            try {
                check.run();
                System.out.println("passed " + name);
            } catch (Throwable error) {
                System.out.println("failed " + name + ": " + error.toString().replace('\n', '|'));
            }
        });
    }

    private static void equal(Object found, Object wanted) {
        if (!Objects.equals(found, wanted)) {
            throw new AssertionError("found " + found + ", not " + wanted);
        }
    }

    private static void holds(boolean condition, Object about) {
        if (!condition) {
            throw new AssertionError(String.valueOf(about));
        }
    }

    private static final String COLUMNS = "user_id, count_ever, spend_1h, last_merchant";

    private void sameRow(ResultSet found, Row wanted) throws SQLException {
        holds(found.next(), "no row for " + wanted);
        equal(found.getString("user_id"), wanted.user());
        equal(found.getLong(2), wanted.count());
        double sum = found.getDouble(3);
        equal(found.wasNull() ? null : Double.doubleToRawLongBits(sum), wanted.sumBits());
        equal(found.getString("last_merchant"), wanted.merchant());
    }

    private void statement() throws SQLException {
        try (Statement statement = db.createStatement()) {
            for (Row row : expected) {
                String sql = "SELECT " + COLUMNS + " FROM user_spend FOR ENTITY '" + row.user() + "' AS OF TIMESTAMP '" + row.instant() + "'";
                try (ResultSet found = statement.executeQuery(sql)) {
                    sameRow(found, row);
                    holds(!found.next(), "a second row");
                }
            }
        }
    }

    private void prepared() throws SQLException {
        String instant = expected.get(0).instant();
        for (String mark : List.of("?", "$1")) {
            String sql = "SELECT " + COLUMNS + " FROM user_spend FOR ENTITY user_id = " + mark + " AS OF TIMESTAMP '" + instant + "'";
            try (PreparedStatement statement = db.prepareStatement(sql)) {
                equal(statement.getParameterMetaData().getParameterCount(), 1);
                for (Row row : expected) {
                    if (!row.instant().equals(instant)) {
                        continue;
                    }
                    statement.setString(1, row.user());
                    try (ResultSet found = statement.executeQuery()) {
                        sameRow(found, row);
                        holds(!found.next(), "a second row");
                    }
                }
            }
        }
    }

    private void types() throws SQLException {
        String sql = "SELECT n, seen, r_least, price_most, word_last, day_last FROM by_n FOR ENTITY n = ? AS OF TIMESTAMP '2024-05-03 01:00:00'";
        try (PreparedStatement statement = db.prepareStatement(sql)) {
            statement.setLong(1, 9007199254740993L);
            try (ResultSet found = statement.executeQuery()) {
                holds(found.next(), "no row");
                equal(found.getLong("n"), 9007199254740993L);
                holds(found.getLong("seen") > 0, "no events");
                holds(found.getFloat("r_least") < 0, "no least");
                equal(found.getBigDecimal("price_most").toPlainString(), "99999999.99");
                equal(found.getDate("day_last").toLocalDate().toString(), "2024-02-29");
                found.getString("word_last");
            }
        }
        try (Statement statement = db.createStatement();
                ResultSet found = statement.executeQuery("SELECT ts, true AS yes, NULL AS nothing FROM transactions ORDER BY ts LIMIT 1")) {
            holds(found.next(), "no row");
            equal(found.getTimestamp(1).toInstant().toString(), "2024-05-01T00:00:00Z");
            equal(found.getBoolean(2), true);
            equal(found.getObject(3), null);
        }
    }

    private void ddlAndUpdate() throws SQLException {
        try (Statement statement = db.createStatement()) {
            statement.executeUpdate("CREATE STREAM jdbc_events (k VARCHAR, ts TIMESTAMP NOT NULL, WATERMARK FOR ts AS ts - INTERVAL '1 second')");
            String two = "INSERT INTO jdbc_events VALUES ('a', TIMESTAMP '2024-05-01 00:00:00'), ('b', TIMESTAMP '2024-05-01 00:00:01')";
            equal(statement.executeUpdate(two), 2);
            // Without a primary key every copy counts: had the statement run twice, it would show.
            equal(count("jdbc_events"), 2L);
        }
    }

    private void preparedUpdate() throws SQLException {
        try (Statement statement = db.createStatement()) {
            String columns = "k VARCHAR, n BIGINT, ts TIMESTAMP NOT NULL, WATERMARK FOR ts AS ts - INTERVAL '1 second'";
            statement.executeUpdate("CREATE STREAM jdbc_prepared (" + columns + ")");
        }
        try (PreparedStatement statement = db.prepareStatement("INSERT INTO jdbc_prepared VALUES (?, ?, TIMESTAMP '2024-05-01 00:00:00')")) {
            statement.setString(1, "a");
            statement.setLong(2, 7);
            equal(statement.executeUpdate(), 1);
            statement.setString(1, "b");
            statement.setLong(2, 8);
            equal(statement.executeUpdate(), 1);
        }
        try (Statement statement = db.createStatement(); ResultSet found = statement.executeQuery("SELECT k, n FROM jdbc_prepared ORDER BY k")) {
            StringBuilder text = new StringBuilder();
            while (found.next()) {
                text.append(found.getString(1)).append(found.getLong(2)).append(' ');
            }
            equal(text.toString(), "a7 b8 ");
        }
    }

    private long count(String table) throws SQLException {
        try (Statement statement = db.createStatement(); ResultSet found = statement.executeQuery("SELECT count(*) AS n FROM " + table)) {
            found.next();
            return found.getLong(1);
        }
    }

    private static void hasErrorText(SQLException error) {
        StringBuilder text = new StringBuilder();
        for (Throwable cause = error; cause != null; cause = cause.getCause()) {
            text.append(cause.getMessage()).append('\n');
        }
        String what = "error[E0201]: unknown feature view \"user_spen\"";
        for (String part : List.of(what, "^^^^^^^^^", "The nearest known feature view is \"user_spend\".")) {
            holds(text.indexOf(part) >= 0, "no " + part + " in: " + text);
        }
    }

    private void errorText() {
        try (Statement statement = db.createStatement(); ResultSet found = statement.executeQuery("SELECT * FROM user_spen FOR ENTITY 'u1'")) {
            throw new AssertionError("answered: " + found);
        } catch (SQLException error) {
            hasErrorText(error);
        }
    }

    private void preparedErrorText() {
        try (PreparedStatement statement = db.prepareStatement("SELECT * FROM user_spen FOR ENTITY user_id = ?")) {
            throw new AssertionError("prepared: " + statement);
        } catch (SQLException error) {
            hasErrorText(error);
        }
    }

    private static List<String> column(ResultSet found, String name) throws SQLException {
        try (found) {
            List<String> out = new ArrayList<>();
            while (found.next()) {
                out.add(found.getString(name));
            }
            return out;
        }
    }

    private void tables() throws SQLException {
        DatabaseMetaData about = db.getMetaData();
        List<String> all = column(about.getTables(null, null, "%", null), "TABLE_NAME");
        holds(all.containsAll(List.of("transactions", "things", "user_spend", "merchant_risk")), all);
        equal(column(about.getTables(null, null, "user_spend", null), "TABLE_NAME"), List.of("user_spend"));
        List<String> kinds = column(about.getTableTypes(), "TABLE_TYPE");
        holds(kinds.containsAll(column(about.getTables(null, null, "%", null), "TABLE_TYPE")), kinds);
        String kind = column(about.getTables(null, null, "user_spend", null), "TABLE_TYPE").get(0);
        List<String> views = column(about.getTables(null, null, "%", new String[] {kind}), "TABLE_NAME");
        holds(views.contains("merchant_risk") && !views.contains("transactions"), views);
    }

    private void columns() throws SQLException {
        DatabaseMetaData about = db.getMetaData();
        List<String> names = column(about.getColumns(null, null, "transactions", "%"), "COLUMN_NAME");
        equal(names, List.of("txn_id", "user_id", "merchant_id", "amount", "status", "ts"));
        equal(column(about.getColumns(null, null, "user_at_merchant", "spe%"), "COLUMN_NAME"), List.of("spent"));
    }

    private void primaryKeys() throws SQLException {
        equal(column(db.getMetaData().getPrimaryKeys(null, null, "transactions"), "COLUMN_NAME"), List.of("txn_id"));
        equal(column(db.getMetaData().getPrimaryKeys(null, null, "user_at_merchant"), "COLUMN_NAME").size(), 2);
    }

    private void catalogsAndSchemas() throws SQLException {
        List<String> catalogs = column(db.getMetaData().getCatalogs(), "TABLE_CAT");
        List<String> schemas = column(db.getMetaData().getSchemas(), "TABLE_SCHEM");
        holds(!catalogs.isEmpty() && !schemas.isEmpty(), catalogs + " " + schemas);
        List<String> used = column(db.getMetaData().getTables(null, null, "transactions", null), "TABLE_SCHEM");
        holds(schemas.containsAll(used), used);
    }

    private void product() throws SQLException {
        DatabaseMetaData about = db.getMetaData();
        equal(about.getDatabaseProductName().toLowerCase(), "asof");
        holds(!about.getDatabaseProductVersion().isEmpty(), "no version");
        holds(!about.supportsTransactions(), "transactions");
    }
}
