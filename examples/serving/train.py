"""Loads a training set into pandas, Polars, PyTorch or XGBoost.

    train.py grpc://127.0.0.1:8815 pandas|polars|torch|xgboost

Needs adbc-driver-flightsql and pyarrow, and what it loads into. The labels are uploaded as a temporary table of the connection; each gets the
features of `user_spend` (`examples/quickstart.sql`) as of its own instant, without a payment at that very instant.
"""

import datetime
import importlib
import sys

import adbc_driver_flightsql.dbapi
import pyarrow as pa

FEATURES = ["payments_1h", "spend_1h", "largest_24h"]
QUERY = f"""
SELECT l.label, {", ".join("u." + f for f in FEATURES)}
FROM labels l
ASOF JOIN user_spend u MATCH_CONDITION (l.ts > u.ts) ON l.user_id = u.user_id
"""
PACKAGES = {"pandas": "pandas", "polars": "polars", "torch": "torch", "xgboost": "xgboost"}


def labels():
    """An hour of labels, one every ten seconds and user."""
    begin = datetime.datetime(2024, 5, 1, 11, 0, tzinfo=datetime.timezone.utc)
    rows = [(user, begin + datetime.timedelta(seconds=10 * i), i % 2) for i in range(360) for user in ("ann", "bob", "cy")]
    return pa.table(
        {"user_id": [r[0] for r in rows], "ts": [r[1] for r in rows], "label": [r[2] for r in rows]},
        schema=pa.schema([("user_id", pa.string()), ("ts", pa.timestamp("us", "UTC")), ("label", pa.int64())]),
    )


def into_pandas(pandas, cursor):
    frame = cursor.fetch_df()
    print(frame.describe())
    return len(frame)


def into_polars(polars, cursor):
    frame = polars.from_arrow(cursor.fetch_record_batch())
    print(frame.describe())
    return frame.height


def numbers(batch):
    """Features and labels of a batch as arrays of floats; NULL is NaN."""
    import numpy

    columns = [batch.column(f).cast(pa.float64()).to_numpy(zero_copy_only=False) for f in FEATURES]
    return numpy.column_stack(columns), batch.column("label").to_numpy().astype(float)


def into_torch(torch, cursor):
    """Batches are learnt from as they come: the training set is never held whole."""
    model = torch.nn.Linear(len(FEATURES), 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    rows = 0
    for batch in cursor.fetch_record_batch():
        features, wanted = numbers(batch)
        features = torch.nan_to_num(torch.from_numpy(features).float())
        loss = torch.nn.functional.binary_cross_entropy_with_logits(model(features)[:, 0], torch.from_numpy(wanted).float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rows += len(batch)
        print(f"{rows} rows, loss {loss.item():.4f}")
    return rows


def into_xgboost(xgboost, cursor):
    """XGBoost may go over the batches more than once, so they are kept; what it makes of them is quantized."""
    batches = [numbers(batch) for batch in cursor.fetch_record_batch() if len(batch)]

    class Batches(xgboost.DataIter):
        def __init__(self):
            super().__init__()
            self.at = 0

        def next(self, take):
            if self.at == len(batches):
                return False
            features, wanted = batches[self.at]
            take(data=features, label=wanted)
            self.at += 1
            return True

        def reset(self):
            self.at = 0

    model = xgboost.train({"objective": "binary:logistic", "max_depth": 3}, xgboost.QuantileDMatrix(Batches()), num_boost_round=10)
    print(f"{model.num_boosted_rounds()} rounds")
    return sum(len(wanted) for _, wanted in batches)


def main():
    address, target = sys.argv[1:]
    try:
        package = importlib.import_module(PACKAGES[target])
    except KeyError:
        sys.exit(f"unknown target {target}: {', '.join(PACKAGES)}")
    except ImportError:
        sys.exit(f"{target} is missing: pip install {PACKAGES[target]}")
    with adbc_driver_flightsql.dbapi.connect(address, autocommit=True) as db, db.cursor() as cursor:
        cursor.adbc_ingest("labels", labels(), mode="create", temporary=True)
        cursor.execute(QUERY)
        rows = globals()[f"into_{target}"](package, cursor)
    print(f"{rows} rows of training")


if __name__ == "__main__":
    main()
