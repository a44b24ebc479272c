"""MLflow as a mirror of the journal: it may fail, lag or be rebuilt, and never stops a trial.

One background thread of the driver reads the journal behind its writer and is the only one that
writes to MLflow. What is not mirrored yet waits on the disk and not in memory.
"""

import logging
import math
import os
import random
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path

from mlflow import MlflowClient

from search.study.address import (
    artifacts_of,
    default_uri,
    has_tables,
    recorded_uri,
    resolved_uri,
    sqlite_file,
)
from search.study.folder import StudyDir
from search.tracking.run_writer import RunWriter
from search.tracking.secrets import hide, with_secrets, without_secrets
from tcpa_core.errors import RecordError, StudyError
from tcpa_core.record import files
from tcpa_core.record.events import Event, Planned, TrialEvent, decode_line, read_journal

os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")  # a lost answer may have made a run
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
os.environ.setdefault("PGCONNECT_TIMEOUT", "10")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

ANSWER_S = 30.0
"""A tracker that takes longer to answer the first time counts as absent."""
BATCH_S = 2.0
"""Time in which events gather."""
CHUNK = 1000
"""Most events of a batch."""
RETRY_S = 1.0
"""First pause after a failure; it doubles with every further one."""
MAX_RETRY_S = 60.0
LAST_TRIES = 3
"""Repeats at the end of a study."""


def check_tracker(uri: str) -> None:
    """Make sure that a tracking server or database answers; nothing is written.

    A database of this machine that MLflow has not made yet is not asked: it would be made.

    Raises:
        StudyError: It does not, or the address is of no known kind.
    """
    _quieten()
    failures: list[Exception] = []
    database = sqlite_file(uri)

    def ask() -> None:
        try:
            if database is None or has_tables(database):
                MlflowClient(tracking_uri=uri).search_experiments(max_results=1)
        except Exception as err:  # the client raises whatever its store's driver raises
            failures.append(err)

    asking = threading.Thread(target=ask, daemon=True)  # a client may go on trying for an hour
    asking.start()
    # A local file answers or fails by itself, and a large one may take long to open.
    asking.join(None if database else ANSWER_S)
    if asking.is_alive():
        failures.append(TimeoutError(f"nothing in {ANSWER_S:.0f} s"))
    if failures:
        remedy = "start the server, correct the address, or leave it out for a local database"
        if database is not None and database.exists():
            remedy = (
                f"mend {database}, or move it away: a new one is made, and 'tcpa sync STUDY' puts "
                "into it what the journals have"
            )
        raise StudyError(
            f"--tracking-uri: MLflow does not answer at {without_secrets(uri)!r} "
            f"({_why(failures[0], uri)}); {remedy}."
        ) from failures[0]


def tracking_of(study: StudyDir, root: Path, uri: str | None) -> tuple[str, Path | None]:
    """Tracking address of a study, and where a database of this machine keeps artifacts."""
    uri = recorded_uri(resolved_uri(uri or study.document()["tracking_uri"]), root)
    uri = with_secrets(uri) if uri else default_uri(root)
    database = sqlite_file(uri)
    return uri, database and artifacts_of(database)


class Mirror:
    """Follows a study's journal and writes it to MLflow.

    Args:
        study_dir: Folder of the study; its checkpoints become artifacts.
        uri: MLflow tracking address.
        artifact_root: Where a new experiment keeps its artifacts; None: the server decides.
        warn: Called with one line when the tracker goes away or comes back.
        progress: Called from the mirror's thread with ("write to MLflow", bytes done, total).
        verdict: Says in plain sentences what a finished study has shown; called from that thread.
    """

    def __init__(
        self,
        study_dir: Path,
        uri: str,
        *,
        artifact_root: Path | None = None,
        warn: Callable[[str], None] = lambda line: None,
        progress: Callable[[str, int, int], None] = lambda stage, done, total: None,
        verdict: Callable[[Path], str] = lambda study: "",
    ) -> None:
        self._study_dir = study_dir
        self._uri = uri
        self._artifact_root = artifact_root
        self._warn = warn
        self._tell = progress
        self._verdict = verdict
        self._journal = study_dir / files.JOURNAL
        # Lines of earlier drivers are on the disk; of ours only those that `put` has told of. A
        # line that is lost with the power must not be in MLflow: it would never have happened.
        self._past = self._journal.stat().st_size if self._journal.exists() else 0
        """Length of the journal that earlier drivers left."""
        self._acknowledged = -1
        """Number of the last event of this driver that is known to be on the disk."""
        self._offset = 0
        """Length of what MLflow holds."""
        self._number = 0
        """Events in it."""
        self._writer: RunWriter | None = None
        self.num_trials = 0
        """Trials that MLflow holds."""
        self.damage: RecordError | None = None
        """Why the journal cannot be read on."""
        self._news = threading.Event()
        self._closing = threading.Event()
        self._is_down = False
        _quieten()
        self._thread = threading.Thread(target=self._work, name="mlflow-mirror", daemon=True)
        self._thread.start()

    def put(self, event: Event) -> None:
        """Learn that an event was written to the journal; returns at once and never raises."""
        if event.n is not None:
            self._acknowledged = event.n
        self._news.set()

    def close(self, timeout_s: float = 60.0, total_s: float | None = None) -> bool:
        """Write what is left.

        Args:
            timeout_s: Time after which a tracker that takes nothing is given up.
            total_s: Time after which a slow one is; None: five times as long.

        Returns:
            False when the tracker did not take everything; `sync` completes it later.
        """
        self._closing.set()
        self._news.set()
        end = time.monotonic() + (5 * timeout_s if total_s is None else total_s)
        # Given up when a whole `timeout_s` has brought nothing forward, however much is left.
        before = None
        while self._thread.is_alive() and time.monotonic() < end and before != self._progress():
            before = self._progress()
            self._thread.join(timeout_s)
        is_whole = not (self._thread.is_alive() or self._is_down or self.damage)
        return is_whole and not self._refused()

    def cpu_s(self) -> float:
        """CPU time that the mirror has cost until now; 0 once it has ended."""
        if not self._thread.is_alive():
            return 0.0
        return time.clock_gettime(time.pthread_getcpuclockid(self._thread.ident or 0))

    def lacking(self) -> str:
        """What MLflow lacks of the journal, for a message."""
        trials, number = set(self._refused()), 0
        for event in islice(read_journal(self._journal), self._number, None):
            number += 1
            if isinstance(event, TrialEvent):
                trials.add(event.trial)
        return f"{number} events of {len(trials)} trials"

    def _progress(self) -> tuple[int, int]:
        return self._offset, self._writer.num_written if self._writer else 0

    def _refused(self) -> set[str]:
        return self._writer.refused if self._writer else set()

    def _work(self) -> None:
        retries = 0
        while True:
            closing = self._closing.is_set()
            try:
                events, offset = self._read()
            except RecordError as err:
                self._warn(f"MLflow is not kept up to date any more: {err}")
                self.damage = err
                return
            try:
                self._write(events, again=retries > 0, is_last=closing and len(events) < CHUNK)
            except Exception as err:  # whatever the store's driver raises: it may come back
                self._say_down(err)
                if closing and retries >= LAST_TRIES:
                    return
                pause = min(MAX_RETRY_S, RETRY_S * 2**retries) * random.uniform(0.5, 1.0)
                # While it closes, `_closing` is set and would not wait at all.
                time.sleep(pause) if closing else self._closing.wait(pause)
                retries += 1
                continue
            retries = 0
            self._offset, self._number = offset, self._number + len(events)
            self._tell("write to MLflow", offset, self._past)
            self.num_trials += sum(isinstance(event, Planned) for event in events)
            self._say_up()
            if len(events) < CHUNK:
                if closing:
                    return
                # Without news no thread wakes up; then events gather, so that a batch holds many.
                self._news.wait()
                self._news.clear()
                self._closing.wait(BATCH_S)

    def _read(self) -> tuple[list[Event], int]:
        """At most `CHUNK` further events, numbered, and the length of the journal with them."""
        events: list[Event] = []
        offset, number = self._offset, self._number
        last = self._acknowledged
        if not self._journal.exists():
            return events, offset
        with self._journal.open("rb") as file:
            file.seek(offset)
            for line in islice(file, CHUNK):
                is_there = offset < self._past or number <= last
                if not is_there or not line.endswith(b"\n"):
                    break
                event = decode_line(line, f"{self._journal.name}:{number + 1}")
                events.append(replace(event, n=number))
                offset += len(line)
                number += 1
        return events, offset

    def _write(self, events: list[Event], *, again: bool, is_last: bool) -> None:
        if self._writer is None:
            self._writer = RunWriter(
                self._study_dir,
                self._uri,
                self._artifact_root,
                is_new=not self._past,
                warn=self._warn,
                verdict=self._verdict,
            )
        self._writer.write(events, again=again)
        if is_last:
            self._writer.finish()

    def _say_down(self, err: Exception) -> None:
        if not self._is_down:
            self._warn(
                f"MLflow does not answer at {without_secrets(self._uri)} "
                f"({_why(err, self._uri)}); training goes on, the backlog is written when it "
                "returns."
            )
        self._is_down = True

    def _say_up(self) -> None:
        if self._is_down:
            self._warn("MLflow answers again.")
        self._is_down = False


def sync(
    study_dir: Path,
    uri: str,
    *,
    artifact_root: Path | None = None,
    warn: Callable[[str], None] = lambda line: None,
    progress: Callable[[str, int, int], None] = lambda stage, done, total: None,
    verdict: Callable[[Path], str] = lambda study: "",
) -> int:
    """Write everything of a study's journal that MLflow lacks.

    Args:
        progress: Called with ("write to MLflow", bytes done, total), from another thread.
        verdict: As of `Mirror`.

    Returns:
        The number of trials that MLflow holds now.

    Raises:
        StudyError: The tracker does not answer, or does not any more.
        RecordError: The journal is damaged.
    """
    check_tracker(uri)
    mirror = Mirror(
        study_dir, uri, artifact_root=artifact_root, warn=warn, progress=progress, verdict=verdict
    )
    is_whole = mirror.close(total_s=math.inf)
    if mirror.damage is not None:
        raise mirror.damage
    if not is_whole:
        raise StudyError(
            f"MLflow lacks {mirror.lacking()} at {without_secrets(uri)}; what it took is kept: run "
            "'tcpa sync' again."
        )
    return mirror.num_trials


def _quieten() -> None:
    """MLflow logs every table it makes and the traces of its errors, and advises on models."""
    warnings.filterwarnings("ignore", category=UserWarning, module=r"mlflow\.")
    logging.getLogger("alembic").setLevel(logging.ERROR)
    logging.getLogger("mlflow").setLevel(logging.CRITICAL)


def _why(err: Exception, uri: str) -> str:
    """First line of a client's message, without secrets."""
    first = (hide(str(err), uri).splitlines() or [""])[0]
    return first[:200].rstrip(". ") or type(err).__name__
