-- Push streams: load.sql fills them with COPY, which has no lateness.

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
);

CREATE STREAM IF NOT EXISTS chargebacks (
  txn_id      VARCHAR,
  merchant_id VARCHAR NOT NULL,
  amount      DOUBLE,
  ts          TIMESTAMP NOT NULL,
  PRIMARY KEY (txn_id),
  WATERMARK FOR ts AS ts - INTERVAL '{disorder}'
);

CREATE STREAM IF NOT EXISTS merchants (
  merchant_id VARCHAR,
  category    VARCHAR,
  country     VARCHAR,
  tier        INTEGER,
  ts          TIMESTAMP NOT NULL,
  PRIMARY KEY (merchant_id),
  WATERMARK FOR ts AS ts - INTERVAL '{disorder}'
);
