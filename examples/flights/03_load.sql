-- The labels: one row per scheduled flight, at the moment a prediction is wanted, one hour before schedule.
-- `late` is NULL where the flight was cancelled.
CREATE EXTERNAL TABLE IF NOT EXISTS labels STORED AS PARQUET LOCATION 'examples/flights/data/labels.parquet';

-- What the streams hold after main.rs has pushed them, day by day, in order of event time.
SELECT 'departures' AS stream, count(*) AS events, min(ts) AS first_event, max(ts) AS last_event FROM departures
UNION ALL
SELECT 'arrivals', count(*), min(ts), max(ts) FROM arrivals
UNION ALL
SELECT 'weather', count(*), min(ts), max(ts) FROM weather
ORDER BY stream;
