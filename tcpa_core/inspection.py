"""What a trained trial attends to: maps, prompt usage, kept mass and rank, as plain numbers.

The numbers behind the figures of the TCPA and CVPT papers. They need the network, so they are taken
here; `reports` draws them and sees no tensor. Attention is worked out anew from the
tokens that entered each block: the fast paths of training never have it as a matrix.
"""

# Axes: N images, B samples of a batch, H heads, S tokens in the sequence, R image tokens, P prompts
# beside it, U = S + P columns, L blocks, G groups of a pool, T tokens of a role, K chosen groups,
# D width, E head width.

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timm.models.vision_transformer import Block
from torch import Tensor

from tcpa_core.errors import ConfigError
from tcpa_core.methods.base import Method, Pass, Step
from tcpa_core.model.attention import PromptKeys
from tcpa_core.model.backbone import TokenLayout
from tcpa_core.model.blocks import keys_values, queries
from tcpa_core.model.single_model import SingleModel
from tcpa_core.training.pack import load_trial_data
from tcpa_core.training.run_trial import load_trained

KNOWN = (
    "adapter", "adaptformer", "autovp", "cvpt", "damvp", "linear", "lion", "mlp", "sidetune",
    "tcpa", "vfpt", "vp", "vpt",
)  # fmt: skip
"""Methods under which self-attention is that of the frozen block over tokens and prompts."""
BATCH = 16
"""Images that are looked at together; ranks are the mean over the first such batch."""
MAPS = 4
"""Images whose maps are kept."""

Array = np.ndarray[Any, Any]


@dataclass(slots=True)
class _Attention:
    """Self-attention of one block over one batch."""

    weights_BHSU: Tensor
    """Softmax over the sequence's S tokens, then the P prompts beside it."""
    used_BSU: Tensor
    """False where a mask hides a column."""
    is_prompt_U: Tensor

    def rows(self, num_prefix: int) -> tuple[Tensor, Tensor]:
        """Places of the prefix tokens and of the image tokens in the sequence."""
        length = self.weights_BHSU.shape[-2]
        real = (~self.is_prompt_U[:length]).nonzero().flatten()
        return real[:num_prefix], real[num_prefix:]


def inspect_trial(
    path: Path | str, *, images: int = 200, device: str = "cpu", cache_dir: Path | None = None
) -> dict[str, Array]:
    """Load a trained trial and look at images drawn from its val split (never at test).

    The draw is the same for all trials on the same data.

    Args:
        path: A best.safetensors of a study's checkpoints folder.
        images: How many images, at least 1; all of them where there are fewer.
        device: A torch device.
        cache_dir: Where decoded images are kept; None: the user's cache folder.

    Returns:
        See `inspect_model`, and "images" (MAPS, height, width, 3): those of the maps, in [0, 1].

    Raises:
        ConfigError: The attention of one of the methods cannot be told.
        CheckpointError, DataError, WeightsError: State, data or weights are missing or damaged.
    """
    model = load_trained(path, device=device)
    check_methods(model)
    data = load_trial_data(model.config, model.pack.backbone, device=device, cache_dir=cache_dir)
    count = min(images, len(data.val))
    # data sets may be listed class by class
    drawn = torch.randperm(len(data.val), generator=torch.Generator().manual_seed(0))
    places = drawn[:count].to(device)
    pixels = data.val.batch(places)
    found = inspect_model(model, pixels, data.val.labels[places])
    mean, std = model.pack.backbone.norm_stats(model.config.data.norm_stats)
    shown = pixels[:MAPS].cpu().permute(0, 2, 3, 1) * torch.tensor(std) + torch.tensor(mean)
    return {"images": shown.clamp(0, 1).numpy(), **found}


def check_methods(model: SingleModel) -> None:
    """Refuse methods that change a block's attention in a way this module does not know.

    Raises:
        ConfigError: See above.
    """
    config = model.config
    settings = config.method_settings
    unknown = [name for name in config.methods if name not in KNOWN]
    if unknown:
        raise ConfigError(
            f"methods: attention figures know {', '.join(KNOWN)}, got {unknown[0]!r}, which "
            "changes the attention itself; choose another trial."
        )
    if "cvpt" in config.methods and settings["cvpt"].position == 1:
        raise ConfigError(
            "cvpt.position: attention figures know the positions 2 to 5, got 1, which changes what "
            "self-attention reads; choose another trial."
        )
    for name in ("vpt", "vfpt"):
        if name in config.methods and settings[name].pool_prompts:
            raise ConfigError(
                f"{name}.pool_prompts: attention figures know false, got true; choose another "
                "trial."
            )


@torch.no_grad()
def inspect_model(model: SingleModel, images: Tensor, labels: Tensor) -> dict[str, Array]:
    """Look at a model in evaluation.

    Args:
        images: Normalised (N, 3, height, width).
        labels: (N,).

    Returns:
        cls_maps, image_maps (L, MAPS, rows, columns): attention of the CLS token, and of the image
        tokens on average, to each image token; mean over heads.
        num_prompts (L,): prompts of each block, those of CVPT included.
        prompt_share_cls, prompt_share_image (L,): share of the softmax that prompts take, hidden
        ones included. CVPT's prompts take none of self-attention.
        kept_cls, kept_image (L,): share that the mask leaves, rho; 1 without a mask.
        rank (L,): effective rank of the heads' maps over image tokens, 1 to R.
        usage_cls, usage_image (L, G), where TCPA matches: share of the role's choices that fell on
        each group of its pool; usage_shared in place of both without split roles.
        features (N, F) and labels (N,): what the head reads of the backbone.
        What belongs to the CLS token is absent where the backbone has none.
    """
    layout = model.pack.backbone.layout
    means: dict[str, Array] = {}
    counts: dict[str, Array] = {}
    first: dict[str, Array] = {}
    features = []
    for start in range(0, len(images), BATCH):
        batch = images[start : start + BATCH].to(model.pack.backbone.dtype)
        blocks, stats = _blocks(model, batch)
        features.append(model.pack.forward_features(batch[None], Step.evaluation(1))[0][0])
        for name, values in _shares(blocks, layout).items():
            means[name] = means.get(name, 0.0) + values * (len(batch) / len(images))
        for name, chosen in _choices(model, stats).items():
            counts[name] = counts.get(name, 0) + chosen
        if start == 0:
            first = {**_maps(blocks, layout), "rank": _ranks(blocks, layout)}
    return {
        **first,
        **means,
        **{name: count / count.sum(axis=1, keepdims=True) for name, count in counts.items()},
        "num_prompts": _num_prompts(model, blocks),
        "features": torch.cat(features).float().cpu().numpy(),
        "labels": labels.cpu().numpy(),
    }


def _blocks(model: SingleModel, batch: Tensor) -> tuple[list[_Attention], dict[str, Tensor]]:
    """Attention of every block, and what the pass itself recorded."""
    pack = model.pack
    seen = pack.forward_blocks(batch[None], Step.evaluation(1))
    visible = seen.output.stats.get("tcpa.visible")
    hide_before = visible is not None and model.config.method_settings["tcpa"].mask_mode == "pre"
    run = Pass(step=Step.evaluation(1), rows=None, backend=pack.backend)
    methods = [m for m in pack.methods.values() if isinstance(m, Method) and m.active]
    states = [method.begin(run) for method in methods]
    prompts = next((s.projected for s in states if getattr(s, "projected", None)), None)
    found = [
        _attention(
            block,
            tokens[0],
            prompts[index] if prompts else None,
            None if visible is None else visible[index, 0],
            hide_before,
            _inserted(model, tokens.shape[2]),
        )
        for index, (block, tokens) in enumerate(
            zip(pack.backbone.blocks, [seen.tokens, *seen.blocks[:-1]], strict=True)
        )
    ]
    return found, seen.output.stats


def _inserted(model: SingleModel, length: int) -> slice:
    """Where prompts stand in a sequence of that length; deep prompts stand beside it."""
    layout, settings = model.pack.backbone.layout, model.config.method_settings
    extra = length - layout.num_prefix - layout.num_image
    at_end = any(name in settings and settings[name].at_end for name in ("vpt", "vfpt"))
    start = length - extra if at_end else layout.num_prefix
    return slice(start, start + extra)


def _attention(
    block: Block,
    tokens_BSD: Tensor,
    prompts: PromptKeys | None,
    visible_BSP: Tensor | None,
    hide_before: bool,
    inserted: slice,
) -> _Attention:
    """Spell a block's attention out."""
    h_BSD = block.norm1(tokens_BSD)
    q_BHSE = queries(block, h_BSD)
    keys, _ = keys_values(block, h_BSD)
    length = keys.shape[-2]
    keys_BHUE = keys
    if prompts is not None:
        beside = prompts.k_MBHPE[0].expand(len(keys), -1, -1, -1)
        keys_BHUE = torch.cat([keys, beside], dim=-2)
    columns = keys_BHUE.shape[-2]
    used = torch.ones(*tokens_BSD.shape[:2], columns, dtype=torch.bool, device=keys.device)
    if visible_BSP is not None:
        used[..., length:] = visible_BSP
    scores = (q_BHSE @ keys_BHUE.mT) * q_BHSE.shape[-1] ** -0.5
    if hide_before:
        scores = scores.masked_fill(~used[:, None], float("-inf"))
    is_prompt = torch.arange(columns, device=keys.device) >= length
    is_prompt[inserted] = True
    return _Attention(scores.softmax(-1), used, is_prompt)


def _shares(blocks: Sequence[_Attention], layout: TokenLayout) -> dict[str, Array]:
    """What prompts take and what masks leave, means over samples, heads and tokens, (L,) each."""
    found: dict[str, list[float]] = {}
    for one in blocks:
        kept_BHS = (one.weights_BHSU * one.used_BSU[:, None]).sum(-1)
        share_BHS = one.weights_BHSU[..., one.is_prompt_U].sum(-1)
        for role, rows in _roles(one, layout).items():
            found.setdefault(f"prompt_share_{role}", []).append(float(share_BHS[..., rows].mean()))
            found.setdefault(f"kept_{role}", []).append(float(kept_BHS[..., rows].mean()))
    return {name: np.array(values) for name, values in found.items()}


def _roles(one: _Attention, layout: TokenLayout) -> dict[str, Tensor]:
    """Rows of the CLS token, where there is one, and of the image tokens."""
    prefix, image = one.rows(layout.num_prefix)
    return {"cls": prefix[:1], "image": image} if layout.has_cls else {"image": image}


def _ranks(blocks: Sequence[_Attention], layout: TokenLayout) -> Array:
    found = []
    for one in blocks:
        _, image = one.rows(layout.num_prefix)
        found.append(float(effective_rank(one.weights_BHSU[:, :, image][..., image]).mean()))
    return np.array(found)


def effective_rank(maps: Tensor) -> Tensor:
    """Exponential of the entropy of the singular values' shares; (..., R, R) to (...).

    Source:
        O. Roy, M. Vetterli: "The effective rank: a measure of effective dimensionality", EUSIPCO
        2007, Definition 1.
    """
    values = torch.linalg.svdvals(maps.float())
    share = values / values.sum(-1, keepdim=True)
    return torch.special.entr(share).sum(-1).exp()


def _maps(blocks: Sequence[_Attention], layout: TokenLayout) -> dict[str, Array]:
    """Attention to image tokens (L, MAPS, rows, columns), of the CLS token and of image tokens."""
    found: dict[str, list[Tensor]] = {}
    for one in blocks:
        _, image = one.rows(layout.num_prefix)
        mean_BSR = one.weights_BHSU[:MAPS].mean(1)[..., image]
        for role, rows in _roles(one, layout).items():
            flat = mean_BSR[:, rows].mean(1)
            found.setdefault(f"{role}_maps", []).append(flat.unflatten(-1, layout.grid))
    return {name: torch.stack(maps).float().cpu().numpy() for name, maps in found.items()}


def _choices(model: SingleModel, stats: dict[str, Tensor]) -> dict[str, Array]:
    """How often each group was chosen, (L, G) by pool."""
    found: dict[str, Array] = {}
    for role in ("cls", "image", "none"):
        chosen = stats.get(f"tcpa.groups_{role}")  # (L, 1, B, T, K), -1 where fewer were taken
        if chosen is None:
            continue
        settings = model.config.method_settings["tcpa"]
        sizes = {"cls": settings.num_cls_prompts, "image": settings.num_image_prompts}
        groups = sizes[role] if settings.split_roles else sum(sizes.values())
        rows = [torch.bincount(c[c >= 0].flatten(), minlength=groups) for c in chosen]
        name = f"usage_{role if settings.split_roles else 'shared'}"
        found[name] = found.get(name, 0) + torch.stack(rows).cpu().numpy()
    return found


def _num_prompts(model: SingleModel, blocks: Sequence[_Attention]) -> Array:
    if "cvpt" in model.config.methods:
        return np.full(len(blocks), model.config.method_settings["cvpt"].num_prompts)
    return np.array([int(one.is_prompt_U.sum()) for one in blocks])
