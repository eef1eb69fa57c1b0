// Flink SQL over a topic, in a mini-cluster of this process: per key the count and the sum of the last hour at every event, the topic read from its
// beginning to where it ends at the start. Prints what came out, for the answer to be checked, and how fast.
//   java -cp JARS Flink.java BROKERS TOPIC PARALLELISM CHECKPOINT_MS FOLDER
// A checkpoint interval of 0 is none. Objects are reused and state is on the heap: the peer at its best.

import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.atomic.LongAdder;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.sink.v2.DiscardingSink;
import org.apache.flink.table.api.bridge.java.StreamTableEnvironment;
import org.apache.flink.types.Row;

public class Flink {
    // The mini-cluster's tasks run in this process, so they may write here.
    static final AtomicLong first = new AtomicLong();
    static final AtomicLong last = new AtomicLong();
    static final LongAdder rows = new LongAdder();
    static final LongAdder counts = new LongAdder();
    static final ConcurrentHashMap<String, Object[]> newest = new ConcurrentHashMap<>();

    static Row take(Row row) {
        long now = System.nanoTime();
        first.compareAndSet(0, now);
        last.set(now);
        rows.increment();
        counts.add((Long) row.getField(2));
        newest.put((String) row.getField(0), new Object[] {row.getField(2), row.getField(3)});
        return row;
    }

    public static void main(String[] arguments) throws Exception {
        var settings = new Configuration();
        settings.setString("pipeline.object-reuse", "true");
        settings.setString("rest.port", "0");
        settings.setString("rest.bind-address", "127.0.0.1");
        settings.setString("table.exec.state.ttl", "0");
        long checkpoint = Long.parseLong(arguments[3]);
        if (checkpoint > 0) {
            settings.setString("execution.checkpointing.interval", checkpoint + " ms");
            settings.setString("execution.checkpointing.dir", "file://" + arguments[4]);
        }
        var streams = StreamExecutionEnvironment.createLocalEnvironment(Integer.parseInt(arguments[2]), settings);
        var tables = StreamTableEnvironment.create(streams);
        tables.executeSql(
                """
                CREATE TABLE payments (
                  user_id STRING, amount DOUBLE, ts TIMESTAMP_LTZ(3), WATERMARK FOR ts AS ts - INTERVAL '30' SECOND
                ) WITH (
                  'connector' = 'kafka', 'properties.bootstrap.servers' = '%s', 'topic' = '%s', 'scan.startup.mode' = 'earliest-offset',
                  'scan.bounded.mode' = 'latest-offset', 'format' = 'json', 'json.timestamp-format.standard' = 'ISO-8601'
                )"""
                        .formatted(arguments[0], arguments[1]));
        var found = tables.sqlQuery(
                """
                SELECT user_id, ts,
                       count(*) OVER (PARTITION BY user_id ORDER BY ts RANGE BETWEEN INTERVAL '1' HOUR PRECEDING AND CURRENT ROW) AS n,
                       sum(amount) OVER (PARTITION BY user_id ORDER BY ts RANGE BETWEEN INTERVAL '1' HOUR PRECEDING AND CURRENT ROW) AS total
                FROM payments""");
        tables.toDataStream(found).map(Flink::take).returns(Row.class).sinkTo(new DiscardingSink<>());
        long start = System.nanoTime();
        streams.execute("sliding windows");
        double wall = (System.nanoTime() - start) / 1e9, flowing = (last.get() - first.get()) / 1e9;
        System.out.printf("rows %d counts %d%n", rows.sum(), counts.sum());
        newest.forEach((key, value) -> System.out.println("key " + key + " " + value[0] + " " + value[1]));
        System.out.printf(
                "flink: %d events, %.1f s in all, %.1f s from the first row to the last: %.0f events/s in all, %.0f events/s flowing%n",
                rows.sum(), wall, flowing, rows.sum() / wall, rows.sum() / flowing);
    }
}
