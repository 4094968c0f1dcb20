import pytest

from shared.inference.stopwatch import Stopwatch


@pytest.fixture
def clock(monkeypatch):
    """A clock that moves by hand."""
    now = [0.0]
    monkeypatch.setattr("shared.inference.stopwatch.time.perf_counter", lambda: now[0])
    return now


def test_visits_add_up_also_those_that_end_with_an_error(clock):
    stopwatch = Stopwatch()
    for seconds in (1.0, 2.0):
        with stopwatch.measure("reading"):
            clock[0] += seconds

    def fail():
        with stopwatch.measure("reading"):
            clock[0] += 4.0
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert stopwatch.seconds == {"reading": 7.0}


def test_waiting_counts_what_comes_not_what_is_done_with_it(clock):
    def slow():
        for number in range(3):
            clock[0] += 1.0
            yield number
        clock[0] += 0.5

    stopwatch, passed = Stopwatch(), []
    for number in stopwatch.measure_waiting("tiles", slow()):
        passed.append(number)
        clock[0] += 10.0
    assert passed == [0, 1, 2]
    assert stopwatch.seconds == {"tiles": 3.5}
