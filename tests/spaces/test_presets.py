"""Every shipped space loads, is explained, and each of its corners is a trial."""

from functools import cache
from importlib.resources import files

import optuna
import pytest
import torch

from spaces.axes import ChoiceAxis, FloatAxis
from spaces.load import load_space, space_of
from spaces.shipped import PRESETS
from tcpa_core import plugins
from tcpa_core.chain import check_chain
from tcpa_core.config import METHODS
from tcpa_core.model.backbone import Backbone
from tcpa_core.model.load_backbone import load_backbone
from tcpa_core.model.member_tensors import member_specs
from tcpa_core.protocols.base import departures, protocol_names
from tcpa_core.settings import BackboneConfig
from tests.spaces.trials import RandomTrial

SEARCHES = [name for name in PRESETS.names() if load_space(name).ablation is None]


def test_the_presets_are_those_we_document() -> None:
    assert PRESETS.names() == (
        "adapter_vtab",
        "adaptformer_vtab",
        "all_methods",
        "autovp_vtab",
        "cvpt_ade20k",
        "cvpt_design",
        "cvpt_fgvc",
        "cvpt_vtab",
        "damvp_vtab",
        "e2vpt_vtab",
        "full_partial_bias_vtab",
        "gated_vtab",
        "linear_vtab",
        "lion_vtab",
        "lora_vtab",
        "mlp_vtab",
        "quickstart",
        "sa2vp_vtab",
        "segment_small",
        "sidetune_vtab",
        "ssf_cifar",
        "ssf_fgvc",
        "ssf_vtab",
        "tcpa_components",
        "tcpa_pools",
        "tcpa_vtab",
        "vfpt_tcpa_hta",
        "vfpt_vtab",
        "vp_vtab",
        "vpetl_fgvc",
        "vpetl_vtab",
        "vpt_ade20k",
        "vpt_fgvc",
        "vpt_vtab",
    )


@pytest.mark.parametrize("name", PRESETS.names())
def test_a_preset_is_explained_and_valid(name: str) -> None:
    text = (files("spaces.presets") / f"{name}.yaml").read_text()
    assert text.startswith("# Purpose: ")
    assert "\n# Command: tcpa " in text
    assert "\n# Cost: " in text
    space = load_space(name)
    assert space.name == name
    assert space_of(space.as_dict(), source=space.source) == space
    corners = list(space.corners())
    assert len(corners) > 1
    for corner in corners:
        space.config(corner, seed=0)


@pytest.mark.parametrize("name", SEARCHES)
def test_a_search_preset_suggests_trials_and_starts_from_known_points(name: str) -> None:
    space = load_space(name)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for partial in space.first_points:
        point = space.complete(partial)
        study.enqueue_trial(space.params(point))
        trial = study.ask()
        assert space.suggest(trial) == point
        assert trial.params == space.params(point)
    for seed in range(30):
        space.config(space.suggest(RandomTrial(seed)), seed=0)
        space.config(space.suggest(study.ask()), seed=0)


@cache
def _backbone(config: BackboneConfig) -> Backbone:
    """Without numbers: only sizes are looked at."""
    with torch.device("meta"):
        return load_backbone(config.model_copy(update={"weights": "random"}), device="meta")


@pytest.mark.parametrize("name", SEARCHES)
def test_backbones_carry_the_first_points_of_a_preset(name: str) -> None:
    space = load_space(name)
    for partial in space.first_points:
        config = space.config(space.complete(partial), seed=0)
        backbone = _backbone(config.backbone)
        check_chain(config, backbone.layout)
        specs = member_specs(backbone, config, 10)
        assert any(name.startswith(("head.", *config.methods)) for name in specs)


def test_quickstart_tries_each_method_first() -> None:
    space = load_space("quickstart")
    first = [space.complete(point)["methods"] for point in space.first_points]
    assert first == [["linear"], ["vpt"], ["tcpa"], ["cvpt"]]
    assert space.budget.trials == 10


def test_all_methods_starts_with_every_chain_once() -> None:
    space = load_space("all_methods")
    axis = space.axes["methods"]
    assert isinstance(axis, ChoiceAxis)
    first = [space.complete(point)["methods"] for point in space.first_points]
    assert first == list(axis.options)
    singles = {name for chain in first for name in chain}
    assert singles == set(plugins.names(METHODS))
    bases = {chain[0] for chain in first if chain[-1] == "tcpa"}
    assert bases == {"vpt", "vfpt", "vp", "damvp", "autovp"} & singles
    assert space.budget.trials is not None and space.budget.trials >= len(first)


def test_every_method_has_a_preset_of_its_own() -> None:
    spaces = [load_space(preset) for preset in SEARCHES if preset.endswith("_vtab")]
    points = [(space, space.complete(point)) for space in spaces for point in space.first_points]
    chosen = {name for space, point in points for name in space.config(point, seed=0).methods}
    assert chosen == set(plugins.names(METHODS))


def test_every_protocol_is_that_of_a_preset() -> None:
    """What a preset claims it follows but for few settings, and its own comments say which."""
    claimed = {}
    for name in PRESETS.names():
        space = load_space(name)
        if "protocol" in space.base:
            points = [space.complete(point) for point in space.first_points]
            points = points or [one.point for one in space.design()]
            config = space.config(points[0], seed=0)
            claimed[name] = len(departures(config.protocol, config.flat()))
    assert {load_space(name).base["protocol"] for name in claimed} == set(protocol_names())
    assert max(claimed.values()) <= 5


def test_component_rows_have_pools_of_one_size() -> None:
    space = load_space("tcpa_components")
    flats = [space.config(point.point, point.seed).flat() for point in space.design()]
    assert len(flats) == 9
    sizes = {(f["tcpa.num_cls_prompts"], f["tcpa.num_image_prompts"]) for f in flats}
    assert len(sizes) == 1


def test_pools_keep_half_of_each_pool_in_use() -> None:
    space = load_space("tcpa_pools")
    for point in space.design():
        flat = space.config(point.point, point.seed).flat()
        assert flat["tcpa.top_k_image"] * 2 == flat["tcpa.num_image_prompts"]
        assert flat["tcpa.top_k_cls"] == flat["tcpa.num_cls_prompts"] // 2


@pytest.mark.parametrize("name", ["adapter_vtab", "adaptformer_vtab", "lora_vtab", "ssf_vtab"])
def test_figures_of_another_recipe_say_so(name: str) -> None:
    """V-PETL augments 12 of its 19 tasks, which these presets do not."""
    text = (files("spaces.presets") / f"{name}.yaml").read_text()
    said = " ".join(line.strip("# ") for line in text.split("\nname:")[0].splitlines())
    assert "12 of the 19 tasks with RandAugment" in said and "mirroring" in said
    space = load_space(name)
    config = space.config(space.complete(space.first_points[0]), seed=0)
    assert not config.data.flip and config.train.label_smoothing == 0.0


def test_tcpa_on_vtab_smooths_labels_with_mixup_alone() -> None:
    """The authors' smoothing is that of timm's Mixup; without it they take the plain loss."""
    space = load_space("tcpa_vtab")
    for seed in range(20):
        train = space.config(space.suggest(RandomTrial(seed)), seed=0).train
        assert train.label_smoothing == (0.1 if train.mixup_alpha else 0.0)
    assert space.base["data.antialias"] is False and space.base["data.interpolation"] == "bilinear"


@pytest.mark.parametrize(
    ("name", "batch_size", "base_rates"),
    [("vpt_fgvc", 128, (0.1, 50)), ("vpt_vtab", 64, (0.05, 50)), ("vfpt_vtab", 64, (0.05, 50)),
     ("e2vpt_vtab", 64, (0.05, 50)), ("sidetune_vtab", 64, (0.05, 50)),
     ("linear_vtab", 1024, (0.05, 50)), ("mlp_vtab", 1024, (0.05, 50))],
)  # fmt: skip
def test_rates_are_the_authors_grid_at_our_batch_size(
    name: str, batch_size: int, base_rates: tuple[float, float]
) -> None:
    """VPT's programs, prompt and linear: tune_fgvc.py:152 and :115, tune_vtab.py:246 and :229."""
    axis = load_space(name).axes["optim.lr"]
    assert isinstance(axis, FloatAxis)
    assert (axis.low, axis.high) == pytest.approx([r * batch_size / 256 for r in base_rates])
