"""The warehouse on S3: a local server whose puts honour If-None-Match, as the real one's do."""

import boto3
import pyarrow.fs as fs
import pytest
from moto.server import ThreadedMotoServer

import dialect
from world import Flow, World


@pytest.fixture
def s3():
    """The endpoint, with the bucket `warehouse`."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    boto3.client(
        "s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test"
    ).create_bucket(Bucket="warehouse")
    yield endpoint
    server.stop()


def files(endpoint):
    return fs.S3FileSystem(
        access_key="test", secret_key="test", endpoint_override=endpoint, region="us-east-1", allow_bucket_creation=False
    )


def test_the_store_refuses_a_second_put(s3):
    """What commits rest on, so that the next test means something."""
    client = boto3.client("s3", endpoint_url=s3, region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test")
    client.put_object(Bucket="warehouse", Key="x", Body=b"1", IfNoneMatch="*")
    with pytest.raises(client.exceptions.ClientError, match="PreconditionFailed"):
        client.put_object(Bucket="warehouse", Key="x", Body=b"2", IfNoneMatch="*")
    with files(s3).open_input_stream("warehouse/x") as file:
        assert file.read() == b"1"


def test_all_of_it_on_s3(s3, topic, servers):
    world = World(topic, "s3://warehouse/asof", files(s3))
    env = dialect.s3_environment(s3)
    server = servers(world.warehouse, *dialect.CHECKPOINT_OFTEN, env=env)
    world.create(server)
    flow = Flow(51)
    topic.produce(flow.take(300))
    world.caught_up(server)
    topic.send(flow.take(300))
    server.kill()
    topic.flush()
    server = servers(world.warehouse, *dialect.CHECKPOINT_OFTEN, env=env)
    world.caught_up(server)
    world.check(server)
