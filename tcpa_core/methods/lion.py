"""LION, re-implemented from its description: implicit layers before and behind the frozen backbone.

Each layer adds the fixed point z = F(z, u) to its input u, with
F(z, u) = s * (W2 gelu(W1 z + U u + b1) + b2), s = 0 at the start. Before the backbone u are the
tokens that enter the first block, behind it the pooled features. W1 and W2 are divided by their
spectral norm where that is above 1, and |s| is at most 0.9, so that F is a contraction in all but
extreme cases. The solver's residual is reported as "lion.input_residual" and
"lion.output_residual".

Trainable besides the head: 2 * (3 r D + r + 2 D), r = bottleneck.

Source:
    LION: Implicit Vision Prompt Tuning, AAAI 2024, of which only the abstract was at hand (two
    implicit layers, pruning after the lottery-ticket idea). Layer, solver and pruning rule are
    this project's; results are not those of the authors' code.
"""

# Axes: M members, B samples, T tokens, D width, r inner width; 2: before and behind the backbone.

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from tcpa_core.config import TrialConfig
from tcpa_core.errors import ConfigError
from tcpa_core.methods import base

if TYPE_CHECKING:
    from tcpa_core.model.backbone import Backbone, TokenLayout

LARGEST_SCALE = 0.9
_MATRICES = ("state_weight", "input_weight", "up_weight")


class Config(base.MethodSettings):
    """Settings of LION."""

    shared = ("gradient", "max_steps", "tolerance")

    variant: Literal["description"] = "description"
    """A label without effect: the method is re-implemented from its description."""
    bottleneck: int = Field(default=64, ge=0)
    """Inner width of both layers (r); 0 leaves the backbone as it is."""
    prune: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of each weight matrix that gets no gradient and only decays: in every step those with
    the smallest |weight * gradient|."""
    gradient: Literal["implicit", "one_step"] = "implicit"
    """Differentiate the fixed point, or only the last step towards it."""
    max_steps: int = Field(default=30, ge=1)
    """Most steps of the solver, forward and backward."""
    tolerance: float = Field(default=1e-3, ge=0.0)
    """A sample is solved when a step changes it by less than this share of its norm."""

    def pack_key(self) -> tuple[object, ...]:
        """Code path, and whether there are layers at all."""
        return (*super().pack_key(), self.bottleneck > 0)


@dataclass(frozen=True, slots=True)
class _Layer:
    """One implicit layer, members stacked: h = K gelu(h + U u + b1) + k with h = W1 z."""

    state_weight: Tensor
    """W1 (M, r, D), normalised."""
    input_weight: Tensor
    """U (M, r, D)."""
    input_bias: Tensor
    """b1 (M, 1, r)."""
    up_weight: Tensor
    """s W2 (M, D, r), W2 normalised."""
    up_bias: Tensor
    """s b2 (M, 1, D)."""

    def output(self, hidden: Tensor) -> Tensor:
        """F (M, N, D) of what stands inside the gelu (M, N, r)."""
        return torch.baddbmm(self.up_bias, F.gelu(hidden), self.up_weight.mT)


_State = tuple[base.Pass, list[_Layer]]
"""The pass, and the layers before and behind the backbone."""


class Method(base.Method[_State]):
    """LION for a pack."""

    is_recordable = False

    state_weight: Tensor
    input_weight: Tensor
    """(M, 2, r, D)."""
    input_bias: Tensor
    """(M, 2, r)."""
    up_weight: Tensor
    """(M, 2, D, r)."""
    up_bias: Tensor
    scale: Tensor
    """(M, 2, D)."""

    def __init__(self, backbone: Backbone, configs: Sequence[TrialConfig]) -> None:
        super().__init__(backbone, configs)
        self._config: Config = self.settings[0]
        self._sizes = [s.bottleneck for s in self.settings]

    @classmethod
    def check(cls, config: TrialConfig, layout: TokenLayout) -> None:
        """Refuse chains, which no description covers."""
        others = [name for name in config.methods if name != cls.name()]
        if others:
            raise ConfigError(
                f"methods: 'lion' is not defined together with {others[0]!r}; take one of them out."
            )

    @classmethod
    def deviations(cls, config: TrialConfig) -> tuple[str, ...]:
        """Always."""
        return ("lion.variant=description (re-implemented from its description)",)

    @classmethod
    def params(cls, setup: base.Setup) -> dict[str, base.ParamSpec]:
        """Two layers."""
        inner: int = setup.settings(cls.name()).bottleneck
        if inner == 0:
            return {}
        width = setup.backbone.layout.embed_dim
        return {
            "state_weight": base.ParamSpec((2, inner, width), base.trunc02),
            "input_weight": base.ParamSpec((2, inner, width), base.trunc02),
            "input_bias": base.ParamSpec((2, inner), base.trunc02),
            "up_weight": base.ParamSpec((2, width, inner), base.trunc02),
            "up_bias": base.ParamSpec((2, width), base.trunc02),
            "scale": base.ParamSpec((2, width), base.constant(0.0)),
        }

    @property
    def active(self) -> bool:
        """Whether there are layers."""
        return max(self._sizes) > 0

    def extra_flops(self, m: int) -> float:
        """With one step of the solver in both layers; each further one takes 2 r^2 per token."""
        layout, inner = self.layout, self._sizes[m]
        tokens = layout.num_prefix + layout.num_image + layout.num_readouts
        product = 2.0 * inner * layout.embed_dim
        if self._config.gradient == "one_step":
            return tokens * (4 * product + 2.0 * inner**2)
        return tokens * (2 * product + 4.0 * inner**2)

    def begin(self, run: base.Pass) -> _State:
        """Normalise the weights."""
        with torch.autocast(self.scale.device.type, enabled=False):
            matrices = {name: self._critical(getattr(self, name)) for name in _MATRICES}
            state_weight, up_weight = _contract(matrices["state_weight"], matrices["up_weight"].mT)
            up_weight = self.scale[..., None] * up_weight.mT
            up_bias = self.scale * self.up_bias
            layers = [
                _Layer(
                    state_weight[:, side],
                    matrices["input_weight"][:, side],
                    self.input_bias[:, side, None],
                    up_weight[:, side],
                    up_bias[:, side, None],
                )
                for side in (0, 1)
            ]
        return run, layers

    def on_tokens(self, tokens_MBSD: Tensor, state: _State) -> Tensor:
        """Add the first layer's fixed point to the tokens."""
        run, layers = state
        added, run.stats["lion.input_residual"] = self._solve(layers[0], tokens_MBSD)
        return tokens_MBSD + added

    def on_features(self, features_MBF: Tensor, state: _State) -> Tensor:
        """Add the second layer's fixed point to the features."""
        run, layers = state
        features = features_MBF.unflatten(-1, (-1, self.layout.embed_dim))
        added, run.stats["lion.output_residual"] = self._solve(layers[1], features)
        return (features + added).flatten(2)

    @torch.no_grad()
    def after_step(self) -> None:
        """Keep the scales small enough for a contraction."""
        self.scale.clamp_(-LARGEST_SCALE, LARGEST_SCALE)

    def _critical(self, weight: Tensor) -> Tensor:
        """Let gradients through to the most important weights only."""
        if not any(s.prune for s in self.settings):
            return weight
        entries = [2 * inner * self.layout.embed_dim for inner in self._sizes]
        counts = [round((1 - s.prune) * n) for s, n in zip(self.settings, entries, strict=True)]
        critical: Tensor = _Critical.apply(weight, counts)
        return critical

    def _solve(self, layer: _Layer, u_MBTD: Tensor) -> tuple[Tensor, Tensor]:
        """Fixed point (M, B, T, D) of a layer and the largest residual per member (M,)."""
        with torch.autocast(u_MBTD.device.type, enabled=False):
            batch = u_MBTD.shape[1:3]
            flat = u_MBTD.to(layer.input_weight.dtype).flatten(1, 2)
            given = torch.baddbmm(layer.input_bias, flat, layer.input_weight.mT)
            # Solved for h = W1 z in the narrow width r, not for z in the width D.
            inner = layer.state_weight @ layer.up_weight
            bias = layer.up_bias @ layer.state_weight.mT

            def step(h: Tensor) -> Tensor:
                return torch.baddbmm(bias, F.gelu(h + given), inner.mT)

            # The solver's steps need no graph: the gradient is that of the fixed point.
            with torch.no_grad():
                h, residual = self._iterate(step, torch.zeros_like(given), batch)
            if self._config.gradient == "one_step":
                z = layer.output(h + given).detach()
                return layer.output(z @ layer.state_weight.mT + given).unflatten(1, batch), residual
            # By the implicit function theorem the gradient solves a fixed-point equation of its
            # own.
            slope = _gelu_slope(h + given).detach()
            h = step(h)
            if h.requires_grad:
                h.register_hook(
                    lambda grad: self._iterate(
                        lambda g: grad + slope * (g @ inner.detach()), grad, batch
                    )[0]
                )
            return layer.output(h + given).unflatten(1, batch), residual

    def _iterate(
        self, step: Callable[[Tensor], Tensor], start: Tensor, batch: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """Repeat a step on (M, B * T, r) until every sample is solved, each for itself.

        A solved sample stays as it is, so it depends neither on the batch nor on the pack.
        """
        now = start
        is_open = torch.ones(*start.shape[:1], batch[0], 1, 1, dtype=torch.bool, device=now.device)
        share = torch.zeros_like(is_open, dtype=now.dtype)
        answers: list[tuple[Tensor, Callable[[], bool]]] = []
        for _ in range(self._config.max_steps):
            new, old = (x.unflatten(1, tuple(batch)) for x in (step(now), now))
            change, norm = (
                torch.linalg.vector_norm(x, dim=(2, 3), keepdim=True) for x in (new - old, new)
            )
            share = torch.where(is_open, change / norm.clamp_min(1e-12), share)
            # A solved sample stays as it is, whatever its neighbours still need.
            now = torch.where(is_open, new, old).flatten(1, 2)
            is_open = is_open & (share > self._config.tolerance)
            # An answer that comes late costs some steps which change nothing any more.
            answers.append(_read_later(is_open.any()))
            if answers[0][1]() and not answers.pop(0)[0]:
                break
        return now, share.amax((1, 2, 3))


def _read_later(value: Tensor) -> tuple[Tensor, Callable[[], bool]]:
    """A value on its way to the CPU, and whether it is there, without a wait for the device."""
    if value.device.type == "cpu":
        return value, lambda: True
    copy = torch.empty(value.shape, dtype=value.dtype, pin_memory=True)
    copy.copy_(value, non_blocking=True)
    arrival = torch.cuda.Event()
    arrival.record()
    return copy, arrival.query


class _Critical(torch.autograd.Function):
    """The identity; of its gradient only the entries with the largest |weight * gradient| stay."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, counts: list[int]) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.counts = counts
        return weight.view_as(weight)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (grad,) = grads
        (weight,) = ctx.saved_tensors
        scores = (weight * grad).abs().flatten(1)
        kept = torch.zeros_like(scores, dtype=torch.bool)
        for m, count in enumerate(ctx.counts):
            kept[m].scatter_(0, scores[m].topk(count).indices, True)
        return grad * kept.view_as(grad), None


def _contract(*weights: Tensor) -> list[Tensor]:
    """Divide matrices (..., r, D) of one shape by their spectral norm where it is above 1."""
    # A member of NaNs keeps to itself: a product mixes no two matrices.
    gram = torch.stack([w @ w.mT for w in weights])
    # By repeated squaring the small product becomes the projector onto its first eigenvector: no
    # decomposition, which a GPU would do slowly and report on to a host that waits.
    with torch.no_grad():
        projector = gram / _trace(gram).clamp_min(1e-30)
        # 2^20 or 2^40 factors: what the second eigenvalue adds is below the format's rounding.
        for _ in range(10 if gram.dtype == torch.float32 else 20):
            projector = projector @ projector
            projector = projector @ projector
            projector = projector / _trace(projector).clamp_min(1e-30)
    largest = (gram * projector).sum((-2, -1), keepdim=True)
    return [w / norm.clamp_min(1.0).sqrt() for w, norm in zip(weights, largest, strict=True)]


def _trace(matrices: Tensor) -> Tensor:
    """(..., 1, 1)."""
    return matrices.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]


def _gelu_slope(x: Tensor) -> Tensor:
    """Derivative of the exact gelu."""
    density = torch.exp(-0.5 * x.square()) / (2 * torch.pi) ** 0.5
    return 0.5 * (1 + torch.erf(x / 2**0.5)) + x * density
