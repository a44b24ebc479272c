"""What a worker does after an epoch that failed: smaller pieces first, then the culprit fails.

Fewer members together, then a batch in parts, and only then a trial that fails. Members are values,
so that nobody has lost more than this epoch's try.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tcpa_core.chain import splits_batch
from tcpa_core.training.groups import Group, Job
from tcpa_core.training.memory import is_out_of_memory
from tcpa_core.training.probe import largest_batch


@dataclass(frozen=True, slots=True)
class TryAgain:
    """The same epoch, in the smaller pieces that the group now allows."""

    notice: str | None
    """What the user should know; None: nothing has changed for good."""


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The only trial of the epoch fails."""

    reason: str


def recover(group: Group, jobs: Sequence[Job], fault: Exception, place: str) -> TryAgain | GiveUp:
    """Make an epoch smaller after a fault.

    Args:
        group: Whose limit, or whose pack's number of parts, is changed.
        jobs: That trained together.
        fault: Of the epoch.
        place: Device and machine, for the message.
    """
    is_short = is_out_of_memory(fault)
    if len(jobs) > 1:
        # Of whatever kind: by halves, the member that fails is found and the others go on.
        group.limit = len(jobs) // 2
        limit = "one" if group.limit == 1 else f"at most {group.limit}"
        text = (
            f"{len(jobs)} trials do not fit into the memory of {place} together; they "
            f"are now trained {limit} at a time"
        )
        return TryAgain(text if is_short else None)
    if not is_short:
        return GiveUp(f"{type(fault).__name__}: {fault}")
    step, member = group.pack.step, jobs[0].member
    size = min(member.config.train.batch_size, len(group.pack.data.train))
    if step.parts < size and splits_batch(member.config):
        step.parts = min(2 * step.parts, size)
        return TryAgain(
            f"a batch of {size} does not fit into the memory of {place} (trial "
            f"{member.trial}); it is trained in {step.parts} parts, which changes results by "
            "rounding only"
        )
    fits = largest_batch(group.pack, member.config)
    advice = f"a batch of {fits} fits" if fits else "not even one image fits"
    return GiveUp(
        f"OutOfMemoryError: one step does not fit into the memory of {place} (trial "
        f"{member.trial}, train.batch_size={member.config.train.batch_size}: {fault}); {advice}: "
        f"lower {'train.batch_size' if fits else 'backbone.img_size'} or the number of prompts."
    )
