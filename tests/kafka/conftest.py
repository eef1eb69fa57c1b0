"""What the tests share: one broker for all, topics and warehouses of their own, and a broker of its own for the tests that stop it.

The binary is in $ASOF_BIN; tests/kafka/run sets it. $KAFKA names a broker that runs already; where it is `mock`, librdkafka's mock cluster stands in,
and the tests of what that does not do are left out.
"""

import itertools
import os
import signal
import urllib.request

import boto3
import pytest
from moto.server import ThreadedMotoServer

from broker import Broker, Mock
from registry import Registry
from server import Server
from world import World

NUMBERS = itertools.count()


def pytest_configure(config):
    """Told to end, the tests end what they started."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


# The mock cluster is not stopped, guarded by TLS, or shared by a group as a broker is; it deletes no record, gives every topic four partitions, does
# not compress, and shows what a transaction gave up.
APACHE_FIXTURES = {"own_broker", "guarded", "shared"}
APACHE_FILES = {"test_flow.py", "test_group.py", "test_tls.py"}
APACHE_TESTS = (
    "test_retention",
    "test_a_topic_with_more",
    "test_a_topic_made_anew",
    "test_a_partition_that_came",
    "test_transactions",
    "test_compressed",
    "test_status",
)


def pytest_collection_modifyitems(config, items):
    if os.environ.get("KAFKA") != "mock":
        return
    left_out = [
        item
        for item in items
        if APACHE_FIXTURES & set(item.fixturenames) or item.path.name in APACHE_FILES or item.name.startswith(APACHE_TESTS)
    ]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="session")
def broker(tmp_path_factory):
    if os.environ.get("KAFKA") == "mock":
        yield Mock()
        return
    if "KAFKA" in os.environ:
        yield Broker(os.environ["KAFKA_DIR"], os.environ["KAFKA"])
        return
    started = Broker(tmp_path_factory.mktemp("kafka"))
    yield started
    started.down()


@pytest.fixture
def own_broker(tmp_path):
    """A broker that the test may restart and kill."""
    started = Broker(tmp_path / "kafka")
    yield started
    started.down()


@pytest.fixture
def topics():
    """Makes topics with names of their own, and closes their clients."""
    made = []

    def create(broker, partitions=1, **config):
        made.append(broker.create(f"topic-{os.getpid()}-{next(NUMBERS)}", partitions, **config))
        return made[-1]

    yield create
    for topic in made:
        topic.close()


@pytest.fixture
def topic(broker, topics):
    return topics(broker)


@pytest.fixture
def world(topic, tmp_path):
    """A world over one partition; `World.create` makes its stream and view."""
    return World(topic, tmp_path / "warehouse")


@pytest.fixture
def servers(tmp_path):
    """Starts servers; those that a test left alive are ended well, and must end well."""
    started = []

    def start(warehouse, *options, **rest):
        started.append(Server(warehouse, tmp_path / f"server-{len(started)}", *options, **rest))
        return started[-1]

    failure = None
    yield start
    for server in started:
        try:
            server.__exit__(None, None, None)
        except AssertionError as error:
            failure = failure or error
    if failure is not None:
        raise failure


@pytest.fixture
def registry():
    with Registry() as started:
        yield started


@pytest.fixture
def s3():
    """The endpoint of a local S3 whose puts honour If-None-Match, as the real one's do, with the bucket `warehouse`."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    # All such servers of one process have one store.
    urllib.request.urlopen(urllib.request.Request(f"{endpoint}/moto-api/reset", method="POST")).close()
    boto3.client(
        "s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test"
    ).create_bucket(Bucket="warehouse")
    yield endpoint
    server.stop()
