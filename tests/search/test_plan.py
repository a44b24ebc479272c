"""The plan of a study: counts, checks of what trials would need, and nothing written."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from search.planning.plan import Decoding, Plan, plan_space
from search.planning.plan_view import show_plan
from search.planning.requested_space import requested_space
from tcpa_core.errors import ConfigError, StudyError, WeightsError

HEAD = "name: small\nbase: {methods: [linear], train.epochs: 3}\n"
GRID = HEAD + "axes: {optim.lr: {choice: [0.1, 0.2, 0.3]}}\n"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TCPA_CACHE", str(tmp_path / "cache"))


def make_plan(
    source: str, *, root: Path, settings: dict[str, Any] | None = None, **options: Any
) -> Plan:
    space = requested_space(source, settings)
    return plan_space(space, space.name, root, **options)


def write(tmp_path: Path, text: str) -> str:
    path = tmp_path / "space.yaml"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize(
    ("text", "trials", "points"),
    [
        (GRID + "budget: {trials: 2}\n", 2, 3),
        (GRID + "budget: {trials: 50}\n", 3, 3),
        (GRID + "budget: {trials: 50}\nseeds: 4\n", 12, 3),
        (GRID + "budget: {hours: 1}\n", 3, 3),
        (HEAD + "axes: {optim.lr: {float: [0.1, 0.2]}}\nbudget: {trials: 7}\n", 7, None),
        (HEAD + "axes: {optim.lr: {float: [0.1, 0.2]}}\nbudget: {hours: 2}\n", None, None),
        (
            HEAD + "ablation: {design: full_factorial, seeds: 2, factors: "
            "{optim.lr: [0.001, 0.2], optim.weight_decay: [0.01, 0.1]}}\n",
            8,
            4,
        ),
    ],
)
def test_trials_and_points_are_counted(
    text: str, trials: int | None, points: int | None, tmp_path: Path
) -> None:
    plan = make_plan(write(tmp_path, text), root=tmp_path / "studies")
    assert (plan.num_trials, plan.num_points, plan.most_epochs) == (trials, points, 3)
    assert not (tmp_path / "studies").exists()


def test_options_replace_what_the_space_says(tmp_path: Path) -> None:
    source = write(tmp_path, GRID + "budget: {trials: 9}\n")
    settings = {"optim.weight_decay": 0.5, "train.epochs": 5}
    plan = plan_space(requested_space(source, settings, trials=2), "other", tmp_path)
    assert (plan.name, plan.num_trials, plan.most_epochs) == ("other", 2, 5)
    assert plan.space.base["optim.weight_decay"] == 0.5


def test_the_folder_is_made_only_by_create(tmp_path: Path) -> None:
    root = tmp_path / "studies"
    plan = make_plan("quickstart", root=root)
    assert not root.exists()
    study = plan.create()
    assert study.document()["fingerprints"] == dict(plan.fingerprints)
    assert study.document()["tracking_uri"] == "", "the database of the folder, wherever it lies"
    assert study.space().as_dict() == plan.space.as_dict()
    with pytest.raises(StudyError, match="exists already .*tcpa resume quickstart"):
        make_plan("quickstart", root=root)


def test_random_weights_are_warned_of_once(tmp_path: Path) -> None:
    plan = make_plan("quickstart", root=tmp_path, settings={"backbone.weights": "random"})
    assert plan.warnings == ("Backbone vit_nano has random weights: accuracies mean nothing.",)
    assert plan.fingerprints["weights"] == "random:vit_nano"


def test_hub_weights_are_fetched_when_the_study_is_made_not_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"backbone.name": "vit_tiny_patch16_224", "backbone.img_size": 32}
    plan = make_plan("quickstart", root=tmp_path / "studies", settings=settings)
    assert plan.fingerprints["weights"].startswith("hub:vit_tiny_patch16_224@")
    assert plan.warnings == ()

    def no_network(*_: Any, **__: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr("timm.create_model", no_network)
    with pytest.raises(WeightsError, match="'vit_tiny_patch16_224' could not be fetched"):
        plan.create()
    assert not (tmp_path / "studies").exists()


def test_a_method_that_does_not_fit_the_backbone_is_refused(tmp_path: Path) -> None:
    settings = {"backbone.name": "vit_base_patch16_siglip_224", "backbone.weights": "random",
                "backbone.img_size": 32}  # fmt: skip
    with pytest.raises(ConfigError, match="num_cls_prompts must be 0 for a backbone without"):
        make_plan("tcpa_components", root=tmp_path, settings=settings)


def test_images_are_decoded_once_and_varied_data_is_joined(tmp_path: Path) -> None:
    for name, shade in (("one", 10), ("two", 90)):
        for split in ("train", "val", "test"):
            for label in ("a", "b"):
                path = tmp_path / name / split / label / "x.png"
                path.parent.mkdir(parents=True)
                Image.fromarray(np.full((8, 8, 3), shade + len(split), np.uint8)).save(path)
    base = "name: s\nbase: {methods: [linear], data.name: folder}\nbudget: {trials: 2}\n"
    source = write(tmp_path, base + "axes: {data.root: {choice: [one, two]}}\n")
    said: list[tuple[str, int, int]] = []

    def note(*stage: Any) -> None:
        said.append(stage)

    plan = make_plan(source, root=tmp_path, decoding=Decoding(keep=True, progress=note))
    assert plan.fingerprints["data"].count("+") == 1
    assert ("decode test", 2, 2) in said
    said.clear()
    make_plan(source, root=tmp_path, decoding=Decoding(progress=note))
    assert not [stage for stage, _, _ in said if stage.startswith("decode")]


def test_what_is_shown_names_the_axes_and_hides_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search.tracking.mirror.check_tracker", lambda uri: None)
    plan = make_plan("quickstart", root=tmp_path, tracking_uri="http://me:sesame@host:5000")
    text = io.StringIO()
    show_plan(plan, Console(file=text, width=140))
    shown = text.getvalue()
    for part in ("tpe sampler, scheduler asha", "infinite (continuous axes)", "http://host:5000",
                 "optim.lr", "at most 5 a trial", "0.1 to 1 of tcpa.num_cls_prompts"):  # fmt: skip
        assert part in shown
    assert "sesame" not in shown


def test_a_fraction_tells_its_resolution_and_aliases(tmp_path: Path) -> None:
    factors = ", ".join(f"{p}: [0.0, 0.1]" for p in ("optim.weight_decay", "train.dropout"))
    text = HEAD + (
        "ablation: {design: fractional_factorial, runs: 4, seeds: 1, "
        f"factors: {{optim.lr: [0.001, 0.2], {factors}}}, "
        "baseline: {optim.lr: 0.001, optim.weight_decay: 0.0, train.dropout: 0.0}}\n"
    )
    plan = make_plan(write(tmp_path, text), root=tmp_path / "studies")
    console = Console(file=io.StringIO(), width=200)
    show_plan(plan, console)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "4 of 8 runs, resolution III" in shown
    assert "lr = weight_decay × dropout" in shown and "dropout = lr × weight_decay" in shown
