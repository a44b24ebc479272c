"""How many trials a worker should hold at once."""

from collections.abc import Callable, Mapping, Sequence

from spaces.space import Space
from tcpa_core.config import Flat

DEFAULT_SLOTS = 4
"""Trials per worker where nothing was measured."""
SLOTS_WITHOUT_GAIN = 2
"""Trials per worker where packs gain nothing: they take turns."""
MIN_GAIN = 0.05
"""Gain in speed that makes twice as many trials at once worth it."""
MIN_PROBED_TRIALS = 32
"""Trials from which a probe of the pack size earns its seconds back."""

Speeds = Sequence[Mapping[int, float]]
"""Images per second by number of members, for each kind of pack; {} for a kind that trains
alone."""


def measured_slots(
    space: Space, num_ended: int, workers: int, measure: Callable[[], Speeds | None]
) -> int:
    """Trials per worker: what the probe says, as far as the study's length makes use of it.

    A design is spread evenly. A sampler learns from finished trials, so a search keeps at least
    four rounds. Studies too short to earn the probe back take `DEFAULT_SLOTS`.

    Args:
        space: Its design or budget says how long the study is.
        num_ended: Trials that have ended under earlier drivers.
        workers: Pack workers of the study.
        measure: Probes the packs of the space; [] where that failed, None where it was interrupted.
    """
    if space.ablation:
        # A worker that holds more than its share leaves another one idle at the end.
        left = len(space.design()) - num_ended
        useful = max(1, -(-left // workers))
    else:
        left = space.budget.trials or MIN_PROBED_TRIALS
        useful = max(DEFAULT_SLOTS, left // (4 * workers))
    useful = min(useful, space.budget.pack_size or useful)
    if useful == 1 or (left < MIN_PROBED_TRIALS and useful <= 2 * DEFAULT_SLOTS):
        return useful
    # Seconds for each kind of pack, so only after it is known that the answer can matter.
    speeds = measure()
    if speeds is None:
        return useful
    return min(useful, worth_slots(speeds) if speeds else DEFAULT_SLOTS)


def worth_slots(speeds: Speeds) -> int:
    """Trials that a worker should hold, so that its packs are as large as pays.

    Every trial more at the same time is one that the sampler and the scheduler decide on without
    its neighbours' results. Packs of different kinds take turns: to have n members in each, a
    worker needs n trials of each kind. Where packs gain nothing, two trials suffice: one trains
    while the scheduler decides on the other.
    """
    packs = [by_size for by_size in speeds if by_size]

    def seconds(members: int) -> float:
        """Time for one image of every kind."""
        return sum(1 / by_size[max(n for n in by_size if n <= members)] for by_size in packs)

    members = 1
    # Powers of two are what the probe measures. A kind that gains nothing takes its turns, too, so
    # that the others gain less.
    while packs and seconds(2 * members) * (1 + MIN_GAIN) < seconds(members):
        members *= 2
    return members * len(speeds) if members > 1 else SLOTS_WITHOUT_GAIN


def largest_trials(space: Space) -> list[Flat]:
    """For every method chain and batch size, the corner of the space with the most prompts."""
    found: dict[tuple[object, ...], tuple[float, Flat]] = {}
    for config in space.trials:
        flat = config.flat()
        # Integer settings of methods are mostly numbers of prompts, which cost memory and time.
        size = sum(
            value
            for path, value in flat.items()
            if path.split(".")[0] in flat["methods"] and isinstance(value, int)
        )
        key = (*flat["methods"], flat["train.batch_size"])
        if key not in found or size > found[key][0]:
            found[key] = (size, flat)
    return [flat for _, flat in found.values()]
