"""The process that runs the parts, and how the report watches it.

A part may hang, run out of memory or leave a device that answers nothing any more. So parts run in
a process of their own, which is ended when a part takes too long, and replaced after any failure.
"""

import multiprocessing
import os
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

START_S = 90.0
"""Until the process has imported torch and timm: from a cold network disk this takes long."""


@dataclass(slots=True)
class Outcome:
    """What became of a part."""

    state: str
    """"done", "failed" or "not run"."""
    reason: str = ""
    seconds: float = 0.0
    rows: list[dict[str, Any]] = field(default_factory=list)
    """Findings as JSON has them; also of a part that failed later on."""


class Child:
    """A process that runs parts, one after the other.

    Args:
        device: A torch device; "auto": the first GPU where torch can use one.
        form: A name in `FORMS`; "auto": what the device is for.
        folder: For images, weights and checkpoints.
    """

    def __init__(self, device: str, form: str, folder: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, device, form, folder))
        self._process.start()
        theirs.close()  # else its end would not be seen
        self._is_ready = False

    def run(self, module: str, seconds: float, ends: float) -> Outcome:
        """Run a part; a process that did not come through it whole is ended.

        Args:
            module: Of the part.
            seconds: Of the part at most, the start of the process not counted.
            ends: `time.monotonic()` at which it is cut off in any case.
        """
        outcome = Outcome("failed")
        is_whole = False
        started = time.monotonic()
        try:
            if not self._is_ready:
                self._receive(min(started + START_S, ends))
                self._is_ready = True
                started = time.monotonic()
            ends = min(started + seconds, ends)
            self._pipe.send((module, ends - started))
            while True:
                kind, value = self._receive(ends)
                if kind != "row":
                    break
                outcome.rows.append(value)
            if kind == "done":
                outcome.state, is_whole = "done", value
            else:
                outcome.reason = value
        except TimeoutError:
            outcome.reason = f"cut off after {time.monotonic() - started:.0f} s"
        except (EOFError, OSError):
            self._process.join(10)
            outcome.reason = f"its process ended with code {self._process.exitcode}"
        outcome.seconds = time.monotonic() - started
        if not is_whole:
            self.end()
        return outcome

    @property
    def is_alive(self) -> bool:
        """Whether it takes another part."""
        return self._process.is_alive()

    def end(self) -> None:
        """End the process and all that it has started."""
        self._process.kill()
        if self._is_ready and self._process.pid is not None:
            with suppress(ProcessLookupError):  # nothing that it has started is left
                os.killpg(self._process.pid, signal.SIGKILL)
        self._is_ready = False
        self._process.join()
        self._pipe.close()

    def _receive(self, ends: float) -> tuple[str, Any]:
        if not self._pipe.poll(max(0.0, ends - time.monotonic())):
            raise TimeoutError
        return self._pipe.recv()


def _serve(pipe: Connection, device: str, form: str, folder: Path) -> None:
    from benchmarks._gpu.serve import serve  # what it loads is not for the process that watches

    serve(pipe, device, form, folder)


def line(row: Mapping[str, Any]) -> str:
    """A finding in one line of the progress."""
    mark = {True: "ok: ", False: "NOT OK: ", None: ""}[row["ok"]]
    shown = ", ".join(f"{key} {number(value)}" for key, value in row["values"].items())
    return f"{mark}{row['what']}: {shown} {row['note']}".rstrip(" :")


def number(value: object) -> str:
    """A value as tables show it, with three digits."""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    if isinstance(value, int):
        return f"{value:,}"
    return "" if value is None else str(value)
