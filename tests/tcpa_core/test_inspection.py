"""The attention that figures show is the one that the model computes."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tcpa_core import chain, plugins
from tcpa_core.chain import method_class
from tcpa_core.config import METHODS, TrialConfig
from tcpa_core.errors import ConfigError
from tcpa_core.inspection import (
    MAPS,
    TOKENS,
    _attention,
    check_methods,
    effective_rank,
    inspect_model,
    inspect_trial,
)
from tcpa_core.methods.base import Step
from tcpa_core.model.single_model import SingleModel, build_model
from tcpa_core.training.checkpoint import save_checkpoint
from tests.tcpa_core import oracle
from tests.tcpa_core.checks import Listener
from tests.tcpa_core.tiny import NUM_CLASSES, images, tiny_backbone, trial

SMALL = dict(tcpa__num_cls_prompts=3, tcpa__num_image_prompts=4, tcpa__top_k_cls=1,
             tcpa__top_k_image=2)  # fmt: skip
TRIALS = {
    "linear": trial(["linear"]),
    "vpt": trial(["vpt"], vpt__num_prompts=3),
    "vpt shallow": trial(["vpt"], vpt__num_prompts=3, vpt__deep=False),
    "vfpt": trial(["vfpt"], vfpt__num_prompts=4),
    "tcpa": trial(["tcpa"], **SMALL),
    "tcpa pre": trial(["tcpa"], tcpa__mask_mode="pre", **SMALL),
    "tcpa shared": trial(["tcpa"], tcpa__split_roles=False, **SMALL),
    "tcpa unmatched": trial(["tcpa"], tcpa__match_tokens=False, **SMALL),
    "vfpt + tcpa": trial(["vfpt", "tcpa"], **SMALL),
    "cvpt": trial(["cvpt"], cvpt__num_prompts=3),
}


def model_of(config: TrialConfig, kind: str = "cls") -> SingleModel:
    backbone = tiny_backbone(kind)
    return build_model(config, num_classes=NUM_CLASSES, backbone=backbone).eval()


def look(model: SingleModel, samples: int = 3) -> dict[str, np.ndarray]:
    batch = images(model.pack.backbone, samples=samples)[0]
    return inspect_model(model, batch, torch.zeros(samples))


def literal(model: SingleModel, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The oracle's attention, block by block, summed up entry by entry."""
    seen: list[Tensor] = []

    def listen(scores: Tensor) -> Tensor:
        seen.append(scores.softmax(-1))
        return seen[-1]

    monkeypatch.setattr(oracle, "softmax_rows", listen)
    backbone, layout = model.pack.backbone, model.pack.backbone.layout
    result = oracle.run(
        backbone, model.config, model.pack.tensors.state(0), images(backbone)[0], Step.evaluation(1)
    )
    prefix, found = layout.num_prefix, []
    for index, weights in enumerate(seen):
        batch, heads, length, _ = weights.shape
        prompts = length - prefix - layout.num_image
        image = [prefix + prompts + i for i in range(layout.num_image)]
        mask = result.masks[index] if result.masks else torch.ones(batch, length, length)
        one: dict[str, Any] = {"rank": []}
        for role, rows in {"cls": [0], "image": image}.items():
            share, kept, flat = [], [], torch.zeros(batch, layout.num_image, dtype=weights.dtype)
            for b in range(batch):
                for h in range(heads):
                    for t in rows:
                        row = weights[b, h, t]
                        share.append(float(row[prefix : prefix + prompts].sum()))
                        kept.append(float((row * mask[b, t]).sum()))
                        flat[b] += row[image] / (heads * len(rows))
            one |= {f"share_{role}": np.mean(share), f"kept_{role}": np.mean(kept)}
            one[f"maps_{role}"] = flat.reshape(batch, *layout.grid).numpy()
        for b in range(batch):
            for h in range(heads):
                s = np.linalg.svd(weights[b, h][image][:, image].numpy(), compute_uv=False)
                p = s / s.sum()
                one["rank"].append(np.exp(-(p * np.log(p)).sum()))
        found.append(one)
    return found


@pytest.mark.parametrize("name", TRIALS)
def test_numbers_are_those_of_the_slow_oracle(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(TRIALS[name])
    found = look(model)
    blocks = literal(model, monkeypatch)
    assert len(blocks) == len(found["rank"]) == 2
    for index, block in enumerate(blocks):
        for role in ("cls", "image"):
            np.testing.assert_allclose(found[f"{role}_maps"][index], block[f"maps_{role}"], 1e-5)
            for key in ("prompt_share", "kept"):
                wanted = pytest.approx(block[f"{key.removeprefix('prompt_')}_{role}"], abs=1e-12)
                assert found[f"{key}_{role}"][index] == wanted, key
        assert found["rank"][index] == pytest.approx(np.mean(block["rank"]), rel=1e-5)


@pytest.mark.parametrize("name", ["tcpa", "tcpa shared", "vfpt + tcpa"])
def test_usage_counts_the_choices_of_the_slow_oracle(name: str) -> None:
    model = model_of(TRIALS[name])
    found, backbone = look(model), model.pack.backbone
    result = oracle.run(
        backbone, model.config, model.pack.tensors.state(0), images(backbone)[0], Step.evaluation(1)
    )
    split = model.config.method_settings["tcpa"].split_roles
    for index, chosen in enumerate(result.groups):
        counts: dict[str, list[int]] = {"cls": [0] * 3, "image": [0] * 4}
        for sample in chosen:
            for token in sample:
                for pool, group in token:
                    counts[pool][group] += 1
        wanted = counts if split else {"shared": counts["cls"] + counts["image"]}
        for pool, numbers in wanted.items():
            shares = np.array(numbers) / sum(numbers)
            assert found[f"usage_{pool}"][index] == pytest.approx(shares)
    assert ("usage_cls" in found) == split


PLAIN = ("adapter", "adaptformer", "autovp", "damvp", "linear", "lion", "mlp", "sidetune", "vp")
"""Methods that leave queries and keys to the frozen block."""


@pytest.mark.parametrize("name", PLAIN)
def test_other_methods_leave_the_attention_to_the_block(name: str) -> None:
    """The softmax of the very queries and keys that the fused kernel was given."""
    model = model_of(trial([name]), "registers")
    check_methods(model)
    batch = images(model.pack.backbone)[0]
    with torch.no_grad(), Listener() as heard:
        seen = model.pack.forward_attention(batch[None])
    found = [_attention(told) for told in seen.blocks]
    # the last ones: DAM-VP first looks at the images without prompts
    for ours, theirs in zip(found, heard.maps[-len(found) :], strict=True):
        torch.testing.assert_close(ours.weights_BHSU, theirs)


@pytest.mark.parametrize("kind", ["registers", "no_cls", "layer_scale", "distilled"])
def test_every_kind_of_backbone(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(TRIALS["vpt"], kind)
    found, layout = look(model), model.pack.backbone.layout
    assert found["image_maps"].shape == (layout.depth, 3, *layout.grid)
    assert ("cls_maps" in found) == layout.has_cls
    if layout.has_cls:
        block = literal(model, monkeypatch)[1]
        assert found["prompt_share_cls"][1] == pytest.approx(block["share_cls"])
    else:
        assert not [name for name in found if "cls" in name]


def test_shallow_prompts_are_found_wherever_they_stand() -> None:
    ahead, behind = (
        look(model_of(trial(["vpt"], vpt__num_prompts=3, vpt__deep=False, vpt__position=place)))
        for place in ("after_prefix", "end")
    )
    for name in ("cls_maps", "image_maps", "prompt_share_image", "rank"):
        assert behind[name] == pytest.approx(ahead[name]), name
    assert ahead["num_prompts"].tolist() == [3, 3]


def test_what_masks_and_prompts_take() -> None:
    plain, deep, post, pre, cvpt = (
        look(model_of(TRIALS[name])) for name in ("linear", "vpt", "tcpa", "tcpa pre", "cvpt")
    )
    assert plain["prompt_share_cls"] == pytest.approx(0)
    assert cvpt["prompt_share_cls"] == pytest.approx(0) and cvpt["num_prompts"].tolist() == [3, 3]
    assert (deep["prompt_share_image"] > 0).all() and deep["kept_image"] == pytest.approx(1)
    assert (post["kept_cls"] < 1).all() and pre["kept_cls"] == pytest.approx(1)
    assert "usage_cls" not in deep


def test_batches_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(TRIALS["tcpa"])
    whole = look(model, 5)
    monkeypatch.setattr("tcpa_core.inspection.BATCH", 2)
    parts = look(model, 5)
    for name in ("kept_cls", "usage_image", "features", "prompt_share_image", "prompt_share_cls"):
        assert parts[name] == pytest.approx(whole[name]), name


def test_effective_rank_by_hand() -> None:
    assert effective_rank(torch.eye(4)) == pytest.approx(4)
    assert effective_rank(torch.ones(4, 4)) == pytest.approx(1, abs=1e-4)
    two = torch.diag(torch.tensor([3.0, 1.0]))
    assert effective_rank(two) == pytest.approx(math.exp(0.75 * math.log(4 / 3) + math.log(4) / 4))


def test_a_checkpoint_is_looked_at_on_val(tmp_path: Path) -> None:
    config = TrialConfig.from_flat({"methods": ["vpt"], "data.name": "digits",
                                    "backbone.name": "vit_nano"})  # fmt: skip
    path, state = tmp_path / "best.safetensors", build_model(config, num_classes=10)
    info = {"config": config.flat(), "classes": list("0123456789")}
    save_checkpoint(path, state.pack.tensors.state(0), info)
    found = inspect_trial(path, images=40)
    assert found["images"].shape[0] == MAPS and 0 <= found["images"].min() <= found["images"].max()
    assert len(np.unique(found["labels"])) > 5, "val is listed class by class"
    assert found["features"].shape[0] == 40


@pytest.mark.parametrize("name", plugins.names(METHODS))
def test_every_method_is_shown(name: str) -> None:
    model = model_of(trial([name], **({"e2vpt__num_segments": 8} if name == "e2vpt" else {})))
    check_methods(model)
    found = look(model)
    assert found["rank"].shape == found["num_prompts"].shape == (2,)
    assert np.isfinite(found["rank"]).all() and (found["prompt_share_image"] >= 0).all()


def test_a_method_that_cannot_tell_its_attention_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = trial(["lora"])
    method = method_class("lora")
    monkeypatch.setattr(method, "hides_attention", lambda config: "changes the attention itself")
    message = (
        "methods: attention figures cannot show 'lora', which changes the attention itself; "
        "choose another trial."
    )
    with pytest.raises(ConfigError, match=message):
        check_methods(model_of(config))


@pytest.fixture
def patched_hooks() -> Iterator[None]:
    """Which hooks a method defines is looked up once a process, but here classes are patched."""
    chain._defines.cache_clear()
    yield
    chain._defines.cache_clear()


@pytest.mark.usefixtures("patched_hooks")
def test_two_methods_that_tell_the_attention_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    told = method_class("vpt").attention
    monkeypatch.setattr(method_class("vp"), "attention", told)
    with pytest.raises(ConfigError, match="cannot show 'vp' beside 'vpt', as both say"):
        check_methods(model_of(trial(["vp", "vpt"])))


def test_prompts_of_a_second_branch_are_counted_but_take_no_share() -> None:
    found = look(model_of(trial(["sa2vp"])))
    assert found["num_prompts"].tolist() == [17, 17], "one for each token"
    assert found["prompt_share_cls"] == pytest.approx(0)


def test_key_value_prompts_count_as_prompts() -> None:
    found = look(model_of(trial(["e2vpt"], e2vpt__num_prompts=3, e2vpt__num_kv_prompts=2)))
    assert found["num_prompts"].tolist() == [5, 5]
    assert (found["prompt_share_cls"] > 0).all()


def test_weights_that_a_trial_trains_are_those_of_its_attention() -> None:
    model = model_of(trial(["bias"]))
    before = look(model)["rank"]
    with torch.no_grad():
        for name, value in model.pack.tensors.trainable().items():
            if "attn/qkv" in name:
                value += torch.linspace(-3, 3, value.numel(), dtype=value.dtype).view_as(value)
    assert (look(model)["rank"] != before).all()


def test_features_of_a_segmentation_are_those_of_tokens_with_a_class() -> None:
    config = trial(["vpt"], task__name="segment", segment__blocks=[1, 2], vpt__num_prompts=3)
    model = model_of(config)
    batch = images(model.pack.backbone, samples=20)[0]
    masks = torch.full((20, 32, 32), 255, dtype=torch.uint8)
    masks[:, :16] = 3  # of 4 x 4 tokens the upper 8; the left ones of these are of another class
    masks[:, :16, :8] = 1
    masks[0] = 255
    masks[1, :, 30:] = 2  # a quarter of a token's columns: not most of them
    found = inspect_model(model, batch, masks)
    assert len(found["features"]) == len(found["labels"]) == 19 * TOKENS
    with torch.no_grad():
        maps = model.pack.forward_features(batch[None], Step.evaluation(1))[0][0]
    expected = {
        tuple(maps[n, :, row, column].flatten().tolist()): 1 if column == 0 else 3
        for n in range(1, 20)
        for row in range(2)
        for column in range(4)
    }
    for features, label in zip(found["features"], found["labels"], strict=True):
        near = min(expected, key=lambda key: float(np.abs(np.array(key) - features).max()))
        assert np.allclose(near, features, atol=1e-6) and expected[near] == label
    assert set(found["labels"].tolist()) == {1, 3}
