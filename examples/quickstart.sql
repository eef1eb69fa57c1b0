-- The least that shows the whole: a stream, a view, events, a vector, a training set.

CREATE STREAM payments (
  payment_id VARCHAR,
  user_id    VARCHAR NOT NULL,
  amount     DOUBLE,
  ts         TIMESTAMP NOT NULL,
  PRIMARY KEY (payment_id),
  WATERMARK FOR ts AS ts - INTERVAL '1 minute'
);

CREATE FEATURE VIEW user_spend ENTITY (user_id) WITH (look_back = '1 day') AS
SELECT
  count(*)    OVER hour AS payments_1h,
  sum(amount) OVER hour AS spend_1h,
  max(amount) OVER day  AS largest_24h
FROM payments
WINDOW hour AS (RANGE INTERVAL '1 hour' PRECEDING),
       day  AS (RANGE INTERVAL '24 hours' PRECEDING);

INSERT INTO payments VALUES
  ('p1', 'ann', 20.0, TIMESTAMP '2024-05-01 10:00:00'),
  ('p2', 'ann',  5.5, TIMESTAMP '2024-05-01 10:40:00'),
  ('p3', 'bob', 70.0, TIMESTAMP '2024-05-01 10:50:00'),
  ('p4', 'ann', 12.0, TIMESTAMP '2024-05-01 11:30:00');

-- A row sent twice counts once.
INSERT INTO payments VALUES ('p4', 'ann', 12.0, TIMESTAMP '2024-05-01 11:30:00');

-- Serving: at 11:45 the hour of ann holds one payment; cy was never seen, and that is no error.
SELECT * FROM user_spend FOR ENTITY user_id IN ('ann', 'bob', 'cy') AS OF TIMESTAMP '2024-05-01 11:45:00';

-- Training: each label with the value as of its own instant, from the same definition.
WITH labels (user_id, ts, bought) AS (
  VALUES ('ann', TIMESTAMP '2024-05-01 10:30:00', true),
         ('ann', TIMESTAMP '2024-05-01 11:45:00', false),
         ('bob', TIMESTAMP '2024-05-01 10:50:00', true)
)
SELECT l.user_id, l.ts, l.bought, u.payments_1h, u.spend_1h, u.largest_24h
FROM labels l
ASOF JOIN user_spend u MATCH_CONDITION (l.ts >= u.ts) ON l.user_id = u.user_id
ORDER BY l.user_id, l.ts;
