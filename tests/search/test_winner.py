"""Which point of a search an ablation starts from."""

from pathlib import Path
from typing import Any

import pytest

from search.study.folder import StudyDir
from search.study.journal import Journal
from search.verbs.confirm import Candidate, chosen_point, confirmation
from spaces.confirmations import confirmed_name
from spaces.load import load_space
from spaces.space import Space
from tcpa_core.errors import StudyError
from tests.journals import write


def fill(root: Path, name: str, space: Space, values: dict[float, list[float]], *,
         ended: bool = True, first: int = 0) -> StudyDir:  # fmt: skip
    """A study whose points are learning rates, with the val accuracy of each seed from a first."""
    study = StudyDir.create(root, name, space, {}, "")
    journal, number = Journal(study.journal_path), 0
    for lr, found in values.items():
        for seed, value in enumerate(found, start=first):
            trial = f"{number:05d}"
            params: dict[str, Any] = {"methods": ["linear"], "optim.lr": lr, "seed": seed}
            write(journal, 
                {"kind": "planned", "trial": trial, "params": params, "digest": f"{lr}{seed}",
                 "point": str(lr), "seed": seed, "labels": {"cells": []}, "origin": "sampler",
                 "draw": {}},
                {"kind": "completed", "trial": trial, "status": "completed", "val_accuracy": value},
            )  # fmt: skip
            number += 1
    if ended:
        write(journal, {"kind": "finished"})
    journal.close()
    return study


def test_the_selected_point_until_another_is_confirmed(tmp_path: Path) -> None:
    study = fill(tmp_path, "s", load_space("quickstart"), {0.1: [0.7], 0.2: [0.9], 0.3: [0.8]})
    chosen, how = chosen_point(study, tmp_path)
    assert (chosen, how) == ({"methods": ["linear"], "optim.lr": 0.2}, "selected by s")
    best = {f"point {i}": Candidate(0.9, {"methods": ["linear"], "optim.lr": lr})
            for i, lr in enumerate((0.2, 0.3))}  # fmt: skip
    space = confirmation(study, confirmed_name("s"), best, 3)
    raced = {0.2: [0.80, 0.82, 0.81], 0.3: [0.92, 0.93, 0.94]}
    running = fill(tmp_path, confirmed_name("s"), space, raced, ended=False, first=1)
    assert chosen_point(study, tmp_path)[1] == "selected by s", "the race is still open"
    journal = Journal(running.journal_path)
    write(journal, {"kind": "finished"})
    journal.close()
    chosen, how = chosen_point(study, tmp_path)
    assert (chosen["optim.lr"], how) == (0.3, "confirmed by s_confirm")


def test_what_a_confirmation_left_open_is_not_called_confirmed(tmp_path: Path) -> None:
    study = fill(tmp_path, "s", load_space("quickstart"), {0.1: [0.7], 0.2: [0.9], 0.3: [0.8]})
    best = {f"point {i}": Candidate(0.9, {"methods": ["linear"], "optim.lr": lr})
            for i, lr in enumerate((0.2, 0.3))}  # fmt: skip
    space = confirmation(study, confirmed_name("s"), best, 3)
    raced = {0.2: [0.80, 0.81, 0.82], 0.3: [0.81, 0.82, 0.83]}
    fill(tmp_path, confirmed_name("s"), space, raced, first=1)
    chosen, how = chosen_point(study, tmp_path)
    assert chosen["optim.lr"] == 0.3
    assert how == (
        "that leads in s_confirm (not decided after 3 seeds: 0.3, 0.2 cannot be told apart; "
        "0.3 has the best mean)"
    )


def test_a_search_without_a_result_has_no_winner(tmp_path: Path) -> None:
    study = fill(tmp_path, "none", load_space("quickstart"), {})
    with pytest.raises(StudyError, match="none has 0 completed points, one is needed"):
        chosen_point(study, tmp_path)
    ablation = fill(tmp_path, "a", load_space("tcpa_components"), {0.1: [0.5]})
    with pytest.raises(StudyError, match="a is an ablation; only the points of a search"):
        chosen_point(ablation, tmp_path)
