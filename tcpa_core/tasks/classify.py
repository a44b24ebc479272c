"""A class for each picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from tcpa_core.config import TrialConfig
from tcpa_core.methods.base import ParamSpec
from tcpa_core.model.head import Head, head_specs
from tcpa_core.tasks import base

if TYPE_CHECKING:
    from tcpa_core.model.backbone import TokenLayout


class Config(base.TaskSettings):
    """Nothing to set."""


class Task(base.Task):
    """One vector of a picture, one distribution over classes."""

    @classmethod
    def head_specs(
        cls, layout: TokenLayout, config: TrialConfig, num_classes: int
    ) -> dict[str, ParamSpec]:
        """A linear layer; distilled models have one per token that is read."""
        return head_specs(layout, config, num_classes)

    @classmethod
    def head(
        cls, layout: TokenLayout, configs: Sequence[TrialConfig], tensors: Mapping[str, Tensor]
    ) -> Head:
        """Reads the features that the backbone pools."""
        return Head(tensors)
