"""The number of threads of small passes, on a machine that is simulated."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from nlpkit.core.machine.crowd import MOST_TOKENS, Team, interruptions


class Machine:
    """Takes so many seconds a pass for each number of threads, and interrupts those of more than one where asked."""

    def __init__(self, seconds: dict[int, float], *, interrupts: Callable[[int], int]) -> None:
        self.seconds, self.interrupts = seconds, interrupts
        self.now, self.count = 0.0, 0
        self.used: list[int] = []
        self.team = Team(clock=lambda: self.now, interrupted=lambda: self.count)

    def run(self, passes: int, *, n_tokens: int = 1) -> list[int]:
        self.used = []
        for _ in range(passes):
            with self.team.passing(max(self.seconds), n_tokens) as threads:
                self.now += self.seconds[threads] * n_tokens
                self.count += self.interrupts(threads)
            self.used.append(threads)
        return self.used

    def run_until(self, threads: int) -> None:
        for _ in range(1000):
            if self.run(1) == [threads]:
                return
        raise AssertionError(f"never {threads} threads")


def test_an_idle_machine_always_gives_all_threads() -> None:
    machine = Machine({1: 0.010, 2: 0.006}, interrupts=lambda threads: 0)
    assert set(machine.run(2000)) == {2}


def test_a_busy_machine_gets_one_thread_where_that_is_faster() -> None:
    machine = Machine({1: 0.018, 2: 0.060}, interrupts=lambda threads: 5 * (threads - 1))
    machine.run(40)
    used = machine.run(3000)
    assert used.count(2) < 0.03 * len(used)
    # Time, not passes: what trials of two threads cost.
    assert used.count(2) * 0.060 < 0.1 * used.count(1) * 0.018


def test_interruptions_alone_do_not_take_threads_away() -> None:
    machine = Machine({1: 0.010, 2: 0.009}, interrupts=lambda threads: 3)
    used = machine.run(5000)
    assert used.count(1) < 0.06 * len(used)


def test_threads_come_back_when_others_have_ended() -> None:
    machine = Machine({1: 0.018, 2: 0.060}, interrupts=lambda threads: 5)
    assert machine.run(2000)[-1] == 1
    machine.seconds, machine.interrupts = {1: 0.010, 2: 0.006}, lambda threads: 0
    then = machine.now
    used = machine.run(20000)
    back = used.index(2) * 0.010
    assert back < 17
    assert set(used[-10000:]) == {2}
    assert machine.now > then


@pytest.mark.parametrize(
    ("seconds", "best"),
    [
        ({1: 0.08, 2: 0.04, 4: 0.02, 8: 0.05}, 4),
        ({1: 0.03, 2: 0.04, 4: 0.05, 8: 0.06}, 1),
        ({1: 0.08, 2: 0.04, 4: 0.02, 8: 0.01}, 8),
    ],
)
def test_many_cores(seconds: dict[int, float], best: int) -> None:
    machine = Machine(seconds, interrupts=lambda threads: 4 if threads > 1 else 0)
    machine.run(1000)
    used = machine.run(4000)
    assert used.count(best) > 0.85 * len(used)


def test_large_passes_take_all_threads() -> None:
    machine = Machine({1: 0.018, 2: 0.060}, interrupts=lambda threads: 5)
    machine.run_until(1)
    assert machine.run(3, n_tokens=MOST_TOKENS + 1) == [2, 2, 2]
    assert machine.run(1) == [1]


def test_another_size_of_pass_ends_a_trial() -> None:
    """What passes of two tokens take says nothing about those of one."""
    machine = Machine({1: 0.010, 2: 0.009}, interrupts=lambda threads: 3)
    machine.run_until(1)
    assert machine.run(20, n_tokens=2)[-1] == 2


def test_sizes_that_take_turns_do_not_keep_threads_away() -> None:
    machine = Machine({1: 0.018, 2: 0.060}, interrupts=lambda threads: 5)
    machine.run_until(1)
    machine.seconds, machine.interrupts = {1: 0.010, 2: 0.006}, lambda threads: 0
    used = [threads for turn in range(20_000) for threads in machine.run(1, n_tokens=6 if turn % 4 == 3 else 1)]
    assert used.count(2) > 0.9 * len(used)


@pytest.mark.parametrize("seconds", [0.1, 0.5, 2.0])
def test_slow_passes_on_a_machine_that_is_nearly_idle_take_all_threads(seconds: float) -> None:
    """A few interruptions a second come to several a pass where a pass takes long."""
    machine = Machine({4: 2 * seconds, 8: seconds, 2: 4 * seconds, 1: 8 * seconds},
                      interrupts=lambda threads: round(8 * seconds))  # fmt: skip
    assert set(machine.run(2000)) == {8}


def test_another_number_of_threads_begins_anew() -> None:
    machine = Machine({1: 0.018, 2: 0.060}, interrupts=lambda threads: 5)
    machine.run_until(1)
    assert machine.team.threads(4, 1) == 4
    assert machine.team.threads(1, 1) == 1


def test_interruptions_are_counted() -> None:
    assert interruptions() >= 0
