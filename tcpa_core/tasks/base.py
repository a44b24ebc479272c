"""The contract of a task. A new one is a public file of this folder, `<name>.py`, which exports

    class Config(TaskSettings)
    class Task(base.Task)

and whose settings are the paths `<name>.*` of trials whose `task.name` it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from tcpa_core.config import TrialConfig
from tcpa_core.methods.base import ParamSpec
from tcpa_core.model.head import Head
from tcpa_core.model.map_head import MapHead
from tcpa_core.settings import Settings

if TYPE_CHECKING:
    from tcpa_core.model.backbone import TokenLayout


class TaskSettings(Settings):
    """Base of every task's `Config`."""

    def pack_key(self) -> tuple[object, ...]:
        """Members of one pack have equal keys: all settings, as these shape the head."""
        return tuple(getattr(self, name) for name in type(self).model_fields)


class Task:
    """What a trial is trained for: asked as a class, never made."""

    needs_masks: ClassVar[bool] = False
    """A class of each pixel is learnt, which the data set has to have."""

    @classmethod
    def check(cls, config: TrialConfig, layout: TokenLayout) -> None:
        """Refuse methods and settings with which this backbone cannot be trained for the task.

        Raises:
            ConfigError: Saying which setting to change.
        """

    @classmethod
    def splits_batch(cls, config: TrialConfig) -> bool:
        """Whether a batch may be trained in parts: no part of the head lets its samples meet."""
        return True

    @classmethod
    def head_specs(
        cls, layout: TokenLayout, config: TrialConfig, num_classes: int
    ) -> dict[str, ParamSpec]:
        """Tensors of one member's head by full name, "head..."."""
        raise NotImplementedError

    @classmethod
    def head(
        cls, layout: TokenLayout, configs: Sequence[TrialConfig], tensors: Mapping[str, Tensor]
    ) -> Head | MapHead:
        """The members' heads: one that reads pooled features, or one that reads maps of tokens.

        Args:
            layout: The backbone's.
            configs: One per member.
            tensors: Stacks (M, ...) by full name; empty where a method makes the logits.
        """
        raise NotImplementedError
