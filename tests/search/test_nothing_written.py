"""`tcpa plan` and `--dry-run` leave every folder as it was, whatever the data and the tracker."""

import os
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from search import cli
from tcpa_core.data.base import load_dataset
from tcpa_core.errors import DataError
from tcpa_core.settings import DataConfig
from tests.tcpa_core.data_layouts import LAYOUTS, make

SPACE = """
name: small
base:
  {{methods: [linear], task.name: {task}, data.name: {name}, data.root: {root},
    train.batch_size: 8}}
axes: {{optim.lr: {{choice: [0.1, 0.2]}}, data.flip: {{choice: [true, false]}}}}
budget: {{trials: 4}}
"""
KINDS = ["digits", *LAYOUTS]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Home, cache and current folder of a user, all below one folder."""
    for name in ("home", "cwd"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TCPA_CACHE", str(tmp_path / "home" / "cache"))
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.chdir(tmp_path / "cwd")
    return tmp_path


@pytest.fixture
def tcpa(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run the command in this process, which must end well; what it printed."""

    def run(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["tcpa", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        shown = capsys.readouterr()
        assert ended.value.code == 0, shown.err
        return shown.out

    return run


def state(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """Every file and folder below: mode, time of change, content."""
    found = {}
    for path in sorted(folder.rglob("*")):
        about = path.stat()
        content = path.read_bytes() if path.is_file() else b""
        found[str(path.relative_to(folder))] = about.st_mode, about.st_mtime_ns, content
    return found


def write_space(home: Path, cfg: DataConfig) -> None:
    root = "null" if cfg.root is None else cfg.root
    task = "segment" if cfg.name == "segfolder" else "classify"
    text = SPACE.format(name=cfg.name, root=root, task=task)
    (home / "cwd" / "space.yaml").write_text(text)


@pytest.mark.parametrize("kind", KINDS)
def test_plan_writes_nothing_and_says_what_would_be_decoded(
    kind: str, home: Path, tcpa: Callable[..., str]
) -> None:
    cfg = make(kind, home / "data")
    write_space(home, cfg)
    verbs = ("plan space.yaml", "search space.yaml --dry-run")
    before = state(home)
    for verb in verbs:
        shown = tcpa(*verb.split(), "--tracking-uri", "sqlite:///rel.db")
        assert state(home) == before
        assert f"sqlite:///{home}/cwd/rel.db" in shown
        assert f"images will be decoded into {home}/home/cache" in shown
    # counted once, although the space reads them in two ways
    splits = load_dataset(cfg, 32).splits.values()
    stores = [store for split in splits for store in (split.images, split.masks) if store]
    size = sum(images.pixels.nbytes for images in stores) / 1e6
    assert f" {sum(map(len, stores)):,} images will be decoded" in shown
    assert f"({size:,.1f} MB)" in shown
    assert "decoded" not in tcpa(*verbs[0].split()), "the cache has them now"


def test_what_the_cache_lacks_is_said_before_anything_is_decoded(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_space(home, make("folder", home / "data"))
    told: list[str] = []

    def look(*args: object) -> None:
        told.append(capsys.readouterr().out)
        raise DataError("decoded")

    monkeypatch.setattr("tcpa_core.data.base.decode", look)
    monkeypatch.setattr(sys, "argv", ["tcpa", "plan", "space.yaml"])
    with pytest.raises(SystemExit):
        cli.main()
    assert f"12 images will be decoded into {home}/home/cache (0.0 MB), where " in told[0]
    assert "MB are free" in told[0]


def test_probe_trains_without_a_trace(home: Path, tcpa: Callable[..., str]) -> None:
    write_space(home, make("folder", home / "data"))
    before = state(home)
    shown = tcpa("plan", "space.yaml", "--probe")
    assert "a few steps of each method" in shown
    assert state(home) == before


@pytest.mark.parametrize("content", ["empty", "foreign"])
def test_a_database_that_is_there_stays_as_it_is(
    content: str, home: Path, tcpa: Callable[..., str]
) -> None:
    path = home / "cwd" / "rel.db"
    path.touch()
    if content == "foreign":
        with sqlite3.connect(path) as database:
            database.execute("CREATE TABLE mine (x INTEGER)")
    before = state(home)
    tcpa("plan", "quickstart", "--tracking-uri", "sqlite:///rel.db")
    assert state(home) == before


def test_a_damaged_cache_is_told_and_left(home: Path, tcpa: Callable[..., str]) -> None:
    cfg = make("folder", home / "data")
    load_dataset(cfg, 32)
    damaged = next((home / "home" / "cache" / "pixels").glob("*.pixels"))
    damaged.write_bytes(b"torn")
    write_space(home, cfg)
    before = state(home)
    with pytest.warns(RuntimeWarning, match="is damaged"):
        assert "images will be decoded" in tcpa("plan", "space.yaml")
    assert state(home) == before
    assert os.path.exists(damaged)
