"""A verb is one file of search/commands, and no list names it."""

from pathlib import Path

import pytest
import typer

from search import cli, commands
from search.options import Common, with_common

FOLDER = Path(commands.__file__).parent


def test_every_file_is_a_verb_with_a_help_text() -> None:
    verbs = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]
    assert set(verbs) == {file.stem for file in FOLDER.glob("[!_]*.py")}
    assert all(verb.help for verb in verbs.values())


def test_a_further_file_comes_behind_those_of_a_users_work(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "commands").mkdir()
    for name in ("__init__", "_helper", "zip", "archive", "presets", "plan"):
        (tmp_path / "commands" / f"{name}.py").touch()
    monkeypatch.setattr(cli, "__file__", str(tmp_path / "cli.py"))
    assert cli._verbs() == ["plan", "presets", "archive", "zip"]


def test_common_options_come_first_and_arrive_as_one_value() -> None:
    given: list[object] = []

    def command(common: Common, extra: str = "none") -> None:
        """What it does."""
        given.extend((common, extra))

    app = typer.Typer(add_completion=False)
    app.command()(with_common(command))
    verb = typer.main.get_command(app)
    names = [one.name for one in verb.params]
    assert names == ["space", "study", "root", "storage", "set_", "trials", "extra"]
    assert verb.help == "What it does."
    verb(["quickstart", "--trials", "3", "--set", "a=1"], standalone_mode=False)
    assert given == [Common("quickstart", set_=["a=1"], trials=3), "none"]
