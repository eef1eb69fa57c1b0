-- Five views over the three streams. Each is written once; serving and training read the same definition.
-- look_back: instants up to a day before the newest event are answered from the online state, earlier ones from history.

-- How the airport runs: departures and their delays over the last hour and the last day.
CREATE FEATURE VIEW IF NOT EXISTS airport_departures ENTITY (origin)
WITH (owner = 'operations', description = 'departures and delays of an airport', look_back = '1 day')
AS
SELECT
  count(*)                                OVER hour AS departures_1h,
  count(*)                                OVER day  AS departures_24h,
  avg(dep_delay)                          OVER hour AS delay_avg_1h,
  avg(dep_delay)                          OVER day  AS delay_avg_24h,
  max(dep_delay)                          OVER hour AS delay_max_1h,
  max(dep_delay)                          OVER day  AS delay_max_24h,
  percentile_cont(dep_delay, 0.9)         OVER day  AS delay_p90_24h,
  CAST(count(*) FILTER (WHERE dep_delay > 15) OVER hour AS DOUBLE) / nullif(count(*) OVER hour, 0) AS late_share_1h,
  CAST(count(*) FILTER (WHERE dep_delay > 15) OVER day  AS DOUBLE) / nullif(count(*) OVER day, 0)  AS late_share_24h,
  count(DISTINCT dest)                    OVER day  AS destinations_24h,
  extract(epoch FROM as_of() - max(ts) OVER day) / 60 AS minutes_since_departure
FROM departures
WINDOW hour AS (RANGE INTERVAL '1 hour' PRECEDING),
       day  AS (RANGE INTERVAL '24 hours' PRECEDING);

-- The weather that a carrier's flights left in: each departure with the observation at its airport as of that moment.
-- One gauge once wrote down a wind of 1048 mph; FILTER keeps it out of the averages.
CREATE FEATURE VIEW IF NOT EXISTS carrier_weather ENTITY (carrier)
WITH (owner = 'operations', description = 'weather at the departures of a carrier', look_back = '1 day')
AS
SELECT
  count(*)                                             OVER day  AS carrier_departures_24h,
  avg(w.wind_speed) FILTER (WHERE w.wind_speed < 200)  OVER day  AS wind_avg_24h,
  stddev_samp(w.wind_speed) FILTER (WHERE w.wind_speed < 200) OVER day AS wind_stddev_24h,
  min(w.visib)                                         OVER day  AS visibility_min_24h,
  count(*) FILTER (WHERE w.visib < 3)                  OVER day  AS low_visibility_departures_24h,
  avg(d.dep_delay)                                     OVER week AS carrier_delay_avg_7d,
  avg(d.dep_delay) FILTER (WHERE w.visib < 3)          OVER week AS low_visibility_delay_avg_7d
FROM departures d
ASOF JOIN weather w MATCH_CONDITION (d.ts >= w.ts) ON d.origin = w.origin
WINDOW day  AS (RANGE INTERVAL '24 hours' PRECEDING),
       week AS (RANGE INTERVAL '7 days' PRECEDING);

-- What is known of a plane: its last arrival, and that only once it has landed.
CREATE FEATURE VIEW IF NOT EXISTS plane_last_arrival ENTITY (tailnum)
WITH (owner = 'operations', description = 'last landings of a plane', look_back = '1 day')
AS
SELECT
  last_value(arr_delay)  OVER week        AS last_arr_delay,
  last_value(dest)       OVER week        AS last_dest,
  avg(arr_delay)         OVER last_three  AS arr_delay_avg_last_3,
  count(*)               OVER week        AS landings_7d,
  extract(epoch FROM as_of() - max(ts) OVER week) / 3600 AS hours_since_landing
FROM arrivals
WINDOW week       AS (RANGE INTERVAL '7 days' PRECEDING),
       last_three AS (ROWS 2 PRECEDING);

-- Yesterday on the route: the last whole UTC day, closed at midnight.
CREATE FEATURE VIEW IF NOT EXISTS route_daily ENTITY (origin, dest)
WITH (owner = 'operations', description = 'the last closed day of a route', look_back = '1 day')
AS
SELECT
  window_start()    AS route_day,
  count(*)          AS route_departures_1d,
  avg(dep_delay)    AS route_delay_avg_1d,
  max(dep_delay)    AS route_delay_max_1d,
  median(dep_delay) AS route_delay_median_1d
FROM departures
GROUP BY origin, dest, TUMBLE(ts, INTERVAL '1 day');

-- The newest observation at the airport; after three hours without one there is none.
CREATE FEATURE VIEW IF NOT EXISTS airport_weather ENTITY (origin)
WITH (owner = 'operations', description = 'the weather now', ttl = '3 hours', look_back = '1 day')
AS
SELECT ts AS observed_at, temp, wind_dir, wind_speed, wind_gust, precip, pressure, visib
FROM weather;
