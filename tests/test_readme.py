"""README.md: what it lists is all there is, and every command of it runs."""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

import pytest
import typer
import yaml
from PIL import Image

from search.cli import app
from search.exit_codes import STOPPED
from tcpa_core import plugins
from tests.tcpa_core import data_layouts

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```bash\n(.*?)^```", TEXT, re.S | re.M)
LINES = [line.partition("  #")[0].strip() for block in BLOCKS for line in block.splitlines()]
COMMANDS = [line for line in LINES if re.match(r"(\w+=\S+ )?tcpa ", line)]
BY_CI = {"make quickstart", "make test"}
BY_HAND = {
    "python3 -m venv .venv",
    ".venv/bin/pip install .",
    ".venv/bin/tcpa quickstart",
    '.venv/bin/pip install torch torchvision --index-url "$YOUR_CPU_WHEEL_INDEX"',
}
"""What make does as well, in an environment of gigabytes."""
BY_OTHER_TESTS = {
    "make gpu",
    "tcpa push my_study best OWNER/NAME",
    "tcpa bench my_suite.yaml",
    "tcpa reproduce vpt-vtab --dataset dtd --method vpt --data DIR",
}
"""tests/test_gpu_report.py, tests/search/test_trained_verbs.py with a Hub of its own,
tests/search/test_bench.py, which fills cells, and tests/search/test_reproduce.py, for one cell."""
SMALLER: Mapping[str, Any] = {
    "base": {
        "backbone.name": "vit_nano",
        "data.name": "digits",
        "train.epochs": 2,
        "tcpa.prompt_dropout": 0.0,  # prompts are projected once a step, not once an image
    },
    "budget": {"trials": 4},
    "scheduler": {"name": "none"},
    "first_points": [{"methods": ["linear"]}],
}
"""What the README's space is cut down to."""


def test_every_command_is_run_by_ci_by_hand_or_below() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert all(re.search(rf"^\s*{command}\b", script, re.M) for command in BY_CI)
    assert set(filter(None, LINES)) == BY_CI | BY_HAND | BY_OTHER_TESTS | set(COMMANDS)


def test_every_verb_is_in_the_list_of_commands() -> None:
    verbs = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    listed = {re.sub(r"^\w+=\S+ ", "", command).split()[1] for command in COMMANDS}
    assert verbs - {"quickstart"} == listed - {"--install-completion"}


@pytest.mark.parametrize("package", ["methods", "data"])
def test_every_plug_in_is_named(package: str) -> None:
    assert not [n for n in plugins.names(f"tcpa_core.{package}") if f"`{n}`" not in TEXT]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder: the README's space, smaller, and a data set for each command with DIR."""
    folder = tmp_path_factory.mktemp("readme")
    (first, *_) = re.findall(r"^```yaml\n(.*?)^```", TEXT, re.S | re.M)
    space = yaml.safe_load(first) | SMALLER
    space["axes"]["methods"] = {"choice": [["linear"], ["tcpa"]]}
    for prompts in ("tcpa.num_cls_prompts", "tcpa.num_image_prompts"):
        space["axes"][prompts] = {"int": [2, 4]}
    del space["axes"]["cvpt.num_prompts"]
    (folder / "my_space.yaml").write_text(yaml.safe_dump(space))
    for name in ("folder", "vtab1k"):
        data_layouts.make(name, folder / name)
    (folder / "photos").mkdir()
    for name in ("a", "b"):
        Image.new("RGB", (40, 30), "red").save(folder / "photos" / f"{name}.png")
    return folder


def start(command: str, project: Path, *shell: str) -> subprocess.Popen[str]:
    """A command of the README as a user types it, with this checkout's program.

    Args:
        shell: What runs it, for a command that asks which shell that is.
    """
    kind = re.search(r"data\.name=(\w+)|data (\w+)", command)
    command = command.replace("DIR", next(filter(None, kind.groups())) if kind else "DIR")
    words = shlex.split(command.replace("PASSWORD=...", "PASSWORD=long-enough-for-mlflow"))
    given = dict(word.split("=", 1) for word in words[: words.index("tcpa")])
    program = [sys.executable, "-m", "tcpa_core.command"]
    return subprocess.Popen(
        [*shell, *program, *words[words.index("tcpa") + 1 :]],
        cwd=project,
        env={**os.environ, **given, "PYTHONPATH": str(ROOT), "HOME": str(project)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(running: subprocess.Popen[str], expected: int = 0) -> str:
    said, _ = running.communicate(timeout=600)
    assert running.returncode == expected, said
    return said


def wait(fulfilled: Callable[[], bool], running: subprocess.Popen[str]) -> None:
    while not fulfilled():
        assert running.poll() is None, running.communicate()[0]
        time.sleep(0.2)


def trains(project: Path, *, again: bool) -> bool:
    """Whether the study has trained, and a driver has gone on with it if it is to do so again."""
    journal = project / "studies" / "my_study" / "journal.jsonl"
    text = journal.read_text() if journal.exists() else ""
    return '"epoch"' in text and ('"kind":"resumed"' in text or not again)


def test_the_python_example_gives_the_accuracy_of_the_trial(project: Path) -> None:
    """Run as it stands; then, with the example's own model, on the files of the test split."""
    (example,) = re.findall(r"^```python\n(.*?)^```", TEXT, re.S | re.M)
    more = (
        "import json\n"
        "from tcpa_core.data.base import load_dataset, raw_images\n"
        "pictures = raw_images(config.data, 'test')\n"
        "labels = load_dataset(config.data, 32).splits['test'].labels\n"
        "again = load_trained('digits_prompt').predict(pictures).labels.numpy()\n"
        "here = model.predict(pictures).labels.numpy()\n"
        "scores = [(here == labels).mean(), (again == labels).mean(), result.test_accuracy]\n"
        "print(json.dumps(list(map(float, scores))))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TCPA_CACHE": str(project / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", example + more],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    here, again, recorded = json.loads(done.stdout.splitlines()[-1])
    assert here == again == recorded > 0.2


@pytest.mark.integration
@pytest.mark.slow
def test_every_command_runs_in_the_order_of_the_page(project: Path) -> None:
    """`stop` ends the search from another terminal; everything else follows as a reader types."""
    stop = "tcpa stop my_study"
    assert stop in COMMANDS
    for command in COMMANDS:
        if command.startswith("tcpa search"):
            searching = start(command, project)
            again = "--resume" in command
            wait(lambda: trains(project, again=again), searching)  # noqa: B023
            finish(start(stop, project))
            assert "resume" in finish(searching, expected=STOPPED)
        elif "dashboard" in command:
            open_and_close(command, project)
        elif "--install-completion" in command:
            finish(start(command, project, "bash", "-c", '"$@"; exit $?', "bash"))
        elif command != stop and command not in BY_OTHER_TESTS:
            finish(start(command, project))
    assert (project / "studies" / "my_study" / "report" / "report.html").is_file()


def open_and_close(command: str, project: Path) -> None:
    """Pages answer, or ask for a password; Ctrl-C ends them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    serving = start(f"{command} --port {port}", project)
    needs_password = "PASSWORD" in command
    wait(lambda: answers(port) == (401 if needs_password else 200), serving)
    serving.send_signal(signal.SIGINT)
    serving.communicate(timeout=60)


def answers(port: int) -> int:
    try:
        with urlopen(f"http://127.0.0.1:{port}/", timeout=5) as page:
            return int(page.status)
    except HTTPError as err:
        return err.code
    except (URLError, OSError):
        return 0
