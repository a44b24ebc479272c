"""What a GPU does with this code, in 8 minutes: what must hold there, and how fast it is.

Needs torch, torchvision, timm, safetensors, pydantic, numpy and pillow, and nothing of the search.
Each part has its own time; one that fails, hangs or kills its process says so, and the next one
runs. Without a GPU everything runs on the CPU in a small form, which shows that it runs.

Writes report.md, report.json and figures.json, half-way too.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks._gpu.child import Child, Outcome
from benchmarks._gpu.form import FORMS
from benchmarks._gpu.report import FIGURES, Part, failures, figures, is_gpu, write

MINUTES = 8.0
REPORT_S = 5.0
"""Kept for the end of the last process and the report."""
SHORTEST_S = 5.0
"""A part that has less than this left is not begun."""
PARTS = (
    Part("benchmarks._gpu.facts", "Device", "What is there, and whether it computes.", 30),
    Part(
        "benchmarks._gpu.limit",
        "Limit",
        "The fastest products and copies, and the time of a step (forward and backward, one trial) "
        "at the speed of these products as a share of the time that it takes.",
        40,
    ),
    Part(
        "benchmarks._gpu.waits",
        "Waits in the step",
        "How often the host waits for the device inside a training step, by CUDA's sync debug "
        "mode: never is what must hold.",
        60,
    ),
    Part(
        "benchmarks._gpu.precision",
        "bf16 against fp32",
        "Mean training loss of a first epoch in both precisions.",
        45,
    ),
    Part(
        "benchmarks._gpu.solo",
        "Pack against solo",
        "Losses of members of unequal sizes against those of the same trials alone.",
        45,
    ),
    Part(
        "benchmarks._gpu.resume",
        "Kill and resume",
        "A process is killed (SIGKILL) inside an epoch, another one goes on; 0: equal to the bit.",
        60,
    ),
    Part(
        "benchmarks._gpu.search",
        "Trials per GPU-hour",
        "800 training and 200 validation images, 100 epochs: a few epochs are measured, the rest "
        "follows. Images of the test split are as many as those of val.",
        120,
    ),
    Part(
        "benchmarks._gpu.packs",
        "Packs",
        "A whole training step, optimiser included, by members.",
        60,
    ),
    Part(
        "benchmarks._gpu.executions",
        "Recorded and compiled steps",
        "Losses of 16 steps against those of plain steps, and milliseconds of a step; preparing is "
        "recording and compiling.",
        90,
    ),
    Part(
        "benchmarks._gpu.literal_step",
        "Step against the published computation",
        "Forward and backward of one trial, taking turns with `benchmarks/literal.py`.",
        50,
    ),
    Part(
        "benchmarks._gpu.data",
        "Data",
        "Images that arrive normalised, nothing else being done.",
        25,
    ),
)


def run(folder: Path, device: str, form: str, minutes: float, parts: Sequence[Part]) -> int:
    """Run the parts and write the report.

    Args:
        folder: Where it goes; made if need be.
        device: A torch device, or "auto".
        form: A name in `FORMS`, or "auto".
        minutes: After which nothing runs any more; the time of each part grows and shrinks with it.
        parts: What to run, in this order.

    Returns:
        0 where all that was judged is ok, else 1.
    """
    started = time.monotonic()
    ends = started + 60 * minutes - REPORT_S
    date = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    folder.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix="scratch-", dir=folder))
    patience = minutes / MINUTES
    outcomes: dict[Part, Outcome] = {}
    child: Child | None = None
    try:
        for part in parts:
            left = ends - time.monotonic()
            print(f"[{time.monotonic() - started:4.0f} s] {part.title}", flush=True)
            if left < SHORTEST_S:
                outcomes[part] = Outcome("not run", f"the {minutes:g} minutes are over")
            else:
                if child is None or not child.is_alive:
                    child = Child(device, form, scratch)
                outcomes[part] = child.run(part.module, part.seconds * patience, ends)
            if outcomes[part].reason:
                print(f"    {outcomes[part].state}: {outcomes[part].reason}", flush=True)
            write(folder, outcomes, date, time.monotonic() - started)
    finally:
        if child is not None:
            child.end()
        shutil.rmtree(scratch, ignore_errors=True)
    found = json.dumps(figures(outcomes, date), indent=1) + "\n"
    (folder / "figures.json").write_text(found)
    if is_gpu(outcomes):
        FIGURES.write_text(found)
    wrong = failures(outcomes)
    for text in wrong:
        print(f"not ok: {text}")
    print(f"[{time.monotonic() - started:4.0f} s] {folder / 'report.md'}")
    return min(1, len(wrong))


def main() -> int:
    """Run `make gpu`."""
    names = [part.name for part in PARTS]
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--out", type=Path, default=Path("build/gpu"), help="folder of the report")
    parser.add_argument("--device", default="auto", help="a torch device; auto: a GPU if usable")
    parser.add_argument("--form", choices=["auto", *FORMS], default="auto", help="how large")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="after which it ends")
    parser.add_argument("--parts", nargs="+", choices=names, default=names)
    options = parser.parse_args()
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    # What a user has set up for training must not change how the parts find their own files.
    os.environ.pop("TCPA_CACHE", None)
    parts = [part for part in PARTS if part.name in options.parts]
    return run(options.out, options.device, options.form, options.minutes, parts)


if __name__ == "__main__":
    sys.exit(main())
