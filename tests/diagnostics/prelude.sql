CREATE STREAM payments (
  id         VARCHAR,
  user_id    VARCHAR NOT NULL,
  shop_id    BIGINT,
  amount     DOUBLE,
  refunded   BOOLEAN,
  settled_at TIMESTAMP,
  ts         TIMESTAMP NOT NULL,
  PRIMARY KEY (id),
  WATERMARK FOR ts AS ts - INTERVAL '1 minute'
);

CREATE STREAM shops (shop_id BIGINT NOT NULL, amount DOUBLE, country VARCHAR, ts TIMESTAMP, WATERMARK FOR ts AS ts - INTERVAL '1 hour');

CREATE FEATURE VIEW spend ENTITY (user_id) AS
SELECT count(*) OVER day AS payments_24h, sum(amount) OVER day AS spend_24h
FROM payments WINDOW day AS (RANGE INTERVAL '24 hours' PRECEDING);

CREATE FEATURE VIEW shop_load ENTITY (shop_id) AS SELECT count(*) AS payments_24h FROM payments GROUP BY shop_id;

CREATE STREAM pageviews (user_id VARCHAR NOT NULL, shop_id BIGINT, page VARCHAR NOT NULL, ts TIMESTAMP, PRIMARY KEY (user_id, page),
  WATERMARK FOR ts AS ts - INTERVAL '1 minute')
WITH (connector = 'kafka', brokers = 'localhost:9092', topic = 'clicks', "group" = 'asof', "key" = 'user_id');

CREATE STREAM logins (user_id VARCHAR NOT NULL, ts TIMESTAMP, PRIMARY KEY (user_id), WATERMARK FOR ts AS ts - INTERVAL '1 minute')
WITH (connector = 'kafka', brokers = 'localhost:9092', topic = 'visits', "group" = 'asof', "key" = 'user_id', partitioner = 'crc32');
