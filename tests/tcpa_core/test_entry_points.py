"""Plugins of installed packages: found by entry points, under the names that these have."""

import re
from pathlib import Path

import pytest

from tests.tcpa_core.packages import ENTRY_POINTS, install, run

NAMES = """
import sys
from tcpa_core import plugins
for package in ("tcpa_core.methods", "tcpa_core.data", "tcpa_core.protocols", "reports.plots"):
    print(*plugins.names(package))
print("gain_pack" in sys.modules)
"""
ERROR = """
from tcpa_core import plugins
from tcpa_core.errors import PluginError
try: plugins.load("tcpa_core.methods", "gain_of")
except PluginError as err: print(err)
"""


def test_every_kind_is_listed_beside_our_own_and_nothing_is_imported(tmp_path: Path) -> None:
    methods, data, protocols, plots, imported = run(NAMES, install(tmp_path)).splitlines()
    assert {"gain_of", "tcpa"} <= set(methods.split())
    assert {"digits_of", "digits"} <= set(data.split())
    assert {"short_of", "ssf"} <= set(protocols.split())
    assert {"count_of", "cost"} <= set(plots.split())
    assert imported == "False"
    assert methods.split() == sorted(methods.split())


TRAIN = """
import sys
from pathlib import Path
from tcpa_core import TrialConfig, run_trial
from tcpa_core.inspection import inspect_trial
config = TrialConfig.from_flat({"protocol": "short-of", "methods": ["gain_of"], "gain_of.init": 0.9,
                                "data.name": "digits_of", "train.batch_size": 256})
assert config.train.epochs == 2, config.train
assert config.method_settings["gain_of"].init == 0.9
result = run_trial(config, folder=Path(sys.argv[1]) if sys.argv[1:] else Path("trial"))
print(result.status)
found = inspect_trial(Path("trial/best.safetensors"), images=8)
print(found["features"].shape[0], sorted(found)[0])
"""


def test_data_protocol_and_method_of_a_package_train_and_are_inspected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = run(TRAIN, install(tmp_path / "site"), TCPA_CACHE=str(tmp_path / "cache"))
    assert said.split() == ["completed", "8", "cls_maps"]


def test_a_method_of_a_package_has_the_digest_of_its_settings(tmp_path: Path) -> None:
    code = """
from tcpa_core import TrialConfig
flat = {"methods": ["gain_of"], "data.name": "digits"}
config = TrialConfig.from_flat(flat)
print(config.digest("data", "weights"), config.flat()["gain_of.init"])
"""
    first, second = (run(code, install(tmp_path / place)) for place in ("a", "b"))
    assert first == second and first.split()[1] == "1.0"


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"gain-of": "gain_pack.method"}, "entry point gain-of = 'gain_pack.method'"),
        ({"base": "gain_pack.method"}, "is not 'base'"),
        ({"gain_of": "gain_pack.method:Method"}, "must give a module, without ':'"),
        ({"gain_of": "gain_pack.nothing"}, "No module named 'gain_pack.nothing'"),
        ({"gain_of": "gain_pack.method", "more": "gain_pack.method"}, "differ in name and in mod"),
        ({"linear": "gain_pack.method"}, "two files are called 'linear': in .*methods and the ent"),
    ],
)
def test_a_wrong_entry_point_is_refused(
    entry: dict[str, str], message: str, tmp_path: Path
) -> None:
    said = run(ERROR, install(tmp_path, points={"tcpa.methods": entry}))
    assert re.search(message, said), said
    assert "gain_pack 0.1" in said


def test_a_name_of_two_packages_is_refused_with_both(tmp_path: Path) -> None:
    points = {"tcpa.methods": {"gain_of": "other_pack.method"}}
    install(tmp_path, "other_pack", points)
    said = run(ERROR, install(tmp_path))
    assert "gain_pack 0.1" in said and "other_pack 0.1" in said


def test_a_name_of_a_package_and_of_a_folder_is_refused_with_both(tmp_path: Path) -> None:
    (tmp_path / "mine" / "methods").mkdir(parents=True)
    (tmp_path / "mine" / "methods" / "gain_of.py").write_text("")
    said = run(ERROR, install(tmp_path / "site"), TCPA_PLUGINS=str(tmp_path / "mine"))
    assert str(tmp_path / "mine" / "methods") in said and "gain_pack 0.1" in said
    assert "rename that entry point" in said


def test_a_class_of_another_file_is_refused(tmp_path: Path) -> None:
    site = install(tmp_path, points={"tcpa.methods": {"gain_of": "gain_pack"}})
    (site / "gain_pack" / "__init__.py").write_text("from gain_pack.method import Config, Method\n")
    code = ERROR.replace('plugins.load("tcpa_core.methods", ', "method_class(")
    said = run("from tcpa_core.chain import method_class\n" + code, site)
    assert "takes its class Method from 'gain_pack.method'" in said


def test_a_figure_of_a_package_is_drawn_like_ours(tmp_path: Path) -> None:
    assert ENTRY_POINTS["tcpa.plots"] == {"count_of": "gain_pack.plot"}
    code = """
from tcpa_core import plugins
import pandas as pd
from types import SimpleNamespace
module = plugins.load("reports.plots", "count_of")
tables = SimpleNamespace(trials=pd.DataFrame({"trial": ["00000"]}))
print(len(module.draw(module.prepare(tables), tables).axes[0].lines))
"""
    assert run(code, install(tmp_path)).strip() == "1"
