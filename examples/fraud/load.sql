-- One COPY is one commit: all of the file or nothing. Malformed lines go to "transactions$rejected"; copies count once.
COPY merchants    FROM '{dir}/merchants.jsonl' (FORMAT json);
COPY chargebacks  FROM '{dir}/chargebacks.jsonl' (FORMAT json);
COPY transactions FROM '{dir}/transactions.jsonl' (FORMAT json);
