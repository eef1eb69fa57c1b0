-- The same streams read from the files, line by line in the order of arrival: lateness, copies and malformed lines are judged as from a
-- log, and the counts are those of expected.json.

CREATE STREAM IF NOT EXISTS transactions (
  txn_id      VARCHAR,
  card_id     VARCHAR NOT NULL,
  merchant_id VARCHAR NOT NULL,
  category    VARCHAR,
  amount      DOUBLE,
  status      VARCHAR,
  online      BOOLEAN,
  ts          TIMESTAMP NOT NULL,
  PRIMARY KEY (txn_id),
  WATERMARK FOR ts AS ts - INTERVAL '{disorder}'
) WITH (
  connector = 'file', path = '{dir}/transactions.jsonl', format = 'json'
);

CREATE STREAM IF NOT EXISTS chargebacks (
  txn_id      VARCHAR,
  merchant_id VARCHAR NOT NULL,
  amount      DOUBLE,
  ts          TIMESTAMP NOT NULL,
  PRIMARY KEY (txn_id),
  WATERMARK FOR ts AS ts - INTERVAL '{disorder}'
) WITH (
  connector = 'file', path = '{dir}/chargebacks.jsonl', format = 'json'
);

CREATE STREAM IF NOT EXISTS merchants (
  merchant_id VARCHAR,
  category    VARCHAR,
  country     VARCHAR,
  tier        INTEGER,
  ts          TIMESTAMP NOT NULL,
  PRIMARY KEY (merchant_id),
  WATERMARK FOR ts AS ts - INTERVAL '{disorder}'
) WITH (
  connector = 'file', path = '{dir}/merchants.jsonl', format = 'json'
);
