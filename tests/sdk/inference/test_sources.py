"""What holds an image, and reading it while the one before is looked at."""

import threading
import time

import pytest

from sdk.inference.sources import ahead


def test_work_is_done_ahead_and_given_in_order():
    started: list[int] = []
    enough = threading.Event()

    def work(item: int) -> int:
        started.append(item)
        if len(started) >= 3:
            enough.set()
        time.sleep(0.002 * (5 - item))
        return item * 10

    results = ahead(work, range(5), threads=2)
    assert next(results) == 0
    # The ones after it are worked on without being asked for.
    assert enough.wait(5)
    assert list(results) == [10, 20, 30, 40]


def test_no_more_than_asked_is_held():
    started: list[int] = []
    results = ahead(lambda item: started.append(item), range(100), threads=2)
    next(results)
    time.sleep(0.05)
    assert len(started) <= 3
    results.close()
    assert len(started) <= 3


def test_an_error_is_raised_where_its_result_is_due():
    def work(item: int) -> int:
        if item == 1:
            raise ValueError("one")
        return item

    results = ahead(work, range(3))
    assert next(results) == 0
    with pytest.raises(ValueError, match="one"):
        next(results)
