"""Workers of a cluster get the cache, plug-ins and proxies of the driver's shell, and no secret."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import pytest

from search.driver.worker_env import worker_env
from search.options import Where
from search.planning.plan import plan_space
from search.workers.needs import Needs
from search.workers.pack_worker import PackWorker, Place, WorkerSpec, check_plugins
from search.workers.sending import Fetcher, Offer
from tcpa_core import plugins
from tcpa_core.data.base import cache_root, usable_cache
from tcpa_core.errors import ConfigError, DataError, PluginError
from tcpa_core.model.load_backbone import weights_path
from tcpa_core.settings import BackboneConfig
from tcpa_core.training.allocator import WORKER_ENV
from tcpa_core.training.stand_ins import StandIns
from tests.search.conftest import make_space
from tests.tcpa_core.data_layouts import make


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


class TestPlugIns:
    @pytest.fixture
    def folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        (tmp_path / "mine/methods").mkdir(parents=True)
        (tmp_path / "mine/methods/gain.py").write_text("x = 1\n")
        monkeypatch.setenv("TCPA_PLUGINS", str(tmp_path / "mine"))
        return tmp_path / "mine"

    def test_a_node_with_the_same_files_is_taken_wherever_they_lie(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        digest = plugins.digest()
        monkeypatch.setenv("TCPA_PLUGINS", str(folder.rename(folder.with_name("other"))))
        check_plugins(digest)

    def test_one_with_others_or_none_is_not(self, folder: Path) -> None:
        digest = plugins.digest()
        (folder / "methods/gain.py").write_text("x = 2\n")
        with pytest.raises(PluginError, match=f"below TCPA_PLUGINS={folder} are not the driver's"):
            check_plugins(digest)
        folder.rename(folder.with_name("away"))
        with pytest.raises(PluginError, match=f"TCPA_PLUGINS names '{folder}', which is no folder"):
            check_plugins(digest)

    def test_a_driver_without_any_asks_for_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("TCPA_PLUGINS", raising=False)
        assert plugins.digest() == ""
        check_plugins("")


class Lacking:
    """A worker without data."""

    def __init__(self, study_dir: Path, cache_dir: Path | None, device: str) -> None:
        self.cache_dir = cache_dir

    def fingerprints(self, data: object, backbones: object) -> None:
        raise DataError("/data does not exist.")

    def use(self, stand_ins: StandIns) -> None:
        assert stand_ins.manifests == {("key", 32): "manifests/a.json"}


def node(tmp_path: Path, **more: Any) -> PackWorker:
    spec = WorkerSpec(
        study_dir=tmp_path, cache_dir=None, factory=f"{__name__}:Lacking", count=1, slots=1,
        num_cpus=1, num_gpus=0, env={},
    )  # fmt: skip
    return PackWorker(dataclasses.replace(spec, **more), Place("hostb", "cpu", 1))


def test_a_node_without_data_is_told_of_the_option_that_sends_them(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"/data does not exist\. Or .*: --ship-data\.$"):
        node(tmp_path).fingerprints([], [])
    offer = Offer(Fetcher(None, {}), {("key", 32): "manifests/a.json"}, {})
    with pytest.raises(DataError, match=r"/data does not exist\.$"):
        node(tmp_path, offer=offer).fingerprints([], [])


def test_a_node_s_cache_is_the_one_that_all_are_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TCPA_CACHE", "/elsewhere")
    monkeypatch.setenv("FAST", str(tmp_path))
    made: Any = node(tmp_path, cache_dir=Path("$FAST/c"))
    assert made._worker.cache_dir == cache_root() == tmp_path / "c"
    with pytest.raises(DataError, match=r"\$SLOW is not set"):
        node(tmp_path, cache_dir=Path("$SLOW/c"))


def test_a_node_of_a_cluster_that_can_have_no_cache_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TCPA_CACHE", str(tmp_path / "file/cache"))
    of_cluster = Needs(fingerprints={"data": "d"})
    with pytest.raises(DataError, match=r"file/cache cannot be written on .*--cache-dir"):
        node(tmp_path, needs=of_cluster)
    (tmp_path / "there").mkdir()
    monkeypatch.setenv("TCPA_CACHE", str(tmp_path / "there"))
    made: Any = node(tmp_path, needs=of_cluster)
    assert made._worker.cache_dir == tmp_path / "there"


def test_a_plan_says_what_a_node_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TCPA_CACHE", str(tmp_path / "cache"))
    cfg = make("folder", tmp_path / "data")
    weights = weights_path(BackboneConfig())
    base = {"data": {"name": "folder", "root": cfg.root}, "backbone.weights": str(weights)}
    space = make_space(base=base)
    plan = plan_space(space, "s", tmp_path, ship_data=True)
    size = weights.stat().st_size / 1e6
    assert plan.shipped.startswith(
        f"to a node without them, data 0.0 MB and weights {size:,.1f} MB"
    )
    assert not plan_space(space, "s", tmp_path).shipped
