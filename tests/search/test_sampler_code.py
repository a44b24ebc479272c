"""Samplers that are code from elsewhere: by import path, or a folder as OptunaHub has them."""

from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml

from search.planning.requested_space import requested_space
from search.proposals.planner import Planner
from search.proposals.sampled import Sampled
from search.study.folder import StudyDir
from spaces.load import load_space
from spaces.sections import WORD
from spaces.space import Space
from tcpa_core.errors import ConfigError
from tcpa_core.record.events import Planned
from tests.search.conftest import PRINTS, make_space
from tests.search.test_rebuilt import IDS, METRIC, chance, check, count, sampled_space

FOLDER = '''
from pathlib import Path
import random
from optuna.samplers import BaseSampler
from .helper import half

Path(__file__).with_name("was_run").touch()
__all__ = ["Walk"]


class Walk(BaseSampler):
    """Goes from the last point on: what it knows is in itself alone."""

    def __init__(self, width=0.5, seed=None):
        self._random = random.Random(seed)
        self._width, self._told, self._last = half(width), 0, {}

    def infer_relative_search_space(self, study, trial):
        return {}

    def sample_relative(self, study, trial, search_space):
        return {}

    def sample_independent(self, study, trial, name, distribution):
        if not hasattr(distribution, "low"):
            return self._random.choice(distribution.choices)
        low, high = distribution.low, distribution.high
        step = (high - low) * self._width * self._random.uniform(-1, 1) / (1 + self._told)
        value = min(high, max(low, self._last.get(name, (low + high) / 2) + step))
        self._last[name] = type(low)(value)
        return self._last[name]

    def after_trial(self, study, trial, state, values):
        self._told += 1
'''


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder as OptunaHub lays them out."""
    path = tmp_path / "hub" / "walk"
    path.mkdir(parents=True)
    (path / "__init__.py").write_text(FOLDER)
    (path / "helper.py").write_text("def half(x):\n    return x / 2\n")
    return path


def space_with(name: str, options: dict[str, Any] | None = None, **changes: Any) -> Space:
    sampler: dict[str, Any] = {"name": name, "seed": 3}
    return make_space(sampler=sampler | ({"options": options} if options else {}), **changes)


def test_a_class_by_import_path_draws_what_it_draws_in_optuna(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name, options = "optuna.samplers:TPESampler", {"n_startup_trials": 3, "multivariate": True}
    monkeypatch.setenv(WORD, name)
    space = space_with(name, options)
    planner = Planner(Sampled(space, "s"), IDS, 12)
    own = optuna.create_study(
        direction="maximize", sampler=optuna.samplers.TPESampler(seed=3, **options)
    )
    while isinstance(new := planner.new(), Planned):
        trial = own.ask()
        space.suggest(trial)
        assert new.draw == trial.params
        planner.tell(new, {"status": "completed", METRIC: chance(new.digest)})
        own.tell(trial, chance(new.digest))
    assert len(own.trials) == 12


def test_what_a_sampler_keeps_in_itself_it_has_after_a_resume(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(WORD, str(folder))
    axes = {"optim.lr": {"float": [0.001, 0.1]}, "optim.weight_decay": {"float": [0.0, 0.1]}}
    first = [{"optim.lr": 0.02, "optim.weight_decay": 0.01}]
    sampler = {"name": str(folder), "seed": 5}
    space = sampled_space("", sampler=sampler, constraints=[], axes=axes, first_points=first)
    journal = check(space, tmp_path, slice(6, None, 9))
    assert count(journal)["planned"] == 14
    assert len({event["draw"]["optim.lr"] for event in journal if event["kind"] == "planned"}) > 9


def test_a_record_alone_runs_no_code(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(WORD, "")
    file = tmp_path / "hub" / "s.yaml"
    sampler = {"name": "./walk", "options": {"width": 0.1}}
    file.write_text(yaml.safe_dump(make_space().as_dict() | {"sampler": sampler}))
    space = load_space(str(file))
    assert space.sampler.name == str(folder)
    study = StudyDir.create(tmp_path, "other", space, PRINTS, "")
    record = str(study.path / "study.yaml")
    assert study.space().sampler == requested_space(record).sampler == space.sampler
    with pytest.raises(ConfigError, match=f"is code, which a study's record.*{WORD}={folder}"):
        Sampled(study.space(), "s")
    assert not (folder / "was_run").exists()
    requested_space(str(file))  # a command that was given the space file is the user's word
    Sampled(study.space(), "s")
    assert (folder / "was_run").exists()
    monkeypatch.setenv(WORD, "")
    requested_space(record, {"sampler.name": str(folder)})
    Sampled(study.space(), "s")


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("no_such_package:Sampler", {}, r"cannot be imported \(ModuleNotFoundError"),
        ("optuna.samplers:Nothing", {}, r"names nothing, not a class derived from .*it has .*GPSa"),
        ("optuna.Study", {}, r"names <class .*Study'>, not a class derived from"),
        ("optuna.samplers.TPESampler", {"n_start": 3}, r"options \{'n_start': 3\} do not fit "
         r".*TypeError.*it takes .*n_startup_trials"),
        ("optuna.samplers:TPESampler", {"group": True, "multivariate": False},
         r"do not fit .*ValueError: .*multivariate"),
        ("optuna.samplers:GridSampler", {}, r"do not fit .*missing .*'search_space'"),
        ("{hub}", {}, r"cannot be imported \(FileNotFoundError: there is no .*__init__.py"),
        ("{hub}/two", {}, r"does not say which class; it has A, B; write .*/two:CLASS"),
        ("{hub}/two:C", {}, r"names nothing, not a class.*; it has A, B"),
        ("{hub}/broken", {}, r"cannot be imported \(RuntimeError: no\)"),
    ],
)  # fmt: skip
def test_code_that_cannot_be_used_is_said(
    name: str, options: dict[str, Any], says: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = folder.parent
    for each, text in (
        ("two", "from optuna.samplers import RandomSampler\nclass A(RandomSampler): pass\n"
         "class B(A): pass\n"),
        ("broken", "raise RuntimeError('no')\n"),
    ):  # fmt: skip
        (hub / each).mkdir()
        (hub / each / "__init__.py").write_text(text)
    name = name.format(hub=hub)
    monkeypatch.setenv(WORD, name)
    with pytest.raises(ConfigError, match=says):
        Sampled(space_with(name, options), "s")


def test_an_error_while_it_draws_names_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "helper.py").write_text("def half(x):\n    return None\n")
    monkeypatch.setenv(WORD, str(folder))
    with pytest.raises(ConfigError, match=rf"{folder}' raised TypeError: "):
        Planner(Sampled(space_with(str(folder)), "s"), IDS, 3).new()


@pytest.mark.parametrize(
    ("sampler", "says"),
    [
        ({"name": "tpe", "options": {"seed": 1}}, "options are of a class by its import path"),
        ({"name": "tpee"}, "must be .*'tpe'"),
        ({"name": "a..b"}, "must be .*'tpe'"),
        ({"name": "os:system()"}, "must be .*'tpe'"),
    ],
)
def test_what_is_no_name_is_said(sampler: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        make_space(sampler=sampler)
