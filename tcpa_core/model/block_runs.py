"""The blocks of a frozen network in one pass of a pack, and what is read of them."""

# Axes: M members, B samples, S tokens, F features, K blocks that are read as maps, D width.

from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.func import functional_call

from tcpa_core.errors import ShapeError
from tcpa_core.model.active_methods import ActiveMethods
from tcpa_core.model.backbone import Backbone
from tcpa_core.model.blocks import plain_block

T = TypeVar("T")


def run_blocks(
    backbone: Backbone,
    tokens: Tensor,
    active: ActiveMethods,
    first: int,
    first_changed: int,
) -> Tensor:
    """Run the blocks from `first` on and read features (M, B, F), or the pass's maps
    (M, B, K, rows, columns, D), behind which no block is run that nothing needs.

    Args:
        backbone: The frozen network.
        tokens: What enters the first of these blocks (M, B, S, D).
        active: Methods of the pass; none of its maps is in front of `first`.
        first: Index of the first block to run.
        first_changed: Index of the first block that a method changes, or the depth.
    """
    batch = tokens.shape[:2]
    run_block = active.block_runner()
    depth = backbone.layout.depth
    # Methods that may start as the plain backbone must match timm bit for bit, so they compute all
    # tokens in the last block.
    may_skip_unread = active.defines("on_images") or 0 < first_changed < depth
    read = active.run.rows if may_skip_unread else None
    maps = active.run.maps
    last = max(maps) if maps and not active.needs_all_blocks else depth - 1
    found = []
    for index, block in list(enumerate(backbone.blocks))[first : last + 1]:
        if run_block is not None:
            tokens = run_block(index, block, tokens)
        else:
            tokens = plain_block(block, tokens, rows=read if index == depth - 1 else None)
        active.keep(tokens)
        if index in maps:
            found.append(_as_map(backbone, tokens, active))
    if found:  # one map is not copied
        return torch.stack(found, dim=2) if len(found) > 1 else found[0].unsqueeze(2)
    tokens = active.on_output(tokens)
    on_norm = active.changes("on_norm", batch)
    return backbone.read(tokens.flatten(0, 1), on_norm).unflatten(0, batch)


def _as_map(backbone: Backbone, tokens_MBSD: Tensor, active: ActiveMethods) -> Tensor:
    """Image tokens at their places (M, B, rows, columns, D): neither prefix nor prompts."""
    image = active.on_output(tokens_MBSD)[:, :, backbone.layout.num_prefix :]
    return image.unflatten(2, active.run.grid or backbone.layout.grid)


def check_images(
    images: Tensor,
    members: int,
    features_are_frozen: bool,
    backbone: Backbone,
    has_maps: bool,
) -> None:
    """Refuse images that a pack cannot see.

    Args:
        images: Normalised.
        members: M.
        features_are_frozen: Whether one batch may stand for all members.
        backbone: The frozen network.
        has_maps: Whether maps are read, which may have any size.

    Raises:
        ShapeError: They have another number of members or another size.
    """
    # One batch may stand for all members where these change nothing before the head.
    batches = (members, 1) if features_are_frozen else (members,)
    side, patch = backbone.img_size, backbone.layout.patch_size
    size = tuple(images.shape[-2:])
    fits = backbone.vit.dynamic_img_size or size == (side, side)
    wanted, rule = f"({members}, B, 3, {side}, {side})", "at the backbone's image size"
    if has_maps:
        fits = min(size) > 0 and size[0] % patch[0] == size[1] % patch[1] == 0
        wanted, rule = f"({members}, B, 3, height, width)", f"in multiples of {patch[0]} pixels"
    if images.ndim != 5 or images.shape[0] not in batches or not fits:
        raise ShapeError(
            f"images must have shape {wanted}, got {tuple(images.shape)}; one batch per member, "
            f"{rule}."
        )


def with_weights(backbone: Backbone, replaced: Mapping[str, Tensor], compute: Callable[[], T]) -> T:
    """Compute while other weights stand in the place of the backbone's."""
    if not replaced:
        return compute()
    weights = {f"backbone.{name}": weight for name, weight in replaced.items()}
    found: T = functional_call(_Body(backbone, compute), weights, ())
    return found


class _Body(nn.Module, Generic[T]):
    """A computation with the backbone as a module, whose weights can be replaced for one call."""

    def __init__(self, backbone: Backbone, compute: Callable[[], T]) -> None:
        super().__init__()
        self.backbone = backbone
        self._compute = compute

    def forward(self) -> T:
        return self._compute()
