"""A pack of trials over one frozen backbone: its forward passes.

All members run through the frozen layers as one batch. What belongs to a member (prompts, keys,
head) is stacked along a leading axis and meets only its own samples, so a member's numbers do not
depend on its neighbours.
"""

# Axes: M members, B samples, S tokens, D width, F features, C classes.

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from tcpa_core.chain import (
    check_chain,
    method_class,
    overrides,
    pack_capacity,
    pack_key,
    task_class,
)
from tcpa_core.config import TrialConfig
from tcpa_core.errors import ConfigError
from tcpa_core.methods.base import BlockAttention, MemberState, Pass, Step
from tcpa_core.model.active_methods import ActiveMethods
from tcpa_core.model.attention import Backend
from tcpa_core.model.backbone import Backbone, TokenLayout
from tcpa_core.model.block_runs import check_images, run_blocks, with_weights
from tcpa_core.model.blocks import plain_block
from tcpa_core.model.map_head import MapHead
from tcpa_core.model.member_tensors import MemberTensors, init_member_state
from tcpa_core.model.noise import Noise


@dataclass(frozen=True, slots=True)
class ModelOutput:
    """Result of one forward pass."""

    logits: Tensor
    """(M, B, C); of maps (M, B, C, rows, columns), as the head makes them."""
    penalty: Tensor
    """(M,): extra loss of the methods, already weighted."""
    side_logits: Sequence[tuple[float, Tensor]]
    """Logits of further branches, each with its share of the classification loss; in training
    those of auxiliary heads, whose losses are added with that weight."""
    stats: dict[str, Tensor]
    """Detached measurements by full name, for example "tcpa.match_cls" (L, M)."""


@dataclass(frozen=True, slots=True)
class Inspection:
    """Everything a forward pass computes, for tests and figures."""

    tokens: Tensor
    """Tokens before the first block (M, B, S, D)."""
    blocks: list[Tensor]
    """Tokens after each block; the last one in full."""
    output: ModelOutput
    """With selections and masks in `stats`."""


@dataclass(frozen=True, slots=True)
class PackAttention:
    """What the self-attention of a pass in evaluation reads, for figures."""

    blocks: Sequence[BlockAttention]
    usage: Mapping[str, Tensor]
    """How often each prompt group was chosen: counts (M, L, G) by pool."""


class PackModel(nn.Module):
    """M trials over one backbone.

    Args:
        backbone: Frozen network; where it is, the trainable tensors go.
        configs: One per member, with equal `pack_key`.
        num_classes: Classes of the data set.
        states: Trainable tensors of each member; None draws them from the members' seeds.
        backend: How prompts are attended to; None: the fastest for the device and the shapes.

    Raises:
        ConfigError: The members cannot share a pack, or the methods cannot be chained or do not
            fit the backbone.
        CheckpointError: A state does not have the tensors its settings need.
    """

    def __init__(
        self,
        backbone: Backbone,
        configs: Sequence[TrialConfig],
        num_classes: int,
        states: Sequence[MemberState] | None = None,
        *,
        backend: Backend | None = None,
    ) -> None:
        super().__init__()
        _check_members(configs, backbone.layout)
        self.backbone = backbone
        self.configs = list(configs)
        self.num_classes = num_classes
        self.backend = backend
        chain = {name: method_class(name)(backbone, configs) for name in configs[0].methods}
        self.methods = nn.ModuleDict(chain)
        self._chain = list(chain.values())
        self._noise = Noise(backbone, configs)
        # Whoever owns prompts applies the changes that methods make to them, after its dropout.
        for method in self._chain:
            method.prompt_changers = [m for m in self._chain if overrides(m, "on_prompts")]
        if states is None:
            states = [init_member_state(backbone, config, num_classes) for config in configs]
        self.tensors = MemberTensors(backbone, configs, num_classes, states)
        task = task_class(configs[0])
        self.head = task.head(backbone.layout, configs, self.tensors.hand_to(self.methods))
        # Here and not in every step: a copy to the device would have it wait each time.
        smoothing = torch.tensor([[c.train.label_smoothing] for c in configs])
        other = smoothing / num_classes
        self.target_values = torch.stack([1 - smoothing + other, other]).to(backbone.device)
        """What an image's own class and every other one are as targets, (2, M, 1)."""

    @property
    def num_members(self) -> int:
        """M, the number of trials."""
        return len(self.configs)

    @property
    def first_block(self) -> int:
        """First block that depends on a trainable tensor, or the depth if the features do not.

        What enters it, or the features, can be cached. Of maps it is no block behind the first that
        is read.
        """
        depth = self.backbone.layout.depth
        first = min((m.first_block for m in self._chain if m.active), default=depth)
        return first if first == depth else min((first, *self._blocks_read))

    @property
    def _blocks_read(self) -> tuple[int, ...]:
        """Blocks whose tokens are read as maps; none where the backbone pools them."""
        return self.head.blocks if isinstance(self.head, MapHead) else ()

    @property
    def features_are_frozen(self) -> bool:
        """Whether features depend on no trainable tensor."""
        return self.first_block == self.backbone.layout.depth

    @property
    def frozen_shape(self) -> tuple[int, ...]:
        """What `forward_frozen` gives of one image: features (F,), maps (K, rows, columns, D), or
        tokens (S, D)."""
        layout, blocks = self.backbone.layout, self._blocks_read
        if not self.features_are_frozen:
            return layout.num_prefix + layout.num_image, layout.embed_dim
        return (len(blocks), *layout.grid, layout.embed_dim) if blocks else (layout.feature_dim,)

    def after_step(self) -> None:
        """Let the methods bring their tensors back into range after an optimiser step."""
        for method in self._chain:
            if method.active:
                method.after_step()

    def phase(self, step: Step) -> Hashable:
        """What of a step's number or epoch decides which operations it consists of."""
        return tuple(method.phase(step) for method in self._chain if method.active)

    def flops_per_image(self, m: int = 0) -> float:
        """Forward FLOPs of one image in evaluation (multiply-add = 2) of one member.

        Counts matrix products over all tokens of all blocks. Prompts' keys and values are
        constants in evaluation and not counted, nor is it subtracted that only the tokens that
        are read have to be computed in the last block, or none behind the last map that is read.
        """
        own = any(method.has_own_logits(self.configs[m]) for method in self._chain)
        head = 0.0 if own else 2.0 * self.backbone.layout.feature_dim * self.num_classes
        if isinstance(self.head, MapHead):
            head = self.head.flops(self.backbone.layout.grid, self.num_classes)
        extra = sum(method.extra_flops(m) for method in self._chain if method.active)
        return self.backbone.flops_per_image() + head + extra

    def forward(self, images: Tensor, step: Step) -> ModelOutput:
        """Classify images, or their pixels.

        Args:
            images: (M, B, 3, height, width), normalised; every member has its own B images. Where
                maps are read they may have any size in multiples of a patch.
            step: Position in training, or `Step.evaluation(M)`.

        Raises:
            ShapeError: The images have another number of members or another size.
        """
        active = self._begin(step)
        features, penalty = self._features(images, active)
        return self._output(features, penalty, active)

    def predict(self, images: Tensor, step: Step) -> Tensor:
        """Logits of a step of evaluation as in `ModelOutput`, without the methods' losses.

        Args:
            images: As `forward` takes them. Where they are one batch that is expanded for all
                members, their embedding is made once.
            step: Not of training.
        """
        if self._blocks_read and self.features_are_frozen and images.stride(0) == 0:
            images = images[:1]  # frozen maps of the same images are made once
        active = self._begin(step, logits_only=True)
        features, penalty = self._features(images, active)
        return self._output(features, penalty, active).logits

    def forward_features(self, images: Tensor, step: Step) -> tuple[Tensor, Tensor]:
        """Backbone features (M, B, F), or maps (M, B, K, rows, columns, D) of the K blocks that are
        read, and penalty (M,) of images (M, B, 3, height, width).

        Where `features_are_frozen`, one batch (1, B, ...) may stand for all members.
        """
        return self._features(images, self._begin(step))

    def forward_frozen(self, images: Tensor) -> Tensor:
        """The part of a pass that depends on no trainable tensor, for `forward_trained`.

        Args:
            images: (1, B, 3, height, width), for all members.

        Returns:
            Features (1, B, F) or maps (1, B, K, rows, columns, D), or the tokens (1, B, S, D) that
            enter `first_block`.
        """
        if self.features_are_frozen:
            return self.forward_features(images, Step.evaluation(1))[0]
        # No method changes images, tokens or blocks up to here, so no hook is asked.
        tokens = self.backbone.embed(images.flatten(0, 1))
        for block in self.backbone.blocks[: self.first_block]:
            tokens = plain_block(block, tokens[None])[0]
        return tokens[None]

    def forward_trained(self, inputs: Tensor, step: Step) -> ModelOutput:
        """Classify what `forward_frozen` returns, (M, B, ...).

        The penalty is 0: methods that leave the first blocks alone have none.
        """
        if self.features_are_frozen:
            if self._blocks_read:
                return self.classify(inputs, step)
            with torch.autocast(inputs.device.type, enabled=False):  # no backbone to save time in
                return self.classify(inputs, step)
        active = self._begin(step)
        first = self.first_block
        run = partial(run_blocks, self.backbone, inputs, active, first, first)
        features = with_weights(self.backbone, active.weights(), run)
        return self._output(features, features.new_zeros(self.num_members), active)

    def forward_blocks(self, images: Tensor, step: Step) -> Inspection:
        """Run a pass that computes and keeps everything."""
        active = self._begin(step, inspect=True)
        features, penalty = self._features(images, active)
        output = self._output(features, penalty, active)
        return Inspection(active.kept[0], active.kept[1:], output)

    def forward_attention(self, images: Tensor) -> PackAttention:
        """Run a pass in evaluation and ask the methods what each block's self-attention read.

        Args:
            images: (M, B, 3, height, width), as `forward` takes them.
        """
        active = self._begin(Step.evaluation(self.num_members), inspect=True)
        self._features(images, active)
        entering = list(zip(self.backbone.blocks, active.kept[:-1], strict=True))
        blocks = with_weights(self.backbone, active.weights(), lambda: active.attention(entering))
        return PackAttention(blocks, active.usage())

    def source_logits(self, images: Tensor, step: Step) -> Tensor:
        """Logits (M, B, S) of the backbone's own classifier on images (M, B, 3, height, width)."""
        active = self._begin(step)
        features, _ = self._features(images, active)
        return self.backbone.source_logits(active.on_features(features))

    def classify(self, features_MBF: Tensor, step: Step) -> ModelOutput:
        """Logits of backbone features, where `features_are_frozen`."""
        zero = features_MBF.new_zeros(self.num_members)
        return self._output(features_MBF, zero, self._begin(step))

    def _begin(
        self, step: Step, *, inspect: bool = False, logits_only: bool = False
    ) -> ActiveMethods:
        maps = self._blocks_read
        if logits_only and isinstance(self.head, MapHead):
            maps = self.head.scored_blocks
        run = Pass(
            step=step,
            rows=None if inspect or maps else self.backbone.rows_read,
            backend=self.backend,
            penalised=not logits_only,
            inspect=inspect,
            maps=maps,
        )
        return ActiveMethods(self._chain, run)

    def _features(self, images: Tensor, active: ActiveMethods) -> tuple[Tensor, Tensor]:
        """Features (M, B, F) and penalty (M,) of images."""
        check_images(
            images, self.num_members, self.features_are_frozen, self.backbone, bool(active.run.maps)
        )
        active.run.grid = self.backbone.grid_of(images)
        with self.backbone.sized_for(images):
            return with_weights(self.backbone, active.weights(), lambda: self._run(images, active))

    def _run(self, images: Tensor, active: ActiveMethods) -> tuple[Tensor, Tensor]:
        """`_features`, while the methods' weights stand in the place of the backbone's."""
        images = active.on_images(images)
        batch = images.shape[:2]
        # The noise covers the network alone; what methods draw is theirs.
        with self._noise.during(active.run.step):
            on_patches = active.changes("on_patches", batch)
            if images.stride(0) == 0 and on_patches is None and not active.run.step.training:
                # Members that see the same images share their embedding.
                tokens = self.backbone.embed(images[0]).expand(len(images), -1, -1, -1)
            else:
                tokens = self.backbone.embed(images.flatten(0, 1), on_patches).unflatten(0, batch)
            tokens = active.on_tokens(tokens)
            active.keep(tokens)
            features = run_blocks(self.backbone, tokens, active, 0, self.first_block)
        zero = torch.zeros(self.num_members, device=features.device, dtype=self.backbone.dtype)
        return features, active.penalty(zero)

    def _output(self, features: Tensor, penalty: Tensor, active: ActiveMethods) -> ModelOutput:
        if isinstance(self.head, MapHead):
            logits, auxiliary = self.head(features, active.run.maps, active.run.step)
            return ModelOutput(logits, penalty, auxiliary, active.run.stats)
        # Before the head: a side branch belongs to the pass through the network, and the order in
        # which the graph is built decides that in which gradients are added up.
        side = active.side_features()
        logits = self._classify(features, active)
        side_logits = [(share, self._classify(found, active)) for share, found in side]
        return ModelOutput(logits, penalty, side_logits, active.run.stats)

    def _classify(self, features: Tensor, active: ActiveMethods) -> Tensor:
        features = active.on_features(features)
        logits = active.on_logits(features, self.configs[0])
        return self.head(features) if logits is None else logits


def _check_members(configs: Sequence[TrialConfig], layout: TokenLayout) -> None:
    """Refuse members that cannot share a pack, and methods that the backbone cannot carry."""
    if not configs:
        raise ConfigError("a pack needs at least one member, got 0 settings.")
    first = pack_key(configs[0])
    for m, config in enumerate(configs):
        if pack_key(config) != first:
            raise ConfigError(
                f"member {m} cannot share a pack with member 0: {pack_key(config)} is not {first}; "
                "put trials with another pack_key into another pack."
            )
    capacity = pack_capacity(configs[0])
    if capacity is not None and len(configs) > capacity:
        raise ConfigError(
            f"methods {list(configs[0].methods)} train the backbone's weights: a pack holds "
            f"{capacity} member, got {len(configs)}."
        )
    for config in configs:
        check_chain(config, layout)
