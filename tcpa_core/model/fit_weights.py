"""A weights file against the model it is put into: names, shapes, positions, classifier.

Weights are read strictly: a file that does not cover the model, or covers another one, is an error.
"""

import math

import torch
from timm.layers import resample_abs_pos_embed
from timm.models.deit import VisionTransformerDistilled
from torch import Tensor

from tcpa_core.errors import WeightsError
from tcpa_core.model.backbone import AS_TRAINED, Classifier
from tcpa_core.model.layouts import JAX, JAX_TOWERS
from tcpa_core.model.read_tensors import State, some
from tcpa_core.model.timm_names import ViT, is_clip
from tcpa_core.model.weights_file import WeightsFile
from tcpa_core.model.which_model import model_of_file

HEADS = ("head", "head_dist")
"""Names of classifiers; the second is a distilled model's."""


def fit_weights(file: WeightsFile, vit: ViT, name: str) -> str:
    """Put a file's weights into a model that may still be on the meta device.

    Args:
        file: Tensors by timm's names.
        vit: Gets the tensors, except those of classifiers.
        name: Of the model, for messages.

    Returns:
        How the file's position embeddings were resampled.

    Raises:
        WeightsError: A tensor is missing, not known, or of another shape.
    """
    # The classifier is no part of the network, but must fit it: one of another width shows that the
    # file belongs to another model.
    state = {k: v for k, v in file.state.items() if k.split(".")[0] not in HEADS}
    wanted = vit.state_dict()
    missing, foreign = wanted.keys() - state.keys(), state.keys() - wanted.keys()
    if missing or foreign:
        spare = "" if missing else "; what its features do not depend on can be left out of it"
        raise WeightsError(
            f"backbone.weights: {file.path.name} does not fit {name!r}: {len(missing)} tensors "
            f"missing ({some(missing)}), {len(foreign)} not known ({some(foreign)}); "
            f"{_model_of(file, name)}{spare}."
        )
    positions = AS_TRAINED
    if "pos_embed" in state:
        state["pos_embed"], positions = _fit_positions(state["pos_embed"], vit, file)
    shapes = {key: tuple(value.shape) for key, value in wanted.items()}
    shapes |= _head_shapes(file.state, vit.embed_dim)
    for key, needed in shapes.items():
        shape = tuple((state[key] if key in state else file.state[key]).shape)
        if shape != needed:
            is_grid = key == "pos_embed" and vit.embed_dim in shape
            raise WeightsError(
                f"backbone.weights: {file.path.name} does not fit {name!r}: {key} has shape "
                f"{shape}, the model needs {needed}; "
                f"{_positions_needed(vit) if is_grid else _model_of(file, name)}."
            )
    # Assigned, not copied: the model's own tensors may be on the meta device. In float32, whatever
    # the file's format, so that half-precision files train like others.
    vit.load_state_dict({key: value.float() for key, value in state.items()}, assign=True)
    _fill_buffers(vit)
    return positions


def _fill_buffers(vit: ViT) -> None:
    """Make what no file holds because it follows from the settings: rotary frequencies, EVA's
    biases of keys."""
    for module in vit.modules():
        left = {k: v for k, v in module.named_buffers(recurse=False) if v.is_meta}
        for key, buffer in left.items():
            setattr(module, key, torch.empty_like(buffer, device="cpu"))
        if left:
            module.init_non_persistent_buffers()


def _head_shapes(state: State, width: int) -> dict[str, tuple[int, ...]]:
    """Shapes that the heads of a file must have to read features of that width."""
    shapes: dict[str, tuple[int, ...]] = {}
    for head in HEADS:
        if f"{head}.weight" in state:
            classes = len(torch.atleast_1d(state[f"{head}.weight"]))
            shapes[f"{head}.weight"] = (classes, width)
            if f"{head}.bias" in state:
                shapes[f"{head}.bias"] = (classes,)
    return shapes


def _fit_positions(pos: Tensor, vit: ViT, file: WeightsFile) -> tuple[Tensor, str]:
    """Position embeddings for the model's grid, where theirs is another square one."""
    num_prefix = 0 if vit.no_embed_class else vit.num_prefix_tokens
    _, length, width = vit.pos_embed.shape
    num_image = pos.shape[1] - num_prefix if pos.ndim == 3 else 0
    side = math.isqrt(max(num_image, 0))
    if pos.shape[-1] != width or num_image in (0, length - num_prefix) or side**2 != num_image:
        return pos, AS_TRAINED  # fits as it is, or is refused by its shape
    grid = tuple(vit.patch_embed.grid_size)
    # As timm does for each kind of file, so that a model gives timm's features at any image size.
    is_jax = file.layout in (JAX, JAX_TOWERS)
    resized = resample_abs_pos_embed(
        pos,
        new_size=list(grid),
        old_size=[side, side],
        num_prefix_tokens=num_prefix,
        interpolation="bilinear" if is_jax else "bicubic",
        antialias=not is_jax,
    )
    return resized, resampled((side, side), grid)


def _model_of(file: WeightsFile, name: str) -> str:
    return model_of_file(file.state, name, file.layout.act)


def _positions_needed(vit: ViT) -> str:
    """What to do with positions that are none of a square grid behind the model's own tokens."""
    rows, columns = vit.patch_embed.grid_size
    num_prefix = 0 if vit.no_embed_class else vit.num_prefix_tokens
    return (
        f"those are {num_prefix} before a grid of {rows} x {columns} in one row, and other square "
        "grids are resampled; choose a model with the file's tokens before its grid, or save "
        "positions of a grid that is not square resampled to a square one"
    )


def classifier_of_file(file: WeightsFile, vit: ViT, name: str) -> Classifier:
    """The classifier that a file holds, in float32; () where it holds none.

    A projection (CLIP) is not a classifier, nor is a layer behind another hidden layer, which reads
    no features.
    """
    heads = HEADS if isinstance(vit, VisionTransformerDistilled) else HEADS[:1]
    names = [(f"{head}.weight", f"{head}.bias") for head in heads]
    state = file.state
    if file.has_hidden_layer or not all(w in state and b in state for w, b in names):
        return ()
    pairs = [(state[w].float(), state[b].float()) for w, b in names]
    # CLIP's projection has no bias; programs that convert it to timm's names write zeros.
    is_converted = is_clip(name) and not any(bias.any() for _, bias in pairs)
    return () if file.layout.has_projection or is_converted else pairs


def resampled(before: tuple[int, ...], after: tuple[int, ...]) -> str:
    """How position embeddings of one grid (rows, columns) were brought to another."""
    if before == after:
        return AS_TRAINED
    return f"resampled from {before[0]} x {before[1]} to {after[0]} x {after[1]}"
