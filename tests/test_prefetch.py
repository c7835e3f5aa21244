"""Prefetching: the same items in the same order, a little ahead, and no thread left behind."""

import threading
import time

import pytest

from jowa.data.prefetch import Prefetch


def wait_until(condition):
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "prefetch"]


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    wait_until(lambda: not threads())


@pytest.mark.parametrize("depth", [1, 2, 5])
@pytest.mark.parametrize("count", [0, 1, 2, 100])
def test_same_items_in_order(depth, count):
    with Prefetch(range(count), depth) as items:
        assert list(items) == list(range(count))
        assert next(items, None) is None


@pytest.mark.parametrize("depth", [1, 3])
def test_runs_ahead_by_depth_and_no_further(depth):
    made = []

    def produce():
        for number in range(20):
            made.append(number)
            yield number

    with Prefetch(produce(), depth) as items:
        wait_until(lambda: len(made) == depth)
        assert next(items) == 0
        wait_until(lambda: len(made) == depth + 1)
        time.sleep(0.02)
        assert len(made) == depth + 1


def test_an_error_surfaces_in_its_place():
    def failing():
        yield 1
        yield 2
        raise ValueError("row 3")

    with Prefetch(failing(), depth=5) as items:
        assert [next(items), next(items)] == [1, 2]
        with pytest.raises(ValueError, match="row 3"):
            next(items)
        assert next(items, None) is None


def test_closing_early_stops_the_thread():
    def endless():
        number = 0
        while True:
            yield number
            number += 1

    items = Prefetch(endless())
    assert next(items) == 0
    items.close()
    assert not threads() and next(items, None) is None
    items.close()


def test_an_error_in_the_consumer_stops_the_thread():
    with pytest.raises(RuntimeError), Prefetch(iter(lambda: 0, 1)) as items:
        next(items)
        raise RuntimeError
    assert not threads()


def test_depth_must_be_positive():
    with pytest.raises(ValueError):
        Prefetch([], depth=0)
