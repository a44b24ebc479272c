"""Long stages: a bar on a terminal, a line every ten seconds in a log, nothing where it is fast."""

import ast
import io
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rich.console import Console

from search.terminal import bytes_text, time_text
from search.verbs import stages
from search.verbs.stages import Stages

Clock = Callable[[float], None]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    """Moves the time that stages see."""
    now = [100.0]
    monkeypatch.setattr(stages.time, "monotonic", lambda: now[0])

    def forward(seconds: float) -> None:
        now[0] += seconds

    yield forward


def log() -> Console:
    return Console(file=io.StringIO(), force_terminal=False, width=200)


def said(console: Console) -> list[str]:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_a_fast_stage_says_nothing_in_a_log(clock: Clock) -> None:
    console = log()
    with Stages("start", console) as told:
        for done in range(1, 1001):
            clock(0.009)
            told("hash images", done, 1000)
    assert said(console) == []


def test_a_slow_stage_says_count_rate_and_time_left_every_ten_seconds(clock: Clock) -> None:
    console = log()
    with Stages("start", console) as told:
        told("hash images", 0, 5000)
        for done in range(1, 31):
            clock(1)
            told("hash images", 100 * done, 5000)
    assert said(console) == [
        "hash images: 1,000 of 5,000, 100/s, 40 s left",
        "hash images: 2,000 of 5,000, 100/s, 30 s left",
        "hash images: 3,000 of 5,000, 100/s, 20 s left",
    ]


def test_a_stage_that_was_told_of_says_its_end_and_the_next_one_counts_anew(clock: Clock) -> None:
    console = log()
    with Stages("start", console) as told:
        told("hash images", 0, 4)
        clock(11)
        told("hash images", 2, 4)
        clock(2)
        told("hash images", 4, 4)
        told("decode train", 0, 10)
        clock(10)
        told("decode train", 1, 10)
    assert said(console) == [
        "hash images: 2 of 4, 0.2/s, 11 s left",
        "hash images: 4 of 4 in 13 s",
        "decode train: 1 of 10, 0.1/s, 90 s left",
    ]


def test_a_download_that_goes_on_counts_what_was_there_without_its_time(clock: Clock) -> None:
    console = log()
    with Stages("start", console) as told:
        told.bytes("download a.tar", 90_000_000, 100_000_000)
        clock(10)
        told.bytes("download a.tar", 91_000_000, 100_000_000)
    assert said(console) == ["download a.tar: 91.0 MB of 100.0 MB, 100.0 kB/s, 90 s left"]


def test_what_cannot_be_counted_is_named(clock: Clock) -> None:
    console = log()
    with Stages("report", console) as told:
        told("importance", 0, 0)
        clock(12)
        told("importance", 0, 0)
    assert said(console) == ["importance: since 12 s"]


def test_a_terminal_shows_a_bar_that_is_gone_at_the_end(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CI", raising=False)
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    with Stages("checking weights and data", console) as told:
        told("decode [train]", 0, 2000)
        clock(1)
        told("decode [train]", 500, 2000)
        assert told._bar is not None
        told._bar.refresh()
        shown = "".join(said(console))
    assert "checking weights and data" in shown
    assert "decode [train]" in shown and "500 of 2,000, 500/s, 3 s left" in shown


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (170_498_071, "170.5 MB"),
        (4_996_278_331, "5.0 GB"),
        (2e15, "2000.0 TB"),
    ],
)
def test_sizes(count: float, text: str) -> None:
    assert bytes_text(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (99, "99 s"), (119, "2 min"), (7500, "2 h 05 min")]
)
def test_times(seconds: float, text: str) -> None:
    assert time_text(seconds) == text


LONG = {
    "check_unchanged": "progress",
    "fingerprints_of": "progress",
    "load_dataset": "progress",
    "plan_space": "decoding",
    "inspect_trial": "progress",
    "build_report": "progress",
    "sync": "progress",
}
"""Functions that may take minutes, and the argument that tells how far they are."""


def test_no_verb_lets_its_user_wait_in_silence() -> None:
    calls = [
        (file.name, node.lineno, node.func.id, {word.arg for word in node.keywords})
        for folder in ("verbs", "commands")
        for file in (Path(stages.__file__).parents[1] / folder).glob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in LONG
    ]
    assert {name for _, _, name, _ in calls} == set(LONG)
    assert not [call for call in calls if LONG[call[2]] not in call[3]]
