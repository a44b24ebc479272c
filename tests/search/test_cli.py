"""The command's surface: verbs, options, exit codes, speed of help, and what is written."""

import os
import resource
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from PIL import Image

import tcpa_core
from search import cli
from search.driver.placement import Placement
from search.study.folder import StudyDir
from search.study.journal import Journal
from spaces.load import load_space
from spaces.shipped import PRESETS, SUITES
from tests.journals import write
from tests.tcpa_core.data_layouts import make

WHERE = {"--address", "--device", "--workers", "--gpus-per-worker", "--ship-data", "--cache-dir"}
START = {
    "--study",
    "--root",
    "--storage",
    "--set",
    "--trials",
    "--tracking-uri",
    "--dry-run",
} | WHERE
JOB = START - WHERE - {"--dry-run"} | {"--verb", "--seeds", "--out"}
ACCEPT = "--accept-changed-data"
REPEAT = {"--resume", "--wait", ACCEPT}
BEFORE = {"--reuse", "--no-reuse", "--learn-from"}
TRAINED = {"--weights", "--grey-bits"}
OPTIONS = {
    "quickstart": {"--root", "--tracking-uri"},
    "plan": START - WHERE - {"--dry-run"} | BEFORE
            | {"--probe", "--json", "--power", "--pilot", "--data"},
    "search": START | REPEAT | BEFORE,
    "ablate": START | REPEAT | BEFORE | {"--from"},
    "resume": {"--root", "--storage", "--tracking-uri", ACCEPT} | WHERE,
    "confirm": {"--root", "--storage", "--top", "--seeds"} | REPEAT | BEFORE | WHERE,
    "compare": START | REPEAT | BEFORE | {"--seeds"},
    "bench": {"--name", "--root", "--data", "--methods", "--datasets", "--set", "--trials",
              "--tracking-uri", "--plan", "--probe"} | REPEAT | BEFORE | WHERE,
    "reproduce": START - {"--trials"} | REPEAT | BEFORE
                 | {"--method", "--dataset", "--data", "--seeds", "--margin", "--runs", "--from"},
    "extend": {"--root", "--storage", "--trials", ACCEPT} | WHERE,
    "stop": {"--root", "--storage"},
    "replay": {"--root", "--storage", ACCEPT},
    "inspect": {"--root", "--storage", "--images", ACCEPT},
    "bundle": {"--root", "--storage", "--out", "--states"},
    "verify": {"--trials", "--seal", "--set", "--device", "--draw"},
    "status": {"--root", "--storage", "--json"},
    "list": {"--root", "--storage", "--json"},
    "presets": set(),
    "settings": {"--markdown"},
    "report": {"--root", "--storage", "--live", "--every"},
    "sync": {"--root", "--storage", "--tracking-uri", "--register", "--tensorboard"},
    "dashboard": {"--root", "--port", "--host", "--optuna"},
    "predict": {"--root", "--storage", "--csv", "--masks", "--top", "--device"} | TRAINED,
    "export": {"--root", "--storage", "--format"} | TRAINED,
    "push": {"--root", "--storage", "--format", "--private"} | TRAINED,
    "doctor": {"--root", "--address", "--tracking-uri", "--device", "--space"},
    "data list": set(),
    "data check": {"--root", "--set", "--img-size"},
    "data get": {"--root", "--yes", "--revision", "--include"},
    "backbones": set(),
    "slurm": JOB | WHERE | {
        "--nodes", "--time", "--gpus-per-node", "--cpus-per-task", "--partition", "--account",
        "--qos",
    },
    "kube": JOB | {
        "--image", "--workers", "--gpus-per-worker", "--cpus-per-worker", "--memory", "--namespace",
        "--volume-claim", "--storage", "--secret", "--ray-version", "--retries",
    },
}  # fmt: skip
"""What scripts rely on: a verb or an option that disappears breaks them."""


@pytest.fixture
def tcpa(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
         tmp_path: Path) -> Callable[..., tuple[int, str]]:  # fmt: skip
    """Run the command in this process; returns exit code and stdout."""
    monkeypatch.setenv("TCPA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["tcpa", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert isinstance(ended.value.code, int)
        return ended.value.code, capsys.readouterr().out

    return run


def test_verbs_and_options_are_the_promised_ones() -> None:
    def options(command: Any, name: str = "") -> dict[str, set[str]]:
        if not hasattr(command, "commands"):
            own = {o for p in command.params for o in p.opts if o.startswith("--")}
            return {name: own - {"--help"}}
        return {
            place: found
            for word, verb in command.commands.items()
            for place, found in options(verb, f"{name} {word}".strip()).items()
        }

    assert options(typer.main.get_command(cli.app)) == OPTIONS


def test_help_loads_nothing_heavy() -> None:
    script = (
        "import sys; sys.argv = ['tcpa', '--help']\n"
        "from search import cli\n"
        "try:\n    cli.main()\n"
        "except SystemExit as end:\n    assert end.code == 0, end.code\n"
        "heavy = {'torch', 'ray', 'mlflow', 'optuna', 'pandas', 'matplotlib', 'timm'}\n"
        "print('loaded', sorted(heavy & sys.modules.keys()))"
    )
    cheapest = float("inf")
    for _ in range(2):  # the first run may compile
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, timeout=60
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cheapest = min(cheapest, after.ru_utime - before.ru_utime)
        assert done.returncode == 0, done.stderr
        assert done.stdout.endswith("loaded []\n")
        for verb in OPTIONS:
            assert verb.partition(" ")[0] in done.stdout
    assert cheapest < 1.5, "CPU seconds, which other work on the machine does not add to"


@pytest.mark.parametrize(("option", "code"), [("--help", 0), ("--nothing", 2)])
def test_a_process_ends_with_its_code_and_all_that_it_said(option: str, code: int) -> None:
    script = (
        f"import atexit, sys; sys.argv = ['tcpa', {option!r}]\n"
        "from search import cli\n"
        "atexit.register(print, 'last words', end='')\n"
        "cli.entry()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == code
    assert done.stdout.endswith("last words")
    assert ("No such option" in done.stderr) is (code == 2)


@pytest.mark.parametrize("line", [["plan", "quickstart"], ["search", "quickstart", "--dry-run"],
                                  ["ablate", "tcpa_components", "--dry-run"]])  # fmt: skip
def test_planning_writes_nothing(
    line: list[str], tcpa: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    root = tmp_path / "studies"
    code, out = tcpa(*line, "--root", str(root), "--study", "mine", "--set", "train.epochs=3")
    assert code == 0
    assert "plan of mine" in out and "at most 3 a trial" in out
    assert not root.exists()


@pytest.mark.parametrize("code", [0, 1])
def test_the_exit_code_is_that_of_the_run(
    code: int, tcpa: Callable[..., tuple[int, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []
    places: list[object] = []

    def run(study: StudyDir, *_: object, **given: object) -> int:
        ran.append(study.name)
        places.append(given["placement"])
        return code

    monkeypatch.setattr("search.verbs.run.run_and_watch", run)
    # On a busy machine Ray may not be up within its half minute: another code, as tested below.
    monkeypatch.setattr("search.driver.ray_session.connect", lambda *_: nullcontext())
    line = ["quickstart", "--root", str(tmp_path), "--study", "s", "--trials", "2"]
    assert tcpa("search", *line)[0] == code
    assert StudyDir.open(tmp_path, "s").space().budget.trials == 2
    where = ["--device", "cuda", "--workers", "3", "--gpus-per-worker", "0.5"]
    assert tcpa("resume", "s", "--root", str(tmp_path), *where)[0] == code
    assert ran == ["s", "s"]
    assert places == [Placement(), Placement(device="cuda", workers=3, gpus_per_worker=0.5)]


def test_a_study_for_which_ray_does_not_start_is_to_be_resumed(
    tcpa: Callable[..., tuple[int, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(**_: object) -> None:  # as Ray says it
        raise Exception("The current node timed out during startup.")

    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("ray.init", slow)
    monkeypatch.setattr("ray.shutdown", lambda: None)
    monkeypatch.setattr("search.driver.ray_session._short_folder", lambda: str(tmp_path))
    said: list[str] = []
    monkeypatch.setattr("sys.stderr.write", said.append)
    line = ["quickstart", "--root", str(tmp_path / "studies"), "--study", "s", "--trials", "2"]
    assert tcpa("search", *line)[0] == 3
    assert "does not start on this machine (The current node timed out" in "".join(said)
    assert "Traceback" not in "".join(said)
    study = StudyDir.open(tmp_path / "studies", "s")
    assert study.driver() is None and not study.state().trials
    assert not list(tmp_path.glob("tcpa-ray-*"))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--device", "mps"], "'mps' is not one of 'auto', 'cuda', 'cpu'"),
        (["--workers", "0"], "'--workers': Input should be greater than or equal to 1"),
        (
            ["--gpus-per-worker", "2"],
            "'--gpus-per-worker': Input should be less than or equal to 1",
        ),
        (
            ["--gpus-per-worker", "0"],
            "'--gpus-per-worker': Input should be greater than or equal to",
        ),
        (["--device", "cpu", "--gpus-per-worker", "0.5"], "leave one of them out"),
        (["--storage", "ftp://x/y"], "error: --storage: ftp:// is no kind of storage"),
    ],
)
@pytest.mark.parametrize("verb", ["search", "resume", "confirm"])
def test_devices_that_cannot_be_are_refused(
    verb: str,
    options: list[str],
    says: str,
    tcpa: Callable[..., tuple[int, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    said: list[str] = []
    monkeypatch.setattr("sys.stderr.write", said.append)
    assert tcpa(verb, "quickstart", *options)[0] == 2
    assert says in "".join(said)
    assert not list(tmp_path.glob("studies*"))


def test_an_interrupt_ends_as_shells_expect(
    tcpa: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("search.verbs.data.show_data", stop)
    assert tcpa("data", "digits")[0] == 130  # 128 + SIGINT


def test_status_reads_the_journal_alone(
    tcpa: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    study = StudyDir.create(tmp_path, "s", load_space("quickstart"), {}, "")
    code, out = tcpa("status", "s", "--root", str(tmp_path))
    assert code == 0
    assert out.splitlines() == [
        "s: no trial yet; last event: planned.",
        "search, planned: 0 of 10 trials ended, 0 epochs, elapsed 0 s",
        f"next: tcpa resume s --root {tmp_path}",
    ]
    journal = Journal(study.journal_path)
    write(journal, {"kind": "study", "name": "s"})
    for trial in ("00000", "00001", "00002", "00003", "00004"):
        write(journal, {"kind": "planned", "trial": trial, "params": {}})
    for trial in ("00000", "00001", "00002", "00003"):
        write(journal, {"kind": "started", "trial": trial})
    done = {"kind": "completed", "status": "completed"}
    write(
        journal,
        {**done, "trial": "00000", "val_accuracy": 0.5},
        {**done, "trial": "00001", "val_accuracy": 0.7},
        {"kind": "failed", "status": "failed", "trial": "00002", "reason": "loss is nan"},
    )
    journal.close()
    code, out = tcpa("status", "s", "--root", str(tmp_path))
    assert code == 0
    assert out.splitlines() == [
        "s: 2 completed, 1 failed, 1 interrupted, 1 waiting; last event: failed.",
        "search, interrupted: 3 of 10 trials ended, 0 epochs, elapsed 0 s",
        "  trial 00003: epoch 0/?",
        "best val_accuracy 0.7000 (trial 00001)",
        "failed: 1 x loss is nan (trial 00002)",
        f"next: tcpa resume s --root {tmp_path}",
    ]


@pytest.mark.parametrize("line", [[], ["-h"], ["--help"], ["search", "-h"]])
def test_help_is_shown(line: list[str], tcpa: Callable[..., tuple[int, str]]) -> None:
    code, out = tcpa(*line)
    assert code == 0 and "Usage: tcpa" in out
    assert ("--dry-run" in out) is bool(line[1:])


def test_the_version_is_told(tcpa: Callable[..., tuple[int, str]]) -> None:
    assert tcpa("--version") == (0, f"tcpa {tcpa_core.__version__}\n")


def test_a_shell_completes_verbs() -> None:
    """What `tcpa --install-completion` lets a shell ask."""
    words = {"_TCPA_COMPLETE": "complete_bash", "COMP_WORDS": "tcpa conf", "COMP_CWORD": "1"}
    code = "import sys; sys.argv = ['tcpa']; from search import cli; cli.main()"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **words}, capture_output=True, text=True
    )
    assert done.stdout.split() == ["confirm"], done.stderr


def test_the_plan_of_a_suite_says_cells_cost_and_what_it_will_see(
    typed: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    (tmp_path / "suite.yaml").write_text(
        "name: small\nbase: {backbone.name: vit_nano, train.epochs: 2}\n"
        "datasets: {digits: {data.name: digits}}\n"
        "methods: {Linear: {chain: [linear]}, VPT: {chain: [vpt]}}\n"
        "axes: {optim.lr: {float: [1e-3, 1e-1]}}\nbudget: {trials: 3}\n"
    )
    code, said, _ = typed("plan", "suite.yaml", "--power")
    assert code == 0 and "2 methods x 1 data sets; 0 done, 2 left" in said
    assert "36, of at most 2 epochs" in said, "3 trials and 3 x 5 on fresh seeds a cell"
    assert "power\n  No earlier study has two settings with val_accuracy" in said
    assert not (tmp_path / "studies").exists()
    for words, told in {
        "suite.yaml --json": "--json: the plan of a suite",
        "suite.yaml --storage file:///tmp": "--storage: a bench lies below --root",
        "quickstart --data .": "--data is of a suite's data sets; of a space give --set data.root",
    }.items():
        code, _, said = typed("plan", *words.split())
        assert code == 2 and told in said


def test_presets_are_listed_with_what_they_are(tcpa: Callable[..., tuple[int, str]]) -> None:
    code, out = tcpa("presets")
    lines = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert code == 0 and tuple(lines) == PRESETS.names() + SUITES.names()
    assert lines["vpt_vtab"].startswith("search VPT")
    assert all(20 < len(purpose) < 200 for purpose in lines.values()), lines


@pytest.mark.parametrize("verb", ["search", "ablate", "compare"])
def test_of_a_suite_it_is_said_which_verb_runs_it(
    verb: str, typed: Callable[..., tuple[int, str, str]]
) -> None:
    code, _, said = typed(verb, "mini")
    assert code == 2 and "mini is a suite" in said and "'tcpa plan mini'" in said


def test_backbones_and_data_are_listed(tcpa: Callable[..., tuple[int, str]]) -> None:
    assert tcpa("backbones", "vit_nano") == (0, "vit_nano\n")
    code, out = tcpa("data", "digits")
    assert code == 0
    assert out.startswith("digits: 10 classes, ")
    lines = out.splitlines()
    assert [line.split(":")[0].strip() for line in lines[1:4]] == ["train", "val", "test"]
    assert [cell.strip() for cell in lines[-2].split("│")[1:-1]] == ["9", "108", "27", "45"]


def test_what_the_loader_ignores_is_counted(
    tcpa: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    make("folder", tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.random.default_rng(0).integers(0, 256, (9, 12, 4), dtype=np.uint8)
    Image.fromarray(pixels[..., :3]).save(tmp_path / "val/class 0/photo.jpg", exif=exif)
    Image.fromarray(pixels).save(tmp_path / "val/class 0/glass.png")
    code, out = tcpa("data", "folder", "--root", str(tmp_path))
    assert code == 0 and "warning" not in out
    assert "note: 1 pictures have an EXIF orientation, which is ignored" in out
    assert "note: 1 pictures have transparent pixels; alpha is dropped" in out


@pytest.mark.integration
def test_the_dashboard_serves_the_studies(tmp_path: Path) -> None:
    import socket

    from mlflow import MlflowClient

    known = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db").create_experiment("mine")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    line = [sys.executable, "-m", "search.cli", "dashboard"]
    log = tmp_path / "server.log"
    with log.open("w") as output:
        server = subprocess.Popen(
            [*line, "--root", str(tmp_path), "--port", str(port)],
            cwd=Path(cli.__file__).parents[1], stdout=output, stderr=subprocess.STDOUT)  # fmt: skip
    try:
        status, deadline = 0, time.monotonic() + 90
        while status != 200 and server.poll() is None and time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
                    status = answer.status
            except OSError:
                time.sleep(0.3)
        assert status == 200, log.read_text()
        runs = f"http://127.0.0.1:{port}/#/experiments/{known}/runs?workflowType=machine_learning"
        assert f"{runs}  mine\n" in log.read_text()
    finally:
        server.terminate()
        server.wait(30)
