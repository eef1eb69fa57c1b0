-- The training set: every label with what was known at its instant. `>=`: an event at the very instant of the label is known.
-- (Were the label itself one of the events, `>` would keep it out of its own features.)
COPY (
  SELECT
    l.flight_id, l.at, l.origin, l.dest, l.carrier, l.tailnum, l.late,
    a.departures_1h, a.departures_24h, a.delay_avg_1h, a.delay_avg_24h, a.delay_max_1h, a.delay_max_24h, a.delay_p90_24h,
    a.late_share_1h, a.late_share_24h, a.destinations_24h, a.minutes_since_departure,
    c.carrier_departures_24h, c.wind_avg_24h, c.wind_stddev_24h, c.visibility_min_24h, c.low_visibility_departures_24h,
    c.carrier_delay_avg_7d, c.low_visibility_delay_avg_7d,
    p.last_arr_delay, p.last_dest, p.arr_delay_avg_last_3, p.landings_7d, p.hours_since_landing,
    r.route_day, r.route_departures_1d, r.route_delay_avg_1d, r.route_delay_max_1d, r.route_delay_median_1d,
    w.observed_at, w.temp, w.wind_dir, w.wind_speed, w.wind_gust, w.precip, w.pressure, w.visib
  FROM labels l
  ASOF JOIN airport_departures a MATCH_CONDITION (l.at >= a.ts) ON l.origin  = a.origin
  ASOF JOIN carrier_weather    c MATCH_CONDITION (l.at >= c.ts) ON l.carrier = c.carrier
  ASOF JOIN plane_last_arrival p MATCH_CONDITION (l.at >= p.ts) ON l.tailnum = p.tailnum
  ASOF JOIN route_daily        r MATCH_CONDITION (l.at >= r.ts) ON l.origin  = r.origin AND l.dest = r.dest
  ASOF JOIN airport_weather    w MATCH_CONDITION (l.at >= w.ts) ON l.origin  = w.origin
) TO 'target/flights/training.parquet' (FORMAT parquet);

CREATE EXTERNAL TABLE IF NOT EXISTS training STORED AS PARQUET LOCATION 'target/flights/training.parquet';
