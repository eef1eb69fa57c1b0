CREATE STREAM payments (
  user_id    VARCHAR NOT NULL,
  payment_id VARCHAR,
  amount     DOUBLE,
  ts         TIMESTAMP NOT NULL,
  PRIMARY KEY (user_id, payment_id),                 -- a record that comes twice counts once
  WATERMARK FOR ts AS ts - INTERVAL '1 minute'       -- what is older goes to "payments$late"
) WITH (
  connector = 'kafka',
  brokers   = '@BROKERS@',
  topic     = 'payments',
  "group"   = 'features',
  start     = 'earliest',
  format    = 'json'
);

CREATE FEATURE VIEW user_spend ENTITY (user_id) AS
SELECT count(*)         OVER hour AS payments_1h,
       sum(amount)      OVER hour AS spend_1h,
       max(amount)      OVER hour AS largest_1h,
       count(*)         OVER ever AS payments_ever
FROM payments
WINDOW hour AS (RANGE INTERVAL '1 hour' PRECEDING),
       ever AS (RANGE UNBOUNDED PRECEDING);
