"""VP: one trained picture is added to every image, as a border or as a patch.

Trainable besides the head: 12 p (H - p) for a border of width p, 3 p^2 for a patch. The prompt is
added to the normalised image, without clipping. With `output: label_map` there is no head: the
logits are those of the backbone's own classifier for its first C classes.

Source:
    Bahng et al., Exploring Visual Prompts for Adapting Large-Scale Models, 2022 (visual_prompting).
    There a random patch is also drawn anew in evaluation; here that place is seeded by default.
"""

# Axes: M members, B samples, H image side, C classes.

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Literal

import torch
from pydantic import Field
from torch import Tensor

from tcpa_core.config import TrialConfig
from tcpa_core.errors import ConfigError
from tcpa_core.methods import _pixels, base
from tcpa_core.methods._output_maps import need_source_classes
from tcpa_core.settings import MAY_CHANGE
from tcpa_core.streams import Stream, whole_numbers

if TYPE_CHECKING:
    from tcpa_core.model.backbone import Backbone, TokenLayout


class Config(base.MethodSettings):
    """Settings of VP."""

    shared = ("kind", "output", "eval_position")

    kind: Literal["padding", "fixed_patch", "random_patch"] = "padding"
    """A border, a patch in the top left corner, or one at a new place in every step."""
    prompt_size: int | None = Field(default=None, ge=0)
    """Width in pixels (p); None: 30 of 224, in proportion; 0 leaves the images as they are."""
    output: Literal["head", "label_map"] = "head"
    """A trained head, or the backbone's own classifier for its first C classes."""
    eval_position: Literal["seeded", "random"] = "seeded"
    """Place of a random patch in evaluation: fixed by the seed, or anew each time (authors)."""
    lr_scale: float = Field(default=1.0, gt=0.0, json_schema_extra=MAY_CHANGE)
    """Factor on the learning rate of the prompt; the head keeps optim.lr."""

    def idle(self, methods: Sequence[str]) -> Collection[str]:
        """Where a random patch is put, where there is none."""
        return () if self.kind == "random_patch" and self.prompt_size != 0 else ("eval_position",)

    def pack_key(self) -> tuple[object, ...]:
        """Kind, output, and whether there is a prompt at all."""
        return (*super().pack_key(), self.prompt_size != 0)


class Method(base.Method[base.Pass]):
    """VP for a pack."""

    any_size = False

    patch: Tensor
    """(M, 3, p, p), padded."""
    source_classes: Tensor
    """(M, C): which source class stands for each class."""

    def __init__(self, backbone: Backbone, configs: Sequence[TrialConfig]) -> None:
        super().__init__(backbone, configs)
        # A bound method: as an attribute the backbone would become part of this module.
        self._source_logits = backbone.source_logits
        self._source_flops = backbone.source_flops
        self._side = backbone.img_size
        self._sizes = [_size(s, self._side) for s in self.settings]
        self._kind = self.settings[0].kind
        self._on_device: dict[tuple[str, torch.device], Tensor] = {}

    @classmethod
    def check(cls, config: TrialConfig, layout: TokenLayout) -> None:
        """Refuse prompts that cover the image, and a map to classes the backbone does not have."""
        settings: Config = config.method_settings[cls.name()]
        side = layout.grid[0] * layout.patch_size[0]
        size = _size(settings, side)
        largest = (side - 1) // 2 if settings.kind == "padding" else side
        if size > largest:
            raise ConfigError(
                f"vp.prompt_size must be at most {largest} for kind {settings.kind} on images of "
                f"{side} pixels, got {size}; lower it."
            )

    @classmethod
    def hides_map(cls, config: TrialConfig) -> str | None:
        """With a label map."""
        has_map = cls.has_own_logits(config)
        return "maps classes of whole pictures unless vp.output=head" if has_map else None

    @classmethod
    def has_own_logits(cls, config: TrialConfig) -> bool:
        """With a label map there is no head."""
        return bool(config.method_settings[cls.name()].output == "label_map")

    @classmethod
    def params(cls, setup: base.Setup) -> dict[str, base.ParamSpec]:
        """The border's four sides or the patch, and the label map."""
        settings: Config = setup.settings(cls.name())
        side = setup.backbone.img_size
        size = _size(settings, side)
        specs: dict[str, base.ParamSpec] = {}
        if size and settings.kind == "padding":
            specs = _pixels.border_specs(side, size, lr_scale=settings.lr_scale)
        elif size:
            shape = (_pixels.COLOURS, size, size)
            scale = settings.lr_scale
            specs["patch"] = base.ParamSpec(shape, _pixels.standard_normal, lr_scale=scale)
        if settings.output == "label_map":
            need_source_classes(setup, "vp.output=label_map")
            specs["source_classes"] = base.ParamSpec(
                (setup.num_classes,), _first_classes, trainable=False
            )
        return specs

    @property
    def active(self) -> bool:
        """Whether there is a prompt or a label map."""
        return max(self._sizes) > 0 or self.settings[0].output == "label_map"

    @property
    def changes_features(self) -> bool:
        """Not without a prompt."""
        return max(self._sizes) > 0

    def extra_flops(self, m: int) -> float:
        """The backbone's own classifier, where it makes the logits."""
        return self._source_flops if self.settings[m].output == "label_map" else 0.0

    def on_images(self, images: Tensor, state: base.Pass) -> Tensor:
        """Add each member's picture to its own images."""
        if not self.changes_features:
            return images
        if self._kind == "padding":
            parts = {name: getattr(self, name) for name in _pixels.SIDES}
            prompts = _pixels.borders(parts, self._sizes, self._side)
        else:
            corners = self._corners(state.step, images.device)
            prompts = _pixels.patches(self.patch, self._sizes, corners, self._side)
        return images + prompts[:, None]

    def on_logits(self, features_MBF: Tensor, state: base.Pass) -> Tensor:
        """Logits of the mapped source classes."""
        logits = self._source_logits(features_MBF)
        index = self.source_classes.long()[:, None].expand(-1, logits.shape[1], -1)
        return logits.gather(-1, index)

    def _corners(self, step: base.Step, device: torch.device) -> Tensor:
        """Row and column of each member's patch, int64 (M, 2)."""
        rooms = [self._side - size for size in self._sizes]
        if self._kind == "fixed_patch":
            return self._kept("corner", [[0, 0] for _ in rooms], device)
        if step.training:
            drawn = step.draws.uniform("vp.position", base.member_row(device), 2)
            return whole_numbers(drawn, self._kept("rooms", [[room] for room in rooms], device))
        if self.settings[0].eval_position == "random":
            # PyTorch's global generator: another place at each evaluation, as in the authors' code
            drawn_MX = torch.tensor([_corner(room, None) for room in rooms])
            if device.type == "cuda":  # from pinned memory, so that nobody waits for the copy
                drawn_MX = drawn_MX.pin_memory()
            return drawn_MX.to(device, non_blocking=True)
        streams = [Stream(seed).generator("vp.eval_position") for seed in self.seeds]
        corners = [_corner(*drawn) for drawn in zip(rooms, streams, strict=True)]
        return self._kept("seeded", corners, device)

    def _kept(self, name: str, values: Sequence[Sequence[int]], device: torch.device) -> Tensor:
        """Values as a tensor that is copied to the device once."""
        if (name, device) not in self._on_device:
            with torch.inference_mode(False):
                self._on_device[name, device] = torch.tensor(values, device=device)
        return self._on_device[name, device]


def _corner(room: int, generator: torch.Generator | None) -> list[int]:
    """Row and column of a random patch with so much room, in evaluation."""
    return torch.randint(room, (2,), generator=generator).tolist() if room else [0, 0]


def _size(settings: Config, side: int) -> int:
    return _pixels.default_size(side) if settings.prompt_size is None else settings.prompt_size


def _first_classes(tensor: Tensor, generator: torch.Generator) -> Tensor:
    return tensor.copy_(torch.arange(len(tensor)))
