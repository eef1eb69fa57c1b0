"""Writes the values that Asof serves into Feast's online store: feast_fill.py VALUES.arrow, in a folder with feature_store.yaml."""

import sys
import time

import features
import pandas as pd
import pyarrow as pa
from feast import FeatureStore

ROWS = 10_000

with pa.memory_map(sys.argv[1]) as source:
    frame = pa.ipc.open_file(source).read_all().to_pandas()
frame["event_timestamp"] = pd.Timestamp.now("UTC").tz_localize(None)
frame.head(10).to_parquet("users.parquet")
store = FeatureStore(".")
store.apply([features.user, features.user_stats])
begun = time.time()
for first in range(0, len(frame), ROWS):
    store.write_to_online_store("user_stats", frame.iloc[first : first + ROWS])
print(f"feast: {len(frame)} entities in {time.time() - begun:.1f} s")
