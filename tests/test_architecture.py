"""The direction of imports, held by walking the syntax trees; and what light processes may load."""

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import get_args

import pytest

from benchmarks.faults import FAULTS
from tcpa_core import errors
from tcpa_core.plugins import EXPORTS
from tcpa_core.record import events
from tcpa_core.record.events import EVENT_KINDS, FINAL_KINDS, Event, Planned, TrialEvent
from tcpa_core.record.values import Status

ROOT = Path(__file__).parents[1]
OURS = ("tcpa_core", "spaces", "search", "reports")
STDLIB = sys.stdlib_module_names
CORE = {"torch", "timm", "torchvision", "numpy", "PIL", "safetensors", "pydantic"}
MAY_USE = {
    "tcpa_core": CORE,
    "spaces": {"pydantic", "yaml"},
    "search": {"ray", "optuna", "mlflow", "typer", "rich", "yaml", "pydantic"},
    "reports": {
        "pandas", "pyarrow", "mlflow", "scipy", "matplotlib", "jinja2", "numpy", "yaml",
        "markupsafe", "sklearn",
    },
}  # fmt: skip
MAY_USE_OURS = {
    "tcpa_core": set(),
    "spaces": {"tcpa_core"},
    "search": {"tcpa_core", "spaces"},
    "reports": {"tcpa_core.record", "tcpa_core.errors", "tcpa_core.plugins", "spaces"},
}
EXCEPTIONS = {
    ("tcpa_core/command.py", "search"),  # where the command begins, before it may be imported
    ("tcpa_core/data/digits.py", "sklearn"),  # its images are in scikit-learn
    ("tcpa_core/data/parquet.py", "pyarrow"),  # loaded where a Parquet file is read
    ("tcpa_core/methods/damvp.py", "scipy"),  # average linkage; loaded where data are clustered
    ("search/study/storage.py", "pyarrow"),  # file systems of storages; loaded where one is used
    ("search/study/address.py", "sqlalchemy"),  # how MLflow reads the address of a database
    ("search/verbs/doctor.py", "torch"),  # says which GPUs PyTorch can use
    ("search/tracking/served_trial.py", "pandas"),  # what a model of MLflow answers with
    ("search/tracking/tensorboard.py", "tensorboardX"),  # Ray Tune's; loaded on request
    ("search/commands/inspect.py", "reports"),  # the command line hands over to a report
    ("search/verbs/report.py", "reports"),
    ("search/verbs/export.py", "reports"),  # the interval of a trial's seeds, for the card
    ("search/verbs/push.py", "huggingface_hub"),  # timm's; loaded where a trial is uploaded
    ("search/verbs/verdict.py", "reports"),
    ("search/verbs/bundle.py", "reports"),  # the tables that are sealed with a journal
    ("search/verbs/verify.py", "reports"),
    ("search/verbs/reproduce.py", "reports"),  # which numbers are published
    ("search/verbs/power.py", "reports"),  # what a planned design will see, from earlier studies
    ("search/verbs/optuna_pages.py", "optuna_dashboard"),  # an extra; loaded where it is served
    ("search/verbs/quickstart.py", "reports"),
}


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _allowed(file: str, package: str, name: str) -> bool:
    top = name.split(".")[0]
    if top in STDLIB or top == package or (file, top) in EXCEPTIONS:
        return True
    if top in OURS:
        return any(name == ok or name.startswith(ok + ".") for ok in MAY_USE_OURS[package])
    return top in MAY_USE[package]


@pytest.mark.parametrize("package", OURS)
def test_imports_follow_the_table(package: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in sorted((ROOT / package).rglob("*.py"))
        for name in _imports(path)
        if not _allowed(str(path.relative_to(ROOT)), package, name)
    ]
    assert not wrong, "\n".join(wrong)


def test_ray_tune_stays_in_its_folder() -> None:
    """The rest of the search knows trials, a loop and a scheduler, not how Tune wants them."""
    wrong = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in sorted((ROOT / "search").rglob("*.py"))
        if path.parent.name != "tune"
        for name in _imports(path)
        if name.startswith(("ray.tune", "ray.air"))
    ]
    assert not wrong, "\n".join(wrong)


PLUGINS = {package.replace(".", "/"): set(names) for package, names in EXPORTS.items()}
"""Packages whose public files are plug-ins, and what each of these files defines."""


def _plugins(folder: str) -> list[Path]:
    files = sorted((ROOT / folder).glob("*.py"))
    return [file for file in files if file.stem != "base" and not file.stem.startswith("_")]


@pytest.mark.parametrize("folder", PLUGINS)
def test_plugins_do_not_import_each_other(folder: str) -> None:
    """What two of them need stands in base.py or in a file that starts with an underscore."""
    package = folder.replace("/", ".")
    siblings = {file.stem for file in _plugins(folder)}
    wrong = [
        f"{file.relative_to(ROOT)}: {name}"
        for file in sorted((ROOT / folder).glob("*.py"))
        for name in _imports(file)
        if name.startswith(f"{package}.")
        and name.removeprefix(f"{package}.").partition(".")[0] in siblings
    ]
    assert siblings and not wrong, "\n".join(wrong)


@pytest.mark.parametrize("folder", PLUGINS)
def test_every_public_file_of_a_plugin_package_is_a_plugin(folder: str) -> None:
    """Any other one would be offered as a method, data set, protocol or plot."""
    for file in _plugins(folder):
        defined = set()
        for node in ast.parse(file.read_text()).body:
            match node:
                case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
                    defined.add(name)
                case (
                    ast.Assign(targets=[ast.Name(id=name)])
                    | ast.AnnAssign(target=ast.Name(id=name))
                ):
                    defined.add(name)
        assert PLUGINS[folder] <= defined, file.relative_to(ROOT)


def _nodes(*packages: str) -> Iterator[ast.AST]:
    for package in packages:
        for path in (ROOT / package).rglob("*.py"):
            yield from ast.walk(ast.parse(path.read_text()))


def test_every_kind_of_event_is_written_and_read_again() -> None:
    reading = ast.walk(ast.parse((ROOT / "tcpa_core/record/events.py").read_text()))
    made = Counter(_called(_nodes("search", "tcpa_core"))) - Counter(_called(reading))
    kinds = {c for c in vars(events).values() if isinstance(c, type) and issubclass(c, Event)}
    assert {c.__name__ for c in kinds - {Event, TrialEvent, Planned}} <= set(made)
    assert set(EVENT_KINDS) == set(events._READERS)
    assert set(FINAL_KINDS) == set(get_args(Status))


def _called(nodes: Iterable[ast.AST]) -> Iterator[str]:
    for node in nodes:
        match node:
            case ast.Call(func=ast.Name(id=name)):
                yield name


def test_every_error_is_raised() -> None:
    named = set()
    for node in _nodes(*OURS):
        match node:
            case (
                ast.Call(func=ast.Name(id=name))
                | ast.Call(func=ast.Attribute(value=ast.Name(id=name)))
            ):
                named.add(name)
    classes = {c for c in vars(errors).values() if isinstance(c, type)} - {errors.TcpaError}
    assert not [c.__name__ for c in classes if issubclass(c, Exception) and c.__name__ not in named]


def _run(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_core_works_without_the_platform() -> None:
    """Training needs neither Ray nor Optuna nor MLflow nor pandas."""
    _run(
        "import sys\n"
        "for name in ('ray', 'optuna', 'mlflow', 'pandas', 'typer'): sys.modules[name] = None\n"
        "import tcpa_core\n"
        "from tcpa_core import build_model, run_trial, load_trained, TrialConfig\n"
        "import tcpa_core.training.worker\n"
    )


def test_what_is_loaded_on_first_use_is_listed() -> None:
    _run(
        "import tcpa_core\n"
        "assert set(tcpa_core.__all__) | {'__version__'} <= set(dir(tcpa_core))\n"
        "for name in dir(tcpa_core): getattr(tcpa_core, name)\n"
    )


@pytest.mark.parametrize(
    "module",
    [
        "search.tune.trial_handle",
        "search.workers.dispatcher",
        "tcpa_core.record",
        "tcpa_core.config",
    ],
)
def test_light_modules_do_not_load_torch(module: str) -> None:
    _run(f"import sys, {module}\nassert 'torch' not in sys.modules")


def test_the_settings_of_all_methods_do_not_load_timm() -> None:
    """It takes as long to load as torch; the driver of a study checks settings, no backbone."""
    _run(
        "import sys, search.driver.driver, search.verbs.run\n"
        "from tcpa_core import plugins\n"
        "from tcpa_core.chain import method_class\n"
        "for name in plugins.names('tcpa_core.methods'): method_class(name)\n"
        "assert 'timm' not in sys.modules\n"
    )


def test_a_wrong_space_is_refused_before_anything_heavy_is_loaded() -> None:
    _run(
        "import sys, search.cli, search.planning.requested_space\n"
        "from tcpa_core.errors import ConfigError\n"
        "try: search.planning.requested_space.requested_space('no_such_space')\n"
        "except ConfigError: pass\n"
        "else: raise AssertionError\n"
        "assert not {'torch', 'ray', 'mlflow', 'optuna'} & set(sys.modules)\n"
    )


def test_every_test_of_faults_is_in_a_row_of_the_fault_table() -> None:
    folder = Path(__file__).parent / "faults"
    found = {
        f"faults/{path.name}::{node.name}"
        for path in folder.glob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }
    listed = {test for fault in FAULTS for test in fault.tests}
    missing = {test for test in found if not {test, test.partition("::")[0]} & listed}
    assert found and not missing
    assert {test for test in listed if test.startswith("faults/") and "::" in test} <= found
