"""The warehouse on S3: a local server whose puts honour If-None-Match, as the real one's do."""

import boto3
import pytest

import delta
import dialect
from world import Flow, World


def test_the_store_refuses_a_second_put(s3):
    """What commits rest on, so that the next test means something."""
    client = boto3.client("s3", endpoint_url=s3, region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test")
    client.put_object(Bucket="warehouse", Key="x", Body=b"1", IfNoneMatch="*")
    with pytest.raises(client.exceptions.ClientError, match="PreconditionFailed"):
        client.put_object(Bucket="warehouse", Key="x", Body=b"2", IfNoneMatch="*")
    with delta.on_s3(s3).open_input_stream("warehouse/x") as file:
        assert file.read() == b"1"


def test_all_of_it_on_s3(s3, topic, servers):
    world = World(topic, "s3://warehouse/asof", delta.on_s3(s3))
    env = dialect.s3_environment(s3)
    server = servers(world.warehouse, *dialect.OFTEN, env=env)
    world.create(server)
    flow = Flow(51)
    topic.produce(flow.take(300))
    world.caught_up(server)
    topic.send(flow.take(300))
    server.kill()
    topic.flush()
    server = servers(world.warehouse, *dialect.OFTEN, env=env)
    world.caught_up(server)
    world.check(server)
