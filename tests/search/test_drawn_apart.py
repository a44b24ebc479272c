"""What a sampler cannot do is said before a study is made: axes drawn apart, packages missing."""

import importlib.util
import random
from pathlib import Path
from typing import Any

import optuna
import pytest

from search.driver.driver import run_study
from search.planning.plan import _drawn_apart, plan_space
from search.proposals.asked import AskedPoints
from search.proposals.samplers.base import sampler_class, seed_of
from search.study.folder import StudyDir
from search.verbs.run import run_watched
from spaces.space import Space
from tcpa_core.errors import ConfigError
from tests.search.conftest import make_space

AXES: dict[str, Any] = {
    "methods": {"choice": [["linear"], ["tcpa"]]},
    "optim.name": {"choice": ["adamw", "sgd"]},
    "optim.lr": {"float": [1e-4, 0.1], "log": True},
    "optim.momentum": {"float": [0.0, 0.9], "when": {"optim.name": "sgd"}},
    "tcpa.num_image_prompts": {"int": [4, 12]},
    "tcpa.top_k_image": {"fraction_of": "tcpa.num_image_prompts", "range": [0.2, 1.0]},
    "tcpa.num_cls_prompts": {"int": [2, 8]},
    "tcpa.top_k_cls": {"int": [1, 8]},
    "train.batch_size": {"int": [16, 64]},
}
BOUND = ["tcpa.top_k_cls <= tcpa.num_cls_prompts"]
TCPA = {path: axis for path, axis in AXES.items() if path not in ("methods", "optim.momentum")}


def space_of(sampler: str, axes: dict[str, Any], **more: Any) -> Space:
    base = {"train.epochs": 1} | ({} if "methods" in axes else {"methods": ["tcpa"]})
    constraints = BOUND if "tcpa.top_k_cls" in axes else []
    return make_space(base=base, axes=axes, constraints=constraints,
                      sampler={"name": sampler, **more})  # fmt: skip


@pytest.mark.parametrize(
    ("axes", "apart"),
    [
        (AXES, {"optim.momentum", *(path for path in AXES if path.startswith("tcpa."))}),
        (TCPA, {"tcpa.top_k_cls"}),
        ({"optim.lr": AXES["optim.lr"]}, set()),
    ],
)
def test_what_shifts_is_what_optuna_leaves_out(axes: dict[str, Any], apart: set[str]) -> None:
    space = space_of("random", axes)
    assert set(space.points.shifting()) == apart
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(60):
        trial = study.ask()
        space.suggest(trial)
        study.tell(trial, 0.0)
    together = {name.partition("/")[0] for name in optuna.search_space.intersection_search_space(
        study.get_trials())}  # fmt: skip
    assert together == set(axes) - apart


@pytest.mark.parametrize("sampler", ["gp", "nsga2", "qmc", "cmaes"])
def test_the_plan_says_which_axes(
    tmp_path: Path, sampler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    monkeypatch.setenv("TCPA_CACHE", str(tmp_path / "cache"))
    (line,) = plan_space(space_of(sampler, TCPA), "s", tmp_path).warnings
    choices = "optim.name, " if sampler == "cmaes" else ""
    assert line.startswith(f"sampler '{sampler}' draws {choices}tcpa.top_k_cls at random")
    assert "'tpe' learns all axes" in line


def test_a_comparison_says_it_for_each_method(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TCPA_CACHE", str(tmp_path / "cache"))
    axes = {path: axis for path, axis in AXES.items() if path != "optim.momentum"}
    (line,) = plan_space(space_of("gp", axes, per="methods"), "s", tmp_path).warnings
    assert line.startswith("sampler 'gp' draws tcpa.top_k_cls at random, each by itself, for tcpa ")
    for sampler in ("tpe", "random"):
        assert not plan_space(space_of(sampler, AXES), "s", tmp_path).warnings


@pytest.mark.parametrize("sampler", ["gp", "nsga2", "qmc"])
def test_where_methods_vary_gp_learns_each_chain_and_the_others_say_what_is_random(
    sampler: str,
) -> None:
    lines = _drawn_apart(space_of(sampler, AXES))
    if sampler == "gp":
        assert [line.partition(" at random")[0].partition(" draws ")[2] for line in lines] == [
            "optim.momentum",
            "optim.momentum, tcpa.top_k_cls",
        ]
        assert ", for linear " in lines[0] and ", for tcpa " in lines[1]
    else:
        (line,) = lines
        assert line.startswith(f"sampler '{sampler}' draws optim.momentum, tcpa.num_image_prompts")


def test_gp_draws_the_axes_of_a_chain_by_the_trials_of_that_chain() -> None:
    """What Optuna's own sampler draws in a study that holds nothing but them."""
    paths = ("optim.lr", "methods", "tcpa.num_image_prompts")
    space = space_of("gp", {path: AXES[path] for path in paths})
    points = AskedPoints(space, "s")
    stream = random.Random(0)
    for number in range(24):  # more than the ten of a chain that are drawn at random
        draw: dict[str, Any] = {"optim.lr": 10 ** stream.uniform(-4, -1), "methods": "linear"}
        if number % 2:
            draw |= {"methods": "tcpa", "tcpa.num_image_prompts": stream.randint(4, 12)}
        asked = points.ask("first_point", draw)
        value = -abs(draw.get("tcpa.num_image_prompts", 12) - 9) / 4
        points.study.tell(asked.trial, value)
    asked = points.ask("sampler")
    while asked.trial.params["methods"] != "tcpa":
        points.study.tell(asked.trial, -1.0)
        asked = points.ask("sampler")
    (drawn, found), number = without_chain(asked.trial), points.num_asked - 1
    own = optuna.create_study(direction="maximize", sampler=sampler_class(space.sampler).make(
        seed_of(space, number)))  # fmt: skip
    for trial in points.study.trials[:-1]:
        if trial.params["methods"] == "tcpa":
            params, distributions = without_chain(trial)
            own.add_trial(optuna.trial.create_trial(
                value=trial.value, params=params, distributions=distributions))  # fmt: skip
    assert own.ask(found).params == drawn
    assert drawn.keys() == {"optim.lr", "tcpa.num_image_prompts"}
    assert abs(drawn["tcpa.num_image_prompts"] - 9) <= 1


def without_chain(trial: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Parameters and their ranges."""
    parts = trial.params, trial.distributions
    drawn, ranges = ({k: v for k, v in part.items() if k != "methods"} for part in parts)
    return drawn, ranges


def test_a_missing_package_is_told_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = space_of("cmaes", {"optim.lr": AXES["optim.lr"]})
    study = StudyDir.create(tmp_path, "old", space, {"data": "d", "weights": "w"}, "")
    before = sorted(tmp_path.rglob("*"))
    found = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec",
        lambda name, *more: None if name == "cmaes" else found(name, *more),
    )
    says = r"needs the package 'cmaes'.*pip install 'tcpa-search\[cmaes\]', or use 'tpe'"
    with pytest.raises(ConfigError, match=says):
        plan_space(space, "new", tmp_path)
    with pytest.raises(ConfigError, match=says):
        run_study(space, study)
    with pytest.raises(ConfigError, match=says):
        run_watched(study, tmp_path, None)  # type: ignore[arg-type]
    assert sorted(tmp_path.rglob("*")) == before
