"""What the process that runs the parts does."""

import importlib
import os
import sys
import time
import traceback
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from benchmarks._gpu.bench import Bench, Finding, one_line
from benchmarks._gpu.child import line
from benchmarks._gpu.form import FORMS, FULL, SMALL


def serve(pipe: Connection, device: str, form: str, folder: Path) -> None:
    """Run the parts that are asked for over a pipe, until it is closed."""
    os.setsid()  # so that it is ended with all that it has started
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if form == "auto":
        form = SMALL.name if device == "cpu" else FULL.name

    def tell(finding: Finding) -> None:
        pipe.send(("row", asdict(finding)))
        print(f"    {line(asdict(finding))}", flush=True)

    bench = Bench(device, FORMS[form], folder, tell)
    pipe.send(("ready", None))
    while True:
        try:
            module, seconds = pipe.recv()
        except EOFError:
            return
        bench.ends = time.monotonic() + seconds
        try:
            importlib.import_module(module).run(bench)
        except Exception as err:
            traceback.print_exc(file=sys.stdout)
            pipe.send(("failed", one_line(err)))
        else:
            pipe.send(("done", not bench.is_spoilt))
        bench.tidy()
