"""What a user is told while workers wait for a place, how often, and where it stands later."""

import io
import threading
import time
from pathlib import Path

import pytest
from rich.console import Console

from search.verbs.progress import Watch
from search.workers.cluster_view import Amounts, ClusterView, Node
from search.workers.shares import Claim
from search.workers.waiting import MAX_REPEAT_S, PATIENCE_S, REPEAT_S, Waiting, waiting_text
from tcpa_core.record.events import (
    Finished,
    Notice,
    Resumed,
    StudyBegun,
    decode_line,
    encode_line,
)
from tcpa_core.record.state import StudyState
from tests.search.conftest import make_space

CPU = {"CPU": 1.0}
GPU = {"CPU": 1.0, "GPU": 1.0}


def view(*nodes: tuple[Amounts, Amounts]) -> ClusterView:
    """Nodes n0, n1, ... with what they have and what of it is free."""
    return ClusterView({f"n{i}": Node(*node) for i, node in enumerate(nodes)}, [])


@pytest.mark.parametrize(
    ("shape", "waiting", "held", "cluster", "text"),
    [
        (
            GPU,
            3,
            {},
            view(({"CPU": 8, "GPU": 2}, {"CPU": 6}), ({"CPU": 8, "GPU": 1}, {"CPU": 8})),
            "3 workers need 1 GPU each, 0 of 3 free (3 used by other jobs)",
        ),
        (
            GPU,
            2,
            {"n0": 1},
            view(({"CPU": 8, "GPU": 2}, {"CPU": 6}), ({"CPU": 8, "GPU": 1}, {"CPU": 8})),
            "2 of 3 workers need 1 GPU each, 0 of 3 free (2 used by other jobs)",
        ),
        (
            {"CPU": 1.0, "GPU": 0.5},
            1,
            {},
            view(({"CPU": 8, "GPU": 1}, {"CPU": 7, "GPU": 0.25})),
            "1 worker needs 0.5 GPU, 0.25 of 1 free (0.75 used by other jobs)",
        ),
        (CPU, 2, {"n0": 2}, view(({"CPU": 2}, {})), "2 of 4 workers need 1 CPU each, 0 of 2 free"),
        # a GPU is free, and no CPU beside it
        (
            GPU,
            1,
            {},
            view(({"CPU": 4, "GPU": 1}, {"GPU": 1})),
            "1 worker needs 1 CPU, 0 of 4 free (4 used by other jobs)",
        ),
        (
            GPU,
            8,
            {},
            view(({}, {})),
            "8 workers need 1 GPU each, and no node of the cluster has one",
        ),
        (GPU, 8, {}, view(), "8 workers need 1 GPU each, and no node of the cluster has one"),
    ],
)
def test_the_sentence_names_need_total_and_who_has_it(
    shape: Amounts, waiting: int, held: dict[str, int], cluster: ClusterView, text: str
) -> None:
    claim = Claim(study="s", name="s", shape=shape, wants=8, held=held)
    assert waiting_text(claim, waiting, cluster) == f"waiting for a place: {text}"


def test_nodes_that_are_not_used_are_not_counted() -> None:
    claim = Claim(study="s", name="s", shape=CPU, wants=3, held={})
    cluster = view(({"CPU": 2}, {"CPU": 2}), ({"CPU": 1}, {}))
    assert "0 of 1 free" in waiting_text(claim, 3, cluster, {"n0"})


def test_a_free_place_that_is_left_to_others_is_called_so() -> None:
    claim = Claim(study="s", name="s", shape=CPU, wants=3, held={"n0": 1})
    cluster = view(({"CPU": 3}, {"CPU": 1}))
    said = waiting_text(claim, 2, cluster, leaves=True)
    assert said.endswith("1 of 3 free (1 used by other jobs), left to others who may want it")
    assert "left to" not in waiting_text(claim, 2, view(({"CPU": 3}, {})), leaves=True)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def told(looks: list[tuple[float, int, str]]) -> list[tuple[float, str]]:
    """When something was said, for looks at (time, number that wait, sentence)."""
    clock = Clock()
    waiting, found = Waiting(clock), []
    for when, number, text in looks:
        clock.now = when
        if (notice := waiting.look(number, lambda text=text: text)) is not None:  # type: ignore[misc]
            assert notice.waits is (number > 0)
            found.append((when, notice.text))
    return found


def test_a_short_wait_is_not_mentioned() -> None:
    assert told([(0, 3, "a"), (PATIENCE_S - 1, 3, "a"), (PATIENCE_S, 0, ""), (99, 0, "")]) == []


def test_a_wait_is_told_when_it_begins_and_when_it_ends() -> None:
    looks = [(float(second), 3, "a") for second in range(0, 7200, 2)]
    assert told([*looks, (7200, 0, ""), (7202, 0, "")]) == [
        (PATIENCE_S, "a"),
        (7200, "no worker waits for a place any more, after 120 min"),
    ]


def test_numbers_that_change_all_the_time_do_not_fill_the_journal() -> None:
    hours = 24
    found = told([(float(second), 3, str(second)) for second in range(0, hours * 3600, 2)])
    gaps = [after - before for (before, _), (after, _) in zip(found, found[1:], strict=False)]
    assert gaps[0] == REPEAT_S and gaps[-1] == MAX_REPEAT_S
    assert len(found) < hours * 3600 / MAX_REPEAT_S + 10


def test_a_second_wait_is_told_as_soon_as_the_first_was() -> None:
    looks = [(0, 1, "a"), (12, 1, "a"), (14, 0, ""), (16, 2, "a"), (24, 2, "a"), (26, 2, "a")]
    assert [when for when, _ in told(looks)] == [12, 14, 26]  # type: ignore[arg-type]


def test_the_journal_says_whether_workers_wait(tmp_path: Path) -> None:
    state = StudyState()
    events = [
        StudyBegun(name="s", t=1.0),
        Notice(text="a", waits=True, t=10.0),
        Notice(text="something else", t=20.0),
        Notice(text="b", waits=True, t=70.0),
    ]
    for event in events:
        assert decode_line(encode_line(event.as_dict()), "line 1") == event
        state.take(event)
    assert state.waiting == events[-1] and state.waiting_since == 10.0
    state.take(Notice(text="no longer", waits=False, t=80.0))
    assert state.waiting is None and state.waiting_since is None
    assert "waits" not in Notice(text="a").as_dict(), "as earlier versions wrote it"


@pytest.mark.parametrize("end", [Finished(), Resumed()])
def test_nobody_waits_once_the_driver_is_another(end: Finished | Resumed) -> None:
    state = StudyState.of([Notice(text="a", waits=True, t=10.0), end])
    assert state.waiting is None


def shown(terminal: bool) -> tuple[Watch, io.StringIO]:
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=120, color_system=None)
    return Watch("s", make_space(), 12, console), text


def test_a_log_says_again_that_workers_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("search.verbs.progress.REMIND_S", 0.12)
    watch, text = shown(terminal=False)
    with watch:
        watch(Notice(text="waiting for a place: x", waits=True, t=time.time() - 180))
        reached = threading.Event()
        while text.getvalue().count("waiting for a place: x (for 3 min)") < 2:
            assert not reached.wait(0.01)
        watch(Notice(text="no worker waits", waits=False, t=time.time()))
        before = text.getvalue()
        assert before.endswith("no worker waits\n")
        reached.wait(0.3)
    assert text.getvalue() == before


def test_the_live_table_has_a_row_while_workers_wait() -> None:
    watch, _ = shown(terminal=True)

    def table() -> str:
        text = io.StringIO()
        Console(file=text, width=120, color_system=None).print(watch._render())
        return text.getvalue()

    watch(Notice(text="a device is refused"))
    watch(Notice(text="waiting for a place: x", waits=True, t=time.time() - 60))
    assert "waiting for a place: x (for 1 min)" in table() and "a device is refused" in table()
    watch(Notice(text="no worker waits", waits=False, t=time.time()))
    assert "waiting for a place" not in table() and "no worker waits" in table()
