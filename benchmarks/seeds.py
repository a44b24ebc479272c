"""What racing the seeds of a search is worth, against fixed numbers of seeds at equal trials.

    python -m benchmarks.seeds

Nothing is trained: a trial's value is a known surface over learning rate, weight decay and method
plus noise of its seed. All ways get the same number of trials, four of which run at a time, and the
same surface and noise in each repeat. The regret is what the true value of the selected point lacks
of the best there is, in points of accuracy.
"""

import argparse
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from reports.statistics.paired_tests import Summary, compare_paired, summarise
from search.proposals.make_source import most_trials
from search.proposals.planner import Planner
from search.proposals.sampled import Sampled
from spaces.load import space_of
from spaces.selection import Replicate, rank
from spaces.space import Space
from tcpa_core.config import TrialConfig
from tcpa_core.record.events import Planned

WAYS: dict[str, Any] = {"1 seed": 1, "3 seeds": 3, "5 seeds": 5, "race, 5": {"race": 5}}
SAMPLERS = ("tpe", "random")
TRIALS = 60
NOISE = (0.005, 0.01, 0.02, 0.04)
"""Standard deviation of a seed's accuracy."""
AT_ONCE = 4
METHODS = {"linear": 0.80, "vpt": 0.86, "tcpa": 0.865}
"""The best accuracy of each."""


def space_for(seeds: Any, sampler: str, number: int) -> Space:
    """The space of one repeat."""
    return space_of(
        {
            "name": "seeds",
            "base": {"train.epochs": 1},
            "axes": {
                "methods": {"choice": [[name] for name in METHODS]},
                "optim.lr": {"float": [1e-4, 1.0], "log": True},
                "optim.weight_decay": {"float": [1e-4, 1.0], "log": True},
            },
            "objective": {"metric": "val_accuracy"},
            "sampler": {"name": sampler, "seed": number},
            "scheduler": {"name": "none"},
            "budget": {"trials": TRIALS},
            "seeds": seeds,
        }
    )


def true_value(config: TrialConfig, number: int) -> float:
    """The accuracy of a point without noise; the surface is another one in each repeat."""
    (method,) = config.methods
    random = np.random.default_rng([number, *method.encode()])
    lr, decay = random.uniform(-3.0, -1.0), random.uniform(-3.5, -0.5)
    far = math.log10(config.optim.lr) - lr, math.log10(config.optim.weight_decay) - decay
    return METHODS[method] - 0.06 * far[0] ** 2 - 0.004 * far[1] ** 2


def noisy_value(planned: Planned, number: int, noise: float) -> float:
    """The accuracy of a trial."""
    key = hashlib.blake2b(f"{number} {planned.digest}".encode(), digest_size=8).digest()
    draw = np.random.default_rng(int.from_bytes(key, "little")).normal(0.0, noise)
    return true_value(planned.config, number) + float(draw)


@dataclass(frozen=True, slots=True)
class Search:
    """How one search went."""

    regret: float
    """What the selected point's true value lacks of the best one."""
    optimism: float
    """Its recorded mean less its true value."""
    num_points: int
    num_seeds: int
    """Of the selected point."""
    further: float
    """Share of the trials that were not the first of their point."""


def searched(space: Space, number: int, noise: float) -> Search:
    """Run a search of stub trials."""
    planner = Planner(Sampled(space, "s"), {"data": "", "weights": ""}, most_trials(space))
    running: list[Planned] = []
    known: dict[str, Planned] = {}
    replicates: list[Replicate] = []
    while True:
        new = planner.new() if len(running) < AT_ONCE else None
        if isinstance(new, Planned):
            running.append(new)
            continue
        if not running:
            break
        ended = running.pop(0)
        value = noisy_value(ended, number, noise)
        known[ended.trial] = ended
        replicates.append(Replicate(ended.trial, ended.point, ended.seed, value))
        planner.tell(ended, {"status": "completed", "val_accuracy": value})
    seeds = () if space.races_seeds else space.seeds
    best = rank(replicates, space.objective[0], seeds).selected
    assert best is not None
    num_points = len({one.point for one in replicates})
    value = true_value(known[best.trials[0]].config, number)
    return Search(
        regret=max(METHODS.values()) - value,
        optimism=best.value - value,
        num_points=num_points,
        num_seeds=len(best.seeds),
        further=1 - num_points / len(replicates),
    )


def text(found: Summary) -> str:
    """Mean and interval, in points of accuracy."""
    assert found.mean is not None and found.low is not None
    return f"{100 * found.mean:.2f} ± {100 * (found.mean - found.low):.2f}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all searches and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=20)
    repeats = range(parser.parse_args(arguments).repeats)
    print("| sampler | noise | seeds | regret | race less this | optimism | points "
          "| seeds of the pick | trials for further seeds |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|")
    for sampler, noise in [(s, n) for s in SAMPLERS for n in NOISE]:
        found = {
            way: [searched(space_for(seeds, sampler, n), n, noise) for n in repeats]
            for way, seeds in WAYS.items()
        }
        regrets = {way: {n: r.regret for n, r in enumerate(of)} for way, of in found.items()}
        for way, of in found.items():
            paired = compare_paired(regrets["race, 5"], regrets[way], "paired t")
            less = "" if paired.p is None else f"{100 * (paired.diff or 0):+.2f}, p {paired.p:.2g}"
            print(
                f"| {sampler} | {100 * noise:g} | {way} "
                f"| {text(summarise([one.regret for one in of]))} | {less} "
                f"| {100 * float(np.mean([one.optimism for one in of])):+.2f} "
                f"| {np.mean([one.num_points for one in of]):.0f} "
                f"| {np.mean([one.num_seeds for one in of]):.1f} "
                f"| {np.mean([one.further for one in of]):.0%} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
