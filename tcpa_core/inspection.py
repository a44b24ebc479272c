"""What a trained trial attends to: maps, prompt usage, kept mass and rank, as plain numbers.

The numbers behind the figures of the TCPA and CVPT papers. They need the network, so they are taken
here; reports draw them and see no tensor. Attention is spelled out from what each method says of
its blocks (`Method.attention`): the fast paths of training never have it as a matrix.
"""

# Axes: N images, B samples of a batch, H heads, S tokens in the sequence, R image tokens, P prompts
# beside it, U = S + P columns, L blocks, G groups of a pool, E head width.

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tcpa_core.chain import method_class, overrides
from tcpa_core.data.base import Progress
from tcpa_core.errors import ConfigError
from tcpa_core.methods.base import BlockAttention, Method, Step
from tcpa_core.model.backbone import TokenLayout
from tcpa_core.model.single_model import SingleModel
from tcpa_core.record.regions import IGNORED
from tcpa_core.training.masked_source import MaskedSource
from tcpa_core.training.trained import load_trained
from tcpa_core.training.trial_data import load_trial_data

BATCH = 16
"""Images that are looked at together; ranks are the mean over the first such batch."""
MAPS = 4
"""Images whose maps are kept."""
TOKENS = 8
"""Of each image of a segmentation, at most, whose features are kept."""

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
        # Prompts in the sequence have attention of their own, which is not shown.
        real = (~self.is_prompt_U[:length]).nonzero().flatten()
        return real[:num_prefix], real[num_prefix:]


def inspect_trial(
    path: Path | str,
    *,
    images: int = 200,
    device: str = "cpu",
    cache_dir: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Array]:
    """Load a trained trial and look at images drawn from its val split (never at test).

    The draw is the same for all trials on the same data.

    Args:
        path: A best.safetensors of a study's checkpoints folder, or the last.safetensors of a trial
            that has not ended.
        images: How many images, at least 1; all of them where there are fewer.
        device: A torch device.
        cache_dir: Where decoded images are kept; None: the user's cache folder.
        progress: Called with (stage, done, total) as images are decoded and looked at.

    Returns:
        See `inspect_model`, and "images" (MAPS, height, width, 3): those of the maps, in [0, 1].

    Raises:
        ConfigError: One of the methods cannot say what its attention is.
        CheckpointError, DataError, WeightsError: State, data or weights are missing or damaged.
    """
    model = load_trained(path, device=device)
    check_methods(model)
    data = load_trial_data(
        model.config,
        model.pack.backbone,
        device=device,
        cache_dir=cache_dir,
        progress=progress,
    )
    count = min(images, len(data.val))
    # data sets may be listed class by class
    drawn = torch.randperm(len(data.val), generator=torch.Generator().manual_seed(0))
    places = drawn[:count].to(device)
    pixels = data.val.batch(places)
    source = data.val
    labels = source.masks(places) if isinstance(source, MaskedSource) else source.labels[places]
    found = inspect_model(model, pixels, labels, progress)
    mean, std = model.pack.backbone.norm_stats(model.config.data.norm_stats)
    shown = pixels[:MAPS].cpu().permute(0, 2, 3, 1) * torch.tensor(std) + torch.tensor(mean)
    return {"images": shown.clamp(0, 1).numpy(), **found}


def check_methods(model: SingleModel) -> None:
    """Refuse methods that cannot say what the attention of their blocks is.

    Raises:
        ConfigError: See above.
    """
    for name in model.config.methods:
        reason = method_class(name).hides_attention(model.config)
        if reason:
            raise ConfigError(
                f"methods: attention figures cannot show {name!r}, which {reason}; choose another "
                "trial."
            )
    methods = [method for method in model.pack.methods.values() if isinstance(method, Method)]
    tellers = [m.name() for m in methods if m.active and overrides(m, "attention")]
    if len(tellers) > 1:
        raise ConfigError(
            f"methods: attention figures cannot show {tellers[0]!r} beside {tellers[1]!r}, as both "
            "say what a block's attention reads; choose another trial."
        )


@torch.no_grad()
def inspect_model(
    model: SingleModel, images: Tensor, labels: Tensor, progress: Progress | None = None
) -> dict[str, Array]:
    """Look at a model in evaluation.

    Args:
        images: Normalised (N, 3, height, width).
        labels: (N,); of a segmentation masks (N, height, width), 255 where there is no class.
        progress: Called with ("look at images", done, N).

    Returns:
        cls_maps, image_maps (L, MAPS, rows, columns): attention of the CLS token, and of the image
        tokens on average, to each image token; mean over heads.
        num_prompts (L,): prompts of each block, those included that only a cross attention reads.
        prompt_share_cls, prompt_share_image (L,): share of the softmax that prompts take, hidden
        ones included. Prompts that only a cross attention reads take none.
        kept_cls, kept_image (L,): share that the mask leaves, rho; 1 without a mask.
        rank (L,): effective rank of the heads' maps over image tokens, 1 to R.
        usage_POOL (L, G), where tokens choose among prompt groups: share of the choices that fell
        on each group of a pool, "cls", "image", or "shared" in place of both.
        features (N, F) and labels (N,): what the head reads of the backbone. Of a segmentation
        those of some tokens of each image, and the class that most of their pixels have.
        What belongs to the CLS token is absent where the backbone has none.
    """
    layout = model.pack.backbone.layout
    means: dict[str, Array] = {}
    counts: dict[str, Array] = {}
    first: dict[str, Array] = {}
    features, classes = [], []
    generator = torch.Generator().manual_seed(0)
    for start in range(0, len(images), BATCH):
        if progress:
            progress("look at images", start, len(images))
        batch = images[start : start + BATCH].to(model.pack.backbone.dtype)
        seen = model.pack.forward_attention(batch[None])
        blocks = [_attention(told) for told in seen.blocks]
        # A pass of its own: what training computes, to the bit, where the first one computes all
        # tokens.
        read = model.pack.forward_features(batch[None], Step.evaluation(1))[0][0]
        labelled = read, labels[start : start + BATCH]
        if read.ndim > 2:
            labelled = _drawn_tokens(*labelled, generator)
        features.append(labelled[0])
        classes.append(labelled[1])
        for name, values in _shares(blocks, layout).items():
            means[name] = means.get(name, 0.0) + values * (len(batch) / len(images))
        for pool, chosen in seen.usage.items():
            name = f"usage_{pool}"
            counts[name] = counts.get(name, 0) + chosen[0].cpu().numpy()
        if start == 0:
            # Maps are for looking at, and ranks take a decomposition per head: the first batch is
            # enough.
            first = {**_maps(blocks, layout), "rank": _ranks(blocks, layout)}
            prompts = [
                int(one.is_prompt_U.sum()) + told.num_prompts_apart
                for one, told in zip(blocks, seen.blocks, strict=True)
            ]
    return {
        **first,
        **means,
        **{name: count / count.sum(axis=1, keepdims=True) for name, count in counts.items()},
        "num_prompts": np.array(prompts),
        "features": torch.cat(features).float().cpu().numpy(),
        "labels": torch.cat(classes).cpu().numpy(),
    }


def _drawn_tokens(
    maps_BKHWD: Tensor, masks: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Features (T, K * D) of up to TOKENS tokens of each sample that have a class, and that class
    (T,): the one that most of their pixels have."""
    tokens = maps_BKHWD.permute(0, 2, 3, 1, 4).flatten(3).flatten(1, 2)
    rows, columns = maps_BKHWD.shape[2:4]
    pixels = masks.unflatten(2, (columns, -1)).unflatten(1, (rows, -1)).transpose(2, 3)
    classes = pixels.flatten(3).mode(-1).values.flatten(1)
    features, labels = [], []
    for of_sample, found in zip(tokens, classes, strict=True):
        order = torch.randperm(len(found), generator=generator).to(found.device)
        drawn = order[found[order] != IGNORED][:TOKENS]
        features.append(of_sample[drawn])
        labels.append(found[drawn])
    return torch.cat(features), torch.cat(labels)


def _attention(told: BlockAttention) -> _Attention:
    """Spell a block's attention out, for the samples of the one member."""
    keys_BHUE, length = told.k_NHSE, told.k_NHSE.shape[-2]
    if told.prompts is not None:
        beside = told.prompts.k_MBHPE[0].expand(len(keys_BHUE), -1, -1, -1)
        keys_BHUE = torch.cat([keys_BHUE, beside], dim=-2)
    samples, columns = len(keys_BHUE), keys_BHUE.shape[-2]
    used = torch.ones(samples, length, columns, dtype=torch.bool, device=keys_BHUE.device)
    scores = (told.q_NHSE @ keys_BHUE.mT) * told.q_NHSE.shape[-1] ** -0.5
    if told.visibility is not None:
        used[..., length:] = told.visibility.used_MBRP[0]
        if told.visibility.mode == "pre":
            scores = scores.masked_fill(~used[:, None], float("-inf"))
    is_prompt = torch.arange(columns, device=keys_BHUE.device) >= length
    if told.inserted is not None:
        is_prompt[told.inserted] = True
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
    # There is no decomposition in half precision.
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
