"""What a study shows while it runs, with and without a terminal."""

import io
from typing import Any

import pytest
from rich.console import Console

from search.verbs.progress import Watch
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
    return Watch("s", space or make_space(), 12, console), text


def test_without_a_terminal_each_end_is_one_line() -> None:
    shown, text = watch(terminal=False)
    with shown:
        for event in EVENTS:
            shown(made(event))
    lines = text.getvalue().splitlines()
    assert lines[0] == "1 running, 4 waiting; best -; -" or lines[0].startswith("4 running")
    assert lines[1:] == [
        "trial 00000 completed val_accuracy 0.5000",
        "trial 00001 completed val_accuracy 0.7500",
        "trial 00002 failed: train_loss is nan at epoch 3 [red]",
    ]
    assert "\x1b" not in text.getvalue()


def test_progress_lines_do_not_flood_a_log(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("search.verbs.progress.time.monotonic", lambda: now)
    shown, text = watch(terminal=False)
    for event in (planned("00000"), started("00000"), *[epoch("00000")] * 50):
        shown(made(event))
    assert text.getvalue().splitlines() == ["1 running; best -; -"]
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
    assert "val_accuracy 0.7500 (trial 00001: optim.lr=0.0123)" in table
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
    assert again._rate() == "-"
    assert "running" not in again._counts()
    for event in EVENTS[cut:]:
        again(made(event))
    for name, one in whole._state.trials.items():
        assert again._shown(name) == whole._shown(name) or one.status == "running"
    assert again._best_line() == whole._best_line()
    assert again._bar.tasks[0].completed == whole._bar.tasks[0].completed


def test_what_is_recalled_is_not_printed_again() -> None:
    shown, text = watch(terminal=False)
    with shown:
        shown.recall(map(made, EVENTS))
    assert text.getvalue() == ""
