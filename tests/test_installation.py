"""What `import search` means: our package, whatever else bears its name."""

import os
import subprocess
import sys
from collections.abc import Callable
from importlib.machinery import PathFinder
from pathlib import Path

import pytest

from tcpa_core import command as tcpa_command

ROOT = Path(__file__).parents[1]
PACKAGES = ("tcpa_core", "spaces", "search", "reports")
RAISES = "raise RuntimeError('the file of a user was imported')\n"


def module(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / f"{name}.py").write_text(RAISES)  # type: ignore[return-value]


def package(name: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(RAISES)

    return make


def plain_folder(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).mkdir()


@pytest.mark.parametrize("kind", [module, package, plain_folder])
@pytest.mark.parametrize("name", PACKAGES)
def test_a_folder_before_the_standard_library_hides_none_of_ours(
    kind: Callable[[str], Callable[[Path], None]], name: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    kind(name)(tmp_path)
    harmless = tmp_path / "harmless"
    harmless.mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path), str(harmless), *sys.path])
    tcpa_command.prefer_installed()
    assert str(tmp_path) not in sys.path
    assert sys.path.index(str(harmless)) > sys.path.index(os.path.dirname(os.__file__))
    found = PathFinder.find_spec(name)
    assert found is None or found.origin == str(ROOT / name / "__init__.py")


def test_modules_of_others_are_looked_up_in_such_a_folder_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("types", "numpy", "mine"):
        module(name)(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    tcpa_command.prefer_installed()
    found = {name: PathFinder.find_spec(name) for name in ("types", "numpy", "mine")}
    inside = {name for name, spec in found.items() if spec and str(tmp_path) in str(spec.origin)}
    assert inside == {"mine"}


def test_workers_use_the_driver_s_packages_where_they_have_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkout whose driver runs beside another installed version, and a node without it."""
    copy = tmp_path / "checkout"
    for name in PACKAGES:
        (copy / name).mkdir(parents=True)
        (copy / name / "__init__.py").touch()
    for home, meant in ((copy, copy), (tmp_path / "absent", ROOT)):
        monkeypatch.setattr(sys, "path", [str(ROOT / "no"), *sys.path])
        monkeypatch.setattr(tcpa_command, "find_spec", PathFinder.find_spec)
        sys.path.append(str(ROOT))
        tcpa_command.prefer_installed(str(home))
        found = PathFinder.find_spec("search")
        assert found and found.origin == str(meant / "search" / "__init__.py")


def wheel(site: Path, name: str, files: dict[str, str]) -> None:
    """Install a distribution of some files, as pip does."""
    for file, text in files.items():
        (site / file).parent.mkdir(parents=True, exist_ok=True)
        (site / file).write_text(text)
    info = site / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    rows = [f"{file},sha256=x,{len(text)}" for file, text in files.items()]
    (info / "RECORD").write_text("\n".join(rows) + "\n")


def ours() -> dict[str, str]:
    files = {f"{name}/__init__.py": f"'Ours: {name}.'\n" for name in PACKAGES}
    command = (ROOT / "tcpa_core" / "command.py").read_text()
    entry = "def entry(): print('ran')\n"
    return {
        **files,
        "tcpa_core/command.py": command,
        "search/cli.py": entry,
        "spaces/axes.py": "A = 1\n",
    }


def command(*sites: Path) -> tuple[int, str, str]:
    """Run the command with these folders and the standard library alone."""
    found = f"import sys; sys.path += {[str(s) for s in sites]!r}"
    code = f"{found}; from tcpa_core.command import entry; entry()"
    line = [sys.executable, "-I", "-S", "-c", code]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr


def remove_init(site: Path) -> None:
    (site / "spaces" / "__init__.py").unlink()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda site: None, None),
        (lambda site: (site / "spaces" / "axes.py").write_text("A = 1  # a user's change\n"), None),
        (lambda site: wheel(site, "spaces", {"spaces/__init__.py": "import gradio\n"}),
         "spaces/__init__.py of tcpa-search was overwritten by the distribution 'spaces' 1.0"),
        (lambda site: wheel(site, "other", {"spaces/axes.py": "AXES = 'of an aeroplane'\n"}),
         "spaces/axes.py of tcpa-search was overwritten by the distribution 'other' 1.0"),
        (remove_init, "spaces/__init__.py of tcpa-search is missing"),
        (lambda site: (site / "search" / "cli.py").unlink(),
         "search/cli.py of tcpa-search is missing"),
    ],
    ids=["intact", "changed", "overwritten", "one file", "without init", "without a file"],
)  # fmt: skip
def test_files_that_are_not_ours_are_told_before_anything_is_imported(
    spoil: Callable[[Path], object], says: str | None, tmp_path: Path
) -> None:
    wheel(tmp_path, "tcpa-search", ours())
    spoil(tmp_path)
    code, out, err = command(tmp_path)
    if says is None:
        assert (code, out, err) == (0, "ran\n", "")
    else:
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert err.startswith("error: ") and says in err and "install tcpa-search again" in err


def test_a_package_that_comes_before_an_editable_install_is_told(tmp_path: Path) -> None:
    site, checkout = tmp_path / "site", tmp_path / "checkout"
    for file, text in ours().items():
        (checkout / file).parent.mkdir(parents=True, exist_ok=True)
        (checkout / file).write_text(text)
    site.mkdir()
    assert command(site, checkout)[:2] == (0, "ran\n")
    wheel(site, "reports", {"reports/__init__.py": RAISES})
    code, _, err = command(site, checkout)
    assert (
        code == 2
        and f"'import reports' finds {site}/reports/__init__.py of the distribution " in err
    )
    assert "'reports' 1.0" in err and str(checkout) in err


SCRIPT = """
import sys
from tcpa_core.command import prefer_installed
prefer_installed()
import ray
from ray.cluster_utils import Cluster
from pathlib import Path
from tests.search.conftest import make_space, run_stubs
from search.study.folder import StudyDir

BASE = {"methods": ["linear"], "train.epochs": 1}

def run(name, **placement):
    space = make_space(budget={"trials": 2}, base=BASE)
    study = StudyDir.create(Path(sys.argv[1]), name, space, {"data": "d", "weights": "w"}, "")
    outcome = run_stubs(space, study, workers=1, **placement)
    print(name, outcome.reason, dict(outcome.counts), flush=True)

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
run("address", address=cluster.address)
ray.init(address=cluster.address, log_to_driver=False)
run("open")
ray.shutdown()
cluster.shutdown()
run("local")
"""


@pytest.mark.integration
def test_workers_import_the_package_whatever_folder_a_study_is_started_in(tmp_path: Path) -> None:
    """On a cluster, through a connection that the user has opened, and on one of our own.

    The current folder and PYTHONPATH hold files of our names; the former also of names that Ray and
    the stub of a worker import.
    """
    current, path = tmp_path / "current", tmp_path / "path"
    for folder, names in ((current, {"queue", "random", "types", "numpy", "torch"}), (path, set())):
        folder.mkdir()
        package("spaces")(folder)
        plain_folder("tcpa_core")(folder)
        for name in {"search", "reports", *names}:
            module(name)(folder)
    script = tmp_path / "scripts" / "driver.py"
    script.parent.mkdir()
    script.write_text(SCRIPT)
    (tmp_path / "studies").mkdir()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(path), str(ROOT)])}
    done = subprocess.run(
        [sys.executable, script, tmp_path / "studies"], cwd=current, env=environment,
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    ends = [line for line in done.stdout.splitlines() if "finished" in line]
    assert ends == [f"{n} finished {{'completed': 2}}" for n in ("address", "open", "local")], (
        done.stdout + done.stderr
    )
