"""What threads tell each other of their work."""

from threading import Thread

import pytest

from layers.outcome import Outcome


def test_a_result_is_waited_for() -> None:
    outcome = Outcome[int]()
    Thread(target=outcome.set_result, args=[3]).start()

    assert outcome.result() == 3
    assert outcome.exception() is None
    assert outcome.done()


def test_nothing_is_a_result_too() -> None:
    outcome = Outcome[None]()
    assert not outcome.done()

    outcome.set_result(None)

    assert outcome.result() is None


def test_a_failure_is_told_to_everybody() -> None:
    outcome, error = Outcome[int](), ValueError("no")
    Thread(target=outcome.set_exception, args=[error]).start()

    assert outcome.exception() is error
    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            outcome.result()
