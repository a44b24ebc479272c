"""The tensors of trials: which a trial needs, their first values, and the stacks of a pack.

Tensors of a name are stacked along a leading axis and padded with zeros at the end of the others,
so that members of different sizes run as one batch.
"""

# Axes: M members.

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from tcpa_core.chain import check_chain, method_class, task_class
from tcpa_core.config import TrialConfig
from tcpa_core.errors import CheckpointError
from tcpa_core.methods.base import FitData, MemberState, ParamSpec, Setup
from tcpa_core.model.backbone import Backbone
from tcpa_core.streams import Stream


def member_specs(
    backbone: Backbone, config: TrialConfig, num_classes: int, fitted: MemberState | None = None
) -> dict[str, ParamSpec]:
    """All tensors of one trial by full name.

    Args:
        backbone: The frozen network.
        config: The trial.
        num_classes: Classes of the data set.
        fitted: What the methods' `fit` found, by full name; a whole member state will do.
    """
    specs: dict[str, ParamSpec] = {}
    has_head = True
    for name in config.methods:
        method = method_class(name)
        setup = _setup(backbone, config, num_classes, name, fitted or {})
        specs |= {f"{name}.{key}": spec for key, spec in method.params(setup).items()}
        has_head = has_head and not method.has_own_logits(config)
    if not has_head:
        return specs
    return specs | task_class(config).head_specs(backbone.layout, config, num_classes)


def init_member_state(
    backbone: Backbone, config: TrialConfig, num_classes: int, data: FitData | None = None
) -> MemberState:
    """Draw a trial's tensors.

    Each tensor has its own random stream, named after it: neither the other tensors nor the pack
    can change it. Drawn in float32 on the CPU, so that the device changes nothing either.

    Args:
        backbone: The frozen network, whose number format the tensors get.
        config: The trial.
        num_classes: Classes of the data set.
        data: For methods that look at the training split first.

    Raises:
        ConfigError: The methods cannot be chained or do not fit the backbone.
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
        if backbone.device.type == "meta":  # a plan asks for shapes only
            state[name] = tensor.to(backbone.dtype).to("meta")
            continue
        spec.init(tensor, Stream(config.seed).generator(f"init/{name}"))
        state[name] = tensor.to(backbone.dtype)
    return state


def _setup(
    backbone: Backbone, config: TrialConfig, num_classes: int, method: str, fitted: MemberState
) -> Setup:
    # Methods know their tensors by short names; two methods may use the same one.
    own = {k.split(".", 1)[1]: v for k, v in fitted.items() if k.startswith(f"{method}.")}
    return Setup(backbone=backbone, config=config, num_classes=num_classes, fitted=own)


class MemberTensors:
    """Tensors of the M members of a pack, stacked.

    Args:
        backbone: Where it is and in its number format, the stacks are.
        configs: One per member.
        num_classes: Classes of the data set.
        states: Tensors of each member, without padding.

    Raises:
        CheckpointError: A state does not have the tensors that its settings need.
    """

    specs: Sequence[dict[str, ParamSpec]]
    """One member's tensors by full name, without padding."""
    stacked: dict[str, Tensor]
    """All tensors (M, ...) by full name, those that are not trained included."""

    def __init__(
        self,
        backbone: Backbone,
        configs: Sequence[TrialConfig],
        num_classes: int,
        states: Sequence[MemberState],
    ) -> None:
        self.specs = [
            member_specs(backbone, config, num_classes, state)
            for config, state in zip(configs, states, strict=True)
        ]
        for m, state in enumerate(states):
            _check(state, self._shapes(m), f"member {m} (seed {configs[m].seed})")
        self.stacked = {
            name: self._stack(name, states, backbone.dtype, backbone.device)
            for name in self.specs[0]
        }

    def hand_to(self, methods: nn.ModuleDict) -> dict[str, Tensor]:
        """Set the tensors as attributes of the methods that they belong to.

        Returns:
            Those of no method: the head's.
        """
        rest: dict[str, Tensor] = {}
        for name, tensor in self.stacked.items():
            owner, _, short = name.partition(".")
            if owner not in methods:
                rest[name] = tensor
            elif isinstance(tensor, nn.Parameter):
                setattr(methods[owner], short, tensor)
            else:
                methods[owner].register_buffer(short, tensor)
        return rest

    def trainable(self) -> dict[str, nn.Parameter]:
        """Tensors (M, ...) by full name that an optimiser may change."""
        return {k: v for k, v in self.stacked.items() if isinstance(v, nn.Parameter)}

    def fixed(self) -> dict[str, Tensor]:
        """Tensors (M, ...) by full name that no optimiser changes."""
        return {k: v for k, v in self.stacked.items() if not isinstance(v, nn.Parameter)}

    def unpadded(self, m: int, tensors: Mapping[str, Tensor]) -> MemberState:
        """Views of one member's tensors, as they are stacked, without padding."""
        return {
            name: tensor[tuple(slice(0, size) for size in self.specs[m][name].shape)]
            for name, tensor in tensors.items()
        }

    def state(self, m: int) -> MemberState:
        """Copies of one member's tensors, without padding."""
        return {
            name: self.stacked[name].detach()[_region(m, shape)].clone()
            for name, shape in self._shapes(m).items()
        }

    def num_trainable(self, m: int) -> tuple[int, int]:
        """Trainable parameters of one member: all, and without the head."""
        sizes = {
            name: torch.Size(spec.shape).numel()
            for name, spec in self.specs[m].items()
            if spec.trainable
        }
        total = sum(sizes.values())
        return total, total - sum(n for name, n in sizes.items() if name.startswith("head"))

    def _shapes(self, m: int) -> dict[str, tuple[int, ...]]:
        return {name: spec.shape for name, spec in self.specs[m].items()}

    def _stack(
        self, name: str, states: Sequence[MemberState], dtype: torch.dtype, device: torch.device
    ) -> Tensor:
        """The members' tensors of one name as one, padded with zeros."""
        shapes = [specs[name].shape for specs in self.specs]
        full = tuple(max(sizes) for sizes in zip(*shapes, strict=True))
        # Zeros: what a padded prompt or channel computes must not be NaN, even where it is masked.
        data = torch.zeros(len(states), *full, dtype=dtype, device=device)
        for m, state in enumerate(states):
            data[_region(m, shapes[m])] = state[name]
        # Members of a pack share their chain, so a tensor is trained in all of them or in none.
        return nn.Parameter(data) if self.specs[0][name].trainable else data


def _region(m: int, shape: tuple[int, ...]) -> tuple[int | slice, ...]:
    """Where a member's tensor of that shape stands in its stack."""
    return (m, *(slice(0, size) for size in shape))


def _check(state: MemberState, wanted: dict[str, tuple[int, ...]], owner: str) -> None:
    got = {key: tuple(value.shape) for key, value in state.items()}
    if got != wanted:
        raise CheckpointError(
            f"state of {owner} has tensors {got}, its settings need {wanted}; load it with the "
            "settings it was trained with."
        )
