"""What a plan says of a backbone's size and a trial's memory, against what is really kept."""

from pathlib import Path

import pytest
import torch

from search.planning.plan import plan_space
from search.planning.requested_space import requested_space
from search.planning.sizes import MOST, describe_backbone, describe_memory, method_sizes
from tcpa_core.config import TrialConfig
from tcpa_core.errors import ConfigError
from tcpa_core.model.load_backbone import load_backbone, weights_fingerprint
from tcpa_core.model.pack_model import PackModel
from tcpa_core.plugins import names
from tcpa_core.settings import BackboneConfig
from tcpa_core.training.costs import SAMPLES, training_costs
from tcpa_core.training.estimate import memory

UNTOLD = {"lion"}
"""Methods that decide by numbers what they compute."""


def trial(method: str, **settings: object) -> TrialConfig:
    flat = {"methods": [method], "backbone.weights": "random", "train.batch_size": 8}
    return TrialConfig.from_flat(flat | settings)


def told(configs: list[TrialConfig], num_classes: int) -> list[str]:
    return describe_memory(method_sizes(configs, [10] * len(configs), num_classes))


@pytest.mark.parametrize(
    ("method", "bf16"),
    [(name, False) for name in names("tcpa_core.methods")] + [("tcpa", True), ("lora", True)],
)
def test_memory_told_from_shapes_is_what_a_real_step_keeps(method: str, bf16: bool) -> None:
    config = trial(method)
    told = memory(config, 10, bf16=bf16)
    if method in UNTOLD:
        assert told is None
        return
    backbone = load_backbone(config.backbone)
    model = PackModel(backbone, [config], 10)
    side = backbone.img_size
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        costs = training_costs(model, torch.randn(1, SAMPLES, 3, side, side), cached=False)
    assert told is not None
    image = 3 * side**2 * 4
    assert told.per_image == pytest.approx(costs.activation_bytes + image, rel=1e-3)
    assert told.trained == 16 * model.tensors.num_trainable(0)[0]
    assert told.weights >= 4 * sum(p.numel() for p in backbone.parameters())
    assert told.total(8) - told.total(4) == 4 * told.per_image


def test_a_giant_is_described_without_a_number_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(tensor: torch.Tensor, *args: object, **kwargs: object) -> torch.Tensor:
        assert tensor.is_meta, "random numbers for weights that nobody will use"
        return tensor

    for name in ("trunc_normal_", "normal_", "uniform_", "xavier_uniform_"):
        monkeypatch.setattr(torch.nn.init, name, refuse)
    cfg = BackboneConfig(name="vit_giant_patch14_reg4_dinov2")
    backbone = load_backbone(cfg, device="meta")
    assert all(p.is_meta for p in backbone.parameters())
    text = describe_backbone(cfg, backbone)
    assert "1,136.5 M parameters (4.5 GB in fp32), 40 blocks of width 1536" in text
    assert "518 px: 1,369 tokens + 5 prefix" in text
    assert "backbone.img_size=224 has 256 tokens and takes 5.9 times less" in text
    chosen = cfg.model_copy(update={"img_size": 518})
    assert "its own image size" not in describe_backbone(chosen, backbone)
    base = {"backbone.name": "vit_base_patch16_224", "train.batch_size": 64}
    (line,) = told([trial("tcpa", **base)], 100)
    assert "batches of 64: about" in line and "GB on a GPU (bf16) or" in line


def test_of_a_kind_the_largest_batch_is_told_and_no_more_kinds_than_a_user_waits_for() -> None:
    small, large = trial("vpt"), trial("vpt", **{"train.batch_size": 32})
    (line,) = told([large, small], 10)
    assert line.startswith("vpt on vit_nano, batches of 32: about")
    (line,) = told([trial("vpt", **{"train.precision": "fp32"})], 10)
    assert "GPU" not in line
    (line,) = told([trial("lion")], 10)
    assert "not to be told from shapes" in line
    chains = [trial(m) for m in ("vpt", "linear", "bias", "vp", "ssf", "lora")]
    *_, last = lines = told(chains, 10)
    assert len(lines) == MOST + 1
    assert last == f"{len(chains) - MOST} more chains of methods are not estimated"


TINY = "vit_tiny_patch16_224"


def test_a_tag_is_the_same_in_its_setting_and_in_the_name() -> None:
    apart = trial("vpt", **{"backbone.name": TINY, "backbone.tag": "augreg_in21k"})
    joined = trial("vpt", **{"backbone.name": f"{TINY}.augreg_in21k"})
    plain = trial("vpt", **{"backbone.name": TINY})
    assert apart.digest("d", "w") == joined.digest("d", "w") != plain.digest("d", "w")
    hub = {"weights": None}
    assert weights_fingerprint(apart.backbone.model_copy(update=hub)) == weights_fingerprint(
        joined.backbone.model_copy(update=hub)
    )


@pytest.mark.parametrize(
    ("name", "tag", "message"),
    [
        (f"{TINY}.augreg_in21k", "augreg_in1k", "leave one of the two out"),
        (TINY, "no_such", "knows no weights 'no_such'"),
        ("vit_nano", "mae", "backbone.name must be"),
        (TINY, "../x", "backbone.tag"),
    ],
)
def test_a_tag_that_cannot_be_is_refused(name: str, tag: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        weights_fingerprint(
            TrialConfig.from_flat(
                {"methods": ["vpt"], "backbone.name": name, "backbone.tag": tag}
            ).backbone
        )


def test_tags_are_an_axis(tmp_path: Path) -> None:
    space = tmp_path / "tags.yaml"
    space.write_text(
        f"""name: tags
base: {{backbone.name: {TINY}, backbone.img_size: 32, methods: [linear], data.name: digits}}
axes: {{backbone.tag: {{choice: [augreg_in21k, augreg_in21k_ft_in1k]}}}}
"""
    )
    plan = plan_space(requested_space(str(space), trials=2), "tags", tmp_path / "studies")
    assert [text.split(":")[0] for text in plan.networks] == [
        f"{TINY}.augreg_in21k",
        f"{TINY}.augreg_in21k_ft_in1k",
    ]
