"""A pack of trials over one frozen backbone, and the plain module that a user holds.

All members run through the frozen layers as one batch. What belongs to a member (prompts, keys,
head) is stacked along a leading axis and meets only its own samples, so a member's numbers do not
depend on its neighbours.
"""

# Axes: M members, B samples, S tokens, D width, F features, C classes.

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn
from torch.func import functional_call

from tcpa_core.chain import check_chain, method_class, overrides, pack_capacity, pack_key
from tcpa_core.config import TrialConfig
from tcpa_core.errors import CheckpointError, ConfigError, ShapeError
from tcpa_core.methods.base import (
    AnyMethod,
    FitData,
    MemberState,
    Method,
    ParamSpec,
    Pass,
    Setup,
    Step,
    uniform,
)
from tcpa_core.model.attention import Backend
from tcpa_core.model.backbone import Backbone, Change
from tcpa_core.model.blocks import plain_block
from tcpa_core.model.load_backbone import load_backbone
from tcpa_core.model.noise import noisy
from tcpa_core.streams import Stream

Active = list[tuple[AnyMethod, Any]]
"""Methods that add something, each with what its `begin` returned for this pass."""


@dataclass(frozen=True, slots=True)
class ModelOutput:
    """Result of one forward pass."""

    logits: Tensor
    """(M, B, C)."""
    penalty: Tensor
    """(M,): extra loss of the methods, already weighted."""
    side_logits: Sequence[tuple[float, Tensor]]
    """Logits of further branches, each with its share of the classification loss."""
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


def head_specs(backbone: Backbone, config: TrialConfig, num_classes: int) -> dict[str, ParamSpec]:
    """Trainable tensors of the head; distilled models have one head per token that is read."""
    width = backbone.layout.embed_dim
    weight, bias = _head_init(config.train.head_init, width, num_classes)
    specs = {}
    for head in ("head", "head_dist")[: backbone.layout.num_readouts]:
        specs[f"{head}.weight"] = ParamSpec((num_classes, width), weight)
        specs[f"{head}.bias"] = ParamSpec((num_classes,), bias)
    return specs


def member_specs(
    backbone: Backbone, config: TrialConfig, num_classes: int, fitted: MemberState | None = None
) -> dict[str, ParamSpec]:
    """All tensors of one trial by full name.

    Args:
        fitted: What the methods' `fit` found, by full name; a whole member state will do.
    """
    specs: dict[str, ParamSpec] = {}
    has_head = True
    for name in config.methods:
        method = method_class(name)
        setup = _setup(backbone, config, num_classes, name, fitted or {})
        specs |= {f"{name}.{key}": spec for key, spec in method.params(setup).items()}
        has_head = has_head and not method.has_own_logits(config)
    return specs | (head_specs(backbone, config, num_classes) if has_head else {})


def init_member_state(
    backbone: Backbone, config: TrialConfig, num_classes: int, data: FitData | None = None
) -> MemberState:
    """Draw a trial's tensors.

    Each tensor has its own random stream, named after it: neither the other tensors nor the pack
    can change it. Drawn in float32 on the CPU.

    Args:
        data: For methods that look at the training split first.
    """
    check_chain(config, backbone.layout)
    fitted: MemberState = {}
    if data is not None:
        for name in config.methods:
            found = method_class(name).fit(_setup(backbone, config, num_classes, name, {}), data)
            fitted |= {f"{name}.{key}": tensor for key, tensor in found.items()}
    state = {}
    for name, spec in member_specs(backbone, config, num_classes, fitted).items():
        tensor = torch.empty(spec.shape)
        spec.init(tensor, Stream(config.seed).generator(f"init/{name}"))
        state[name] = tensor.to(backbone.dtype)
    return state


def _setup(
    backbone: Backbone, config: TrialConfig, num_classes: int, method: str, fitted: MemberState
) -> Setup:
    own = {k.split(".", 1)[1]: v for k, v in fitted.items() if k.startswith(f"{method}.")}
    return Setup(backbone=backbone, config=config, num_classes=num_classes, fitted=own)


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
        _check_members(configs)
        self.backbone = backbone
        self.configs = list(configs)
        self.num_classes = num_classes
        self.backend = backend
        for config in configs:
            check_chain(config, backbone.layout)
        self.methods = nn.ModuleDict(
            {n: method_class(n)(backbone, configs) for n in configs[0].methods}
        )
        for method in self._chain():
            method.prompt_changers = [m for m in self._chain() if overrides(m, "on_prompts")]
        if states is None:
            states = [init_member_state(backbone, config, num_classes) for config in configs]
        self._specs = [
            member_specs(backbone, config, num_classes, state)
            for config, state in zip(configs, states, strict=True)
        ]
        self._stacked = self._stack(states)

    @property
    def num_members(self) -> int:
        """M."""
        return len(self.configs)

    @property
    def first_block(self) -> int:
        """First block that depends on a trainable tensor, or the depth if the features do not.

        What enters it, or the features, can be cached.
        """
        depth = self.backbone.layout.depth
        return min((m.first_block for m in self._chain() if m.active), default=depth)

    @property
    def features_are_frozen(self) -> bool:
        """Whether features depend on no trainable tensor."""
        return self.first_block == self.backbone.layout.depth

    def stacked(self) -> dict[str, nn.Parameter]:
        """Trainable tensors (M, ...) by full name, padded with zeros."""
        return {k: v for k, v in self._stacked.items() if isinstance(v, nn.Parameter)}

    def tensors(self) -> dict[str, Tensor]:
        """All tensors (M, ...) by full name, those that are not trained included."""
        return dict(self._stacked)

    def member_specs(self, m: int) -> dict[str, ParamSpec]:
        """One member's tensors."""
        return dict(self._specs[m])

    def after_step(self) -> None:
        """Let the methods bring their tensors back into range after an optimiser step."""
        for method in self._chain():
            if method.active:
                method.after_step()

    def member_state(self, m: int) -> MemberState:
        """Copies of one member's tensors, without padding."""
        return {
            name: self._stacked[name].detach()[_region(m, shape)].clone()
            for name, shape in self._shapes(m).items()
        }

    def num_trainable(self, m: int) -> tuple[int, int]:
        """Trainable parameters of one member: all, and without the head."""
        sizes = {
            name: torch.Size(spec.shape).numel()
            for name, spec in self._specs[m].items()
            if spec.trainable
        }
        total = sum(sizes.values())
        return total, total - sum(n for name, n in sizes.items() if name.startswith("head"))

    def flops_per_image(self, m: int = 0) -> float:
        """Forward FLOPs of one image in evaluation (multiply-add = 2) of one member.

        Counts matrix products over all tokens of all blocks. Prompts' keys and values are
        constants in evaluation and not counted, nor is it subtracted that only the tokens that
        are read have to be computed in the last block.
        """
        own = any(method.has_own_logits(self.configs[m]) for method in self._chain())
        head = 0.0 if own else 2.0 * self.backbone.layout.feature_dim * self.num_classes
        extra = sum(method.extra_flops(m) for method in self._chain() if method.active)
        return self.backbone.flops_per_image() + head + extra

    def forward(self, images: Tensor, step: Step) -> ModelOutput:
        """Classify images.

        Args:
            images: (M, B, 3, height, width), normalised; every member has its own B images.
            step: Position in training, or `Step.evaluation(M)`.

        Raises:
            ShapeError: The images have another number of members or another size.
        """
        run = self._pass(step)
        active = self._begin(run)
        features, penalty = self._features(images, step, active, None)
        return self._output(features, penalty, run, active)

    def forward_features(self, images: Tensor, step: Step) -> tuple[Tensor, Tensor]:
        """Backbone features (M, B, F) and penalty (M,) of images (M, B, 3, height, width).

        Where `features_are_frozen`, one batch (1, B, ...) may stand for all members.
        """
        run = self._pass(step)
        return self._features(images, step, self._begin(run), None)

    def forward_frozen(self, images: Tensor) -> Tensor:
        """The part of a pass that depends on no trainable tensor, for `forward_trained`.

        Args:
            images: (1, B, 3, height, width), for all members.

        Returns:
            Features (1, B, F), or the tokens (1, B, S, D) that enter `first_block`.
        """
        if self.features_are_frozen:
            return self.forward_features(images, Step.evaluation(1))[0]
        tokens = self.backbone.embed(images.flatten(0, 1))
        for block in self.backbone.blocks[: self.first_block]:
            tokens = plain_block(block, tokens[None])[0]
        return tokens[None]

    def forward_trained(self, inputs: Tensor, step: Step) -> ModelOutput:
        """Classify what `forward_frozen` returns, (M, B, ...)."""
        if self.features_are_frozen:
            with torch.autocast(inputs.device.type, enabled=False):  # no backbone to save time in
                return self.classify(inputs, step)
        run = self._pass(step)
        active = self._begin(run)
        features = self._with_weights(
            active, lambda: self._blocks(inputs, self.first_block, active, None)
        )
        return self._output(features, features.new_zeros(self.num_members), run, active)

    def forward_blocks(self, images: Tensor, step: Step) -> Inspection:
        """Run a pass that computes and keeps everything."""
        run = Pass(step=step, rows=None, backend=self.backend, inspect=True)
        active = self._begin(run)
        kept: list[Tensor] = []
        features, penalty = self._features(images, step, active, kept)
        return Inspection(kept[0], kept[1:], self._output(features, penalty, run, active))

    def source_logits(self, images: Tensor, step: Step) -> Tensor:
        """Logits (M, B, S) of the backbone's own classifier on images (M, B, 3, height, width)."""
        run = self._pass(step)
        active = self._begin(run)
        features, _ = self._features(images, step, active, None)
        for method, state in active:
            features = method.on_features(features, state)
        return self.backbone.source_logits(features)

    def classify(self, features_MBF: Tensor, step: Step) -> ModelOutput:
        """Logits of backbone features, where `features_are_frozen`."""
        run = self._pass(step)
        zero = features_MBF.new_zeros(self.num_members)
        return self._output(features_MBF, zero, run, self._begin(run))

    def forward_head(self, features_MBF: Tensor) -> Tensor:
        """Logits (M, B, C) of the features that the head reads, at least in float32."""
        with torch.autocast(features_MBF.device.type, enabled=False):
            wide = features_MBF.to(self._stacked["head.weight"].dtype)
            if self.backbone.layout.num_readouts == 1:
                return self._linear("head", wide)
            first, second = wide.chunk(2, dim=-1)
            return (self._linear("head", first) + self._linear("head_dist", second)) / 2

    def _pass(self, step: Step) -> Pass:
        return Pass(step=step, rows=self.backbone.rows_read, backend=self.backend)

    def _begin(self, run: Pass) -> Active:
        return [(method, method.begin(run)) for method in self._chain() if method.active]

    def _features(
        self, images: Tensor, step: Step, active: Active, kept: list[Tensor] | None
    ) -> tuple[Tensor, Tensor]:
        self._check_images(images)
        found: tuple[Tensor, Tensor] = self._with_weights(
            active, lambda: self._run(images, step, active, kept)
        )
        return found

    def _with_weights(self, active: Active, compute: Callable[[], Any]) -> Any:
        """Compute while the methods' weights stand in the place of the backbone's."""
        replaced: dict[str, Tensor] = {}
        for method, state in active:
            replaced |= method.weights(state)
        if not replaced:
            return compute()
        weights = {f"backbone.{name}": weight for name, weight in replaced.items()}
        return functional_call(_Body(self.backbone, compute), weights, ())

    def _run(
        self, images: Tensor, step: Step, active: Active, kept: list[Tensor] | None
    ) -> tuple[Tensor, Tensor]:
        for method, state in active:
            images = method.on_images(images, state)
        with noisy(self.backbone, self.configs, step):
            features = self._through(images, active, kept)
        penalties = [p for method, state in active if (p := method.penalty(state)) is not None]
        zero = torch.zeros(self.num_members, device=features.device, dtype=self.backbone.dtype)
        return features, sum(penalties, zero)

    def _through(self, images: Tensor, active: Active, kept: list[Tensor] | None) -> Tensor:
        """Features (M, B, F) of the images that the network sees."""
        batch = images.shape[:2]
        tokens = self.backbone.embed(
            images.flatten(0, 1), _changes(active, "on_patches", batch)
        ).unflatten(0, batch)
        for method, state in active:
            tokens = method.on_tokens(tokens, state)
        if kept is not None:
            kept.append(tokens)
        return self._blocks(tokens, 0, active, kept)

    def _blocks(
        self, tokens: Tensor, first: int, active: Active, kept: list[Tensor] | None
    ) -> Tensor:
        """Features (M, B, F) of the tokens that enter a block."""
        batch = tokens.shape[:2]
        runners = [pair for pair in active if overrides(pair[0], "on_block")]
        depth = self.backbone.layout.depth
        # Methods that may start as the plain backbone must match timm bit for bit, so they compute
        # all tokens in the last block.
        may_skip_unread = any(overrides(method, "on_images") for method, _ in active)
        may_skip_unread |= 0 < self.first_block < depth
        read = self.backbone.rows_read if may_skip_unread and kept is None else None
        for index, block in list(enumerate(self.backbone.blocks))[first:]:
            if runners:
                method, state = runners[0]
                tokens = method.on_block(index, block, tokens, state)
            else:
                rows = read if index == depth - 1 else None
                tokens = plain_block(block, tokens, rows=rows)
            if kept is not None:
                kept.append(tokens)
        for method, state in active:
            tokens = method.on_output(tokens, state)
        return self.backbone.read(
            tokens.flatten(0, 1), _changes(active, "on_norm", batch)
        ).unflatten(0, batch)

    def _output(self, features: Tensor, penalty: Tensor, run: Pass, active: Active) -> ModelOutput:
        side = [pair for method, state in active for pair in method.side_features(state)]
        logits, *others = [self._classify(f, active) for f in (features, *(f for _, f in side))]
        shares = [share for share, _ in side]
        return ModelOutput(logits, penalty, list(zip(shares, others, strict=True)), run.stats)

    def _classify(self, features: Tensor, active: Active) -> Tensor:
        for method, state in active:
            features = method.on_features(features, state)
        for method, state in active:
            if method.has_own_logits(self.configs[0]):
                return method.on_logits(features, state)
        return self.forward_head(features)

    def _linear(self, head: str, x_MBD: Tensor) -> Tensor:
        weight, bias = self._stacked[f"{head}.weight"], self._stacked[f"{head}.bias"]
        if self.num_members == 1:  # bit-equal to nn.Linear, which baddbmm is not
            return F.linear(x_MBD, weight[0], bias[0])
        return torch.baddbmm(bias[:, None], x_MBD, weight.mT)

    def _chain(self) -> Iterator[AnyMethod]:
        for method in self.methods.values():
            assert isinstance(method, Method)
            yield method

    def _shapes(self, m: int) -> dict[str, tuple[int, ...]]:
        return {name: spec.shape for name, spec in self._specs[m].items()}

    def _stack(self, states: Sequence[MemberState]) -> dict[str, Tensor]:
        """Pad and stack the members' tensors and hand them to their methods."""
        self.head = nn.ParameterDict()
        stacked: dict[str, Tensor] = {}
        for name, spec in self._specs[0].items():
            shapes = [specs[name].shape for specs in self._specs]
            full = tuple(max(sizes) for sizes in zip(*shapes, strict=True))
            data = torch.zeros(
                self.num_members, *full, dtype=self.backbone.dtype, device=self.backbone.device
            )
            for m, state in enumerate(states):
                data[_region(m, shapes[m])] = self._checked(state, name, m)
            owner, _, short = name.partition(".")
            if owner not in self.methods:
                stacked[name] = self.head[name.replace(".", "_")] = nn.Parameter(data)
            elif spec.trainable:
                stacked[name] = nn.Parameter(data)
                setattr(self.methods[owner], short, stacked[name])
            else:
                stacked[name] = data
                self.methods[owner].register_buffer(short, data)
        return stacked

    def _checked(self, state: Mapping[str, Tensor], name: str, m: int) -> Tensor:
        wanted = self._shapes(m)
        if state.keys() != wanted.keys() or tuple(state[name].shape) != wanted[name]:
            got = {key: tuple(value.shape) for key, value in state.items()}
            raise CheckpointError(
                f"state of member {m} (seed {self.configs[m].seed}) has tensors {got}, its "
                f"settings need {wanted}; load it with the settings it was trained with."
            )
        return state[name]

    def _check_images(self, images: Tensor) -> None:
        side = self.backbone.img_size
        fits = self.backbone.vit.dynamic_img_size or tuple(images.shape[-2:]) == (side, side)
        batches = (self.num_members, 1) if self.features_are_frozen else (self.num_members,)
        if images.ndim != 5 or images.shape[0] not in batches or not fits:
            raise ShapeError(
                f"images must have shape ({self.num_members}, B, 3, {side}, {side}), got "
                f"{tuple(images.shape)}; one batch per member, at the backbone's image size."
            )


class _Body(nn.Module):
    """A computation with the backbone as a module, whose weights can be replaced for one call."""

    def __init__(self, backbone: Backbone, compute: Callable[[], Any]) -> None:
        super().__init__()
        self.backbone = backbone
        self._compute = compute

    def forward(self) -> Any:
        return self._compute()


class SingleModel(nn.Module):
    """One trial as an ordinary module.

    In train mode prompts are dropped out and TCPA selects at random in its first epochs; set
    `epoch` when an epoch begins. The number of training passes so far is `steps`.

    Args:
        pack: A pack of one.
    """

    def __init__(self, pack: PackModel) -> None:
        super().__init__()
        self.pack = pack
        self.epoch = 0
        self.steps = 0

    @property
    def config(self) -> TrialConfig:
        """Settings of the trial."""
        return self.pack.configs[0]

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, C) of normalised images (B, 3, height, width)."""
        return self.forward_with_penalty(images)[0]

    def forward_with_penalty(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits, and the methods' weighted extra loss (a scalar) to add to the training loss."""
        step = Step.evaluation(1)
        if self.training:
            stream = Stream(self.config.seed)
            step = Step(training=True, epochs=(self.epoch,), steps=(self.steps,), streams=(stream,))
            self.steps += 1
        output = self.pack(images[None], step)
        return output.logits[0], output.penalty[0]


def build_model(
    config: TrialConfig | Mapping[str, Any],
    *,
    num_classes: int,
    backbone: Backbone | None = None,
    state: MemberState | None = None,
) -> SingleModel:
    """Build the model of one trial.

    Args:
        config: Settings, or a mapping of dotted paths.
        num_classes: Outputs of the head.
        backbone: Frozen network; None loads the one that the settings name.
        state: Trainable tensors; None draws them from the seed.

    Raises:
        ConfigError: A setting is wrong or does not fit the backbone.
        WeightsError: The backbone's weights are missing or do not fit.
    """
    if not isinstance(config, TrialConfig):
        config = TrialConfig.from_flat(config)
    backbone = backbone or load_backbone(config.backbone)
    states = None if state is None else [state]
    return SingleModel(PackModel(backbone, [config], num_classes, states))


def _changes(active: Active, hook: str, batch: torch.Size) -> Change | None:
    """One function of flat (M * B, ...) tensors out of the methods' hooks; None: nobody has one."""
    found = [(method, state) for method, state in active if overrides(method, hook)]
    if not found:
        return None

    def change(x: Tensor) -> Tensor:
        x = x.unflatten(0, batch)
        for method, state in found:
            x = getattr(method, hook)(x, state)
        return x.flatten(0, 1)

    return change


def _region(m: int, shape: tuple[int, ...]) -> tuple[int | slice, ...]:
    return (m, *(slice(0, size) for size in shape))


def _check_members(configs: Sequence[TrialConfig]) -> None:
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


def _head_init(kind: str, width: int, num_classes: int) -> tuple[Any, Any]:
    """Initialisers of weight and bias.

    torch_default: PyTorch's Linear, U(-1/sqrt(D), 1/sqrt(D)) (TCPA, CVPT). vpt: N(0, 2/C) and
    -ln 99 (VPT, models/mlp.py). trunc02: truncated N(0, 0.02) and 0 (SA2VP).
    """
    if kind == "torch_default":
        return uniform(width**-0.5), uniform(width**-0.5)
    if kind == "vpt":
        return (
            lambda t, generator: t.normal_(0.0, (2 / num_classes) ** 0.5, generator=generator),
            lambda t, generator: t.fill_(-4.59511985),
        )
    return _trunc02, lambda t, generator: t.zero_()


def _trunc02(tensor: Tensor, generator: Generator) -> Tensor:
    return nn.init.trunc_normal_(tensor, std=0.02, a=-2.0, b=2.0, generator=generator)
