"""A command with --resume may be typed again at any time; only what trains is left out here."""

import os
import re
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks._faults.scene import add_database
from search import cli
from search.driver import ray_session
from search.driver.driver import StudyOutcome
from search.study.folder import StudyDir
from search.study.journal import Journal
from search.verbs import run
from search.verbs.taking_up import check_same
from spaces.load import load_space
from spaces.space import Space
from tests.journals import recorded, write
from tests.search.conftest import SPACE
from tests.tcpa_core.data_layouts import make, picture

ROWS = {"low": {"optim.lr": 0.01}, "high": {"optim.lr": 0.3}}
ABLATION = {"design": "components", "rows": ROWS, "seeds": [0, 1]}


class Command:
    """`tcpa` in this process, with what it says; studies end as they are told."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.root = folder / "studies"
        self.folder = folder
        self.ends: list[str] = []
        """How the next runs end; "finished" where none is left."""
        self.failing = 0
        """How many of their trials fail."""
        self.ran: list[Space] = []
        self.said = ""
        self._capsys = capsys

    def run_study(self, space: Space, study: StudyDir, **_: Any) -> StudyOutcome:
        self.ran.append(space)
        end = self.ends.pop(0) if self.ends else "finished"
        is_new = not study.journal_path.exists()
        journal = Journal(study.journal_path)
        write(journal, {"kind": "study", "name": study.name} if is_new else {"kind": "resumed"})
        if end == "finished":
            self._train(journal, space)
        kind = {"kind": "finished"} if end == "finished" else {"kind": "stopped", "reason": end}
        write(journal, kind)
        journal.close()
        return StudyOutcome(study.state().counts(), end)

    def _train(self, journal: Journal, space: Space) -> None:
        design = space.design() if space.ablation else ()
        for number, config in enumerate(space.trials):
            cells = [dict(cell) for cell in design[number].cells] if design else []
            about = {"digest": f"{number}", "point": f"{number}", "seed": config.seed, "draw": {}}
            about |= {"labels": {"cells": cells}, "origin": "x", "params": config.flat()}
            trial = {"trial": f"{number:05d}"}
            done = {"kind": "completed", "status": "completed", "val_accuracy": 0.5}
            if number < self.failing:
                done = {"kind": "failed", "status": "failed", "reason": "train_loss is nan"}
            write(journal, {"kind": "planned", **trial, **about}, {**trial, **done})

    def __call__(self, *arguments: str) -> int:
        sys.argv = ["tcpa", *arguments, "--root", str(self.root)]
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = self._capsys.readouterr()
        self.said = re.sub(r"\s+", " ", said.out + said.err)
        assert "Traceback" not in self.said, said.out + said.err
        assert isinstance(ended.value.code, int)
        return ended.value.code

    def studies(self) -> list[str]:
        """Names of the folders in the root, hidden ones too, but for MLflow's."""
        found = (path.name for path in self.root.iterdir() if path.is_dir())
        return sorted(name for name in found if name != "mlartifacts")

    def write(self, name: str, **changes: Any) -> str:
        """A space file."""
        path = self.folder / f"{name}.yaml"
        merged = {**SPACE, "name": name, **changes}
        path.write_text(yaml.safe_dump({k: v for k, v in merged.items() if v is not None}))
        return str(path)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Decoded images of all tests here: to decode them takes longer than most."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def tcpa(
    tmp_path: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Command:
    monkeypatch.setenv("TCPA_CACHE", str(cache))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(sys, "argv", [])
    command = Command(tmp_path, capsys)
    command.root.mkdir()
    add_database(command.root)
    monkeypatch.setattr(run, "run_study", command.run_study)
    monkeypatch.setattr(ray_session, "connect", lambda *_: nullcontext())
    return command


def arguments(verb: str, tcpa: Command) -> list[str]:
    """A command line that makes a study `s` and its likes."""
    if verb == "ablate":
        path = tcpa.write(
            "s", axes=None, sampler=None, scheduler=None, budget=None, ablation=ABLATION
        )
    elif verb == "compare":
        axes = {"methods": {"choice": [["linear"], ["vpt"]]}, **SPACE["axes"]}
        path = tcpa.write("s", base={"train.epochs": 2}, axes=axes)
    else:
        path = tcpa.write("s")
    return [verb, path]


@pytest.mark.parametrize("verb", ["search", "ablate", "compare"])
def test_a_command_is_typed_five_times(verb: str, tcpa: Command) -> None:
    line = [*arguments(verb, tcpa), "--resume"]
    tcpa.ends = ["interrupted by SIGUSR1", "interrupted by SIGTERM"]
    if verb == "compare":
        line += ["--seeds", "2"]
        tcpa.ends += ["finished", "interrupted by SIGHUP"]  # of the search, of the confirmation
    codes = [tcpa(*line) for _ in range(5)]
    assert codes == ([3, 3, 0, 0, 0] if verb != "compare" else [3, 3, 3, 0, 0])
    assert re.search(r"s is finished: trials \d completed. Report: tcpa report s ", tcpa.said)
    names = ["s", "s_confirm"] if verb == "compare" else ["s"]
    assert tcpa.studies() == names
    kinds = [e["kind"] for e in recorded(StudyDir(tcpa.root / "s"))]
    assert kinds.count("study") == kinds.count("finished") == 1 and kinds.count("resumed") == 2


def test_confirm_is_repeated_with_and_without_resume(tcpa: Command) -> None:
    assert tcpa("search", tcpa.write("s")) == 0
    line = ["confirm", "s", "--top", "2", "--seeds", "2"]
    tcpa.ends = ["interrupted by SIGUSR1"]
    assert tcpa(*line, "--resume") == 3
    assert tcpa(*line) == 0
    runs = len(tcpa.ran)
    for more in ([], ["--resume"]):
        assert tcpa(*line, *more) == 0
        assert "s_confirm is finished" in tcpa.said and "Intervals and paired tests" in tcpa.said
    assert len(tcpa.ran) == runs
    assert tcpa("confirm", "s", "--top", "2", "--seeds", "3", "--resume") == 2
    assert "s_confirm confirms other points or seeds than asked for now (before -> now): " in (
        tcpa.said
    )
    assert "ablation.seeds: [1, 2] -> [1, 2, 3]; rename that folder" in tcpa.said


def test_without_resume_a_study_is_not_taken_up(tcpa: Command) -> None:
    path = tcpa.write("s")
    assert tcpa("search", path) == 0
    assert tcpa("search", path) == 2
    assert "study 's' exists already" in tcpa.said and "continue it with --resume" in tcpa.said
    assert len(tcpa.ran) == 1


def test_failed_trials_are_told_again(tcpa: Command) -> None:
    path = tcpa.write("s")
    tcpa.failing = 1
    assert tcpa("search", path) == 1
    assert tcpa("search", path, "--resume") == 1
    assert "s is finished: trials 3 completed, 1 failed. Report" in tcpa.said


def test_another_space_is_refused_with_every_difference(tcpa: Command) -> None:
    path = tcpa.write("s")
    tcpa.ends = ["interrupted by SIGTERM"]
    assert tcpa("search", path, "--resume", "--set", "train.epochs=4") == 3
    before = (tcpa.root / "s" / "journal.jsonl").read_bytes()
    assert tcpa("search", path, "--resume") == 2
    assert "'s' is one of another space (before -> now): train.epochs: 4 -> 6. " in tcpa.said
    assert "tcpa resume s; or give the space a study of its own with --study" in tcpa.said
    axes = {"optim.lr": {"float": [1e-3, 1e-1], "log": True}}
    tcpa.write("s", axes=axes, budget={"trials": 5})
    assert tcpa("search", path, "--resume", "--set", "train.epochs=4") == 2
    assert "optim.lr: {float: [0.0001, 0.1], log: true} -> {float: [0.001, 0.1], log: true};" in (
        tcpa.said
    )
    assert "optim.weight_decay: {float: [0.0, 0.1]} -> not given" in tcpa.said
    assert "budget.trials: 12 -> 5." in tcpa.said
    assert (tcpa.root / "s" / "journal.jsonl").read_bytes() == before
    tcpa.write("s")
    assert tcpa("search", path, "--resume", "--set", "train.epochs=4") == 0


def test_more_trials_are_given_with_extend_and_the_command_stays_the_same(tcpa: Command) -> None:
    path = tcpa.write("s")
    assert tcpa("search", path, "--resume") == 0
    assert tcpa("search", path, "--resume", "--trials", "20") == 2
    assert "budget.trials: 12 -> 20. To give it more trials: tcpa extend s --trials 8" in tcpa.said
    tcpa.ends = ["interrupted by SIGTERM"]
    assert tcpa("extend", "s", "--trials", "8") == 3
    for more in ([], ["--trials", "20"]):  # as begun, and as it is now
        tcpa.ends = ["interrupted by SIGTERM"]
        assert tcpa("search", path, "--resume", *more) == 3
        assert tcpa.ran[-1].budget.trials == 20
    assert tcpa("search", path, "--resume", "--trials", "13") == 2
    assert "budget.trials: 20 -> 13" in tcpa.said


def test_what_is_asked_of_a_cluster_may_change(tcpa: Command) -> None:
    path = tcpa.write("s")
    tcpa.ends = ["interrupted by SIGTERM"]
    assert tcpa("search", path, "--resume") == 3
    assert tcpa("search", path, "--resume", "--set", "cluster.priority=3") == 0
    assert [space.cluster.priority for space in tcpa.ran] == [1.0, 3.0]


def test_changed_data_are_refused_or_accepted(tcpa: Command) -> None:
    make("folder", tcpa.folder / "pictures")
    path = tcpa.write("s", base={**SPACE["base"], "data.name": "folder", "data.root": "pictures"})
    tcpa.ends = ["interrupted by SIGTERM"] * 2
    assert tcpa("search", path, "--resume") == 3
    assert tcpa("search", path, "--resume") == 3
    picture(tcpa.folder / "pictures" / "train" / "class 0" / "0.PNG", seed=999)
    assert tcpa("search", path, "--resume") == 2
    assert "data of study 's' changed" in tcpa.said and "--accept-changed-data" in tcpa.said
    assert tcpa("search", path, "--resume", "--accept-changed-data") == 0
    picture(tcpa.folder / "pictures" / "train" / "class 0" / "0.PNG", seed=998)
    assert tcpa("search", path, "--resume") == 0, "nothing is trained on them any more"


def test_a_dry_run_says_where_the_study_stands_and_touches_nothing(tcpa: Command) -> None:
    path = tcpa.write("s")
    assert tcpa("search", path, "--resume", "--dry-run") == 0
    assert "optim.weight_decay" in tcpa.said and not tcpa.studies()
    tcpa.ends = ["interrupted by SIGTERM"]
    assert tcpa("search", path, "--resume") == 3
    before = {p: p.read_bytes() for p in (tcpa.root / "s").iterdir() if p.is_file()}
    assert tcpa("search", path, "--resume", "--dry-run") == 0
    assert "s: no trial yet; last event: stopped." in tcpa.said
    assert tcpa("search", path, "--resume", "--dry-run", "--trials", "3") == 2
    assert {p: p.read_bytes() for p in (tcpa.root / "s").iterdir() if p.is_file()} == before


def test_a_second_driver_waits_or_is_refused_with_code_3(
    tcpa: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tcpa.write("s")
    tcpa.ends = ["interrupted by SIGTERM"]
    assert tcpa("search", path, "--resume") == 3
    first = StudyDir(tcpa.root / "s")
    first.lock()
    for line in (
        ["resume", "s"],
        ["search", path, "--resume", "--wait", "0"],
        ["extend", "s", "--trials", "1"],
    ):
        assert tcpa(*line) == 3
        assert f"run by another driver: host {os.uname().nodename}, pid {os.getpid()}" in tcpa.said
    monkeypatch.setattr("search.study.lock.POLL_S", 0.01)
    # The first ends only when the second has said that it waits.
    says = threading.Event()
    monkeypatch.setattr(
        "search.verbs.taking_up._say", lambda line, console: says.set() if "waiting" in line else 0
    )
    ends = threading.Thread(target=lambda: says.wait() and first.unlock())
    ends.start()
    assert tcpa("search", path, "--resume") == 0
    ends.join()
    assert len(tcpa.ran) == 2


def test_a_study_that_another_command_makes_meanwhile_is_gone_on_with(
    tcpa: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tcpa.write("s")
    create = StudyDir.create.__func__  # type: ignore[attr-defined]

    def second(cls: type[StudyDir], *given: Any) -> StudyDir:
        create(cls, *given)
        study: StudyDir = create(cls, *given)
        return study

    monkeypatch.setattr(StudyDir, "create", classmethod(second))
    assert tcpa("search", path) == 2 and "exists already" in tcpa.said
    (tcpa.root / "s" / "study.yaml").unlink()
    assert tcpa("search", path, "--resume") == 0
    assert len(tcpa.ran) == 1


def test_a_signal_while_weights_and_data_are_checked_ends_with_code_3(
    tcpa: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tcpa.write("s")
    tcpa.ends = ["interrupted by SIGTERM"]
    places: dict[str, Callable[[], int]] = {
        "search.planning.plan._check_parts": lambda: tcpa("search", path, "--resume"),
        "search.verbs.taking_up.check_unchanged": lambda: tcpa("search", path, "--resume"),
        "search.study.lock.DriverLock._flock": lambda: tcpa("search", path, "--resume"),
    }
    for place, command in places.items():
        for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            with monkeypatch.context() as here:
                here.setattr(place, lambda *_, n=number, **__: signal.raise_signal(n))
                assert command() == 3
            assert f"interrupted by {number.name}; what is recorded is kept" in tcpa.said
        if not tcpa.ran:
            assert not tcpa.studies()
            assert tcpa("search", path) == 3  # there is one from here on
    assert tcpa("search", path, "--resume") == 0


def test_spaces_of_older_studies_are_what_they_were(tcpa: Command) -> None:
    """What the present version has come to add to a space is no difference."""
    old = Path(__file__).parents[1] / "old_studies"
    for name in ("old_ablation", "old_search"):
        study = StudyDir.open(old, name)
        (tcpa.folder / f"{name}.yaml").write_text(yaml.safe_dump(study.document()["space"]))
        check_same(study, load_space(str(tcpa.folder / f"{name}.yaml")))
