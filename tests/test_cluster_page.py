"""docs/cluster.md: what it quotes is what a user reads, and what it says to type can be typed."""

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from ray.scripts.scripts import cli as ray

from search.cli import app

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
FAILURES = TEXT[TEXT.index("## What goes wrong") :]
QUOTES = re.findall(r"^\| `(.+?)` \|", FAILURES, re.M)
LINES = [
    line.partition("  #")[0].strip()
    for block in re.findall(r"^```bash\n(.*?)^```", TEXT, re.S | re.M)
    for line in block.splitlines()
]


def _texts() -> Iterator[str]:
    """What the program can say; \\0 stands for values."""
    for package in ("search", "tcpa_core"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                match node:
                    case ast.Constant(value=str(text)):
                        yield text
                    case ast.JoinedStr(values=parts):
                        yield "".join(
                            str(p.value) if isinstance(p, ast.Constant) else "\0" for p in parts
                        )
    script = (ROOT / "search/clusters/job.sh").read_text()
    yield re.sub(r"\$\{?\w+\}?", "\0", script)


SAID = "\n".join(_texts())


@pytest.mark.parametrize("quote", QUOTES)
def test_what_is_quoted_is_said(quote: str) -> None:
    for piece in filter(None, map(str.strip, quote.split("…"))):
        assert piece in SAID, piece


def test_every_command_can_be_typed() -> None:
    verbs = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for line in LINES:
        program, verb, *words = shlex.split(line)
        if program == "tcpa":
            verbs[verb].make_context(verb, words)
        elif program == "ray":
            ray.commands[verb].make_context(verb, words)
        else:
            assert program in ("export", "sbatch", "docker", "kubectl")


def test_options_of_ray_start_in_the_table_of_ports_are_options() -> None:
    known = {name for one in ray.commands["start"].params for name in one.opts}
    table = TEXT[TEXT.index("## Ports") : TEXT.index("## Sharing")]
    named = set(re.findall(r"`(--[\w-]+)`", table))
    assert named <= known and len(named) == 11
