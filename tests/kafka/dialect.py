"""What the tests assume of statements, columns and names: the one place to change when one is called otherwise.

Everything else in this folder takes them from here.
"""

import re

# CREATE STREAM ... WITH (...). Options of librdkafka are passed through with their prefix.
CONNECTOR = "connector"
BROKERS, TOPIC, GROUP, START = "brokers", "topic", "group", "start"
FORMAT = "format"
COMMIT_ROWS, COMMIT_INTERVAL = "commit_rows", "commit_interval"
KEY, PARTITIONER = "key", "partitioner"
TIME_UNIT, JSON_PATH = "time_unit", "json_path"
REGISTRY = "schema_registry"
DEBEZIUM_TIME = "source.ts_us"
PASSED = "kafka."


def json_path(column, path):
    """The option that takes a column from a nested field."""
    return {f"{JSON_PATH}.{column}": "$." + path}


# How confluent-kafka's producer places a key unless told otherwise, and Java's.
LIBRDKAFKA_PARTITIONER, JAVA_PARTITIONER = "crc32", "murmur2"

# Two members of a group with one instance id are one member that was restarted: no waiting for the session's end.
SESSION_MS = 6000
INSTANCE = PASSED + "group.instance.id"
SESSION = PASSED + "session.timeout.ms"

# The server's environment.
CRASH = "ASOF_CRASH"
CRASH_POINTS = [
    "late.committed",
    "rejected.committed",
    "history.prepared",
    "history.committed",
    "state.applied",
    "checkpoint.chunk",
    "checkpoint.manifest",
    "offsets.committed",
    "compact.written",
    "compact.committed",
]
# Options of `asof serve` that make checkpoints and compactions come often enough to crash in.
OFTEN = ["--checkpoint-seconds", "1", "--compact-seconds", "1"]

STATUS = "SHOW STREAM STATUS"
STATUS_COLUMNS = [
    "stream",
    "partition",
    "offset",
    "end_offset",
    "lag",
    "watermark",
    "accepted",
    "duplicate",
    "late",
    "rejected",
    "last_commit",
    "checkpoint_age",
    "state",
    "message",
]
RUNNING, PAUSED, STOPPED, ELSEWHERE = "running", "paused", "stopped", "elsewhere"


def resume_past_the_gap(stream):
    """Goes on behind records that the broker no longer has."""
    return f"RESUME STREAM {stream} PAST GAP"


# Where a stream is stored, and the hidden columns there.
HISTORY, LATE, REJECTED = "streams", "late", "rejected"
# The application transactions that hold the next offset of a partition are called this and its name.
OFFSETS = "asof/partition/"
PARTITION, OFFSET, RAW, REASON = "_partition", "_offset", "raw", "reason"
HIDDEN = {"_partition", "_offset", "_arrived_at", "_revision", "_date"}


def partition_number(text):
    """The partition that a `_partition` or the name of an application transaction stands for; None for what is none of Kafka's."""
    found = re.search(r"(?:^|[/-])(\d+)$", str(text))
    return int(found[1]) if found else None


def counts_of(commit):
    """The conservation counts of a commit's information, or None."""
    return commit.get("asof", {}).get("counts")


def notes_of(commit):
    """What a commit's information says beside counts and times, as text: a gap that was passed over."""
    return str({k: v for k, v in commit.get("asof", {}).items() if k not in ("counts", "partition_times")})


def s3_environment(endpoint):
    return {
        "AWS_ENDPOINT": endpoint,
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
