"""Methods that train weights of the backbone itself, on a copy that belongs to the trial.

The shared backbone is never touched: `weights` puts the copies in the place of its own for the
duration of a pass. Nothing below the lowest trained weight keeps a graph.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from tcpa_core.config import TrialConfig
from tcpa_core.errors import ConfigError
from tcpa_core.methods import base

if TYPE_CHECKING:
    from tcpa_core.model.backbone import Backbone, TokenLayout


class BackboneWeights(base.Method[base.Pass]):
    """Some weights of the backbone, for a pack of one."""

    trains_backbone = True

    def __init__(self, backbone: Backbone, configs: Sequence[TrialConfig]) -> None:
        super().__init__(backbone, configs)
        self._names = self.trained(backbone, self.settings[0])

    @classmethod
    def trained(cls, backbone: Backbone, settings: Any) -> list[str]:
        """Names of the trained weights under the backbone."""
        raise NotImplementedError

    @classmethod
    def check(cls, config: TrialConfig, layout: TokenLayout) -> None:
        """Refuse a chain: other methods read the backbone's weights before they are replaced."""
        others = [name for name in config.methods if name != cls.name()]
        if others:
            raise ConfigError(
                f"methods: {cls.name()!r} trains the backbone that {others[0]!r} expects to be "
                f"frozen, got {list(config.methods)}; use one of them alone."
            )

    @classmethod
    def params(cls, setup: base.Setup) -> dict[str, base.ParamSpec]:
        """The trained weights, starting as the backbone's; biases do not decay."""
        weights = dict(setup.backbone.named_parameters())
        names = cls.trained(setup.backbone, setup.settings(cls.name()))
        return {
            _own(name): base.ParamSpec(
                tuple(weights[name].shape),
                _copy_of(weights[name]),
                decay=not name.endswith("bias"),
            )
            for name in names
        }

    @classmethod
    def merged(
        cls, backbone: Backbone, config: TrialConfig, state: base.MemberState
    ) -> Backbone | None:
        """The backbone with the trial's weights in place of its own."""
        own = deepcopy(backbone)
        weights = dict(own.named_parameters())
        for name in cls.trained(backbone, config.method_settings[cls.name()]):
            weights[name].data.copy_(state[f"{cls.name()}.{_own(name)}"])
        return own

    @property
    def active(self) -> bool:
        """Whether any weight of the backbone is trained."""
        return bool(self._names)

    def weights(self, state: base.Pass) -> Mapping[str, Tensor]:
        """The trial's own weights."""
        # A pack of one: the leading axis of members is of length 1.
        return {name: getattr(self, _own(name)).squeeze(0) for name in self._names}


def _own(name: str) -> str:
    """Our name of a weight; a module's parameters cannot have dots in their names."""
    return name.replace(".", "/")


def _copy_of(weight: nn.Parameter) -> base.Init:
    return lambda tensor, generator: tensor.copy_(weight.detach())
