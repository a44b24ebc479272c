"""The design's example, suggestions by a real sampler, first points, overrides and records."""

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml

from spaces.axes import FloatAxis
from spaces.load import _build, load_space, space_of
from spaces.overrides import parse_override
from spaces.reader import Document
from spaces.space import Space
from tcpa_core.errors import ConfigError, TcpaError
from tests.spaces.trials import RandomTrial

EXAMPLE = """\
name: tcpa_cifar                      # default study name: [a-z0-9_-], 1-64
base:                                 # fixed settings, dotted paths or nested
  backbone.name: deit_tiny_patch16_224
  backbone.weights: weights/deit_tiny.safetensors   # absent: the hub's pretrained weights
  data.name: vtab1k                   # a file of tcpa_core/data
  data.root: data/cifar10-1k
  train.epochs: 20
axes:
  methods: {choice: [[vpt], [tcpa], [cvpt]]}
  optim.lr: {float: [5.0e-4, 2.0e-2], log: true}
  tcpa.num_cls_prompts: {int: [4, 32], when: {methods: tcpa}}
  tcpa.num_image_prompts: {int: [8, 40], when: {methods: tcpa}}
  tcpa.top_k_image: {fraction_of: tcpa.num_image_prompts, range: [0.1, 1.0], when: {methods: tcpa}}
  cvpt.num_prompts: {choice: [1, 5, 10, 20, 50, 100, 200], when: {methods: cvpt}}
objective: {metric: val_accuracy, goal: maximize}   # or a list for several
sampler: {name: tpe}
scheduler: {name: asha}
budget: {trials: 64, gpu_hours: 4}
seeds: [0]
first_points: [{methods: [tcpa], tcpa.num_cls_prompts: 18}]
"""


@pytest.fixture
def example(tmp_path: Path) -> Path:
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights/deit_tiny.safetensors").touch()
    (tmp_path / "data/cifar10-1k").mkdir(parents=True)
    path = tmp_path / "space.yaml"
    path.write_text(EXAMPLE)
    return path


def _search(**more: Any) -> dict[str, Any]:
    return {
        "name": "s",
        "axes": {"optim.lr": {"float": [1e-3, 1e-1], "log": True}},
        "budget": {"trials": 4},
    } | more


def test_the_example_of_the_design_loads(example: Path) -> None:
    space = load_space(str(example))
    assert space.name == "tcpa_cifar"
    assert space.base["data.root"] == str(example.parent / "data/cifar10-1k")
    assert space.base["backbone.weights"] == str(example.parent / "weights/deit_tiny.safetensors")
    assert list(space.axes)[:2] == ["methods", "optim.lr"]
    assert space.objective[0].metric == "val_accuracy"
    assert (space.sampler.name, space.scheduler.name) == ("tpe", "asha")
    assert (space.budget.trials, space.budget.gpu_hours, space.budget.hours) == (64, 4.0, None)
    assert space.seeds == (0,)
    assert space.complete(space.first_points[0]) == {
        "methods": ["tcpa"],
        "optim.lr": 1e-3,
        "tcpa.num_cls_prompts": 18,
        "tcpa.num_image_prompts": 20,
        "tcpa.top_k_image": 10,
    }
    assert space.size() is None


def test_optuna_suggests_trainable_points_and_params_turns_them_back(example: Path) -> None:
    space = load_space(str(example))
    sampler = optuna.samplers.TPESampler(seed=0, n_startup_trials=5)
    study = optuna.create_study(sampler=sampler, direction="maximize")
    first = space.complete(space.first_points[0])
    study.enqueue_trial(space.params(first))
    methods = set()
    for number in range(25):
        trial = study.ask()
        point = space.suggest(trial)
        assert number > 0 or point == first
        assert trial.params.keys() == space.params(point).keys()
        assert space.suggest(optuna.trial.FixedTrial(space.params(point))) == point
        config = space.config(point, seed=7)
        assert config.seed == 7
        assert config.flat()["optim.lr"] == point["optim.lr"]
        methods.add(config.methods[0])
        assert {path.split(".")[0] for path in point} <= {"methods", "optim", *point["methods"]}
        study.tell(trial, point["optim.lr"])
    assert methods == {"vpt", "tcpa", "cvpt"}


def test_a_record_reads_back_equal(example: Path) -> None:
    space = load_space(str(example))
    record = json.loads(json.dumps(space.as_dict()))
    again = space_of(record, source=space.source)
    assert again == space
    assert again.suggest(RandomTrial(3)) == space.suggest(RandomTrial(3))
    assert pickle.loads(pickle.dumps(space)) == space
    with pytest.raises(ValueError, match="frozen"):
        space.name = "other"  # type: ignore[misc]


def test_a_record_keeps_every_kind_of_axis() -> None:
    axes = {
        "optim.lr": {"float": [0.1, 0.5], "step": 0.1},
        "train.batch_size": {"int": [16, 64], "step": 16, "when": {"data.flip": [True]}},
        "train.epochs": {"int": [1, 64], "log": True},
        "data.flip": {"choice": [True, False]},
    }
    data = _search(
        axes=axes,
        constraints=["optim.lr <= 0.4"],
        objective=[{"metric": "val_accuracy"}, {"metric": "num_trainable", "goal": "minimize"}],
        sampler={"name": "nsga2", "seed": 4},
        scheduler={"name": "none"},
        seeds=3,
    )
    record = space_of(data).as_dict()
    assert record["axes"] == axes
    assert record["seeds"] == [0, 1, 2]
    assert space_of(record).as_dict() == record
    assert yaml.safe_load(yaml.safe_dump(record)) == record


def test_base_may_be_dotted_nested_or_both() -> None:
    base = {"train": {"epochs": 3}, "train.batch_size": 8, "tcpa": {"prompt_length": 2}}
    space = space_of(_search(base=base | {"methods": ["tcpa"]}))
    flat = space.config({"optim.lr": 0.01}, seed=1).flat()
    assert (flat["train.epochs"], flat["train.batch_size"]) == (3, 8)
    assert (flat["tcpa.prompt_length"], flat["seed"]) == (2, 1)


def test_base_settings_of_methods_that_are_not_chosen_are_left_out() -> None:
    axes = {"methods": {"choice": [["vpt"], ["tcpa"]]}}
    space = space_of(_search(base={"tcpa.prompt_length": 2}, axes=axes))
    assert "tcpa.prompt_length" not in space.config({"methods": ["vpt"]}, seed=0).flat()
    assert space.config({"methods": ["tcpa"]}, seed=0).flat()["tcpa.prompt_length"] == 2


def test_paths_are_relative_to_the_file_wherever_they_stand(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    data = _search(base={"backbone.weights": "random"}, axes={"data.root": {"choice": ["a", "/b"]}})
    path.write_text(yaml.safe_dump(data))
    space = load_space(str(path))
    assert space.base["backbone.weights"] == "random"
    assert space.axes["data.root"].ends() == (str(tmp_path / "a"), "/b")


def test_paths_of_overrides_and_presets_are_relative_to_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, example: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    space = load_space(str(example), {"data.root": "mine"})
    assert space.base["data.root"] == str(tmp_path / "elsewhere/mine")
    assert space.base["backbone.weights"].startswith(str(tmp_path / "weights"))
    preset = load_space("tcpa_vtab", {"data.root": "mine"})
    assert preset.base["data.root"] == str(tmp_path / "elsewhere/mine")


def test_an_override_fixes_a_setting_and_drops_its_axis(example: Path) -> None:
    space = load_space(str(example), {"optim.lr": 0.5, "train.epochs": 2})
    assert "optim.lr" not in space.axes
    assert (space.base["optim.lr"], space.base["train.epochs"]) == (0.5, 2)


def test_fixing_the_methods_drops_what_belongs_to_others(example: Path) -> None:
    space = load_space(str(example), {"methods": ["cvpt"]})
    assert set(space.axes) == {"optim.lr", "cvpt.num_prompts"}
    assert space.first_points == ()
    kept = load_space(str(example), {"methods": ["tcpa"]})
    assert kept.first_points == ({"tcpa.num_cls_prompts": 18},)


def test_fixing_a_condition_drops_axes_that_cannot_be_active() -> None:
    axes = {
        "optim.name": {"choice": ["sgd", "adamw"]},
        "optim.momentum": {"choice": [0.5, 0.9], "when": {"optim.name": "sgd"}},
        "optim.lr": {"float": [0.01, 0.1]},
    }
    points = [{"optim.name": "sgd", "optim.momentum": 0.5, "optim.lr": 0.1}]
    space = _overridden(_search(axes=axes, first_points=points), {"optim.name": "adamw"})
    assert set(space.axes) == {"optim.lr"}
    assert space.first_points == ({"optim.lr": 0.1},)


def test_fixing_one_side_of_a_constraint_keeps_it_and_both_sides_drop_it() -> None:
    data = _search(
        axes={
            "optim.lr": {"float": [0.01, 1.0]},
            "optim.weight_decay": {"float": [0.1, 1.0]},
            "train.epochs": {"choice": [1, 2]},
        },
        constraints=["optim.lr <= optim.weight_decay"],
    )
    one = _overridden(data, {"optim.weight_decay": 0.05})
    assert max(one.suggest(RandomTrial(seed))["optim.lr"] for seed in range(50)) == 0.05
    both = _overridden(data, {"optim.weight_decay": 0.05, "optim.lr": 0.05})
    assert both.constraints == ()


def test_overrides_reach_study_wide_settings() -> None:
    space = _overridden(
        _search(objective={"metric": "val_accuracy", "goal": "maximize"}),
        {
            "budget.trials": 3,
            "budget.hours": 1,
            "sampler.name": "random",
            "sampler.seed": 5,
            "scheduler.name": "none",
            "objective.metric": "val_loss",
            "objective.goal": "minimize",
            "seeds": [4, 5],
        },
    )
    assert (space.budget.trials, space.budget.hours) == (3, 1.0)
    assert (space.sampler.name, space.sampler.seed) == ("random", 5)
    assert (space.scheduler.name, space.seeds) == ("none", (4, 5))
    assert (space.objective[0].metric, space.objective[0].goal) == ("val_loss", "minimize")


@pytest.mark.parametrize(
    "cluster", [{"workers": 8}, {"workers": 2, "gpus_per_worker": 0.5, "priority": 3.0}]
)
def test_what_a_study_asks_of_a_cluster_is_kept_and_changes_no_trial(
    cluster: dict[str, Any],
) -> None:
    plain, asking = space_of(_search()), space_of(_search(cluster=cluster))
    assert "cluster" not in plain.as_dict(), "older records have no such section"
    assert space_of(json.loads(json.dumps(asking.as_dict()))).cluster == asking.cluster
    assert {**asking.as_dict(), "cluster": None} == {**plain.as_dict(), "cluster": None}
    assert asking.trials == plain.trials
    trial = [space.config(space.suggest(RandomTrial(3)), seed=0) for space in (plain, asking)]
    assert trial[0].digest("d", "w") == trial[1].digest("d", "w")
    over = {f"cluster.{key}": value for key, value in cluster.items()}
    assert _overridden(_search(cluster={"workers": 5}), over).cluster == asking.cluster


@pytest.mark.parametrize("metric", ["val_loss", "val_accuracy", "duration_s"])
def test_a_goal_follows_its_metric(metric: str) -> None:
    data = _search(objective={"metric": "val_accuracy", "goal": "maximize"})
    objective = _overridden(data, {"objective.metric": metric}).objective[0]
    assert objective.goal == ("maximize" if metric == "val_accuracy" else "minimize")
    assert space_of(_search(objective={"metric": metric})).objective[0] == objective


@pytest.mark.parametrize(
    ("overrides", "pattern"),
    [
        ({"optim.lrr": 1}, r"no setting 'optim.lrr' \(--set optim.lrr\); closest name: 'optim.lr'"),
        ({"budget.trails": 1}, r"closest name: 'budget.trials'"),
        ({"sampler.nam": 1}, r"closest name: 'sampler.name'"),
        ({"seed": 1}, r"seed is a replicate, .*--set seed"),
        ({"optim.lr": "fast"}, r"optim.lr must be .* got 'fast' \(--set optim.lr\)"),
        ({"methods": "tcpa"}, r"got 'tcpa' \(--set methods\); write \[tcpa\]"),
        ({"tcpa.prompt_length": 2}, r"'tcpa', which is never chosen.*--set tcpa.prompt_length"),
        ({"budget.trials": 0}, r"budget.trials must be .* got 0 \(--set budget.trials\)"),
        ({"ablation.seeds": 3}, r"--set ablation.seeds: test is a search; set seeds instead"),
        ({"scheduler.grace_epochs": 99}, r"got 99 > 20 \(--set scheduler.grace_epochs\)"),
        ({"data.name": "digit"}, r"no data set 'digit' \(--set data.name\); closest .*'digits'"),
    ],
)
def test_overrides_that_do_not_fit(overrides: dict[str, Any], pattern: str) -> None:
    with pytest.raises(ConfigError, match=pattern):
        _overridden(_search(), overrides)


def test_an_override_cannot_enter_a_list_of_objectives() -> None:
    data = _search(objective=[{"metric": "val_accuracy"}])
    with pytest.raises(ConfigError, match="--set objective.metric needs objective to be a mapping"):
        _overridden(data, {"objective.metric": "val_loss"})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("optim.lr=3e-3", ("optim.lr", 3e-3)),
        ("a.b=3", ("a.b", 3)),
        ("methods=[vpt, tcpa]", ("methods", ["vpt", "tcpa"])),
        ("data.root=/tmp/a=b", ("data.root", "/tmp/a=b")),
        ("data.root=", ("data.root", None)),
        ("data.flip=true", ("data.flip", True)),
        (" seeds = 5 ", ("seeds", 5)),
    ],
)
def test_parse_override(text: str, expected: tuple[str, Any]) -> None:
    assert parse_override(text) == expected


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("optim.lr", r"--set must read PATH=VALUE, got 'optim.lr'"),
        ("=3", r"--set must read PATH=VALUE, got '=3'"),
        ("a.b={c: 1}", r"--set a.b must be a single value or a list"),
        ("a.b=[1", r"--set a.b, line 1, column 3: YAML cannot be read"),
    ],
)
def test_parse_override_refuses(text: str, pattern: str) -> None:
    with pytest.raises(ConfigError, match=pattern):
        parse_override(text)


def test_a_source_that_is_nothing_lists_the_presets(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'quickstrat'; closest name: 'quickstart'. Presets: "):
        load_space("quickstrat")
    with pytest.raises(ConfigError, match=r"no file and no preset '.*'. Presets: .*tcpa_vtab"):
        load_space(str(tmp_path))


def test_complete_says_which_axis_is_left_open_or_misspelt() -> None:
    space = space_of(_search(axes={"optim.lr": {"float": [0.1, 1.0]}}))
    with pytest.raises(ConfigError, match="optim.lr is left open, and its default is 0.001"):
        space.complete({})
    with pytest.raises(ConfigError, match="optim.l is not an axis .*closest name: 'optim.lr'"):
        space.complete({"optim.l": 0.1})
    assert space.complete({"optim.lr": 1.0}) == {"optim.lr": 1.0}


def test_a_search_has_no_design() -> None:
    with pytest.raises(ConfigError, match="only an ablation has a design"):
        space_of(_search()).design()


_JUNK: list[Any] = [None, 3, -1, 0.5, True, "x", "", [], {}, [[]], [None], {"a": 1}, ["x", 3]]


@pytest.mark.parametrize("preset", ["quickstart", "tcpa_components", "tcpa_pools"])
def test_junk_at_any_place_is_a_settings_error(preset: str) -> None:
    record = load_space(preset).as_dict()
    refused = 0
    for keys in _places(record):
        for junk in _JUNK:
            data = copy.deepcopy(record)
            target: Any = data
            for key in keys[:-1]:
                target = target[key]
            target[keys[-1]] = junk
            try:
                space_of(data)
            except TcpaError:
                refused += 1
    assert refused > 100


def _places(value: Any, keys: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = list(value.items()) if isinstance(value, dict) else []
    inner += list(enumerate(value)) if isinstance(value, list) else []
    found = [keys] if keys else []
    return found + [place for key, child in inner for place in _places(child, (*keys, key))]


def _overridden(data: dict[str, Any], overrides: dict[str, Any]) -> Space:
    return _build(Document(data, {}, "test", Path.cwd()), overrides, {})


def test_a_space_with_other_parts_works_its_points_out_again() -> None:
    space = space_of(_search())
    assert [trial.optim.lr for trial in space.trials] == [1e-3, 1e-1]
    other = space.replaced(axes={"optim.lr": FloatAxis(float=(0.5, 0.75))})
    assert [trial.optim.lr for trial in other.trials] == [0.5, 0.75]
    assert space.trials is space.trials, "made once"
    assert other.name == space.name and space_of(other.as_dict(), other.source) == other
