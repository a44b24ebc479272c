"""A copy of a study's finished points that optuna-dashboard opens; nothing of ours reads it."""

import json
import logging
import queue
import threading
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from spaces.space import Space

CHUNK = 200
"""Trials that are written before what Optuna remembers of them is freed."""


class OptunaLog:
    """Writes an Optuna journal in the background; 58 ms for each point would stall the search.

    Optuna numbers trials by their end; the user attributes "trial", "point" and "seed" are ours.

    Made anew by every driver, which is told all points: what an earlier one left may be torn.

    Args:
        path: Of the file.
        space: Its objectives.
        names: Of the Optuna studies in the file, one for each sampler.
    """

    def __init__(self, path: Path, space: Space, names: Sequence[str]) -> None:
        self._path = path
        self._directions = [objective.goal for objective in space.objective]
        self._names = names
        self._queue: queue.Queue[tuple[str, optuna.trial.FrozenTrial] | None] = queue.Queue()
        self._thread = threading.Thread(target=self._work, name="optuna-log", daemon=True)
        self._thread.start()

    def add(self, name: str, trial: optuna.trial.FrozenTrial) -> None:
        """Copy a finished trial of a study; returns at once."""
        self._queue.put((name, trial))

    def close(self) -> None:
        """Finish writing; a second time, nothing."""
        self._queue.put(None)
        self._thread.join(timeout=30)

    def _work(self) -> None:
        try:
            self._write()
        except Exception as err:  # a copy for a viewer must never stop the search
            logging.getLogger(__name__).warning(
                "%s cannot be written (%s); the search goes on without this copy", self._path, err
            )

    def _write(self) -> None:
        # A lock of a dead driver would be waited for, and a torn line be read as damage.
        for left in (self._path, self._path.with_name(f"{self._path.name}.lock")):
            left.unlink(missing_ok=True)
        whole = JournalStorage(JournalFileBackend(str(self._path)))
        for name in self._names:
            optuna.create_study(storage=whole, study_name=name, directions=self._directions)
        added = 0
        while (item := self._queue.get()) is not None:
            # A new storage forgets all that the old one remembered of the trials it wrote.
            if added % CHUNK == 0:
                storage = JournalStorage(_Appended(str(self._path), len(self._names)))
                studies = {
                    name: optuna.load_study(study_name=name, storage=storage)
                    for name in self._names
                }
            name, trial = item
            studies[name].add_trial(trial)
            added += 1


class _Appended(JournalFileBackend):
    """An Optuna journal of which only the studies and what is added is read.

    Optuna keeps every line that it has read, 3 KiB for a trial.
    """

    def __init__(self, path: str, num_studies: int) -> None:
        super().__init__(path)
        self._read = list(islice(super().read_logs(0), num_studies))

    def read_logs(self, log_number_from: int) -> list[dict[str, Any]]:  # type: ignore[override]
        """Lines of this object from a number on."""
        return self._read[log_number_from:]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Write lines to the file."""
        super().append_logs(logs)
        self._read += json.loads(json.dumps(logs))
