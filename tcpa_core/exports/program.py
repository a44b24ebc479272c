"""A trained trial as a program of torch.export, which runs without this package."""

import warnings
from pathlib import Path

import torch

from tcpa_core.exports.base import WINDOWS, Form, Logits, Written
from tcpa_core.exports.network import traced, why_not_traced
from tcpa_core.training.trained import TrainedModel

PROGRAM = "model.pt2"
USAGE = """\
import json, torch

network = torch.export.load("DIR/model.pt2").module()
classes = json.load(open("DIR/config.json"))["tcpa"]["classes"]
# images: float32 [n, 3, height, width], preprocessed as config.json says (n is free)
names = [classes[label] for label in network(images).argmax(-1)]
"""
SEGMENTING = """\
import json, torch

network = torch.export.load("DIR/model.pt2").module()
classes = json.load(open("DIR/config.json"))["tcpa"]["classes"]
# images: float32 [n, 3, height, width], preprocessed as config.json says (n is free)
maps = network(images).argmax(1)  # [n, h, w]: numbers of classes, in the order of `classes`
"""


def _write(model: TrainedModel, folder: Path) -> Written:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tensors that share memory; what is read is compared
        # Plain operations: regions without autocast, as modules of their own, may lack outputs.
        program = traced(model, "torch.export").run_decompositions({})
        torch.export.save(program, folder / PROGRAM)
    if model.segments:
        return Written(config={}, usage=SEGMENTING, library="torch.export", notes=(WINDOWS,))
    return Written(config={}, usage=USAGE, library="torch.export")


def _read(model: TrainedModel, folder: Path) -> Logits:
    network = torch.export.load(folder / PROGRAM).module()

    def logits(images: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            found: torch.Tensor = network(images)
        return found

    return logits


FORM = Form(why_not=why_not_traced, write=_write, read=_read, tolerance=1e-4)
