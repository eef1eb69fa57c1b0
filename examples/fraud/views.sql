-- How fast a card is spent, over an hour, a day and a week.
CREATE FEATURE VIEW IF NOT EXISTS card_velocity ENTITY (card_id)
WITH (owner = 'risk', description = 'spend and velocity of a card', freshness = '5 seconds')
AS
SELECT
  count(*)                                       OVER hour AS txn_count_1h,
  count(*)                                       OVER day  AS txn_count_24h,
  count(*)                                       OVER week AS txn_count_7d,
  sum(amount)                                    OVER hour AS spend_1h,
  sum(amount)                                    OVER day  AS spend_24h,
  avg(amount)                                    OVER week AS ticket_7d,
  stddev_samp(amount)                            OVER week AS ticket_stddev_7d,
  max(amount)                                    OVER week AS ticket_max_7d,
  count(DISTINCT merchant_id)                    OVER day  AS merchants_24h,
  count(*) FILTER (WHERE status = 'declined')    OVER hour AS declined_1h,
  coalesce(CAST(count(*) FILTER (WHERE online) OVER day AS DOUBLE) / nullif(count(*) OVER day, 0), 0) AS online_share_24h,
  extract(epoch FROM as_of() - max(ts) OVER week) AS seconds_since_last
FROM transactions
WINDOW hour AS (RANGE INTERVAL '1 hour' PRECEDING),
       day  AS (RANGE INTERVAL '24 hours' PRECEDING),
       week AS (RANGE INTERVAL '7 days' PRECEDING);

-- Spend that fades by a factor of e every six hours. It changes with the instant, so it is summed anew at each read.
CREATE FEATURE VIEW IF NOT EXISTS card_decayed ENTITY (card_id)
AS
SELECT
  sum(amount * exp(-extract(epoch FROM as_of() - ts) / 21600)) OVER (RANGE INTERVAL '24 hours' PRECEDING) AS spend_decayed
FROM transactions
WHERE status = 'approved';

-- Whether the card knows the merchant.
CREATE FEATURE VIEW IF NOT EXISTS card_at_merchant ENTITY (card_id, merchant_id)
AS
SELECT
  count(*)           OVER month AS visits_30d,
  avg(amount)        OVER month AS ticket_here_30d,
  last_value(amount) OVER month AS last_amount_here
FROM transactions
WINDOW month AS (RANGE INTERVAL '30 days' PRECEDING);

-- The run of transactions in progress: neighbours at most thirty minutes apart.
CREATE FEATURE VIEW IF NOT EXISTS card_session ENTITY (card_id)
AS
SELECT
  count(*)       AS session_count,
  sum(amount)    AS session_spend,
  max(amount)    AS session_ticket_max,
  window_start() AS session_started_at
FROM transactions
GROUP BY card_id, SESSION(ts, INTERVAL '30 minutes');

-- Disputes at a merchant, each with the tier and country that the merchant had when it was disputed.
CREATE FEATURE VIEW IF NOT EXISTS merchant_risk ENTITY (merchant_id)
WITH (owner = 'risk', description = 'chargebacks of a merchant')
AS
SELECT
  count(*)                            OVER month AS chargebacks_30d,
  sum(c.amount)                       OVER month AS chargeback_amount_30d,
  count(*) FILTER (WHERE m.tier = 3)  OVER month AS chargebacks_tier3_30d,
  last_value(m.country)               OVER month AS last_chargeback_country
FROM chargebacks c
ASOF JOIN merchants m MATCH_CONDITION (c.ts >= m.ts) ON c.merchant_id = m.merchant_id
WINDOW month AS (RANGE INTERVAL '30 days' PRECEDING);

-- Disputes as a share of sales: two streams in one shape.
CREATE FEATURE VIEW IF NOT EXISTS merchant_dispute_rate ENTITY (merchant_id)
AS
SELECT
  sum(sale)    OVER week AS sales_7d,
  sum(dispute) OVER week AS disputes_7d,
  coalesce(CAST(sum(dispute) OVER week AS DOUBLE) / nullif(sum(sale) OVER week, 0), 0) AS dispute_rate_7d
FROM (
  SELECT merchant_id, 1 AS sale, 0 AS dispute, ts FROM transactions WHERE status = 'approved'
  UNION ALL
  SELECT merchant_id, 0 AS sale, 1 AS dispute, ts FROM chargebacks
)
WINDOW week AS (RANGE INTERVAL '7 days' PRECEDING);

-- The merchant as it is.
CREATE FEATURE VIEW IF NOT EXISTS merchant_profile ENTITY (merchant_id)
AS
SELECT category AS merchant_category, country AS merchant_country, tier AS merchant_tier
FROM merchants;
