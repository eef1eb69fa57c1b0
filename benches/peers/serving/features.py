"""Feast's definition of the same fifty features."""

from datetime import timedelta

from feast import Entity, FeatureView, Field, FileSource
from feast.types import Float64

user = Entity(name="user", join_keys=["user_id"])
user_stats = FeatureView(
    name="user_stats",
    entities=[user],
    ttl=timedelta(days=36500),
    online=True,
    source=FileSource(path="users.parquet", timestamp_field="event_timestamp"),
    schema=[Field(name=f"f{i}", dtype=Float64) for i in range(1, 51)],
)
