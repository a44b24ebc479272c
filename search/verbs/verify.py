"""Check a bundle: its hashes, its journal, its tables, and some of its trials by training them."""

import random
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from reports.sealed import differences
from search.study.description import read_description, write_description
from search.study.folder import StudyDir
from search.study.identity import check_unchanged
from search.study.sealed import Manifest, Source, broken, extract, opened_bundle, read_manifest
from search.verbs.bundle import TABLES
from search.verbs.replay import replay
from search.verbs.stages import Stages
from tcpa_core.config import Flat, file_settings
from tcpa_core.errors import ConfigError, RecordError, StudyError, TcpaError
from tcpa_core.record import files
from tcpa_core.record.events import Planned, encode_line, read_journal
from tcpa_core.record.state import StudyState

SHOWN = 20
"""Faults of a kind that are named."""
NO_FILES = (None, "random")
"""Values of a setting for a file that name none."""


def verify(
    path: Path,
    console: Console,
    *,
    trials: int,
    seal: str | None = None,
    given: Mapping[str, object] | None = None,
    device: str | None = None,
    draw: int | None = None,
) -> int:
    """Check a bundle and say what was found.

    Args:
        trials: How many are drawn and trained again.
        seal: As it was published; None: the one in the bundle counts.
        given: Settings that say where data and weights lie here.
        device: On which they are trained; None: the best there is.
        draw: Of which trials; None: another one each time.

    Returns:
        0: all is as it was sealed, and numbers came out again; 1: something is not.

    Raises:
        ConfigError: A setting is given that says nothing of the kind.
        StudyError: It is no bundle; its trials were trained with files, and these are not here.
        DataError: The data cannot be read.
        WeightsError: The weights cannot be read.
    """

    if others := sorted((given or {}).keys() - file_settings()):
        raise ConfigError(
            f"--set {others[0]}: here it says where files lie ({', '.join(sorted(file_settings()))}"
            "); all else is as it was sealed."
        )

    def say(line: str) -> None:
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    with opened_bundle(path) as source, tempfile.TemporaryDirectory() as scratch:
        try:
            manifest = read_manifest(source)
            if faults := broken(source, manifest, seal):
                return _fail(say, "not as it was sealed", faults)
            say(f"{len(manifest.files)} files are as they were sealed (seal {manifest.seal}).")
            study = _unpacked(source, manifest, Path(scratch))
            state = study.state()
            if faults := differences(study.path, Path(scratch) / TABLES):
                return _fail(say, "tables are not what the journal says", faults)
            say(f"{len(state.trials)} trials in the journal; the tables follow from it.")
        except RecordError as err:
            return _fail(say, "not a sealed study", [str(err)])
        except (LookupError, ValueError, TypeError, AttributeError) as err:
            # Whatever a forged file may hold, no number of it is used.
            return _fail(say, "not a sealed study", [f"{type(err).__name__}: {err}"])
        return _replayed(study, _drawn(state, trials, draw), dict(given or {}), device, console)


def _unpacked(source: Source, manifest: Manifest, scratch: Path) -> StudyDir:
    """The study of a bundle, in a folder of this machine."""
    extract(source, manifest, scratch / "study", (files.DESCRIPTION, files.JOURNAL))
    extract(source, manifest, scratch, (f"{TABLES}/",))
    document = read_description(scratch / "study")
    # What is recorded of other places means nothing here, and a name is no path.
    document |= {"tracking_uri": "", "name": "study"}
    document.pop("storage", None)
    write_description(scratch / "study", document)
    return StudyDir.open(scratch, "study")


def _drawn(state: StudyState, number: int, draw: int | None) -> list[str]:
    done = [name for name, one in state.trials.items() if one.status in ("completed", "pruned")]
    chosen = random.Random(draw).sample(done, min(number, len(done)))
    return sorted(chosen)


def _replayed(
    study: StudyDir,
    trials: Sequence[str],
    given: Flat,
    device: str | None,
    console: Console,
) -> int:
    """Train trials again; the exit code."""
    if trials:
        _move(study, trials, given)
        planned = [study.state().trials[trial].planned.config for trial in trials]
        with Stages("checking weights and data") as stages:
            change = check_unchanged(study, accept=True, trials=planned, progress=stages)
        if change:
            console.print(f"{change}.", markup=False, soft_wrap=True)
            console.print(
                "NOT VERIFIED: other data or weights than it was made with; say with --set where "
                "those lie, or train no trial with --trials 0.",
                markup=False,
                soft_wrap=True,
            )
            return 1
    failed = []
    for trial in trials:
        console.print(f"trial {trial}:", markup=False)
        try:
            code = replay(study, trial, console, device=device)
        except TcpaError as err:
            console.print(str(err), markup=False, soft_wrap=True)
            code = 1
        failed += [trial] * bool(code)
    if failed:
        console.print(f"NOT VERIFIED: trials {', '.join(failed)} do not come out again.")
        return 1
    console.print(f"verified: {len(trials)} of its trials came out again.")
    return 0


def _move(study: StudyDir, trials: Sequence[str], given: Flat) -> None:
    """Have trials find their data and weights where the user says that they lie.

    Raises:
        StudyError: They need files, and the user has not said where these are: no path of a
            bundle is followed.
    """
    events = list(read_journal(study.journal_path))
    lacking: dict[str, Any] = {}
    for n, event in enumerate(events):
        if isinstance(event, Planned) and event.trial in trials:
            named = {p: event.params.get(p) for p in sorted(file_settings())}
            needed = {p: v for p, v in named.items() if v not in NO_FILES}
            lacking |= {p: v for p, v in needed.items() if p not in given}
            moved = {p: v for p, v in given.items() if p in event.params}
            events[n] = replace(event, params={**event.params, **moved})
    study.journal_path.write_bytes(b"".join(encode_line(e.as_dict()) for e in events))
    document = study.document()
    base = document["space"].setdefault("base", {})
    base |= {path: value for path, value in given.items() if path in base}
    write_description(study.path, document)
    # Beside those trials, what the study varies is compared with its record of data and weights.
    for config in study.space().trials:
        named = {p: v for p, v in config.flat().items() if p in file_settings()}
        lacking |= {p: v for p, v in named.items() if v not in NO_FILES and p not in given}
    if lacking:
        words = " ".join(f"--set {path}=..." for path in lacking)
        raise StudyError(
            f"trials {', '.join(trials)} were trained with files of another machine "
            f"({', '.join(f'{p} {v!r}' for p, v in lacking.items())}); say where they lie here "
            f"with {words}, or train none with --trials 0."
        )


def _fail(say: Any, what: str, faults: Sequence[str]) -> int:
    for fault in faults[:SHOWN]:
        say(fault)
    if len(faults) > SHOWN:
        say(f"... and {len(faults) - SHOWN} more")
    say(f"NOT VERIFIED: {what}.")
    return 1
