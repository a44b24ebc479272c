"""A small search space, a stub in place of the training, and one Ray for all tests here."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from search import cli
from search.driver.driver import StudyOutcome, run_study
from search.driver.placement import Placement
from search.driver.ray_session import connect
from search.study.folder import StudyDir
from spaces.load import space_of
from spaces.space import Space
from tests.search.dispatchers import FACTORY, Client
from tests.search.stub import say_slots

ROOT = Path(__file__).parents[2]

SPACE: dict[str, Any] = {
    "name": "stubs",
    "base": {"methods": ["linear"], "train.epochs": 6},
    "axes": {
        "optim.lr": {"float": [1e-4, 1e-1], "log": True},
        "optim.weight_decay": {"float": [0.0, 0.1]},
    },
    "objective": {"metric": "val_accuracy", "goal": "maximize"},
    "sampler": {"name": "random"},
    "scheduler": {"name": "none"},
    "budget": {"trials": 12},
}


def make_space(**changes: Any) -> Space:
    """The space above with other top-level entries; None removes one."""
    merged = {k: v for k, v in {**SPACE, **changes}.items() if v is not None}
    return space_of(merged)


PRINTS = {"data": "d", "weights": "w"}


@pytest.fixture
def make_study(tmp_path: Path) -> Callable[..., StudyDir]:
    """Create a study; keyword arguments tell the stub what to do wrong."""

    def make(
        space: Space, name: str = "stubs", prints: Mapping[str, str] = PRINTS, **orders: Any
    ) -> StudyDir:
        study = StudyDir.create(tmp_path, name, space, prints, "")
        (study.path / "stub.json").write_text(json.dumps(orders))
        return study

    return make


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Callable[..., Client]]:
    """Make a dispatcher. It ends with the test, which may have failed: its workers hold devices."""
    made: list[Client] = []

    def make(**options: Any) -> Client:
        made.append(Client(tmp_path, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    """One local cluster with two cores for a file; starting it takes longer than most tests.

    Not for longer: a process that has one cannot start the nodes of another.
    """
    if str(ROOT) not in sys.path:  # workers take over the driver's path and need the stub
        sys.path.insert(0, str(ROOT))
    with connect(None, 2):
        yield


def run_stubs(space: Space, study: StudyDir, **placement: Any) -> StudyOutcome:
    """Run a study with stub workers."""
    options = {"workers": 2, "slots": 3, "worker_factory": FACTORY, **placement}
    say_slots(study.path, options["slots"])
    return run_study(space, study, placement=Placement(**options))


@pytest.fixture
def typed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., tuple[int, str, str]]:
    """Run the command in this process; exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["tcpa", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, said.out, said.err

    return run
