"""How many trials a worker should hold at once."""

from collections.abc import Callable

from search.workers.sizing import DEFAULT_SLOTS, Sizing, Speeds
from spaces.space import Space
from tcpa_core.config import Flat

MIN_PROBED_TRIALS = 32
"""Trials from which a probe of the pack size earns its seconds back."""


def measured_slots(
    space: Space,
    num_ended: int,
    workers: int,
    measure: Callable[[Sizing], Speeds | None],
    share: float = 1.0,
) -> int:
    """Trials per worker: what the probe says, as far as the study's length makes use of it.

    A design is spread evenly. A sampler learns from finished trials, so a search keeps at least
    four rounds. Studies too short to earn the probe back take `DEFAULT_SLOTS`.

    Args:
        space: Its design or budget says how long the study is.
        num_ended: Trials that have ended under earlier drivers.
        workers: Pack workers of the study.
        measure: Probes the packs of the space; [] where that failed, None where it was interrupted.
        share: Part of its machine's memory that a worker may count on.
    """
    if herd := space.scheduler.herd:
        # All live side by side; those that memory does not hold together train in turns.
        useful = -(-herd.population // workers)
        return min(useful, space.budget.pack_size or useful)
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
    sizing = Sizing(largest_trials(space), share, useful)
    speeds = measure(sizing)
    return useful if speeds is None else sizing.slots(speeds)


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
