"""Study-wide settings: what is optimised, who proposes, who stops early, for how long."""

import re
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import AfterValidator, Field, model_validator

from tcpa_core import plugins
from tcpa_core.errors import nearest
from tcpa_core.record.scores import is_share
from tcpa_core.settings import Settings

Metric = Literal[
    "val_accuracy",
    "val_miou",
    "val_loss",
    "num_trainable",
    "num_trainable_no_head",
    "flops_per_image",
    "train_flops_per_image",
    "activation_bytes_per_image",
    "duration_s",
]

Goal = Literal["maximize", "minimize"]
SAMPLERS = "search.proposals.samplers"
"""Where samplers are found by name; nothing of it is imported but what a space names."""
SCHEDULERS = "search.tune.schedulers"
"""Where schedulers are found by name, in the same way."""

WORD = "TCPA_SAMPLER_CODE"
"""Environment variable with the `sampler.name` whose code may be imported and run."""


class Objective(Settings):
    """One measured value and the direction in which it gets better."""

    metric: Metric = "val_accuracy"
    """Of the selected epoch, on val; or a count of the trained model."""
    goal: Goal = "maximize"
    """Follows from the metric if left out."""

    @property
    def sign(self) -> int:
        """1 where larger is better, else -1; also for arrays of values, as `utility` is for one."""
        return 1 if self.maximize else -1

    @property
    def maximize(self) -> bool:
        """Whether larger is better."""
        return self.goal == "maximize"

    @property
    def is_of_epochs(self) -> bool:
        """Whether it is measured after every epoch and changes from one to the next."""
        return self.metric.startswith("val_")

    def utility(self, value: float) -> float:
        """The value, turned so that larger is better."""
        return self.sign * value

    def better(self, value: float, other: float) -> bool:
        """Whether a value beats another one; equal ones do not."""
        return self.utility(value) > self.utility(other)

    @model_validator(mode="before")
    @classmethod
    def _goal_of_metric(cls, values: Any) -> Any:
        # Before the check, so that the goal follows the metric wherever it is left out.
        return {"goal": _better(values.get("metric", "val_accuracy")), **values}

    @model_validator(mode="after")
    def _goal_fits(self) -> Self:
        if self.goal != _better(self.metric):
            raise ValueError(
                f"{self.goal!r} would look for the worst {self.metric}; write "
                f"{_better(self.metric)!r}"
            )
        return self


def _better(metric: object) -> str:
    return "maximize" if is_share(str(metric)) else "minimize"


_IMPORT_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*[.:][^\W\d]\w*")


def _known(package: str) -> AfterValidator:
    """A name must be that of a plugin in a package."""
    return AfterValidator(lambda name: _of_plugin(package, name))


def _of_plugin(package: str, name: str) -> str:
    known = plugins.names(package)
    if name not in known:
        possible = f"{', '.join(map(repr, known[:-1]))} or {known[-1]!r}"
        raise ValueError(f"must be {possible}, got {name!r}{nearest(name, known)}")
    return name


def _known_sampler(name: str) -> str:
    """A name of a plugin, a folder or an import path."""
    is_code = SamplerConfig.is_folder(name) or _IMPORT_PATH.fullmatch(name)
    return name if is_code else _of_plugin(SAMPLERS, name)


class SamplerConfig(Settings):
    """Who proposes the next point."""

    name: Annotated[str, AfterValidator(_known_sampler)] = "tpe"
    """A file of search/proposals/samplers: Optuna's sampler of that name; grid: every point of the
    axes, which then need an end. Or code: a class of Optuna's kind by its import path
    (package.module:Class), or a folder (with a /) with an __init__.py that holds one."""
    seed: int = Field(default=0, ge=0)
    """Of the proposals only; trials have their own seeds."""
    per: Literal["methods"] | None = None
    """Compare: a sampler of its own for each method chain, and the same budget for each."""
    options: dict[str, Any] | None = None
    """Arguments of the constructor, where the name is an import path or a folder."""

    @staticmethod
    def is_folder(name: str) -> bool:
        """Whether a name is that of a folder."""
        return "/" in name

    @property
    def is_code(self) -> bool:
        """Whether it is imported from elsewhere."""
        return self.is_folder(self.name) or "." in self.name or ":" in self.name

    @model_validator(mode="after")
    def _options_have_a_class(self) -> Self:
        if self.options and not self.is_code:
            raise ValueError(
                f"options are of a class by its import path, such as optuna.samplers:TPESampler; "
                f"{self.name!r} takes none"
            )
        return self


class Herd(NamedTuple):
    """The settings of population based training."""

    population: int = 8
    interval: int = 5
    quantile: float = 0.25
    resample: float = 0.25


class SchedulerConfig(Settings):
    """Who stops trials early."""

    name: Annotated[str, _known(SCHEDULERS)] = "asha"
    """A file of search/tune/schedulers. asha: at each rung the worse trials are stopped; hyperband:
    so in several brackets, each with another first rung; median: trials are stopped that are worse
    than the median of the others; pbt: the worse ones make place for trials that begin from states
    of the better ones; none: all trials train to their end."""
    grace_epochs: int = Field(default=1, ge=1)
    """No trial is stopped before it has trained this many epochs."""
    reduction_factor: int = Field(default=3, ge=2)
    """Of this many trials that reach a rung, one goes on."""
    brackets: int | None = Field(default=None, ge=1)
    """Of hyperband: how many, those that stop most first; None: as many as fit."""
    min_samples: int | None = Field(default=None, ge=1)
    """Of median: others that must have come as far before a trial is stopped; None: 3."""
    population: int | None = Field(default=None, ge=2)
    """Of pbt: members that live at once; None: 8."""
    interval: int | None = Field(default=None, ge=1)
    """Of pbt: epochs between two looks at a member; None: 5."""
    quantile: float | None = Field(default=None, gt=0.0, le=0.5)
    """Of pbt: share of the members that counts as the worst, and as the best; None: 0.25."""
    resample: float | None = Field(default=None, ge=0.0, le=1.0)
    """Of pbt: probability that a setting is drawn anew, and not near the one of the better member;
    None: 0.25."""

    @property
    def herd(self) -> Herd | None:
        """The settings of `pbt` with what is left out; None: it is another scheduler."""
        if self.name != "pbt":
            return None
        given = {name: getattr(self, name) for name in Herd._fields}
        return Herd(**{name: value for name, value in given.items() if value is not None})


class Budget(Settings):
    """When a study ends: on whichever comes first. None: no such limit."""

    trials: int | None = Field(default=None, ge=1)
    """Trials of a search, replicates counted; a design has its own number."""
    hours: float | None = Field(default=None, gt=0.0)
    """Wall time."""
    gpu_hours: float | None = Field(default=None, gt=0.0)
    """Hours of the study times the GPUs that it holds."""
    hang_seconds: float | None = Field(default=None, gt=0.0)
    """Longest time without a training step before a worker is taken for hung and replaced; None: 20
    epochs of its pack, between a minute and an hour."""
    pack_size: int | None = Field(default=None, ge=1)
    """Most trials that a worker trains together; None: as many as a measurement finds worth it."""


class Cluster(Settings):
    """What a study asks of a cluster; changes no result. Options of a command count before it."""

    workers: int | None = Field(default=None, ge=1)
    """Processes that train, as `--workers`; None: by the devices of the cluster."""
    gpus_per_worker: float | None = Field(default=None, ge=0.01, le=1.0)
    """Part of a GPU that each takes, as `--gpus-per-worker`; None: a whole one."""
    priority: float = Field(default=1.0, ge=0.01, le=100.0)
    """Share of the places that the study keeps while others wait: twice the priority, twice the
    places. Other jobs of Ray together count as 1."""
