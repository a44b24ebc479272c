"""Seal a study in one file, so that others can check it and train trials of it again."""

import platform
import tempfile
from importlib.metadata import distributions
from pathlib import Path
from typing import Literal

from rich.console import Console

from reports.sealed import write_tables
from search.study.description import now
from search.study.folder import StudyDir
from search.study.provenance import git_state, versions
from search.study.sealed import write_bundle
from search.verbs.stages import Stages
from spaces.selection import Results
from tcpa_core.errors import StudyError
from tcpa_core.record import files

States = Literal["none", "selected", "all"]
ENVIRONMENT = "environment.txt"
TABLES = "tables"


def bundle(study: StudyDir, out: Path | None, states: States, console: Console) -> None:
    """Write the bundle of a study and say its seal.

    Args:
        out: Zip file, or a folder where its name does not end in ".zip"; None: STUDY.zip here.
        states: Of which trials the trained state is in it.

    Raises:
        StudyError: It has no journal, runs, or the bundle cannot be written.
        RecordError: The journal is damaged.
    """
    if study.driver() is not None:
        raise StudyError(f"{study.name} runs; stop it with 'tcpa stop {study.name}', or wait.")
    if not study.journal_path.is_file():
        raise StudyError(f"{study.name} has no journal yet; run it first.")
    with tempfile.TemporaryDirectory() as scratch, Stages("bundle"):
        environment = Path(scratch) / ENVIRONMENT
        environment.write_text(_environment(), encoding="utf-8")
        write_tables(study.path, Path(scratch) / TABLES)
        found = {
            files.DESCRIPTION: study.path / files.DESCRIPTION,
            files.JOURNAL: study.journal_path,
            ENVIRONMENT: environment,
            **{f"{TABLES}/{p.name}": p for p in sorted((Path(scratch) / TABLES).glob("*.*"))},
            **_states(study, states),
        }
        target = Path(f"{study.name}.zip") if out is None else out
        about = {
            "study": study.name,
            "id": study.document()["id"],
            "made": now(),
            "versions": {"python": platform.python_version(), **versions()},
            "git": git_state(),
        }
        seal = write_bundle(target, found, about)
    console.print(
        f"{target}: {len(found)} files of {study.name}.\nseal {seal}\n"
        f"Whoever has the seal checks it with: tcpa verify {target} --seal {seal}",
        markup=False,
        soft_wrap=True,
    )


def _states(study: StudyDir, states: States) -> dict[str, Path]:
    """Trained states by their names in the bundle."""
    if states == "none":
        return {}
    state = study.state()
    trials = [name for name, one in state.trials.items() if one.status == "completed"]
    if states == "selected":
        selected = Results.of(study.space(), state).ranking().selected
        trials = list(selected.trials) if selected else []
    found = {}
    for trial in trials:
        path = study.trial_folder(trial) / files.BEST
        path = path if path.is_file() else path.with_name(files.LAST)
        if path.is_file():
            found[f"{files.CHECKPOINTS}/{trial}/{path.name}"] = path
    return found


def _environment() -> str:
    """Interpreter, machine and every installed package, as pip names them."""
    packages = {f"{one.name}=={one.version}" for one in distributions() if one.name}
    head = f"# Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    return "\n".join([head, *sorted(packages, key=str.lower), ""])
