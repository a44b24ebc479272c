"""Prompt tokens in the sequence: what VPT and the methods that build on it have in common.

Deep prompts are fresh in every block and thrown away after it, so they are computed as keys and
values only. Shallow prompts are inserted once and run through all blocks as tokens.
"""

# Axes: M members, B samples (1 where all share), S tokens, P prompt tokens, D width, L blocks.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from tcpa_core.config import TrialConfig
from tcpa_core.errors import ConfigError
from tcpa_core.methods import base
from tcpa_core.model.attention import PromptKeys, join_prompts
from tcpa_core.model.blocks import PromptProjections, plain_block, prompted_block
from tcpa_core.settings import MAY_CHANGE

if TYPE_CHECKING:
    from timm.models.vision_transformer import Block

    from tcpa_core.model.backbone import Backbone, TokenLayout


class PromptSettings(base.MethodSettings):
    """Settings of every method with prompt tokens."""

    shared: ClassVar[tuple[str, ...]] = ("pool_prompts",)

    num_prompts: int = Field(default=10, ge=0)
    """Prompt tokens per block (P); 0 leaves the backbone as it is."""
    prompt_dropout: float = Field(default=0.1, ge=0.0, lt=1.0, json_schema_extra=MAY_CHANGE)
    """Dropout on the prompts, per sample."""
    pool_prompts: bool = False
    """Average the prompts' outputs into the features (authors, with MAE); needs a backbone that
    averages its image tokens."""

    @property
    def is_deep(self) -> bool:
        """Whether every block has prompts of its own."""
        return True

    @property
    def width(self) -> int | None:
        """Width in which prompts are stored; None: that of the backbone."""
        return None

    @property
    def at_end(self) -> bool:
        """Whether prompts stand behind the image tokens."""
        return False

    def pack_key(self) -> tuple[object, ...]:
        """Code path, whether there are prompts at all, and how many if a mean runs over them."""
        # A mean over pooled prompts would take padding in, so such members need equal numbers of
        # them.
        count = self.num_prompts if self.pool_prompts else self.num_prompts > 0
        return (*super().pack_key(), count)


class SequenceSettings(PromptSettings):
    """Settings of VPT, which all methods have that are VPT but for what the prompts are."""

    shared: ClassVar[tuple[str, ...]] = ("pool_prompts", "deep", "position")

    deep: bool = True
    """True: own prompts in every block; False: inserted once, before the first block."""
    prompt_dropout: float = Field(default=0.1, ge=0.0, lt=1.0, json_schema_extra=MAY_CHANGE)
    """Dropout on the prompts, per sample. Not set: 0.1 deep, 0 shallow, as the authors train."""
    project_dim: int | None = Field(default=None, ge=1)
    """Store prompts in this width and map them to the backbone's by one linear layer, trained and
    shared by all blocks. None: no such layer."""
    position: Literal["after_prefix", "end"] = "after_prefix"
    """Place of shallow prompts in the sequence. Attention knows no places, so results differ by
    rounding only; deep prompts have no place at all."""

    @model_validator(mode="before")
    @classmethod
    def _dropout_by_depth(cls, values: Any) -> Any:
        # Before the fields are filled: afterwards a default looks like a value that was set.
        if isinstance(values, dict) and values.get("deep") is False:
            return {"prompt_dropout": 0.0, **values}
        return values

    @property
    def is_deep(self) -> bool:
        """Whether every block has prompts of its own."""
        return self.deep

    @property
    def width(self) -> int | None:
        """Width in which prompts are stored; None: that of the backbone."""
        return self.project_dim

    @property
    def at_end(self) -> bool:
        """Whether prompts stand behind the image tokens."""
        return self.position == "end"

    def pack_key(self) -> tuple[object, ...]:
        """Code path, and whether there is a projection."""
        return (*super().pack_key(), self.project_dim is None)


@dataclass(slots=True)
class State:
    """One pass."""

    run: base.Pass
    prompts_LMPD: Tensor | None
    """Of all blocks, or of one where they are inserted once; None: there are none."""
    dropped_LMBPD: Tensor | None = None
    """The same behind dropout, B is 1 where nothing is dropped; made in the first block."""
    projected: Sequence[PromptKeys] = ()
    """Per block; made in the first one, which knows how many samples there are."""


class PromptTokens(base.Method[State]):
    """Prompt tokens for a pack. Beside a method that replaces them there are none."""

    prompts: Tensor
    """(M, L, P, width) deep or (M, P, width) shallow, padded at the end of P and of the width."""
    project_weight: Tensor
    """(M, D, width), where there is a projection."""
    project_bias: Tensor
    """(M, D)."""

    def __init__(self, backbone: Backbone, configs: Sequence[TrialConfig]) -> None:
        super().__init__(backbone, configs)
        self._blocks = backbone.blocks
        self._config: Any = self.settings[0]
        # Pooled prompts run through the last block as tokens.
        apart = self._blocks[:-1] if self._config.pool_prompts else self._blocks
        self._projections = PromptProjections(apart)
        replaced = self.is_replaced(configs[0])
        # Beside a method that replaces it, this one keeps its settings but owns no prompt.
        self._sizes = [0 if replaced else s.num_prompts for s in self.settings]
        rates = [s.prompt_dropout for s in self.settings]
        layers = self.layout.depth if self._config.is_deep else 1
        self._dropout = base.Dropout(f"{self.name()}.prompt_dropout", rates, layers)
        self._among: dict[int, Tensor] = {}
        """What `_exists` has made, by the length of the sequence."""

    @classmethod
    def check(cls, config: TrialConfig, layout: TokenLayout) -> None:
        """Refuse shallow prompts under TCPA, and pooled prompts where nothing is averaged."""
        name, settings = cls.name(), config.method_settings[cls.name()]
        if cls.is_replaced(config):
            if not settings.is_deep:
                raise ConfigError(
                    "methods: 'tcpa' takes the place of prompts that every block has anew, got "
                    f"{name}.deep=False; set {name}.deep=true or take {name!r} out of methods."
                )
        elif settings.pool_prompts and (layout.pool != "avg" or layout.has_dist):
            raise ConfigError(
                f"{name}.pool_prompts needs a backbone that averages its image tokens (pool "
                f"'avg'), got pool {layout.pool!r} ({config.backbone.full_name!r}); set "
                f"{name}.pool_prompts=false."
            )

    @classmethod
    def hides_map(cls, config: TrialConfig) -> str | None:
        """Where prompts are averaged into the features."""
        name = cls.name()
        if config.method_settings[name].pool_prompts and not cls.is_replaced(config):
            return f"averages its prompts into one vector unless {name}.pool_prompts=false"
        return super().hides_map(config)

    @classmethod
    def params(cls, setup: base.Setup) -> dict[str, base.ParamSpec]:
        """Prompts: (L, P, width) deep or (P, width) shallow; with a projection its weights."""
        settings: PromptSettings = setup.settings(cls.name())
        if settings.num_prompts == 0 or cls.is_replaced(setup.config):
            return {}
        layout = setup.backbone.layout
        width = settings.width or layout.embed_dim
        depth = (layout.depth,) if settings.is_deep else ()
        init = base.uniform(base.vpt_bound(setup.backbone, width))
        specs = {"prompts": base.ParamSpec((*depth, settings.num_prompts, width), init)}
        if settings.width is not None:
            specs |= _projection(width, layout.embed_dim)
        return specs

    @property
    def active(self) -> bool:
        """Whether there is any prompt."""
        return max(self._sizes) > 0

    def extra_flops(self, m: int) -> float:
        """Attention to P more keys where prompts are only keys, else P more tokens."""
        layout, size = self.layout, self._sizes[m]
        tokens, width = layout.num_prefix + layout.num_image, layout.embed_dim
        linear = sum(p.numel() for p in self._blocks[0].parameters() if p.ndim == 2)
        as_keys = 4.0 * tokens * size * width
        as_tokens = 2.0 * linear * size + 4.0 * ((tokens + size) ** 2 - tokens**2) * width
        if not self._config.is_deep:
            return layout.depth * as_tokens
        last = as_tokens if self._config.pool_prompts else as_keys
        return (layout.depth - 1) * as_keys + last

    def begin(self, run: base.Pass) -> State:
        """Bring the prompts of all blocks to the backbone's width."""
        return State(run, self._stored())

    def on_tokens(self, tokens_MBSD: Tensor, state: State) -> Tensor:
        """Shallow: insert the prompts."""
        return tokens_MBSD if self._config.is_deep else self._insert(0, tokens_MBSD, state)

    def on_block(self, index: int, block: Block, tokens_MBSD: Tensor, state: State) -> Tensor:
        """Deep: tokens attend to this block's prompts. Shallow: the block runs on all tokens."""
        is_last = index == self.layout.depth - 1
        rows = state.run.rows if is_last else None
        if not self._config.is_deep:
            exists, place = self._exists(tokens_MBSD), self._place(tokens_MBSD)
            return plain_block(block, tokens_MBSD, exists_MS=exists, rows=rows, inserted=place)
        prompts: PromptKeys | None = None
        inserted: slice | None = None
        # Pooled prompts are read behind the last block, so there they have to run through it as
        # tokens.
        if is_last and self._config.pool_prompts:
            tokens_MBSD = self._insert(index, tokens_MBSD, state)
            inserted = self._place(tokens_MBSD)
        elif state.prompts_LMPD is not None:
            if not state.projected:
                state.projected = self._project(tokens_MBSD.shape[1], state)
            prompts = state.projected[index]
        prompts = self._with_more(index, prompts)
        return prompted_block(
            block,
            tokens_MBSD,
            prompts,
            backend=state.run.backend,
            rows=rows,
            inserted=inserted,
        )

    def attention(
        self, index: int, block: Block, tokens_MBSD: Tensor, state: State
    ) -> base.BlockAttention:
        """Deep prompts stand beside the sequence, shallow and pooled ones in it."""
        prompts: PromptKeys | None = None
        inserted: slice | None = None
        if index < len(state.projected):
            prompts = state.projected[index]
        else:
            if self._config.is_deep:
                tokens_MBSD = self._insert(index, tokens_MBSD, state)
            inserted = self._place(tokens_MBSD)
        prompts = self._with_more(index, prompts)
        return base.BlockAttention.of(block, tokens_MBSD, prompts, inserted=inserted)

    def on_output(self, tokens_MBSD: Tensor, state: State) -> Tensor:
        """Shallow: take the prompts out, so that they enter no pooling that should not see them."""
        # Where only leading rows were computed, no prompt is among them.
        if self._config.is_deep or self._config.pool_prompts or state.run.rows is not None:
            return tokens_MBSD
        place = self._place(tokens_MBSD)
        rest = tokens_MBSD[:, :, place.stop :]
        return torch.cat([tokens_MBSD[:, :, : place.start], rest], dim=2)

    def _more_keys(self, index: int) -> PromptKeys | None:
        """Further keys and values of a block, already projected; all samples share them."""
        return None

    def _with_more(self, index: int, prompts: PromptKeys | None) -> PromptKeys | None:
        more = self._more_keys(index)
        if prompts is None or more is None:
            return more if prompts is None else prompts
        return join_prompts(prompts, more)

    def _stored(self) -> Tensor | None:
        """Prompts (L, M, P, D), projected to the backbone's width."""
        if max(self._sizes) == 0:
            return None
        prompts = self.prompts if self._config.is_deep else self.prompts[:, None]
        if self._config.width is not None:
            wide = prompts @ self.project_weight.mT[:, None] + self.project_bias[:, None, None]
            # The layer's bias has filled the padding, which must stay 0.
            exists = base.padding(self._sizes, prompts.device)
            prompts = wide if exists is None else wide * exists[:, None, :, None]
        return prompts.transpose(0, 1)

    def _ready(self, index: int, samples: int, state: State) -> Tensor:
        """Prompts of a block (M, B or 1, P, D): dropped out, then changed."""
        return self._changed(index, self._dropped(samples, state)[index], state)

    def _changed(self, index: int, ready: Tensor, state: State) -> Tensor:
        """Prompts of a block as the methods of the chain change them, VFPT's own among these."""
        for method in self.prompt_changers:
            ready = method.on_prompts(ready, self._sizes, index, state.run.step)
        return ready

    def _dropped(self, samples: int, state: State) -> Tensor:
        """Prompts of all blocks (L, M, B or 1, P, D) behind dropout."""
        if state.dropped_LMBPD is None:
            prompts, step = state.prompts_LMPD, state.run.step
            assert prompts is not None, "asked for prompts where there are none"
            exists = base.padding(self._sizes, prompts.device)
            state.dropped_LMBPD = self._dropout.prompts(prompts, exists, samples, step)
        return state.dropped_LMBPD

    def _project(self, samples: int, state: State) -> list[PromptKeys]:
        """Keys and values of the prompts of every block that has them beside its tokens."""
        count = self.layout.depth - self._config.pool_prompts
        ready = self._dropped(samples, state)[:count]
        if self.prompt_changers:
            ready = torch.stack([self._changed(i, p, state) for i, p in enumerate(ready.unbind())])
        return self._projections(ready, base.padding(self._sizes, ready.device))

    def _insert(self, index: int, tokens_MBSD: Tensor, state: State) -> Tensor:
        """Put a block's prompts among the tokens."""
        if state.prompts_LMPD is None:
            return tokens_MBSD
        samples, start = tokens_MBSD.shape[1], self._start(tokens_MBSD.shape[2])
        prompts = self._ready(index, samples, state).expand(-1, samples, -1, -1)
        # Under autocast tokens may be in half precision, trained tensors are not.
        prompts = prompts.to(tokens_MBSD.dtype)
        return torch.cat([tokens_MBSD[:, :, :start], prompts, tokens_MBSD[:, :, start:]], dim=2)

    def _place(self, tokens_MBSD: Tensor) -> slice:
        """Where prompts stand in a sequence that they are in."""
        count = max(self._sizes)
        start = self._start(tokens_MBSD.shape[2] - count)
        return slice(start, start + count)

    def _start(self, num_tokens: int) -> int:
        """Place of the first prompt among the real tokens."""
        return num_tokens if self._config.at_end else self.layout.num_prefix

    def _exists(self, tokens_MBSD: Tensor) -> Tensor | None:
        """False at the padding among the tokens (M, S)."""
        exists = base.padding(self._sizes, tokens_MBSD.device)
        if exists is None:
            return None
        length = tokens_MBSD.shape[2]
        if length not in self._among:
            with torch.inference_mode(False):  # as for `padding`
                full = exists.new_ones(len(exists), length)
                start = self._start(length - exists.shape[1])
                full[:, start : start + exists.shape[1]] = exists
                self._among[length] = full
        return self._among[length]


def _projection(width: int, embed_dim: int) -> dict[str, base.ParamSpec]:
    """Kaiming normal by fan-out; the bias as PyTorch's Linear."""
    std = (2 / embed_dim) ** 0.5
    return {
        "project_weight": base.ParamSpec((embed_dim, width), base.normal(0.0, std)),
        "project_bias": base.ParamSpec((embed_dim,), base.uniform(width**-0.5)),
    }
