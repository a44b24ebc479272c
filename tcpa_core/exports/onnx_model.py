"""A trained trial as an ONNX model, checked by onnxruntime."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from tcpa_core.exports.base import WINDOWS, Form, Logits, Written
from tcpa_core.exports.network import traced, why_not_traced
from tcpa_core.training.trained import TrainedModel

FILE = "model.onnx"
OPSET = 18
USAGE = """\
import json, onnxruntime

session = onnxruntime.InferenceSession("DIR/model.onnx")
classes = json.load(open("DIR/config.json"))["tcpa"]["classes"]
# images: float32 [n, 3, height, width], preprocessed as config.json says (n is free)
(logits,) = session.run(["logits"], {"images": images})
names = [classes[label] for label in logits.argmax(-1)]
"""
SEGMENTING = """\
import json, onnxruntime

session = onnxruntime.InferenceSession("DIR/model.onnx")
classes = json.load(open("DIR/config.json"))["tcpa"]["classes"]
# images: float32 [n, 3, height, width], preprocessed as config.json says (n is free)
(logits,) = session.run(["logits"], {"images": images})
maps = logits.argmax(1)  # [n, h, w]: numbers of classes, in the order of `classes`
"""


@contextmanager
def _quiet() -> Iterator[None]:
    """Without remarks of the exporter on its own steps: what comes out is compared."""
    logger = logging.getLogger("onnxscript")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _write(model: TrainedModel, folder: Path) -> Written:
    with _quiet():
        program: Any = torch.onnx.export(
            traced(model, "onnx"),
            dynamo=True,
            opset_version=OPSET,
            input_names=["images"],
            output_names=["logits"],
            verbose=False,
        )
        program.save(folder / FILE)
    if model.segments:
        return Written(config={"opset": OPSET}, usage=SEGMENTING, library="onnx", notes=(WINDOWS,))
    return Written(config={"opset": OPSET}, usage=USAGE, library="onnx")


def _read(model: TrainedModel, folder: Path) -> Logits:
    runtime = import_module("onnxruntime")
    session = runtime.InferenceSession(folder / FILE, providers=["CPUExecutionProvider"])

    def logits(images: torch.Tensor) -> torch.Tensor:
        (found,) = session.run(["logits"], {"images": images.numpy()})
        return torch.from_numpy(found)

    return logits


FORM = Form(
    why_not=why_not_traced,
    write=_write,
    read=_read,
    tolerance=1e-4,
    packages=("onnx", "onnxscript", "onnxruntime"),
)
