"""Workers of a cluster get the cache, plug-ins and proxies of the driver's shell, and no secret."""

import os
from pathlib import Path

import pytest

from search.driver.worker_env import worker_env
from search.options import Where
from tcpa_core.data.base import cache_root, usable_cache
from tcpa_core.errors import ConfigError, DataError
from tcpa_core.training.allocator import WORKER_ENV


def test_what_is_listed_reaches_them_and_nothing_else() -> None:
    given = {
        "TCPA_CACHE": "/scratch/cache", "TCPA_PLUGINS": "/a:/b", "HTTPS_PROXY": "http://p:3128",
        "no_proxy": "localhost,.cluster", "HF_HOME": "/hub", "HF_HUB_OFFLINE": "1",
    }  # fmt: skip
    other = {"HF_TOKEN": "hf_secret", "AWS_SECRET_ACCESS_KEY": "s", "RAY_AUTH_TOKEN": "t", "X": "y"}
    assert worker_env(given | other) == ({**WORKER_ENV, **given}, [])


@pytest.mark.parametrize(
    "address",
    ["http://me:secret@proxy:3128", "me:secret@proxy:3128", "https://token@proxy", "//a:b@c"],
)
@pytest.mark.parametrize("name", ["HTTP_PROXY", "https_proxy", "ALL_PROXY"])
def test_a_proxy_with_a_password_stays_here_and_that_is_said(name: str, address: str) -> None:
    found, [said] = worker_env({name: address})
    assert found == WORKER_ENV
    assert said.startswith(f"{name} holds a name or password and is not copied")
    assert "secret" not in said and "token" not in said


def test_folders_are_those_of_the_driver_whatever_a_worker_stands_in() -> None:
    found, _ = worker_env({"TCPA_PLUGINS": f"mine{os.pathsep}~/b", "TCPA_CACHE": "$TMPDIR/c"})
    assert found["TCPA_PLUGINS"] == f"{Path.cwd() / 'mine'}{os.pathsep}~/b"
    assert found["TCPA_CACHE"] == "$TMPDIR/c"


class TestCacheDir:
    def test_names_are_those_of_the_node(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SLURM_TMPDIR", "/local/17")
        monkeypatch.setenv("HOME", "/home/me")
        monkeypatch.setenv("USER", "me")
        assert cache_root(Path("$SLURM_TMPDIR/tcpa")) == Path("/local/17/tcpa")
        assert cache_root(Path("~/c")) == Path("/home/me/c")
        assert cache_root(Path("/tmp/${USER}/c")) == Path("/tmp/me/c")
        assert cache_root(Path("/a$/b")) == Path("/a$/b")
        monkeypatch.setenv("TCPA_CACHE", "$SLURM_TMPDIR/x")
        assert cache_root() == Path("/local/17/x")
        monkeypatch.delenv("USER")
        assert "$" not in str(cache_root(Path("/tmp/$USER/c")))

    def test_a_variable_that_is_not_set_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("SLURM_TMPDIR", raising=False)
        with pytest.raises(DataError, match=r"\$SLURM_TMPDIR is not set on .*--cache-dir"):
            cache_root(Path("$SLURM_TMPDIR/tcpa"))

    def test_a_folder_that_cannot_be_written_is_refused_by_name(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(DataError, match=r"file/c cannot be written on .*Not a directory"):
            usable_cache(tmp_path / "file/c")
        assert usable_cache(tmp_path / "new/c") == tmp_path / "new/c"
        assert not list((tmp_path / "new/c").iterdir())

    def test_the_option_counts_before_the_variable(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TCPA_CACHE", "/elsewhere")
        monkeypatch.setenv("HERE", str(tmp_path))
        placement = Where(cache_dir=Path("$HERE/c")).placement()
        assert placement.cache_dir == Path("$HERE/c")
        assert os.environ["TCPA_CACHE"] == str(tmp_path / "c")
        assert cache_root() == tmp_path / "c"


def test_shipping_on_one_machine_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(ConfigError, match="--ship-data: without a cluster"):
        Where(ship_data=True).placement()
    assert Where(ship_data=True, address="a:1").placement().ship_data
