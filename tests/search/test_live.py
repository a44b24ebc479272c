"""What a study shows while it runs, with and without a terminal."""

import io
import threading
from typing import Any

import pytest
from rich.console import Console

from search.terminal import is_live
from search.verbs.pace import Pace
from search.verbs.progress import Watch
from tcpa_core.record.events import Event
from tests.journals import event as made
from tests.search.conftest import make_space


def planned(trial: str, lr: float = 0.1) -> dict[str, Any]:
    return {"kind": "planned", "trial": trial, "params": {"optim.lr": lr, "seed": 0}}


def started(trial: str) -> dict[str, Any]:
    return {"kind": "started", "trial": trial}


def epoch(trial: str) -> dict[str, Any]:
    return {"kind": "epoch", "trial": trial, "epoch": 1, "val_accuracy": 0.3}


def final(trial: str, status: str, value: float | None = None, reason: str = "") -> dict[str, Any]:
    measured = {"val_accuracy": value, "val_loss": value}
    return {"kind": status, "trial": trial, "status": status, "reason": reason, **measured}


EVENTS = [
    {"kind": "study", "name": "s"},
    *map(planned, ("00000", "00001", "00002", "00003", "00004"), (0.1, 0.01234567, 0.2, 0.3, 0.4)),
    *map(started, ("00000", "00001", "00002", "00003")),
    epoch("00000"),
    final("00000", "completed", 0.5),
    final("00001", "completed", 0.75),
    final("00002", "failed", reason="train_loss is nan at epoch 3 [red]"),
]


def watch(terminal: bool, space: Any = None) -> tuple[Watch, io.StringIO]:
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=100, color_system=None)
    return Watch("s", space or make_space(), 12, console, live=terminal), text


def test_without_a_terminal_each_end_is_one_line() -> None:
    shown, text = watch(terminal=False)
    with shown:
        for event in EVENTS:
            shown(made(event))
    lines = text.getvalue().splitlines()
    assert lines[0].startswith("0 of 12 trials ended (4 running, 1 waiting); best -")
    assert lines[1:4] == [
        "trial 00000 completed val_accuracy 0.5000 (lr 0.1)",
        "trial 00001 completed val_accuracy 0.7500 (lr 0.0123)",
        "trial 00002 failed (lr 0.2): train_loss is nan at epoch 3 [red]",
    ]
    assert lines[4:] == [
        "failed: 1 x train_loss is nan at epoch 3 [red] (trial 00002)",
        "open: 00003 at epoch 0/?",
    ]
    assert "\x1b" not in text.getvalue()


def test_progress_lines_do_not_flood_a_log(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("search.verbs.progress.time.monotonic", lambda: now)
    shown, text = watch(terminal=False)
    for event in (planned("00000"), started("00000"), *[epoch("00000")] * 50):
        shown(made(event))
    line = "0 of 12 trials ended (1 running); best -; leading val_accuracy 0.3000 at epoch 1"
    line += " (trial 00000, still running: lr 0.1); 60 epochs/min"
    assert text.getvalue().splitlines() == [line]
    now = 1011.0
    shown(made(epoch("00000")))
    assert len(text.getvalue().splitlines()) == 2


def rendered(shown: Watch) -> str:
    text = io.StringIO()
    Console(file=text, width=100, color_system=None).print(shown._render())
    return text.getvalue()


def test_the_table_counts_and_names_the_best() -> None:
    shown, _ = watch(terminal=False)
    assert "starting" in rendered(shown)
    for event in EVENTS:
        shown(made(event))
    table = rendered(shown)
    assert "2 completed, 1 failed, 1 running, 1 waiting" in table
    assert "val_accuracy 0.7500 (trial 00001: lr 0.0123)" in table
    assert "trial 00002 failed: train_loss is nan at epoch 3 [red]" in table
    assert "3/12" in table


def test_the_best_of_a_loss_is_the_smallest() -> None:
    shown, _ = watch(False, make_space(objective={"metric": "val_loss", "goal": "minimize"}))
    for event in (planned("00000"), planned("00001"), final("00000", "completed", 0.9),
                  final("00001", "completed", 0.4)):  # fmt: skip
        shown(made(event))
    assert "val_loss 0.4000 (trial 00001" in rendered(shown)


def test_a_pruned_trial_is_never_the_best() -> None:
    shown, _ = watch(terminal=False)
    for event in (planned("00000"), final("00000", "pruned", 0.99)):
        shown(made(event))
    assert "0.99" not in rendered(shown)
    assert "1 pruned" in rendered(shown)


def test_on_a_terminal_the_table_is_live() -> None:
    shown, text = watch(terminal=True)
    with shown:
        for event in EVENTS:
            shown(made(event))
        shown.say("MLflow does not answer.")
        shown._draw()
    assert "2 completed, 1 failed, 1 running, 1 waiting" in text.getvalue()
    assert "MLflow does not answer." in text.getvalue()


def test_a_message_without_a_terminal_is_one_line() -> None:
    shown, text = watch(terminal=False)
    shown.say("MLflow does not answer at [x].")
    assert text.getvalue() == "MLflow does not answer at [x].\n"


def test_the_best_trial_of_a_design_is_named_by_its_levels() -> None:
    shown, text = watch(terminal=True)
    labels = {"cells": [{"factor": "components", "level": "+R-TCPA"}]}
    with shown:
        shown(made({**planned("00000"), "labels": labels}))
        shown(made(final("00000", "completed", 0.5)))
    assert "components=+R-TCPA" in text.getvalue()


@pytest.mark.parametrize("cut", range(len(EVENTS) + 1))
def test_a_view_taken_up_again_shows_what_one_in_one_go_does(cut: int) -> None:
    """But for trials that nobody trains yet, and for a rate that is this driver's own."""
    whole, _ = watch(terminal=True)
    again, _ = watch(terminal=True)
    for event in EVENTS:
        whole(made(event))
    again.recall(map(made, EVENTS[:cut]))
    assert again._view().pace.epochs_per_h is None
    assert "running" not in again._view().counts
    for event in EVENTS[cut:]:
        again(made(event))
    doing, of_whole = again._view()._doing, whole._view()._doing
    for name, one in whole._state.trials.items():
        assert doing(again._state.trials[name]) == of_whole(one) or one.status == "running"
    assert again._best_line() == whole._best_line()
    assert again._view().num_ended == whole._view().num_ended
    assert again._view().pace.epochs == whole._view().pace.epochs


def test_what_is_recalled_is_not_printed_again() -> None:
    shown, text = watch(terminal=False)
    with shown:
        shown.recall(map(made, EVENTS))
    assert text.getvalue() == ""


# ---- a scripted study before a fixed clock

BASE = {"train.epochs": 4}
AXES = {
    "methods": {"choice": [["linear"], ["vpt"]]},
    "optim.lr": {"float": [1e-3, 1e-1], "log": True},
}
NO_RUNGS = {"name": "none"}


class Script:
    """A study of trials of four epochs, event by event, before a clock of its own."""

    def __init__(
        self, *, total: int | None = 12, size: tuple[int, int] = (80, 24), live: bool = True,
        **changes: Any,
    ) -> None:  # fmt: skip
        self.now = 1000.0
        self.events: list[Event] = []
        self.text = io.StringIO()
        width, height = size
        console = Console(
            file=self.text, force_terminal=live, width=width, height=height, color_system=None
        )
        space = make_space(**{"base": BASE, "axes": AXES, "scheduler": NO_RUNGS, **changes})
        self.watch = Watch("s", space, total, console, live=live, clock=lambda: self.now)

    def tell(self, *events: dict[str, Any], after: float = 0.0) -> None:
        self.now += after
        for event in events:
            self.events.append(made({"t": self.now, **event}))
            self.watch(self.events[-1])

    def start(self, *numbers: int, method: str = "vpt", host: str = "a", epoch: int = 0) -> None:
        for n in numbers:
            params = {"methods": [method], "optim.lr": 0.01, "seed": 0, "train.epochs": 4}
            hardware = {"host": f"{host}.cluster.org"}
            self.tell(
                {"kind": "planned", "trial": f"{n:05d}", "params": params},
                {"kind": "started", "trial": f"{n:05d}", "device": "cuda:0", "epoch": epoch,
                 "hardware": hardware},
            )  # fmt: skip

    def epoch(self, epoch: int, *numbers: int, value: float = 0.5, seconds: float = 1.0) -> None:
        for n in numbers:
            self.tell(
                {"kind": "epoch", "trial": f"{n:05d}", "epoch": epoch, "train_loss": 1 / epoch,
                 "val_accuracy": value + n / 1000, "duration_s": seconds}
            )  # fmt: skip

    def end(self, status: str, epochs: int, *numbers: int, value: float = 0.5) -> None:
        for n in numbers:
            told = {"num_epochs": epochs, "duration_s": float(epochs)}
            self.tell({**final(f"{n:05d}", status, value + n / 1000), **told})

    @property
    def pace(self) -> Pace:
        return self.watch._view().pace

    def lines(self) -> list[str]:
        return self.watch._render().plain.split("\n")


def test_each_trial_that_trains_has_a_row() -> None:
    study = Script(size=(100, 24))
    study.start(0, 1)
    study.start(2, host="b", method="linear")
    study.now += 10
    study.epoch(1, 0, 1)
    study.epoch(2, 1, value=0.6)
    assert [line.split() for line in study.lines()[-4:]] == [
        ["trial", "epoch", "loss", "val_accuracy", "setting", "device"],
        ["00000", "1/4", "1.0000", "0.5000", "vpt,", "lr", "0.01", "cuda:0", "a"],
        ["00001", "2/4", "0.5000", "0.6010", "vpt,", "lr", "0.01", "cuda:0", "a"],
        ["00002", "0/4", "-", "-", "linear,", "lr", "0.01", "cuda:0", "b"],
    ]
    assert study.lines()[3] == (
        "leading   val_accuracy 0.6010 at epoch 2 of 4 (trial 00001, still running: vpt, lr 0.01)"
    )
    study.end("completed", 4, 0, value=0.7)
    assert study.lines()[3] == "best      val_accuracy 0.7000 (trial 00000: vpt, lr 0.01)"
    assert not any(line.startswith("leading") for line in study.lines())


@pytest.mark.parametrize("height", range(1, 60, 4))
@pytest.mark.parametrize("width", [20, 40, 60, 80, 120])
def test_a_view_fits_its_terminal(width: int, height: int) -> None:
    study = Script(total=400, size=(width, height))
    study.start(*range(40))
    study.tell({"kind": "notice", "text": "what a user should know of it " * 30})
    study.tell({"kind": "notice", "text": "no place is free " * 9, "waits": True})
    study.now += 9
    study.epoch(1, *range(40))
    lines = study.lines()
    assert len(lines) <= max(1, height - 1)
    assert max(map(len, lines)) <= width
    rows = [line for line in lines if line[:5].isdigit()]
    hidden = [line for line in lines if line.startswith("... and ")]
    if rows:
        assert len(rows) == 40 or hidden == [f"... and {40 - len(rows)} more run"]
    assert rows or height < 20


def test_nothing_told_by_a_trial_moves_the_cursor() -> None:
    study = Script()
    study.start(0)
    study.tell({"kind": "notice", "text": "a\x1b[2Jb\nc\rd"})
    assert "\x1b" not in "".join(study.lines())
    assert any("a\\x1b[2Jb\\nc\\rd" in line for line in study.lines())


# ---- rate and time left


def test_trials_of_a_pack_that_end_together_make_no_jump() -> None:
    """Four of twelve trials train at a time, an epoch takes 10 s: 120 s in all."""
    study = Script()
    left = []
    for first in (0, 4, 8):
        pack = range(first, first + 4)
        study.start(*pack)
        for epoch in range(1, 5):
            study.now += 10
            study.epoch(epoch, *pack)
            left.append((study.now - 1000, study.pace.left_s))
        study.end("completed", 4, *pack)
        left.append((study.now - 1000, study.pace.left_s))
    assert [found for _, found in left] == pytest.approx([120 - at for at, _ in left])
    assert study.pace.epochs_per_h == pytest.approx(48 / 120 * 3600)


def test_time_goes_by_between_two_epochs() -> None:
    study = Script(total=1)
    study.start(0)
    study.now += 10
    study.epoch(1, 0)
    assert study.pace.left_s == pytest.approx(30)
    study.now += 4
    assert study.pace.left_s == pytest.approx(26)
    study.now += 400
    assert study.pace.left_s == 0


def test_nothing_is_guessed_from_the_first_of_several_packs() -> None:
    study = Script()
    study.start(0, 1, 2, 3)
    study.now += 10
    study.epoch(1, 0)
    assert study.pace.left_s is None and "left" not in study.lines()[0]
    study.epoch(1, 1, 2, 3)
    assert study.pace.left_s == pytest.approx(110)
    assert study.lines()[0].endswith("elapsed 10 s, about 2 min left")


@pytest.mark.parametrize("ends", [False, True])
def test_a_start_that_is_told_with_its_first_epoch_does_not_hurry_the_rest(ends: bool) -> None:
    """A worker hands both over after the epoch: by the times told, it would have taken nothing."""
    study = Script()
    study.tell({"kind": "study", "name": "s"})
    study.now += 60  # Ray and the workers start
    for first in (0, 4):
        pack = range(first, first + 4)
        study.now += 10
        study.start(*pack)
        study.epoch(1, *pack, seconds=10)
        if ends:
            study.now += 30
            for n in pack:
                told = {"num_epochs": 4, "duration_s": 40.0}
                study.tell({**final(f"{n:05d}", "completed", 0.5), **told})
    trained, took_s = (32, 80) if ends else (8, 20)
    assert study.pace.epochs_per_h == pytest.approx(trained / took_s * 3600)
    assert study.pace.left_s == pytest.approx((48 - trained) * took_s / trained)


@pytest.mark.parametrize("gap_s", [0, 1e6])
def test_a_study_taken_up_again_knows_its_pace(gap_s: float) -> None:
    first = Script()
    first.tell({"kind": "study", "name": "s"})
    first.start(0, 1, 2, 3)
    for epoch in (1, 2):
        first.now += 10
        first.epoch(epoch, 0, 1, 2, 3)
    again = Script()
    again.now = first.now + gap_s
    again.watch.recall(first.events)
    again.tell({"kind": "resumed"})
    assert again.pace.epochs_per_h == pytest.approx(8 / 20 * 3600)
    assert again.pace.left_s == pytest.approx(40 / 8 * 20)
    again.start(0, 1, 2, 3, epoch=2)
    again.now += 5
    again.epoch(3, 0, 1, 2, 3)
    # this machine is twice as fast
    assert again.pace.epochs_per_h == pytest.approx(4 / 5 * 3600)
    assert again.pace.left_s == pytest.approx(36 / 4 * 5)
    assert (again.pace.epochs, again.pace.epochs_left) == (12, pytest.approx(36))


def test_trials_that_are_stopped_early_shorten_what_is_left() -> None:
    study = Script(total=100)
    study.start(*range(10))
    study.now += 10
    study.epoch(1, *range(10))
    assert study.pace.epochs_left == pytest.approx(390)
    study.end("pruned", 1, *range(8))
    study.epoch(2, 8, 9)
    # Of ten that reached epoch 1, two went on; nothing is known of later epochs.
    assert study.pace.epochs_left == pytest.approx(2 * 2 + 90 * (1 + 0.2 * 3))
    assert study.pace.left_s == pytest.approx(study.pace.epochs_left / (12 / 10))


def test_until_trials_tell_the_scheduler_does() -> None:
    asha = {"name": "asha", "grace_epochs": 1, "reduction_factor": 2}
    study = Script(total=8, scheduler=asha)
    study.start(*range(8))
    # rungs at epochs 1 and 2: half of the trials go on at each
    assert study.pace.epochs_left == pytest.approx(8 * (1 + 0.5 + 0.25 * 2))


def test_epochs_of_a_slow_method_count_for_more() -> None:
    study = Script(total=2)
    study.start(0, method="linear")
    study.start(1)
    study.now += 11
    study.epoch(1, 0, seconds=1.0)
    study.epoch(1, 1, seconds=10.0)
    for epoch in (2, 3, 4):
        study.now += 1
        study.epoch(epoch, 0, seconds=1.0)
    # 14 s of a device in 14 s; three epochs of 10 s are left
    assert study.pace.left_s == pytest.approx(30)


@pytest.mark.parametrize(
    ("total", "hours", "left_s"),
    [
        (12, None, 110),
        (12, 50 / 3600, 40),
        (None, 50 / 3600, 40),
        (12, 1.0, 110),
    ],
)
def test_of_two_budgets_the_one_that_ends_first_counts(
    total: int | None, hours: float | None, left_s: float | None
) -> None:
    study = Script(total=total, budget={"trials": total, "hours": hours})
    study.tell({"kind": "study", "name": "s"})
    study.start(0, 1, 2, 3)
    study.now += 10
    study.epoch(1, 0, 1, 2, 3)
    expected = None if left_s is None else pytest.approx(left_s)
    assert study.pace.left_s == expected


def test_when_time_is_spent_the_trials_that_run_still_end() -> None:
    study = Script(total=None, budget={"hours": 10 / 3600, "trials": None})
    study.tell({"kind": "study", "name": "s"})
    study.start(0, 1, 2, 3)
    study.now += 10
    study.epoch(1, 0, 1, 2, 3)
    assert study.pace.left_s == pytest.approx(30)


# ---- signals, logs


@pytest.mark.parametrize("live", [True, False])
@pytest.mark.parametrize(
    ("reason", "second"),
    [
        ("interrupted by SIGINT", "; Ctrl-C again ends at once"),
        ("interrupted by SIGTERM", "; another SIGTERM ends at once"),
        ("interrupted by SIGUSR1", ""),
    ],
)
def test_a_signal_is_answered_by_a_line(live: bool, reason: str, second: str) -> None:
    study = Script(live=live, size=(200, 24))
    with study.watch:
        study.start(0, 1)
        study.now += 1
        study.epoch(1, 0, 1)
        # as from a handler that interrupts the thread that holds the lock
        with study.watch._lock:
            study.watch.stop(reason)
        wanted = (
            f"{reason}: stopping at the next epoch boundary{second}. 12 trials go on later with: "
            "tcpa resume s\n"
        )
        waited = threading.Event()
        while wanted not in study.text.getvalue():
            assert not waited.wait(0.01)
        if live:
            # a second signal ends the process at once: the cursor is back by then
            while "\x1b[?25h" not in study.text.getvalue():
                assert not waited.wait(0.01)
            assert study.lines()[0].endswith("stopping")
    assert study.text.getvalue().endswith("open: 00000 at epoch 1/4, 00001 at epoch 1/4\n")


def test_a_log_has_one_line_of_what_was_there_before() -> None:
    study = Script(live=False, size=(200, 24))
    with study.watch:
        study.watch.recall(map(made, EVENTS))
        study.tell({"kind": "resumed"})
        assert study.text.getvalue().splitlines() == [
            "s goes on: 3 of 12 trials ended (2 completed, 1 failed, 2 waiting); "
            "best val_accuracy 0.7500 (trial 00001: lr 0.0123)"
        ]


def test_what_is_printed_into_a_pipe_has_no_control_characters() -> None:
    study = Script(live=False)
    with study.watch:
        study.start(0)
        study.tell({**final("00000", "failed", reason="x\x1b[31m\nred\x07"), "num_epochs": 0})
        study.watch.say("tracker \x1b]0;title\x07 is down")
    assert all(c.isprintable() or c == "\n" for c in study.text.getvalue())


@pytest.mark.parametrize(
    ("env", "is_tty", "expected"),
    [
        ({"TERM": "xterm"}, True, True),
        ({"TERM": "xterm", "NO_COLOR": "1"}, True, True),
        ({"TERM": "dumb"}, True, False),
        ({"TERM": "xterm", "CI": "true"}, True, False),
        ({"TERM": "xterm", "JPY_PARENT_PID": "7"}, True, False),
        ({"TERM": "xterm"}, False, False),
        ({"TERM": "xterm", "FORCE_COLOR": "1"}, False, False),
    ],
)
def test_only_a_terminal_that_can_is_drawn_on(
    env: dict[str, str], is_tty: bool, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CI", "JPY_PARENT_PID", "NO_COLOR", "FORCE_COLOR", "TERM", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    file = io.StringIO()
    file.isatty = lambda: is_tty  # type: ignore[method-assign]
    assert is_live(Console(file=file)) is expected
