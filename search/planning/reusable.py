"""What a study need not train, because earlier ones have completed it."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from search.proposals.make_source import most_trials
from search.study.earlier import Earlier
from search.study.repetition import Repetition
from spaces.space import Space
from tcpa_core.config import TrialConfig
from tcpa_core.record.state import StudyState
from tcpa_core.record.values import TrialResult


@dataclass(frozen=True, slots=True)
class Reusable:
    """Trials that earlier studies have, as far as it is known which ones will be asked for."""

    studies: Mapping[str, int] = field(default_factory=dict)
    """Trials by the study that trained them."""
    device_s: float = 0.0
    """What these took of a device where they were trained, in seconds."""
    gpu_s: float = 0.0
    """The part of it that was of GPUs."""
    num_completed: int = 0
    """Trials that earlier studies have completed: those that a sampler will draw may be among
    them."""

    @property
    def num_trials(self) -> int:
        """Trials that are known to be taken."""
        return sum(self.studies.values())

    @property
    def text(self) -> str:
        """A sentence; "": no earlier study is there."""
        if not self.num_completed:
            return ""
        if not self.studies:
            return f"what is drawn is looked for among {self.num_completed:,} completed trials"
        of = ", ".join(f"{n} of {study}" for study, n in self.studies.items())
        what = f"{self.gpu_s / 3600:.2g} GPU-hours" if self.gpu_s else _cores(self.device_s)
        return f"{self.num_trials} trials are not trained again ({of}): {what} less; --no-reuse"


def reusable(earlier: Earlier, space: Space, prints: Mapping[str, str]) -> Reusable:
    """What earlier studies have of a space.

    Args:
        prints: Fingerprints of data and weights.
    """
    if not earlier.num_completed:
        return Reusable()
    if space.ablation is None:
        limit = most_trials(space)
        repeated = Repetition.find(earlier, space, prints, StudyState(), limit)
        if repeated is not None:
            trials = [one for name, one in repeated.before.trials.items() if name in repeated.taken]
            of = [one.reused.study if one.reused else repeated.folder.name for one in trials]
            results = [one.result for one in trials if one.result]
            return _counted(of, results, earlier.num_completed)
        if space.scheduler.herd:
            return Reusable()
        configs: Iterable[TrialConfig] = (
            space.config(space.complete(point), seed)
            for point in space.first_points
            for seed in space.seeds[: space.least_seeds]
        )
    else:
        configs = space.trials
    ids = prints["data"], prints["weights"]
    found = [one for c in configs if (one := earlier.find(c.digest(*ids))) is not None]
    results = [one.result for one in found]
    return _counted([one.study for one in found], results, earlier.num_completed)


def _counted(studies: list[str], results: list[TrialResult], num_completed: int) -> Reusable:
    return Reusable(
        studies=dict(Counter(studies)),
        device_s=sum(one.duration_s or 0.0 for one in results),
        gpu_s=sum(one.duration_s or 0.0 for one in results if one.device.startswith("cuda")),
        num_completed=num_completed,
    )


def _cores(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min" + " of one core"
