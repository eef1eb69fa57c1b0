"""A storage that fails: S3 that refuses, delays, or does it and then says that it failed; a disk that is full."""

import time
from pathlib import Path

import pytest

import delta
import dialect
from broker import until
from faulty import FAULTS, FaultyS3
from world import Flow, World


@pytest.mark.parametrize("rate", [0.1, 0.3])
def test_s3_that_fails_now_and_then(s3, topic, servers, rate):
    """What is told to have failed may be there, and is neither lost nor there twice; the same after a kill."""
    world = World(topic, "s3://warehouse/asof", delta.on_s3(s3))
    with FaultyS3(s3, seed=int(rate * 100)) as faulty:
        env = dialect.s3_environment(faulty.endpoint)
        server = servers(world.warehouse, *dialect.OFTEN, env=env)
        world.create(server)
        faulty.rate = rate
        flow = Flow(71)
        for _ in range(4):
            topic.produce(flow.take(150))
            world.caught_up(server, seconds=180)
        topic.send(flow.take(100))
        server.kill()
        topic.flush()
        server = servers(world.warehouse, *dialect.OFTEN, env=env)
        world.caught_up(server, seconds=180)
        assert all(faulty.met[fault] for fault in FAULTS), faulty.met
        faulty.rate = 0.0
        world.check(server)
        server.__exit__(None, None, None)


def test_s3_that_is_gone_for_a_while(s3, topic, servers):
    """The stream waits, says so, and goes on."""
    world = World(topic, "s3://warehouse/asof", delta.on_s3(s3))
    with FaultyS3(s3, seed=1) as faulty:
        server = servers(world.warehouse, *dialect.OFTEN, env=dialect.s3_environment(faulty.endpoint))
        world.create(server)
        flow = Flow(72)
        topic.produce(flow.take(150))
        world.caught_up(server)
        faulty.rate = 1.0
        topic.produce(flow.take(150))
        time.sleep(8)
        assert faulty.met["refused"] > 3
        assert server.process.poll() is None, server.log
        faulty.rate = 0.0
        world.caught_up(server, seconds=120)
        world.check(server)
        server.__exit__(None, None, None)


# The folder becomes a file system of its own, which only this process and its children see.
SMALL_DISK = 'mount -t tmpfs -o size=24m none "$1" && shift && exec "$@"'


def test_a_full_disk(topic, servers, tmp_path):
    """The stream pauses with the reason, other reads go on, and with room again nothing is lost."""
    folder = tmp_path / "warehouse"
    folder.mkdir()
    within = ["unshare", "--map-root-user", "--mount", "sh", "-c", SMALL_DISK, "sh", str(folder)]
    server = servers(folder, *dialect.OFTEN, within=within)
    world = World(topic, Path(f"/proc/{server.process.pid}/root{folder}"))
    world.create(server)
    flow = Flow(73)
    topic.produce(flow.take(300))
    world.caught_up(server)
    ballast = world.warehouse / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
    before = world.expected(world.entities(), world.instants()[-1])
    topic.produce(flow.take(300))

    def paused():
        row = server.status(world.name)[0]
        return row["state"] == dialect.PAUSED and "space" in (row["message"] or "")

    until(paused, lambda: f"the stream to pause: {server.status(world.name)}")
    # What is there is served.
    users = ", ".join(f"'{row[0]}'" for row in before)
    assert len(server.rows(f"SELECT user_id FROM {world.view} FOR ENTITY user_id IN ({users})")) == len(before)
    ballast.unlink()
    world.caught_up(server)
    world.check(server)
    assert {r["state"] for r in server.status(world.name).values()} == {dialect.RUNNING}
