"""Members on the device, stacked along a leading axis to be trained together."""

# Axes: N columns of a member, see `PackOptimizer.values`.

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tcpa_core.methods.base import MemberState
from tcpa_core.model.pack_model import PackModel
from tcpa_core.training.graphs import StepGraphs
from tcpa_core.training.member import Member
from tcpa_core.training.memory import begun_copy
from tcpa_core.training.optim import Moments, PackOptimizer


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

    def on_host(self) -> list[tuple[MemberState, Moments]]:
        """Copies of all members' tensors as they are now, without padding, on the CPU.

        Each member gets memory of its own, one block for its state and one for its moments, so
        that a state that is kept for long holds nothing else.
        """
        rows = _to_host([self._rows(m) for m in range(len(self.members))])
        return [self._member(m, of_member) for m, of_member in enumerate(rows)]

    def on_device(self, member: Member) -> Member:
        """The member with its stacked tensors in the place of those on the CPU, without padding;
        the member itself where it is not here."""
        if member not in self.members:
            return member
        m = self.members.index(member)
        state, moments = self._member(m, self._rows(m))
        return replace(member, state=state, moments=moments)

    def _rows(self, m: int) -> list[Tensor]:
        """Parameters (N,), moments (slots, N), and each tensor that no optimiser changes."""
        values, fixed = self.optimizer.values, self.model.tensors.fixed()
        return [values[0, m], values[1:, m], *(tensor[m] for tensor in fixed.values())]

    def _member(self, m: int, rows: Sequence[Tensor]) -> tuple[MemberState, Moments]:
        """Views of a member's `_rows`, or of copies of them, without padding."""
        parameters, moments, *others = rows
        state, kept = self.optimizer.member_of([parameters, *moments], m)
        fixed = dict(zip(self.model.tensors.fixed(), others, strict=True))
        return state | self.model.tensors.unpadded(m, fixed), kept


def optimizer_of(members: Sequence[Member], model: PackModel) -> PackOptimizer:
    """The optimiser of some members, as far on as they are in their stages."""
    return PackOptimizer(
        model.tensors.trainable(),
        [m.config.optim for m in members],
        [m.moments for m in members],
        model.tensors.specs,
        [m.step - m.stage_step for m in members],
    )


def _to_host(rows: Sequence[Sequence[Tensor]]) -> list[list[Tensor]]:
    """Copies on the CPU of some tensors of each member. A GPU is waited for once for all."""
    device = rows[0][0].device
    if device.type != "cuda":
        # Not one block for all: memory of that size goes back to the system after every epoch.
        return [[tensor.to("cpu", copy=True) for tensor in of_member] for of_member in rows]
    copies = [[begun_copy(tensor) for tensor in of_member] for of_member in rows]
    torch.cuda.synchronize(device)
    return copies
