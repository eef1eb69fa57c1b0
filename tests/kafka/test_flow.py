"""What the tests put into Kafka: the log holds what was sent, in every kind, and survives the broker's restart and crash."""

from collections import Counter

from oracle import MINUTE, REJECTED, SECOND
from world import Flow, World, as_json, now_us


def test_a_flow_has_every_kind(broker, topics, tmp_path):
    world = World(topics(broker, 3), tmp_path)
    flow = Flow(11, partitions=3, spread=0.3)
    world.topic.produce(flow.take(1500))
    ends = world.pull()
    assert sum(ends.values()) == 1500 and len(ends) == 3
    counts = world.oracle.counts()
    assert min(counts.values()) >= 20 and len(counts) == 4, counts
    assert len(world.oracle.visible()) < len(world.oracle.classes()), "no conflict"
    copies = [c for c in world.oracle.classes() if len({p for p, _ in c}) > 1]
    assert copies, "no copy in another partition"
    rejected = world.oracle.having(REJECTED)
    assert any(world.oracle.records[at].raw is None for at in rejected) and any(world.oracle.records[at].row for at in rejected)


def test_pulled_once_and_in_order(topic, tmp_path):
    world = World(topic, tmp_path)
    flow = Flow(12)
    for count in (1, 100, 0, 50):
        topic.produce(flow.take(count))
        world.pull()
    assert world.oracle.next == {0: 151} and world.topic.pull() == []
    sent = [s.value for s in topic.sent]
    assert [world.oracle.records[0, o].raw for o in range(151)] == sent


def test_timestamps_and_headers(topic, tmp_path):
    flow = Flow(13, wrong=False)
    row = flow.fresh()
    taken = now_us() // SECOND * SECOND - 5 * MINUTE
    topic.produce([flow.sent(row, as_json(row), taken_us=taken, headers=(("trace", b"x"),))])
    [(partition, offset, taken_us, sent, value)] = topic.pull()
    assert (partition, offset, taken_us, value) == (0, 0, taken, as_json(row)) and sent.row == row


def test_the_producer_places_keys(broker, topics):
    topic = topics(broker, 3)
    topic.produce(Flow(14, keyed=True).take(300))
    placed = {}
    for partition, _, _, sent, _ in topic.pull():
        assert placed.setdefault(sent.key, partition) == partition
    assert len(Counter(placed.values())) > 1


def test_a_broker_that_restarts_and_crashes(own_broker, topics, tmp_path):
    world = World(topics(own_broker), tmp_path)
    flow = Flow(15)
    for end in (own_broker.restart, lambda: (own_broker.kill(), own_broker.up())):
        world.topic.produce(flow.take(100))
        world.topic.send(flow.take(100))
        end()
        world.topic.flush()
        world.pull()
    assert world.oracle.next == {0: 400}


def test_retention_removes_the_head(broker, topics):
    topic = topics(broker)
    topic.produce(Flow(16).take(10))
    topic.delete_before({0: 4})
    assert topic.ends() == {0: 10}
    assert [offset for _, offset, *_ in topic.pull()] == list(range(4, 10))
