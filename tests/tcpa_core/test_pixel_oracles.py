"""VP, DAM-VP and AutoVP against slow references, with gradients; packs of members of all sizes.

Pictures are set pixel by pixel, clusters looked for image by image, and images resized by matrices
that are written from the definition of the filters.
"""

from typing import Any

import pytest
import torch
from torch import Tensor

from tcpa_core.config import TrialConfig
from tcpa_core.methods import damvp
from tcpa_core.methods.base import MemberState, Pass, Step
from tcpa_core.model.backbone import Backbone
from tcpa_core.model.pack_model import PackModel
from tests.tcpa_core import checks
from tests.tcpa_core.tiny import KINDS, NUM_CLASSES, images, tiny_backbone, training_step, trial

EVAL = Step.evaluation(1)


def of(method: str, seed: int = 0, **settings: Any) -> TrialConfig:
    return trial([method], seed=seed, **{f"{method}__{k}": v for k, v in settings.items()})


def literal(
    backbone: Backbone, config: TrialConfig, state: MemberState, x: Tensor, step: Step
) -> Tensor:
    """timm's own forward pass on the changed images."""
    (name,) = config.methods
    settings = config.method_settings[name]
    own = {k.split(".")[1]: v for k, v in state.items() if k.startswith(f"{name}.")}
    changed = {"vp": vp, "damvp": dam_vp, "autovp": auto_vp}[name](backbone, settings, own, x)
    parts = features(backbone, changed)
    if "logit_features" in own:
        return checks.loss_of(torch.cat(parts, -1)[:, own["logit_features"].long()])
    logits = [
        f @ state[f"{head}.weight"].T + state[f"{head}.bias"]
        for f, head in zip(parts, ("head", "head_dist"), strict=False)
    ]
    return checks.loss_of(torch.stack(logits).mean(0))


def features(backbone: Backbone, x: Tensor) -> list[Tensor]:
    tokens = backbone.vit.forward_features(x)
    if backbone.layout.has_dist:
        return [tokens[:, 0], tokens[:, 1]]
    return [backbone.vit.forward_head(tokens, pre_logits=True)]


def border(own: MemberState, size: int, side: int) -> Tensor:
    """One picture (3, side, side), pixel by pixel."""
    rows = []
    for y in range(side):
        row = []
        for x in range(side):
            if y < size:
                pixel = own["top"][:, y, x]
            elif y >= side - size:
                pixel = own["bottom"][:, y - (side - size), x]
            elif x < size:
                pixel = own["left"][:, y - size, x]
            elif x >= side - size:
                pixel = own["right"][:, y - size, x - (side - size)]
            else:
                pixel = torch.zeros(3, dtype=own["top"].dtype)
            row.append(pixel)
        rows.append(torch.stack(row, -1))
    return torch.stack(rows, -2)


def vp(backbone: Backbone, settings: Any, own: MemberState, x: Tensor) -> Tensor:
    side = backbone.img_size
    if settings.kind == "padding":
        return x + border(own, settings.prompt_size, side)
    picture = torch.zeros(3, side, side, dtype=x.dtype)
    picture[:, : settings.prompt_size, : settings.prompt_size] = own["patch"]
    return x + picture


def dam_vp(backbone: Backbone, settings: Any, own: MemberState, x: Tensor) -> Tensor:
    size, side = settings.prompt_size, backbone.img_size
    with torch.no_grad():
        seen = torch.cat(features(backbone, x), -1)
    out = []
    for image, feature in zip(x, seen, strict=True):
        distances = [float((feature - mean).detach().square().sum()) for mean in own["prototypes"]]
        nearest = distances.index(min(distances))
        parts = {k: v[nearest] for k, v in own.items() if k in ("top", "bottom", "left", "right")}
        out.append(image + border(parts, size, side))
    return torch.stack(out)


def auto_vp(backbone: Backbone, settings: Any, own: MemberState, x: Tensor) -> Tensor:
    side = backbone.img_size
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in backbone.norm_stats("checkpoint"))
    pixels = x * std + mean
    base = side * 128 / 224
    scale = settings.img_scale
    if settings.train_resize:
        shrink = padded(triangles(side, int(base)), side)
        factor = own["scale"][0]
        pixels = shrink @ pixels @ shrink.T
        zoom = bilinear(side, factor)
        pixels = zoom @ pixels @ zoom.T
        filled = min(side, int(int(base) * float(factor.detach())))
    else:
        filled = min(side, int(base * scale))
        shrink = padded(triangles(side, filled), side)
        pixels = shrink @ pixels @ shrink.T
    frame = own["prompt"].sigmoid()
    before = (side - filled) // 2
    mask = torch.ones_like(frame)
    mask[:, before : before + filled, before : before + filled] = 0
    return (pixels + frame * mask - mean) / std


def triangles(side: int, size: int) -> Tensor:
    """Bilinear resize with antialiasing (size, side): a triangle of the ratio's width."""
    ratio = side / size
    centres = (torch.arange(size, dtype=torch.float64) + 0.5) * ratio
    places = torch.arange(side, dtype=torch.float64) + 0.5
    weights = (1 - (places - centres[:, None]).abs() / ratio).clamp_min(0)
    return weights / weights.sum(1, keepdim=True)


def padded(matrix: Tensor, side: int) -> Tensor:
    """Rows of 0 around, so that the smaller image stands in the middle."""
    before = (side - len(matrix)) // 2
    full = torch.zeros(side, side, dtype=matrix.dtype)
    full[before : before + len(matrix)] = matrix
    return full


def bilinear(side: int, factor: Tensor) -> Tensor:
    """Scaling by a factor about the centre (side, side); 0 outside of the image."""
    middle = (side - 1) / 2
    places = torch.arange(side, dtype=torch.float64)
    source = (places - middle) / factor + middle
    return (1 - (source[:, None] - places).abs()).clamp_min(0)


CONFIGS = {
    "vp border": of("vp", prompt_size=3),
    "vp patch": of("vp", kind="fixed_patch", prompt_size=5),
    "damvp": of("damvp", prompt_size=2, max_clusters=3, distance_threshold=1e-3),
    "damvp head-free": of("damvp", prompt_size=2, output="head_free", max_clusters=2),
    "autovp": of("autovp", img_scale=1.2),
    "autovp trained": of("autovp", img_scale=0.7, train_resize=True),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CONFIGS)
def test_forward_and_gradients_equal_the_literal_reference(name: str, kind: str) -> None:
    checks.equals_literal(kind, CONFIGS[name], "train", literal)


PACKS = {
    "vp border": [of("vp", m, prompt_size=2 + 3 * m) for m in range(3)],
    "vp random patch": [of("vp", m, kind="random_patch", prompt_size=9 - 3 * m) for m in range(3)],
    "damvp sizes and clusters": [
        of("damvp", m, prompt_size=1 + 2 * m, max_clusters=4 - m, distance_threshold=1e-3)
        for m in range(3)
    ],
    "damvp one without": [of("damvp", m, prompt_size=4 - m, max_clusters=1 + m) for m in range(3)],
    "autovp": [of("autovp", m, img_scale=0.4 + 0.5 * m) for m in range(3)],
    "autovp trained": [
        of("autovp", m, img_scale=0.4 + 0.5 * m, train_resize=True) for m in range(3)
    ],
}


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("kind", ["cls", "distilled"])
@pytest.mark.parametrize("name", PACKS)
def test_members_of_all_sizes_equal_their_solo_runs(name: str, kind: str, mode: str) -> None:
    checks.members_equal_solo(PACKS[name], kind, mode, samples=4)


@pytest.mark.parametrize("base", ["vp", "damvp", "autovp"])
def test_so_they_do_with_prompts_of_other_sizes_behind_them(base: str) -> None:
    sizes = {"vp": "vp__prompt_size", "damvp": "damvp__prompt_size", "autovp": "autovp__img_scale"}
    configs = [
        trial(
            [base, "tcpa"],
            seed=m,
            **{sizes[base]: 1 + m / 4 if base == "autovp" else 2 + 2 * m},
            tcpa__num_cls_prompts=2 + m,
            tcpa__num_image_prompts=5 - m,
        )
        for m in range(2)
    ]
    checks.members_equal_solo(configs, "cls", "train", samples=3)


def test_a_padded_cluster_is_never_the_nearest() -> None:
    """Members with one and with four clusters; images that lie at the origin of the features."""
    backbone = tiny_backbone()
    configs = PACKS["damvp sizes and clusters"]
    states = [checks.fitted(backbone, config) for config in configs]
    assert [len(s["damvp.prototypes"]) for s in states] == [4, 3, 2]
    pack = PackModel(backbone, configs, NUM_CLASSES, states)
    x = images(backbone, members=3, samples=6)
    seen = damvp.frozen_features(backbone, x.flatten(0, 1)).unflatten(0, (3, 6))
    run = Pass(step=training_step(configs, [0] * 3, [0] * 3), rows=None, backend=None)
    changed = pack.methods["damvp"].on_images(x, run) - x
    for m, state in enumerate(states):
        nearest = torch.cdist(seen[m], state["damvp.prototypes"]).argmin(-1)
        size = configs[m].method_settings["damvp"].prompt_size
        expected = state["damvp.top"][nearest]
        torch.testing.assert_close(changed[m][:, :, :size], expected)
