"""A package as pip installs it, with plugins of every kind behind entry points."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]

METHOD = '''
from pydantic import Field
from timm.models.vision_transformer import Block
from torch import Tensor

from gain_pack.starts import factors
from tcpa_core.methods import base
from tcpa_core.model.blocks import plain_block


class Config(base.MethodSettings):
    """Settings of gain."""

    init: float = Field(default=1.0, gt=0.0)
    """What the factors start from."""


class Method(base.Method[base.Pass]):
    """Gains for a pack."""

    gain: Tensor

    @classmethod
    def params(cls, setup):
        layout = setup.backbone.layout
        spec = base.ParamSpec((layout.depth, layout.embed_dim), factors(setup.settings("gain_of")))
        return {"gain": spec}

    def on_block(self, index, block, tokens_MBSD, state):
        return plain_block(block, tokens_MBSD) * self.gain[:, index, None, None]
'''
STARTS = """
def factors(settings):
    return lambda tensor, generator: tensor.fill_(settings.init)
"""
DATA = '''
from tcpa_core.data import digits


def read(cfg):
    """The digits, under another name."""
    return digits.read(cfg)
'''
PROTOCOL = """
from tcpa_core.protocols.base import Fact, Protocol

PROTOCOL = Protocol(program="ours @ 1", facts={"train.epochs": Fact(2, "train.py:1")})
"""
PLOT = """
from reports.plots.base import new_figure

TITLE = "Trials by number"
KINDS = ("search", "ablation")
PLACE = 90


def prepare(tables):
    return tables.trials[["trial"]]


def draw(data, tables):
    figure, axes = new_figure()
    axes.plot(range(len(data)))
    return figure
"""
FILES = {
    "__init__.py": "",
    "method.py": METHOD,
    "starts.py": STARTS,
    "data.py": DATA,
    "protocol.py": PROTOCOL,
    "plot.py": PLOT,
}
ENTRY_POINTS = {
    "tcpa.methods": {"gain_of": "gain_pack.method"},
    "tcpa.data": {"digits_of": "gain_pack.data"},
    "tcpa.protocols": {"short_of": "gain_pack.protocol"},
    "tcpa.plots": {"count_of": "gain_pack.plot"},
}


def install(
    folder: Path, name: str = "gain_pack", points: Mapping[str, Mapping[str, str]] = ENTRY_POINTS
) -> Path:
    """What pip leaves behind in a folder of packages."""
    (folder / name).mkdir(parents=True)
    for file, text in FILES.items():
        (folder / name / file).write_text(text)
    info = folder / f"{name}-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1\n")
    lines = [
        line
        for group, entries in points.items()
        for line in [f"[{group}]", *(f"{key} = {value}" for key, value in entries.items())]
    ]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return folder


def run(code: str, *folders: Path, **env: str) -> str:
    """Output of some code in a process of its own that finds the packages of these folders."""
    path = os.pathsep.join(map(str, [*folders, ROOT]))
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path, **env},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
