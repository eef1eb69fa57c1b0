-- What a naive join leaks. "The plane's last delay" joined by the schedule finds the delay of the very flight to predict: its row carries
-- a schedule in time, but was written only when the plane left. Joined as of the label's instant, only what had happened counts.
--   from_the_future: rows whose joined event happened after the label's instant
--   accuracy:        of the guess "late again if late last time"; a guess of "never late" has always_on_time
WITH by_schedule AS (
  SELECT l.flight_id, l.at AS asked_at, l.late, d.dep_delay AS delay, d.ts AS known_at
  FROM labels l
  ASOF JOIN departures d MATCH_CONDITION (l.at + INTERVAL '1 hour' >= d.sched_dep) ON l.tailnum = d.tailnum
),
as_of_label AS (
  SELECT l.flight_id, l.at AS asked_at, l.late, d.dep_delay AS delay, d.ts AS known_at
  FROM labels l
  ASOF JOIN departures d MATCH_CONDITION (l.at >= d.ts) ON l.tailnum = d.tailnum
)
SELECT '1 naive: by schedule' AS joined,
       count(*) AS flights,
       sum(CASE WHEN known_at > asked_at THEN 1 ELSE 0 END) AS from_the_future,
       round(avg(CASE WHEN (coalesce(delay, 0) > 15) = late THEN 1.0 ELSE 0.0 END), 4) AS accuracy,
       round(avg(CASE WHEN late THEN 0.0 ELSE 1.0 END), 4) AS always_on_time,
       round(corr(CASE WHEN late THEN 1.0 ELSE 0.0 END, delay), 4) AS correlation
FROM by_schedule WHERE late IS NOT NULL
UNION ALL
SELECT '2 as of the label',
       count(*),
       sum(CASE WHEN known_at > asked_at THEN 1 ELSE 0 END),
       round(avg(CASE WHEN (coalesce(delay, 0) > 15) = late THEN 1.0 ELSE 0.0 END), 4),
       round(avg(CASE WHEN late THEN 0.0 ELSE 1.0 END), 4),
       round(corr(CASE WHEN late THEN 1.0 ELSE 0.0 END, delay), 4)
FROM as_of_label WHERE late IS NOT NULL
UNION ALL
SELECT '3 feature: last_arr_delay',
       count(*),
       0,
       round(avg(CASE WHEN (coalesce(last_arr_delay, 0) > 15) = late THEN 1.0 ELSE 0.0 END), 4),
       round(avg(CASE WHEN late THEN 0.0 ELSE 1.0 END), 4),
       round(corr(CASE WHEN late THEN 1.0 ELSE 0.0 END, last_arr_delay), 4)
FROM training WHERE late IS NOT NULL
ORDER BY joined;
