"""Members on the device, stacked along a leading axis to be trained together."""

from collections.abc import Sequence
from dataclasses import dataclass

from tcpa_core.model.pack_model import PackModel
from tcpa_core.training.graphs import StepGraphs
from tcpa_core.training.member import Member
from tcpa_core.training.optim import PackOptimizer


@dataclass(frozen=True, slots=True, eq=False)
class Stacks:
    """Some members and the stacks that hold exactly their tensors."""

    members: tuple[Member, ...]
    model: PackModel
    optimizer: PackOptimizer
    graphs: StepGraphs | None = None
    """Recorded steps, which read and write these stacks; None: steps run as they are."""
    is_compiled: bool = False
    """Whether steps run with compiled blocks."""


def optimizer_of(members: Sequence[Member], model: PackModel) -> PackOptimizer:
    """The optimiser of some members, as far on as they are in their stages."""
    return PackOptimizer(
        model.tensors.trainable(),
        [m.config.optim for m in members],
        [m.moments for m in members],
        model.tensors.specs,
        [m.step - m.stage_step for m in members],
    )
