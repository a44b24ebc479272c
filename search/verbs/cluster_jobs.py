"""What `tcpa slurm` and `tcpa kube` print: the space is checked, nothing is run."""

import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote
from typing import Any

from search.clusters.file_systems import why_not_shared
from search.clusters.kube import SPACE_FILE, VOLUME, RayJob, manifests
from search.clusters.slurm import BatchJob, batch_script
from search.clusters.words import VERBS, option_words, set_words, space_word
from search.commands.compare import FAIR
from search.options import Common, Where
from search.study.address import resolved_uri
from search.study.folder import check_name
from search.tracking.secrets import without_secrets
from search.verbs.start import name_of, requested
from spaces.space import Space
from tcpa_core.errors import ConfigError, StudyError


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """The study that a job runs."""

    verb: str
    common: Common
    seeds: int = 5
    """Of `tcpa compare`."""
    tracking_uri: str | None = None

    def checked(self) -> "CheckedRun":
        """The same with its space read.

        Raises:
            ConfigError: The space cannot be read, is of the other kind, or could not be trained.
            StudyError: The study cannot be called so.
        """
        settings = [*(FAIR if self.verb == "compare" else ()), *(self.common.set_ or ())]
        space = requested(replace(self.common, set_=settings), VERBS[self.verb])
        study = name_of(space, self.common)
        check_name(study)
        return CheckedRun(self, study, space)


@dataclass(frozen=True, slots=True)
class CheckedRun:
    """A run whose space is one, and what it is called."""

    run: Run
    study: str
    space: Space

    def words(self, space: str, root: Path, settings: Iterable[str]) -> Iterator[str]:
        """The command that runs it or goes on with it, without options of where.

        Args:
            space: File or preset, as it is called where the command runs.
            settings: `--set` options.
        """
        common = self.run.common
        yield from ("tcpa", self.run.verb, space, "--resume")
        yield from (f"--study={self.study}", f"--root={root}", *settings)
        yield from option_words(common, leave_out=("space", "study", "root", "storage", "set_"))
        if self.run.verb == "compare":
            yield f"--seeds={self.run.seeds}"
        if self.run.tracking_uri is not None:
            yield f"--tracking-uri={without_secrets(resolved_uri(self.run.tracking_uri))}"


def slurm_job(job: BatchJob, run: Run, where: Where) -> str:
    """The batch script of a study.

    Raises:
        ConfigError: As `Run.checked`, or an option cannot be meant in a job.
    """
    if where.address is not None:
        raise ConfigError(
            f"--address: the job starts a Ray cluster on its own nodes, got {where.address!r}; "
            "leave it out."
        )
    if not job.gpus_per_node and where.device == "auto":
        where = replace(where, device="cpu")  # else a study waits for GPUs that may join
    # Of the cluster of the job, and without a look at the folders of this machine.
    replace(where, address="head:6379", cache_dir=None).placement()
    checked = run.checked()
    root = run.common.root.absolute()
    storage = run.common.storage
    if storage is None and job.nodes > 1 and (why := why_not_shared(root)):
        _note(
            f"--root {root} lies on {why}; all nodes have to see it. Give a folder that they "
            "share, or an address of a storage with --storage."
        )
    _note_secrets(run)
    settings = set_words(run.common.set_ or (), checked.space)
    words = checked.words(space_word(run.common.space), root, settings)
    options = option_words(where, leave_out=("cache_dir",))
    kept = [f"--storage={storage}"] if storage else []
    folder = None if storage else root
    return batch_script(job, checked.study, [*words, *kept, *options], folder, where.cache_dir)


def kube_job(job: RayJob, run: Run) -> str:
    """The manifests of a study's RayJob.

    Raises:
        ConfigError: As `Run.checked`, or nothing would keep the study.
    """
    storage = run.common.storage
    if job.volume_claim is None and storage is None:
        raise ConfigError(
            "--volume-claim: the study would be lost with its pods; name a claim that all pods may "
            "mount (ReadWriteMany), or give an address of a storage with --storage."
        )
    root = Path(os.path.normpath(Path(VOLUME) / run.common.root))
    if not root.is_relative_to(VOLUME):
        raise ConfigError(
            f"--root: the volume is mounted at {VOLUME}, got {str(root)!r}; give a folder below it."
        )
    checked = run.checked()
    # As it was read, with the changes of --set: a file that names others would not find them.
    space = checked.space.as_dict()
    for path, value in checked.space.base.items():
        if isinstance(value, str) and value.startswith("/") and not value.startswith(VOLUME):
            _note(f"{path} is {value!r}, which the pods have only if their image has it; for what "
                  f"lies on the volume: --set {path}={VOLUME}/...")  # fmt: skip
    _note_secrets(run)
    words = [*checked.words(SPACE_FILE, root, ()), "--address=auto"]
    if storage is not None:
        words.append(f"--storage={storage}")
    if job.gpus_per_worker:  # waits for the GPUs: the head has none
        words += ["--device=cuda", f"--workers={job.workers * job.gpus_per_worker}"]
    else:
        words.append("--device=cpu")
    return manifests(job, checked.study, space, words)


def print_job(text: str, out: Path | None) -> None:
    """Print a job, or write it to a file and say what comes next.

    Raises:
        StudyError: The file is there with another text, or cannot be written.
    """
    if out is None:
        print(text, end="")
        return
    shown = quote(str(out))
    try:
        if not (out.exists() and out.read_text(encoding="utf-8") == text):
            with out.open("x", encoding="utf-8") as file:
                file.write(text)
    except FileExistsError:
        raise StudyError(
            f"--out: {out} is there with another text; remove it or choose another name."
        ) from None
    except (OSError, UnicodeDecodeError) as err:
        why = getattr(err, "strerror", None) or err
        raise StudyError(f"--out: {out} cannot be written ({why}); choose another file.") from err
    submit = f"kubectl apply -f {shown}" if out.suffix in (".yaml", ".yml") else f"sbatch {shown}"
    print(f"Submit with: {submit}")


def _note_secrets(run: Run) -> None:
    if run.tracking_uri is not None and _has_secrets(run.tracking_uri):
        _note("the secrets of --tracking-uri are not written; where you submit, export them as in "
              "MLFLOW_TRACKING_URI.")  # fmt: skip


def _has_secrets(uri: Any) -> bool:
    return bool(without_secrets(uri) != uri)


def _note(text: str) -> None:
    print(f"note: {text}", file=sys.stderr)
