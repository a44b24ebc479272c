"""Arguments and options that several verbs share: type, name and help text of each."""

import inspect
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from search.driver.cluster_address import OPTION, cluster_address
from search.driver.placement import DeviceKind, Placement
from search.driver.signals import interruptible
from search.study.address import local_folder, storage_address
from search.study.reuse_roots import Given, reuse_roots
from tcpa_core.errors import ConfigError

DEFAULT_ROOT = Path("studies")

Root = Annotated[
    Path,
    typer.Option(
        "--root", help="Folder that holds the studies.", parser=local_folder, metavar="PATH"
    ),
]
Storage = Annotated[
    str | None,
    typer.Option(
        "--storage",
        help="Address of studies in a storage: s3://, gs://, az://, abfs://, hdfs://, file://.",
        parser=storage_address,
        metavar="ADDRESS",
    ),
]
Space = Annotated[str, typer.Argument(help="YAML file, or the name of a preset.")]
Study = Annotated[str, typer.Argument(help="Name of a study below --root.")]
Name = Annotated[str | None, typer.Option("--study", help="Name of the study.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="path=value; may be repeated.")]
Trials = Annotated[int | None, typer.Option("--trials", help="Most trials.")]
Address = Annotated[
    str | None,
    typer.Option("--address", help="Ray cluster, HOST:PORT or auto; default: $RAY_ADDRESS, local."),
]
Device = Annotated[
    DeviceKind,
    typer.Option("--device", help="auto: GPUs that torch can use, else processors."),
]
Workers = Annotated[
    int | None, typer.Option("--workers", min=1, help="Processes that train; default: by devices.")
]
GpusPerWorker = Annotated[
    float | None,
    typer.Option("--gpus-per-worker", min=0.01, max=1.0, help="Below 1, workers share a GPU."),
]
ShipData = Annotated[
    bool,
    typer.Option(
        "--ship-data", help="Send data and weights to nodes of the cluster that lack them."
    ),
]
CacheDir = Annotated[
    Path | None,
    typer.Option(
        "--cache-dir",
        help="Cache of decoded images on each node; $VARIABLES are those of the node.",
        metavar="DIR",
    ),
]
Uri = Annotated[str | None, typer.Option("--tracking-uri", help="MLflow; default: ROOT/mlflow.db.")]
JobVerb = Annotated[
    Literal["search", "ablate", "compare"], typer.Option("--verb", help="What the job runs.")
]
Out = Annotated[Path | None, typer.Option("--out", help="File to write; default: printed.")]
Seeds = Annotated[int, typer.Option(min=2, help="Most fresh seeds a point; 3 may decide.")]
Accept = Annotated[
    bool,
    typer.Option(
        "--accept-changed-data", help="Go on although data or weights are not those recorded."
    ),
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on with the study if there is one; else begin it.")
]
Wait = Annotated[
    float | None,
    typer.Option(
        "--wait",
        min=0.0,
        help="Most seconds that --resume waits for another driver; default: no limit.",
    ),
]
Trained = typer.Argument(
    metavar="STUDY TRIAL ...", help="Study and trial, or a folder; then what the verb needs."
)
Weights = Annotated[
    Path | None,
    typer.Option("--weights", help="Where the backbone's weights lie now; default: looked for."),
]
GreyBits = Annotated[
    int | None,
    typer.Option("--grey-bits", help="Bits of 16-bit grey, where an old checkpoint lacks it."),
]
Format = Annotated[
    Literal["tcpa", "timm", "onnx", "torch.export", "peft"],
    typer.Option("--format", help="tcpa: for load_trained; others where the method allows."),
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON document, see docs/watching.md.")
]
ReuseRoots = Annotated[
    list[Path] | None,
    typer.Option(
        "--reuse",
        help="Folder with further studies whose completed trials are taken; may be repeated.",
        metavar="PATH",
    ),
]
NoReuse = Annotated[
    bool, typer.Option("--no-reuse", help="Train also what a study below --root has completed.")
]
LearnFrom = Annotated[
    list[str] | None,
    typer.Option(
        "--learn-from",
        help="Study below --root, or CSV file, whose results the sampler is given; repeatable.",
        metavar="STUDY|CSV",
    ),
]
DataFolder = Annotated[
    Path | None, typer.Option("--data", help="Folder of a suite's data sets.", metavar="DIR")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Stop after the plan.")]


@dataclass(frozen=True, slots=True)
class Common:
    """What every verb that makes a study is given: a space, and changes to it."""

    space: Space
    study: Name = None
    root: Root = DEFAULT_ROOT
    storage: Storage = None
    set_: Set = None
    trials: Trials = None


@dataclass(frozen=True, slots=True)
class Repeat:
    """What every verb that makes a study is given for the case that it is there already."""

    resume: Resume = False
    wait: Wait = None
    accept: Accept = False

    @property
    def wait_s(self) -> float:
        """How long to wait for another driver: for none where a second one may be a mistake."""
        if self.wait is not None:
            return self.wait
        return math.inf if self.resume else 0.0


NEW = Repeat()
"""What is there already is not taken up."""


@dataclass(frozen=True, slots=True)
class Before:
    """What every verb that makes a study is given on what was trained before."""

    reuse: ReuseRoots = None
    no_reuse: NoReuse = False
    learn_from: LearnFrom = None

    @property
    def sources(self) -> list[str]:
        """Of `--learn-from`, as a new study records them: files by their whole path."""
        given = self.learn_from or ()
        return [str(Path(s).absolute()) if s.endswith(".csv") else s for s in given]

    @property
    def given(self) -> Given:
        """As the command says it; None: it does not.

        Raises:
            ConfigError: It says two things.
            StudyError: A folder does not exist.
        """
        if self.no_reuse and self.reuse:
            raise ConfigError("--reuse and --no-reuse contradict each other; leave one out.")
        if self.no_reuse:
            return False
        return None if self.reuse is None else reuse_roots(self.reuse)

    @property
    def recorded(self) -> list[str] | Literal[False]:
        """What a new study records."""
        given = self.given
        return False if given is False else list(given or ())


ANEW = Before()
"""What studies of the same root have completed is taken."""


@dataclass(frozen=True, slots=True)
class Where:
    """What every verb that runs trials is given: on which devices of which machines."""

    address: Address = None
    device: Device = "auto"
    workers: Workers = None
    gpus_per_worker: GpusPerWorker = None
    ship_data: ShipData = False
    cache_dir: CacheDir = None

    def placement(self) -> Placement:
        """Where trials run.

        A cache folder of --cache-dir is from here on this process's own, as one of TCPA_CACHE.

        Raises:
            ConfigError: Its options contradict each other, or no driver can use the address.
            DataError: The cache folder cannot be written here.
        """
        if self.device == "cpu" and self.gpus_per_worker not in (None, 1.0):
            raise ConfigError(
                "--gpus-per-worker: with --device cpu no worker takes a part of a GPU; leave one "
                "of them out."
            )
        cluster = cluster_address(self.address)
        if self.ship_data and cluster is None:
            raise ConfigError(
                "--ship-data: without a cluster (--address) all trials run on this machine, which "
                "has the files; leave it out."
            )
        if self.cache_dir is not None:
            from tcpa_core.data.base import usable_cache  # loads torch

            os.environ["TCPA_CACHE"] = str(usable_cache(self.cache_dir).absolute())
        return Placement(
            address=cluster.text if cluster else None,
            address_source=cluster.source if cluster else OPTION,
            device=self.device,
            workers=self.workers,
            gpus_per_worker=self.gpus_per_worker,
            ship_data=self.ship_data,
            cache_dir=self.cache_dir,
        )


_GROUPS = (Common, Repeat, Before, Where)


def with_common(command: Callable[..., None]) -> Callable[..., None]:
    """A command that typer gives each field of the groups of options above.

    All such commands run studies or plan them: a signal ends them in order, with exit code 3.

    Args:
        command: Takes values of these classes beside its own arguments and options.
    """
    own = inspect.signature(command).parameters
    shared = {name: one.annotation for name, one in own.items() if one.annotation in _GROUPS}
    fields = {name: inspect.signature(cls).parameters for name, cls in shared.items()}

    def run(**given: Any) -> None:
        values = {
            name: cls(**{field: given.pop(field) for field in fields[name]})
            for name, cls in shared.items()
        }
        with interruptible():
            command(**values, **given)

    # typer looks at the signature for the order and the defaults, and at the annotations for types
    parameters = [
        # by name, so that an argument may come after the options of a group
        one.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for name, given in own.items()
        for one in (fields[name].values() if name in fields else (given,))
    ]
    run.__doc__ = command.__doc__
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {one.name: one.annotation for one in parameters}
    return run
