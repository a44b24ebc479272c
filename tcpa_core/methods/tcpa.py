"""TCPA: prompts split by the role of the token that uses them, and matched to each token.

Roles (R-TCPA): prefix tokens use CLS prompts, image tokens use image prompts. Matching (T-TCPA):
in each block every token uses the groups of its pool whose keys are most similar to it. Both are a
0/1 mask on the attention to prompts, which stay in the softmax denominator (`mask_mode`).

Trainable besides the head, per block: D * (N_c * L_c + N_i * L_i) for prompts and, with matching,
D * (N_c + N_i) for keys. With CLS read-out the image prompts of the last block get no gradient in
"pre" mode, and keys get none where lambda is 0.

Source:
    TCPA, arXiv:2505.02406 (ICML 2025), and ICML2025-TCPA, models/VFPT_TCPA.py and models/TCPA.py
    without its Fourier line. The code takes the most similar groups where the text says distance,
    averages the matching loss where Eq. 14 sums, and starts with random selection, which the paper
    does not mention. Matching without roles is not runnable there; here it is one shared pool.
    Beside VFPT (`methods: [vfpt, tcpa]`) the prompts are transformed after their dropout.
"""

# Axes: M members, B samples, S tokens, T tokens of one role, G groups of a pool, J prompt tokens
# per group, K chosen groups, P prompt tokens of all pools, D width, L blocks.

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor

from tcpa_core.config import TrialConfig
from tcpa_core.errors import ConfigError
from tcpa_core.methods import _image_prompter, base
from tcpa_core.methods._matching import (
    Matcher,
    Matches,
    count_choices,
    make_rules,
    prompts_by_role,
)
from tcpa_core.methods._pools import (
    Pool,
    Scope,
    make_scopes,
    num_prompts,
    prompt_padding,
    prompts_of_groups,
)
from tcpa_core.model.attention import MaskMode, PromptKeys, Visibility
from tcpa_core.model.blocks import PromptProjections, prompted_block
from tcpa_core.settings import MAY_CHANGE

if TYPE_CHECKING:
    from timm.models.vision_transformer import Block

    from tcpa_core.model.backbone import Backbone, TokenLayout

Role = Literal["cls", "image", "none"]


_OF_MATCHING = (
    "top_k_cls",
    "top_k_image",
    "lambda_cls",
    "lambda_image",
    "lambda_shared",
    "select",
    "match_input",
    "detach_tokens",
    "loss_reduction",
    "random_epochs",
)
"""Settings that mean nothing where every token uses all of its pool."""


class Config(base.MethodSettings):
    """Settings of TCPA."""

    shared = (
        "image_prompter",
        "split_roles",
        "match_tokens",
        "mask_mode",
        "select",
        "match_input",
        "detach_tokens",
        "loss_reduction",
        "register_role",
        "dist_role",
        "fourier_scope",
    )

    num_cls_prompts: int = Field(default=10, ge=0)
    """Groups in the CLS pool of each block (N_c); 0: no such pool."""
    num_image_prompts: int = Field(default=20, ge=0)
    """Groups in the image pool of each block (N_i); 0: no such pool."""
    top_k_cls: int = Field(default=5, ge=1)
    """Groups each prefix token uses (K_c), at most num_cls_prompts. Not set: half the pool."""
    top_k_image: int = Field(default=10, ge=1)
    """Groups each image token uses (K_i), at most num_image_prompts. Not set: half the pool.
    Without split_roles every token uses this many of the num_cls_prompts + num_image_prompts."""
    prompt_length: int = Field(default=1, ge=1)
    """Prompt tokens per group (L_p)."""
    image_prompt_length: int | None = Field(default=None, ge=1)
    """Prompt tokens per group of the image pool; None: prompt_length."""
    lambda_cls: float = Field(default=0.5, ge=0.0, json_schema_extra=MAY_CHANGE)
    """Weight of the matching loss of prefix tokens."""
    lambda_image: float = Field(default=0.5, ge=0.0, json_schema_extra=MAY_CHANGE)
    """Weight of the matching loss of image tokens."""
    lambda_shared: bool = False
    """True: lambda_cls holds for both roles and lambda_image is not used (authors' code)."""
    split_roles: bool = True
    """R-TCPA: prefix tokens use CLS prompts only, image tokens image prompts only."""
    match_tokens: bool = True
    """T-TCPA: each token uses its top-k groups; off: all of its pool, no keys, no loss."""
    mask_mode: MaskMode = "post"
    """Hide prompts after the softmax without rescaling (authors' code), or before it."""
    select: Literal["similarity", "distance"] = "similarity"
    """Take the most similar groups (authors' code) or the least (the paper's wording)."""
    match_input: Literal["raw", "ln1"] = "raw"
    """Match the residual stream (authors' code) or what the block's first norm makes of it."""
    detach_tokens: bool = False
    """True: the matching loss moves keys only, not the prompts of earlier blocks."""
    loss_reduction: Literal["mean_then_layer_sum", "sum"] = "mean_then_layer_sum"
    """Mean over tokens and chosen groups (authors' code), or their sum (Eq. 14); over the batch
    the mean, over the blocks the sum."""
    random_epochs: int | None = Field(default=None, ge=0)
    """First epochs in which groups are chosen at random. None: a tenth of train.epochs, at most
    10 (the authors' value)."""
    prompt_dropout: float = Field(default=0.1, ge=0.0, lt=1.0, json_schema_extra=MAY_CHANGE)
    """Dropout on the prompts, per sample."""
    image_prompter: bool = False
    """Add a small trained network to the pixels (one script of the authors; not in the paper)."""
    prompt_init: Literal["u1", "vpt"] = "u1"
    """Prompts and keys from U(-1, 1) (authors' code) or with VPT's bound."""
    register_role: Role = "cls"
    """Role of register tokens; none: they use no prompt and are not matched."""
    dist_role: Role = "cls"
    """Role of the distillation token."""
    fourier_scope: Literal["joint", "per_pool"] = "joint"
    """Beside VFPT: transform the prompts of both pools as one matrix (authors' code), which mixes
    the roles' parameters, or each pool by itself. Without VFPT it means nothing."""

    def idle(self, methods: Sequence[str]) -> Collection[str]:
        """What concerns matching where nothing is matched, one role of two, or VFPT."""
        fields = [] if "vfpt" in methods else ["fourier_scope"]
        if not self.match_tokens:
            return [*fields, *_OF_MATCHING]
        fields += [] if self.split_roles else ["top_k_cls"]
        return [*fields, "lambda_image"] if self.lambda_shared else fields

    @model_validator(mode="before")
    @classmethod
    def _half_the_pool(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        # Before the fields are filled: afterwards a default looks like a value that was set.
        filled = dict(values)
        for role in ("cls", "image"):
            size = values.get(f"num_{role}_prompts")
            if f"top_k_{role}" not in values and isinstance(size, int):
                filled[f"top_k_{role}"] = max(1, size // 2)
        return filled

    @model_validator(mode="after")
    def _check_prompter(self) -> Config:
        if self.image_prompter and not (self.num_cls_prompts or self.num_image_prompts):
            raise ValueError(
                "tcpa.image_prompter needs prompts, got tcpa.num_cls_prompts = "
                "tcpa.num_image_prompts = 0; set one of them above 0."
            )
        return self

    @model_validator(mode="after")
    def _check_top_k(self) -> Config:
        if not self.match_tokens:
            return self
        sizes = {"cls": self.num_cls_prompts, "image": self.num_image_prompts}
        limits = {f"tcpa.num_{role}_prompts": size for role, size in sizes.items()}
        checks = [(f"top_k_{role}", [f"tcpa.num_{role}_prompts"]) for role in sizes]
        if not self.split_roles:
            checks = [("top_k_image", list(limits))]
        for name, paths in checks:
            limit, got = sum(limits[path] for path in paths), getattr(self, name)
            if 0 < limit < got:
                raise ValueError(
                    f"tcpa.{name} must be <= {' + '.join(paths)}, got {got} > {limit}; lower "
                    f"tcpa.{name} to at most {limit}, or search the fraction instead."
                )
        return self

    def pack_key(self) -> tuple[object, ...]:
        """Switches that change the code path, and which pools there are."""
        return (*super().pack_key(), self.num_cls_prompts > 0, self.num_image_prompts > 0)


@dataclass(slots=True)
class _State:
    run: base.Pass
    matches: Matches
    prompts_LMPD: Tensor
    """Pools one after the other."""
    keys: Sequence[Tensor]
    """Unit keys of all pools (M, G, D) per block, in float32 at least."""
    exists_MP: Tensor | None
    projected: Sequence[PromptKeys] = ()
    """Per block; made in the first one, which knows how many samples there are."""
    scopes: Sequence[Scope] = ()
    """Prompts that other methods of the chain change together."""
    visible: Tensor | None = None
    """Without matching: which prompts tokens use (1, 1, S, P); made in the first block."""
    seen: list[Tensor] = field(default_factory=list)
    """Inspection only: which prompts tokens use (M, B, S, P) per block."""


class Method(base.Method[_State]):
    """TCPA for a pack."""

    cls_prompts: Tensor
    image_prompts: Tensor
    """(M, L, G, J, D), padded at the end of G and J."""
    cls_keys: Tensor
    image_keys: Tensor
    """(M, L, G, D)."""
    loss_weights: Tensor
    """Of each role's matching loss, (M, R)."""

    def __init__(self, backbone: Backbone, configs: Sequence[TrialConfig]) -> None:
        super().__init__(backbone, configs)
        self._projections = PromptProjections(backbone.blocks)
        self._config: Config = self.settings[0]
        self._pools = _pools(self.settings)
        self._num_prompts = num_prompts(self._pools) if self._pools else []
        rates = [s.prompt_dropout for s in self.settings]
        self._dropout = base.Dropout("tcpa.prompt_dropout", rates, self.layout.depth)
        top_k = {
            "cls": [s.top_k_cls for s in self.settings],
            "image": [s.top_k_image for s in self.settings],
        }
        self._rules = make_rules(
            _prefix_roles(self.layout, self._config),
            self._pools,
            top_k if self._config.match_tokens else {},
            split_roles=self._config.split_roles,
        )
        self._matcher = Matcher(
            self._pools,
            self._rules,
            take_nearest=self._config.select == "similarity",
            mean_loss=self._config.loss_reduction != "sum",
            random_epochs=[_random_epochs(config) for config in configs],
            depth=self.layout.depth,
        )
        roles = self._matcher.judged_roles
        weights = [[_loss_weight(s, role) for role in roles] for s in self.settings]
        self.register_buffer(
            "loss_weights",
            torch.tensor(weights, dtype=backbone.dtype, device=backbone.device),
            persistent=False,
        )

    def phase(self, step: base.Step) -> Hashable:
        """Which members still choose at random."""
        return self._matcher.random_members(step)

    @classmethod
    def check(cls, config: TrialConfig, layout: TokenLayout) -> None:
        """Refuse a CLS pool where no token has that role."""
        _check_layout(config.backbone.full_name, layout, config.method_settings[cls.name()])

    @classmethod
    def deviations(cls, config: TrialConfig) -> tuple[str, ...]:
        """Matching without roles, which the authors do not have."""
        settings: Config = config.method_settings[cls.name()]
        if settings.split_roles or not settings.match_tokens:
            return ()
        return ("tcpa.split_roles=false (T-only: an extension of this project)",)

    @classmethod
    def params(cls, setup: base.Setup) -> dict[str, base.ParamSpec]:
        """Prompts (L, G, J, D) and, with matching, keys (L, G, D) of each pool."""
        backbone, settings = setup.backbone, setup.settings(cls.name())
        depth, width = backbone.layout.depth, backbone.layout.embed_dim
        init = base.uniform(1.0 if settings.prompt_init == "u1" else base.vpt_bound(backbone))
        lengths = {
            "cls": settings.prompt_length,
            "image": settings.image_prompt_length or settings.prompt_length,
        }
        specs = {}
        for role, length in lengths.items():
            groups = getattr(settings, f"num_{role}_prompts")
            if groups:
                specs[f"{role}_prompts"] = base.ParamSpec((depth, groups, length, width), init)
                if settings.match_tokens:
                    specs[f"{role}_keys"] = base.ParamSpec((depth, groups, width), init)
        return specs | (_image_prompter.specs() if settings.image_prompter else {})

    @property
    def active(self) -> bool:
        """Whether there is any prompt."""
        return bool(self._pools)

    def extra_flops(self, m: int) -> float:
        """Attention to all prompts, and similarity to the keys, in every block."""
        layout = self.layout
        tokens, width = layout.num_prefix + layout.num_image, layout.embed_dim
        keys = sum(pool.groups[m] for pool in self._pools) if self._config.match_tokens else 0
        return layout.depth * tokens * width * (4.0 * self._num_prompts[m] + 2.0 * keys)

    def begin(self, run: base.Pass) -> _State:
        """Join the pools, and normalise the keys."""
        # Pools stand one after the other in one tensor: a block then has one product with all keys.
        prompts = torch.cat(
            [getattr(self, f"{pool.role}_prompts").flatten(2, 3) for pool in self._pools], dim=2
        ).transpose(0, 1)
        keys: Sequence[Tensor] = ()
        if self._config.match_tokens:
            stacked = [getattr(self, f"{pool.role}_keys") for pool in self._pools]
            keys = F.normalize(torch.cat(stacked, dim=2), dim=-1).unbind(1)
        exists = prompt_padding(self._pools, prompts.device)
        state = _State(run, Matches(run), prompts, keys, exists)
        if self.prompt_changers:
            joint = self._config.fourier_scope == "joint"
            state.scopes = make_scopes(self._pools, prompts.device, joint=joint)
        return state

    def on_images(self, images: Tensor, state: _State) -> Tensor:
        """Run the image-level prompter, if there is one."""
        if not self._config.image_prompter:
            return images
        params = {name: getattr(self, name) for name in _image_prompter.specs()}
        return _image_prompter.apply(images, params)

    def on_block(self, index: int, block: Block, tokens_MBSD: Tensor, state: _State) -> Tensor:
        """Choose prompts for every token, then run the block with them."""
        visible, tokens_MBSD = self._visible(index, block, tokens_MBSD, state)
        if not state.projected:
            state.projected = self._project(tokens_MBSD.shape[1], state)
        return prompted_block(
            block,
            tokens_MBSD,
            state.projected[index],
            None if visible is None else Visibility(visible, self._config.mask_mode),
            backend=state.run.backend,
            rows=state.run.rows if index == self.layout.depth - 1 else None,
        )

    def attention(
        self, index: int, block: Block, tokens_MBSD: Tensor, state: _State
    ) -> base.BlockAttention:
        """With the prompts beside the sequence, of which each token sees its own choice."""
        visibility = Visibility(state.seen[index], self._config.mask_mode)
        prompts = state.projected[index]
        return base.BlockAttention.of(block, tokens_MBSD, prompts, visibility)

    def usage(self, state: _State) -> Mapping[str, Tensor]:
        """How often the tokens of a role chose each group, or all tokens those of both pools."""
        sizes = {pool.role: max(pool.groups) for pool in self._pools}
        found: dict[str, Tensor] = {}
        for role, blocks in state.matches.groups.items():
            pool = role if self._config.split_roles else "shared"
            groups = sizes.get(pool, sum(sizes.values()))
            counts = torch.stack([count_choices(ranked, groups) for ranked in blocks], dim=1)
            found[pool] = found[pool] + counts if pool in found else counts
        return found

    def penalty(self, state: _State) -> Tensor | None:
        """Weighted matching loss, summed over the blocks (Eq. 14)."""
        stats, matches = state.run.stats, state.matches
        for role, chosen in matches.groups.items():
            stats[f"tcpa.groups_{role}"] = torch.stack(chosen)
        if state.seen:
            stats["tcpa.visible"] = torch.stack(state.seen)
        losses_LMR = self._matcher.losses(matches)
        if losses_LMR is None:
            return None
        # Detached: statistics outlive the step and must not keep its graph.
        for i, role in enumerate(self._matcher.judged_roles):
            stats[f"tcpa.match_{role}"] = losses_LMR[..., i].detach()
        return (losses_LMR.sum(0) * self.loss_weights).sum(-1)

    def _visible(
        self, index: int, block: Block, tokens_MBSD: Tensor, state: _State
    ) -> tuple[Tensor | None, Tensor]:
        """Which prompts the tokens use in this block, boolean (M, B, S, P) or None for all, and the
        tokens to go on with."""
        visible: Tensor | None = None
        if state.keys:
            given = _match_input(self._config, block, tokens_MBSD)
            chosen, passed = self._matcher.match(index, given, state.keys[index], state.matches)
            tokens_MBSD = passed if given is tokens_MBSD else tokens_MBSD
            visible = prompts_of_groups(self._pools, chosen)
        elif not all(all(rule.pools) for rule in self._rules):
            # Roles alone decide, so one mask serves all samples and all blocks.
            if state.visible is None:
                state.visible = prompts_by_role(
                    self._rules, self._pools, tokens_MBSD.shape[2], tokens_MBSD.device
                )
            visible = state.visible
        if state.run.inspect:
            seen = torch.ones(1, dtype=torch.bool) if visible is None else visible
            width = sum(pool.width for pool in self._pools)
            full = seen.to(tokens_MBSD.device).expand(*tokens_MBSD.shape[:3], width)
            state.seen.append(full)
        return visible, tokens_MBSD

    def _project(self, samples: int, state: _State) -> list[PromptKeys]:
        """Drop prompts out, unless all samples share them; then make keys and values of them."""
        step, exists = state.run.step, state.exists_MP
        ready_LMBPD = self._dropout.prompts(state.prompts_LMPD, exists, samples, step)
        if self.prompt_changers:
            changed = [self._changed(i, p, state) for i, p in enumerate(ready_LMBPD.unbind())]
            ready_LMBPD = torch.stack(changed)
        return self._projections(ready_LMBPD, exists)

    def _changed(self, index: int, prompts_MBPD: Tensor, state: _State) -> Tensor:
        """Let other methods of the chain change the prompts of a block."""
        # Other methods expect padding at the end only; with two pools it also stands in the middle.
        changed = [prompts_MBPD[:, :, s.start : s.stop] for s in state.scopes]
        for method in self.prompt_changers:
            changed = [
                s.spread(method.on_prompts(s.gather(part), s.sizes, index, state.run.step))
                for s, part in zip(state.scopes, changed, strict=True)
            ]
        return torch.cat(changed, dim=2)


def _match_input(config: Config, block: Block, tokens_MBSD: Tensor) -> Tensor:
    """What is compared with the keys."""
    tokens = tokens_MBSD if config.match_input == "raw" else block.norm1(tokens_MBSD)
    return tokens.detach() if config.detach_tokens else tokens


def _pools(settings: Sequence[Config]) -> list[Pool]:
    """The pools that any member has; both roles' lengths follow `prompt_length` unless set."""
    cls_pool = Pool(
        "cls",
        tuple(s.num_cls_prompts for s in settings),
        tuple(s.prompt_length for s in settings),
    )
    image_pool = Pool(
        "image",
        tuple(s.num_image_prompts for s in settings),
        tuple(s.image_prompt_length or s.prompt_length for s in settings),
    )
    return [pool for pool in (cls_pool, image_pool) if max(pool.groups) > 0]


def _loss_weight(settings: Config, role: str) -> float:
    """Weight of the matching loss of a role."""
    shared = role != "image" or settings.lambda_shared
    return settings.lambda_cls if shared else settings.lambda_image


def _prefix_roles(layout: TokenLayout, config: Config) -> list[str]:
    """Role of every prefix token, in order."""
    return (
        ["cls"] * layout.has_cls
        + [config.dist_role] * layout.has_dist
        + [config.register_role] * layout.num_registers
    )


def _random_epochs(config: TrialConfig) -> int:
    given: int | None = config.method_settings["tcpa"].random_epochs
    return min(10, config.train.epochs // 10) if given is None else given


def _check_layout(name: str, layout: TokenLayout, config: Config) -> None:
    """Refuse a CLS pool that no token could use."""
    if config.split_roles and config.num_cls_prompts and "cls" not in _prefix_roles(layout, config):
        raise ConfigError(
            f"tcpa.num_cls_prompts must be 0 for a backbone without a token in CLS role, got "
            f"{config.num_cls_prompts} ({name!r} has {layout.num_prefix} prefix tokens); set "
            "tcpa.num_cls_prompts to 0, or tcpa.register_role to 'cls' if it has registers."
        )
