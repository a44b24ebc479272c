"""A main thread that does not come out of a call of Ray when the cluster is lost."""

import subprocess
import sys

from search.exit_codes import FAILURES, STOPPED

STUCK = """
import time
from ray.exceptions import GetTimeoutError, RayError
from search.driver import last_exit
from search.driver.stop_reason import StopReason
last_exit.LEAVE_S = 0.1
stop = StopReason("mine")
with last_exit.ended_if_stuck(stop):
    {before}
    {lose}
    time.sleep({stands_s})
time.sleep({then_s})
print("left")
"""
LOSE = 'stop.lose_cluster(GetTimeoutError("its head is gone"), lambda notice: None)'


def run(lose: str, *, before: str = "", stands: bool = True) -> subprocess.CompletedProcess[str]:
    """A process whose main thread stands in its block for ever, or soon after it."""
    stands_s, then_s = (3600, 0) if stands else (0, 2)
    code = STUCK.format(lose=lose, before=before, stands_s=stands_s, then_s=then_s)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


def test_the_process_ends_with_the_sentence_and_the_code_of_a_study_to_be_resumed() -> None:
    ended = run(LOSE)
    assert ended.returncode == STOPPED
    assert "error: the Ray cluster of study 'mine' does not answer any more" in ended.stderr
    assert "its head is gone" in ended.stderr and "tcpa resume mine" in ended.stderr


def test_a_fault_of_the_code_stays_one() -> None:
    lose = 'stop.failure = last_exit.FaultError("broken"); stop.is_cluster_lost = True'
    ended = run(lose)
    assert (ended.returncode, ended.stderr.strip()) == (FAILURES, "error: broken")


def test_an_interrupt_stays_the_reason() -> None:
    ended = run(LOSE, before='stop.give("interrupted by SIGTERM")')
    assert ended.returncode == STOPPED and "error: interrupted by SIGTERM, and" in ended.stderr


def test_who_gets_out_ends_as_ever() -> None:
    ended = run(LOSE, stands=False)
    assert (ended.returncode, ended.stdout.strip()) == (0, "left")
