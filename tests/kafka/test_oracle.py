"""The oracle itself, on cases small enough to be worked out by hand from DESIGN's sections 3 and 4."""

import math
import random
from fractions import Fraction

import pytest

from oracle import (
    ACCEPTED,
    AGGREGATES,
    DAY,
    DUPLICATE,
    HOUR,
    LATE,
    MINUTE,
    REJECTED,
    SECOND,
    Feature,
    Record,
    Stream,
    View,
    Window,
    bits,
    exact_sum,
    order,
)

# Columns: id, user, amount, time.
T = 1_000 * HOUR


def stream(**options):
    return Stream(["id", "user", "amount", "ts"], time=3, key=[0], required=[1], disorder_us=10 * SECOND, **options)


def fed(s, *records, taken_us=T):
    """Feeds (partition, row) in order; offsets count up from 0 in each partition."""
    return [s.feed(Record(p, s.next[p], taken_us, row)) for p, row in records]


def row(key, at, user="ann", amount=1.0):
    return (key, user, amount, T + at)


def test_late_is_below_the_greatest_less_the_disorder():
    s = stream()
    got = fed(
        s,
        (0, row("a", 0)),
        (0, row("b", 20 * SECOND)),
        (0, row("c", 10 * SECOND)),
        (0, row("d", 10 * SECOND - 1)),
        (0, row("e", 21 * SECOND)),
    )
    assert got == [ACCEPTED, ACCEPTED, ACCEPTED, LATE, ACCEPTED]


def test_partitions_are_judged_alone():
    s = stream()
    assert fed(s, (0, row("a", MINUTE)), (1, row("b", 0)), (0, row("c", 0)), (1, row("d", MINUTE)), (1, row("e", 0))) == [
        ACCEPTED,
        ACCEPTED,
        LATE,
        ACCEPTED,
        LATE,
    ]


def test_what_is_rejected_moves_no_time_and_a_duplicate_does():
    s = stream()
    assert fed(
        s, (0, row("a", 0)), (0, None), (0, ("x", None, 1.0, T + MINUTE)), (0, (None, "ann", 1.0, T + MINUTE)), (0, row("b", -10 * SECOND))
    ) == [
        ACCEPTED,
        REJECTED,
        REJECTED,
        REJECTED,
        ACCEPTED,
    ]
    # The copy arrives in a partition that was behind, and makes what follows there late.
    s = stream()
    assert fed(s, (0, row("a", MINUTE)), (1, row("b", 0)), (1, row("a", MINUTE)), (1, row("c", 0))) == [ACCEPTED, ACCEPTED, DUPLICATE, LATE]


def test_the_future_is_rejected_and_moves_no_time():
    s = stream(skew_us=MINUTE)
    assert fed(s, (0, row("a", MINUTE)), (0, row("b", MINUTE + 1)), (0, row("c", MINUTE - 10 * SECOND))) == [ACCEPTED, REJECTED, ACCEPTED]


def test_late_comes_before_duplicate():
    s = stream()
    assert fed(s, (0, row("a", 0)), (0, row("b", MINUTE)), (0, row("a", 0))) == [ACCEPTED, ACCEPTED, LATE]


def test_reprocessed_once():
    s = stream()
    fed(s, (0, row("a", 0)), (0, row("b", MINUTE)), (0, row("a", 0)), (0, row("c", 0)), (0, row("c", 0)), (0, row("a", 0, amount=9.0)))
    for _ in range(2):
        s.reprocess()
        assert s.counts() == {ACCEPTED: 2, LATE: 4}
        assert sorted(s.visible()) == sorted([row("a", 0, amount=9.0), row("b", MINUTE), row("c", 0)])
        assert set(s.classes()) == {frozenset({(0, 0), (0, 2)}), frozenset({(0, 1)}), frozenset({(0, 3), (0, 4)}), frozenset({(0, 5)})}


def test_conflicts_are_kept_and_the_greatest_is_seen():
    s = stream()
    got = fed(
        s,
        (0, row("a", 0, amount=2.0)),
        (0, row("a", 0, amount=3.0)),
        (0, row("a", 0, amount=1.0)),
        (0, row("a", 0, amount=2.0)),
        (0, row("a", 1)),
    )
    assert got == [ACCEPTED, ACCEPTED, ACCEPTED, DUPLICATE, ACCEPTED]
    # Another time is another event.
    assert sorted(s.visible()) == sorted([row("a", 0, amount=3.0), row("a", 1)])
    # The user is compared before the amount, whichever entity that is.
    fed(s, (0, row("a", 0, user="bob", amount=0.0)))
    assert ("a", "bob", 0.0, T) in s.visible() and len(s.visible()) == 2


def test_without_a_key_every_copy_counts():
    s = Stream(["id", "ts"], time=1)
    assert fed(s, (0, ("a", T)), (0, ("a", T)), (0, (None, T))) == [ACCEPTED] * 3
    assert sorted(s.visible(), key=s.rank) == [(None, T), ("a", T), ("a", T)] and len(s.classes()) == 3


def test_minus_zero_is_another_payload_and_comes_first():
    s = stream()
    assert fed(s, (0, row("a", 0, amount=0.0)), (0, row("a", 0, amount=-0.0)), (0, row("a", 0, amount=None))) == [ACCEPTED] * 3
    assert [math.copysign(1, r[2]) for r in s.visible()] == [1.0]


def test_copies_in_two_partitions_are_one_row_of_either():
    s = stream()
    assert fed(s, (0, row("a", 0)), (1, row("a", 0)), (1, row("b", 0))) == [ACCEPTED, DUPLICATE, ACCEPTED]
    assert set(s.classes()) == {frozenset({(0, 0), (1, 0)}), frozenset({(1, 1)})}


def test_order_of_values():
    values = [None, -math.inf, -1.0, -0.0, 0.0, 5e-324, 1.0, math.inf, math.nan]
    assert [bits(v) for v in sorted(reversed(values), key=order)] == [bits(v) for v in values]
    assert sorted(["b", None, "é", "a", "B", ""], key=order) == [None, "", "B", "a", "b", "é"]


def test_sums_are_exact():
    assert exact_sum([1e308, 1e308, -1e308]) == 1e308
    assert exact_sum([1e308, 1e308]) == math.inf and exact_sum([-1e308, -1e308]) == -math.inf
    assert exact_sum([0.1] * 10) == 1.0 and exact_sum([1e100, 1.0, -1e100]) == 1.0
    assert exact_sum([2.0**53, 1.0]) == 2.0**53 and exact_sum([2.0**53, 1.0, 5e-324]) == 2.0**53 + 2
    assert bits(exact_sum([-0.0, -0.0])) == bits(0.0) and bits(exact_sum([1.0, -1.0])) == bits(0.0)
    assert math.isnan(exact_sum([math.inf, -math.inf])) and exact_sum([math.inf, 1.0]) == math.inf and exact_sum([]) is None
    assert exact_sum([None, 2]) == 2 and exact_sum([2**63 - 1, 1]) is None and exact_sum([2**63 - 1, 1, -1]) == 2**63 - 1
    seeded = random.Random(1)
    for _ in range(200):
        values = [seeded.uniform(-1, 1) * 10.0 ** seeded.randint(-300, 300) for _ in range(seeded.randint(1, 50))]
        assert bits(exact_sum(values)) == bits(math.fsum(values) + 0.0)


def test_other_aggregates():
    assert AGGREGATES["avg"]([1, 2, None]) == 1.5 and AGGREGATES["avg"]([0.1] * 10) == 0.1 and AGGREGATES["avg"]([None]) is None
    assert AGGREGATES["avg"]([2**63 - 1, 1]) == float(Fraction(2**63, 2))
    assert (
        bits(AGGREGATES["min"]([0.0, -0.0])) == bits(0.0) and AGGREGATES["max"]([1.0, None, 3.0]) == 3.0 and AGGREGATES["min"]([]) is None
    )
    assert math.isnan(AGGREGATES["max"]([math.inf, math.nan])) and AGGREGATES["min"]([math.inf, math.nan]) == math.inf
    assert AGGREGATES["last_value"]([1.0, None]) is None and AGGREGATES["count"]([1.0, None]) == 1 and AGGREGATES["count"]([]) == 0


HOUR_WINDOW, GAP = Window(HOUR), Window(HOUR, 5 * MINUTE)


@pytest.mark.parametrize(
    "window, when, strict, inside",
    [
        (HOUR_WINDOW, 0, False, True),
        (HOUR_WINDOW, 0, True, False),
        (HOUR_WINDOW, -HOUR, False, True),
        (HOUR_WINDOW, -HOUR, True, True),
        (HOUR_WINDOW, -HOUR - 1, False, False),
        (HOUR_WINDOW, 1, False, False),
        (GAP, -5 * MINUTE, False, True),
        (GAP, -5 * MINUTE, True, True),
        (GAP, -5 * MINUTE + 1, False, False),
        (GAP, -HOUR, False, True),
        (Window(None), -1000 * DAY, True, True),
        (Window(None), 0, True, False),
    ],
)
def test_windows_hold_both_ends(window, when, strict, inside):
    assert window.holds(T + when, T, strict) is inside


def test_a_view_is_evaluated_at_the_instant():
    s = stream()
    fed(s, (0, row("b", 0, amount=0.2)), (0, row("a", 0, amount=0.1)), (0, row("c", 5 * SECOND, user="bob")))
    view = View(
        1,
        [Feature("n", "count", None, Window(HOUR)), Feature("sum", "sum", 2, Window(HOUR)), Feature("last", "last_value", 0, Window(None))],
    )
    rows = view.of(s.visible())
    assert view.values(s, rows["ann"], T) == [2, 0.1 + 0.2, "b"]
    assert view.values(s, rows["ann"], T, strict=True) == [0, None, None]
    assert view.values(s, rows["ann"], T + HOUR) == [2, 0.1 + 0.2, "b"]
    assert view.values(s, rows["ann"], T + HOUR + 1) == [0, None, "b"]
    assert view.values(s, rows["nobody"], T) == [0, None, None]
    declined = View(1, [Feature("n", "count", None, Window(HOUR), lambda r: r[2] > 0.1)])
    assert declined.values(s, rows["ann"], T) == [1]
