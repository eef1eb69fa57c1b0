-- The three streams. No connector: rows are pushed, as an airport's systems would send them.
-- A flight is known by its id, so a row sent twice counts once. Nothing may arrive more than an hour behind the newest row before it:
-- what does goes to "<stream>$late".

CREATE STREAM IF NOT EXISTS departures (
  flight_id VARCHAR,
  carrier   VARCHAR NOT NULL,
  tailnum   VARCHAR,
  origin    VARCHAR NOT NULL,
  dest      VARCHAR NOT NULL,
  distance  INTEGER,
  sched_dep TIMESTAMP,
  dep_delay DOUBLE,
  ts        TIMESTAMP NOT NULL,
  PRIMARY KEY (flight_id),
  WATERMARK FOR ts AS ts - INTERVAL '1 hour'
);

CREATE STREAM IF NOT EXISTS arrivals (
  flight_id VARCHAR,
  carrier   VARCHAR NOT NULL,
  tailnum   VARCHAR,
  origin    VARCHAR NOT NULL,
  dest      VARCHAR NOT NULL,
  arr_delay DOUBLE,
  air_time  DOUBLE,
  ts        TIMESTAMP NOT NULL,
  PRIMARY KEY (flight_id),
  WATERMARK FOR ts AS ts - INTERVAL '1 hour'
);

CREATE STREAM IF NOT EXISTS weather (
  origin     VARCHAR,
  temp       DOUBLE,
  dewp       DOUBLE,
  humid      DOUBLE,
  wind_dir   DOUBLE,
  wind_speed DOUBLE,
  wind_gust  DOUBLE,
  precip     DOUBLE,
  pressure   DOUBLE,
  visib      DOUBLE,
  ts         TIMESTAMP NOT NULL,
  PRIMARY KEY (origin),
  WATERMARK FOR ts AS ts - INTERVAL '1 hour'
);
