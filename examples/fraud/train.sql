-- A label is itself one of the transactions, so `>`: it must not count in its own features.
CREATE EXTERNAL TABLE IF NOT EXISTS fraud_labels STORED AS PARQUET LOCATION '{dir}/labels.parquet';

COPY (
  SELECT
    l.txn_id, l.ts, l.fraud,
    v.txn_count_1h, v.txn_count_24h, v.txn_count_7d, v.spend_1h, v.spend_24h, v.ticket_7d, v.ticket_stddev_7d, v.ticket_max_7d,
    v.merchants_24h, v.declined_1h, v.online_share_24h, v.seconds_since_last,
    d.spend_decayed,
    p.visits_30d, p.ticket_here_30d, p.last_amount_here,
    s.session_count, s.session_spend, s.session_ticket_max, s.session_started_at,
    r.chargebacks_30d, r.chargeback_amount_30d, r.chargebacks_tier3_30d, r.last_chargeback_country,
    q.sales_7d, q.disputes_7d, q.dispute_rate_7d,
    m.merchant_category, m.merchant_country, m.merchant_tier
  FROM fraud_labels l
  ASOF JOIN card_velocity         v MATCH_CONDITION (l.ts > v.ts) ON l.card_id = v.card_id
  ASOF JOIN card_decayed          d MATCH_CONDITION (l.ts > d.ts) ON l.card_id = d.card_id
  ASOF JOIN card_at_merchant      p MATCH_CONDITION (l.ts > p.ts) ON l.card_id = p.card_id AND l.merchant_id = p.merchant_id
  ASOF JOIN card_session          s MATCH_CONDITION (l.ts > s.ts) ON l.card_id = s.card_id
  ASOF JOIN merchant_risk         r MATCH_CONDITION (l.ts > r.ts) ON l.merchant_id = r.merchant_id
  ASOF JOIN merchant_dispute_rate q MATCH_CONDITION (l.ts > q.ts) ON l.merchant_id = q.merchant_id
  ASOF JOIN merchant_profile      m MATCH_CONDITION (l.ts > m.ts) ON l.merchant_id = m.merchant_id
) TO '{dir}/training.parquet' (FORMAT parquet);
