"""Parts are found by file name, in the package and in folders of the user."""

import os
from pathlib import Path

import pytest

from tcpa_core import plugins
from tcpa_core.config import METHODS
from tcpa_core.errors import PluginError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of methods; the package's own path is restored afterwards."""
    import tcpa_core.methods as package

    monkeypatch.setattr(package, "__path__", list(package.__path__))
    monkeypatch.setenv("TCPA_PLUGINS", str(tmp_path))
    (tmp_path / "methods").mkdir()
    return tmp_path / "methods"


def test_helpers_and_contracts_are_no_plugins() -> None:
    names = plugins.names(METHODS)
    assert "linear" in names and "base" not in names
    assert names == tuple(sorted(names))
    assert not any(name.startswith("_") for name in names)


def test_a_file_in_a_folder_of_the_user_is_a_plugin(folder: Path) -> None:
    (folder / "of_the_user.py").write_text("ANSWER = 42\nConfig = Method = None\n")
    assert "of_the_user" in plugins.names(METHODS)
    assert plugins.load(METHODS, "of_the_user").ANSWER == 42
    assert "linear" in plugins.names(METHODS)


def test_a_file_that_lacks_what_its_kind_defines_says_so(folder: Path) -> None:
    (folder / "half.py").write_text("Config = None\n")
    says = "half.py does not define 'Method'; a file of tcpa_core/methods defines Config, Method"
    with pytest.raises(PluginError, match=says):
        plugins.load(METHODS, "half")


def test_several_folders(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "more" / "methods").mkdir(parents=True)
    (tmp_path / "more" / "methods" / "second.py").write_text("")
    (folder / "first.py").write_text("")
    monkeypatch.setenv("TCPA_PLUGINS", os.pathsep.join([str(tmp_path), str(tmp_path / "more")]))
    assert {"first", "second"} <= set(plugins.names(METHODS))


def test_a_name_that_is_taken_is_refused(folder: Path) -> None:
    (folder / "linear.py").write_text("")
    with pytest.raises(PluginError, match=f"two files are called 'linear'.*{folder}"):
        plugins.names(METHODS)


def test_a_folder_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TCPA_PLUGINS", "/nowhere/at/all")
    with pytest.raises(PluginError, match="TCPA_PLUGINS names '/nowhere/at/all', which is no fold"):
        plugins.names(METHODS)


def test_an_unknown_name_lists_what_there_is() -> None:
    with pytest.raises(
        PluginError, match="no method 'lorra'.*'lora'.*Available: .*adapter.*TCPA_PLUGINS"
    ):
        plugins.load(METHODS, "lorra")
