#!/bin/sh
# The fraud example at a small size: generated, read from the files line by line with the counts it must have, loaded again by COPY, its
# training set written and both paths compared. Needs the debug build of examples and of the binary.
set -eu
root=$(CDPATH= cd -- "$(dirname -- "$0")/.." && pwd)
built=${CARGO_TARGET_DIR:-$root/target}/debug
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

"$built/examples/fraud" --events 20000 --cards 2000 --merchants 200 --out "$out/data"
asof() {
    "$built/asof" --warehouse "$out/$1" sql --format csv "-$2" "$3"
}
count() {
    asof "$1" c "SELECT count(*) AS n FROM \"$2\"" | tail -n 1
}
expected() {
    sed -n "s/.*\"$1\":\([0-9]*\).*/\1/p" "$out/data/expected.json"
}
same() {
    if [ "$2" != "$3" ]; then
        echo "fraud: $1: expected $2, found $3" >&2
        exit 1
    fi
}

# Lateness, copies and malformed lines are judged line by line, as from a log.
asof files f "$out/data/streams_file.sql"
asof files f "$out/data/views.sql"
same accepted "$(expected accepted)" "$(count files transactions)"
same late "$(expected late)" "$(count files 'transactions$late')"
same rejected "$(expected rejected)" "$(count files 'transactions$rejected')"
same chargebacks "$(expected chargebacks)" "$(count files chargebacks)"
same merchants "$(expected merchants)" "$(count files merchants)"

# One COPY is exempt from lateness: every transaction is accepted, whenever it came.
asof copy f "$out/data/streams.sql"
asof copy f "$out/data/views.sql"
asof copy f "$out/data/load.sql"
same "accepted by COPY" 20000 "$(count copy transactions)"
same "rejected by COPY" "$(expected rejected)" "$(count copy 'transactions$rejected')"
asof copy f "$out/data/train.sql"
asof copy c "CREATE EXTERNAL TABLE trained STORED AS PARQUET LOCATION '$out/data/training.parquet'"
same "rows of the training set" "$(expected labels)" "$(count copy trained)"
"$built/asof" --warehouse "$out/copy" verify --sample 0.05
