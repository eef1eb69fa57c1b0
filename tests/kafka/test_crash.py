"""Crashes: by kill -9 at random moments, and at every named point. After each recovery all is as if nothing had happened.

$ASOF_KILLS is how many times servers are killed in all (default 200), in worlds that run side by side; $ASOF_SEED begins another sequence
of moments and records.
"""

import os
import random
import re
import shutil
import signal
import time

import pytest

import dialect
from broker import until
from oracle import DAY, HOUR
from world import Flow, now_us

WORLDS = 8
KILLS = -(-int(os.environ.get("ASOF_KILLS", 200)) // WORLDS)
SEED = int(os.environ.get("ASOF_SEED", 1))


@pytest.mark.parametrize("number", range(WORLDS))
def test_kill_at_random_moments(world, servers, number):
    """Each round: records flow, the server is killed somewhere in between and started again; history and values are compared."""
    seed = SEED * WORLDS + number
    seeded = random.Random(seed)
    # Some hours of event time pass each round, and the broker takes no record of the future.
    flow = Flow(seed, start_us=now_us() - 2 * DAY - KILLS * 3 * HOUR)
    server = servers(world.warehouse, *dialect.OFTEN)
    world.create(server)
    print(f"seed {seed}")
    for round_ in range(KILLS):
        moment = time.monotonic() + seeded.uniform(0, 1.5)
        while time.monotonic() < moment:
            world.topic.send(flow.take(seeded.randint(1, 20)))
            # The pace of the producer, so that the moment falls into a commit as well as between two.
            time.sleep(seeded.uniform(0, 0.02))
        server.kill()
        server.__exit__(None, None, None)
        world.topic.send(flow.take(seeded.randint(10, 50)))
        world.topic.flush()
        server = servers(world.warehouse, *dialect.OFTEN)
        world.caught_up(server)
        world.check_stored()
        world.check_served(server, instants=seeded.sample(world.instants(), 2))
        if round_ % 50 == KILLS % 50 or round_ == KILLS - 1:
            world.check_counts()
            world.check_table(server)
            world.check_trained(server)


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("point", dialect.CRASH_POINTS)
def test_crash_at(world, servers, point, times):
    """The process aborts when it comes to a point for the n-th time, and a process without the crash goes on from there."""
    flow = Flow(times * 100 + dialect.CRASH_POINTS.index(point))
    with servers(world.warehouse) as server:
        world.create(server)
        world.topic.produce(flow.take(150))
        world.caught_up(server)
    crashing = servers(world.warehouse, *dialect.OFTEN, crash=f"{point}:{times}", wait=False)

    def feed():
        # Points are passed once a commit or a checkpoint: there must be enough of them.
        if crashing.process.poll() is None:
            world.topic.produce(flow.take(60))
        return crashing.process.poll() is not None

    until(feed, f"{point} for the {times}. time", 60)
    crashing.crashed()
    server = servers(world.warehouse)
    world.caught_up(server)
    world.check(server)


@pytest.mark.parametrize("point", ["late.committed", "rejected.committed", "history.committed"])
def test_crash_again_and_again(world, servers, point):
    """A crash in the replay of a crash: the tables that were committed before are skipped each time."""
    with servers(world.warehouse) as server:
        world.create(server)
    flow = Flow(21)
    for _ in range(3):
        world.topic.produce(flow.take(100))
        servers(world.warehouse, crash=f"{point}:1", wait=False).crashed()
    server = servers(world.warehouse)
    world.caught_up(server)
    world.check(server)


def manifests(world):
    """What makes checkpoints of their chunks, by epoch."""
    folder = world.warehouse / "checkpoints"
    return sorted(folder.rglob("*.json")) if folder.exists() else []


@pytest.mark.parametrize("damage", ["one bit", "cut", "newer", "no checkpoints"])
def test_damaged_checkpoints(world, servers, damage):
    """A checkpoint that is damaged, or of a newer program, is refused by name; the one before or history takes its place."""
    server = servers(world.warehouse, *dialect.OFTEN)
    world.create(server)
    flow, seen = Flow(22), None
    for _ in range(3):
        world.topic.produce(flow.take(200))
        world.caught_up(server)
        until(lambda last=seen: manifests(world)[-1:] not in ([], [last]), "a checkpoint")
        seen = manifests(world)[-1]
    server.kill()
    newest = manifests(world)[-1]
    if damage == "no checkpoints":
        shutil.rmtree(world.warehouse / "checkpoints")
    elif damage == "newer":
        text, count = re.subn(r'"format":\d+', '"format":99', newest.read_text())
        assert count == 1, text
        newest.write_text(text)
    else:
        damaged = newest if damage == "cut" else newest.with_suffix("") / "chunk-0"
        data = bytearray(damaged.read_bytes())
        data[len(data) // 2] ^= 1
        damaged.write_bytes(data if damage == "one bit" else data[: len(data) // 2])
    world.topic.produce(flow.take(100))
    server = servers(world.warehouse)
    world.caught_up(server)
    world.check(server)
    if damage != "no checkpoints":
        assert newest.name in server.log, server.log
        assert damage != "newer" or "newer program" in server.log, server.log


def test_a_restart_does_not_wait_for_the_session(world, servers):
    """Static membership: the member that comes back has its partitions at once, whether it left well or not."""
    server = servers(world.warehouse)
    world.create(server, **{dialect.SESSION: "45000"})
    flow = Flow(23)
    for how in (signal.SIGKILL, signal.SIGTERM):
        world.topic.produce(flow.take(50))
        world.caught_up(server)
        server.end(how)
        world.topic.produce(flow.take(50))
        server = servers(world.warehouse)
        world.caught_up(server, seconds=20)
    world.check(server)
