"""Every verb that goes on with a study compares data and weights with what the study recorded."""

import shutil
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from search import cli
from search.driver import ray_session
from search.driver.driver import StudyOutcome
from search.planning.plan import plan_space
from search.study.description import write_description
from search.study.folder import StudyDir
from search.study.identity import check_unchanged
from search.study.journal import Journal
from search.verbs import run
from spaces.load import load_space
from tcpa_core.errors import StudyError
from tests.journals import write
from tests.tcpa_core.data_layouts import make, picture

GO_ON = {
    "resume": ["s"],
    "extend": ["s", "--trials", "2"],
    "confirm": ["s", "--top", "2", "--seeds", "2"],
    "replay": ["s", "00000"],
    "inspect": ["s", "00000"],
    "ablate": ["SPACE", "--from", "s"],
}
"""Verbs that train, score or draw from a study that exists, with arguments."""
NAMES = ("study", "studies", "trials", "words")
"""What commands call their argument that begins with the name of a study."""
READ_ONLY = {"stop", "status", "report", "sync", "predict", "export", "push", "bundle"}
"""Verbs on a study that train nothing: they use its records, or what a trial has learnt."""

WEIGHTS = Path(cli.__file__).parents[1] / "tcpa_core" / "weights" / "vit_nano.safetensors"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TCPA_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A studies folder with a finished search `s` on a small data set and a weights file."""
    make("folder", tmp_path / "pictures")
    shutil.copy(WEIGHTS, tmp_path / "weights.safetensors")
    base = {
        "methods": ["linear"],
        "train.epochs": 1,
        "data.name": "folder",
        "data.root": "pictures",
        "backbone.weights": "weights.safetensors",
    }
    search = {
        "name": "s",
        "base": base,
        "axes": {"optim.lr": {"choice": [0.1, 0.2]}},
        "budget": {"trials": 2},
    }
    rows = {"low": {"optim.lr": 0.01}, "high": {"optim.lr": 0.3}}
    ablation = {"design": "components", "rows": rows, "seeds": [0, 1]}
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(search))
    (tmp_path / "a.yaml").write_text(
        yaml.safe_dump({"name": "a", "base": base, "ablation": ablation})
    )
    root = tmp_path / "studies"
    study = plan_space(load_space(str(tmp_path / "s.yaml")), "s", root).create()
    journal = Journal(study.journal_path)
    write(journal, {"kind": "study", "name": "s"})
    for i, lr in enumerate((0.1, 0.2)):
        flat = study.space().config({"optim.lr": lr}, 0).flat()
        about = {"digest": f"d{i}", "point": f"p{i}", "seed": 0, "labels": {"cells": []}}
        about |= {"origin": "x", "draw": {}}
        epoch = {"epoch": 1, "val_accuracy": 0.5 + lr, "val_loss": 1.0, "train_loss": 1.0}
        write(
            journal,
            {"kind": "planned", "trial": f"{i:05d}", "params": flat, **about},
            {"kind": "epoch", "trial": f"{i:05d}", **epoch},
            {"kind": "completed", "trial": f"{i:05d}", "status": "completed", "val_accuracy": lr},
        )
    write(journal, {"kind": "finished"})
    journal.close()
    return root


@pytest.fixture
def tcpa(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """Run a verb in this process with nothing trained; its exit code and what it says."""
    outcome = StudyOutcome({"completed": 2}, "finished")
    monkeypatch.setattr(run, "run_study", lambda *_, **__: outcome)
    monkeypatch.setattr(ray_session, "connect", lambda *_: nullcontext())

    def call(verb: str, *more: str) -> tuple[int, str]:
        arguments = [a.replace("SPACE", str(root.parent / "a.yaml")) for a in GO_ON[verb]]
        monkeypatch.setattr(sys, "argv", ["tcpa", verb, *arguments, "--root", str(root), *more])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        code = ended.value.code
        assert isinstance(code, int)
        said = capsys.readouterr()
        return code, said.out + said.err

    return call


def change_a_picture(folder: Path) -> None:
    picture(folder / "pictures" / "train" / "class 0" / "0.PNG", seed=999)


def change_weights(folder: Path) -> None:
    path = folder / "weights.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_every_verb_on_a_study_is_known_here() -> None:
    command = typer.main.get_command(cli.app)
    of_studies = {
        name
        for name, verb in command.commands.items()  # type: ignore[attr-defined]
        if any(p.name in NAMES and p.param_type_name == "argument" for p in verb.params)
    }
    assert of_studies == (GO_ON.keys() - {"ablate"}) | READ_ONLY
    accepting = {
        name
        for name, verb in command.commands.items()  # type: ignore[attr-defined]
        if any("--accept-changed-data" in p.opts for p in verb.params)
    }
    # The first three go on as --resume does, which is tested with what that does; of a bench the
    # cells that are done are compared as well (tests/search/test_bench.py).
    assert accepting - {"search", "compare", "reproduce", "bench"} == GO_ON.keys()


@pytest.mark.parametrize("verb", GO_ON)
@pytest.mark.parametrize(
    ("changes", "what"), [(change_a_picture, "data"), (change_weights, "weights")]
)
def test_a_verb_that_goes_on_refuses_what_has_changed(
    verb: str,
    changes: Callable[[Path], None],
    what: str,
    root: Path,
    tcpa: Callable[..., tuple[int, str]],
) -> None:
    study = StudyDir.open(root, "s")
    before = study.fingerprints()[what]
    journal, document = study.journal_path.read_bytes(), study.document()
    changes(root.parent)
    with pytest.raises(StudyError) as err:
        check_unchanged(study)
    code, said = tcpa(verb)
    assert code == 2
    assert f"error: {err.value}" in said
    assert f"{what} of study 's' changed: recorded {before}, now " in said
    assert "--accept-changed-data" in said
    assert study.journal_path.read_bytes() == journal and study.document() == document
    assert sorted(p.name for p in root.iterdir()) == ["s"], "nothing was begun"


def test_what_is_unchanged_is_not_read_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = StudyDir.open(root, "s")
    past_the_racy_time(root.parent / "pictures")
    assert check_unchanged(study) is None
    monkeypatch.setattr("tcpa_core.data._hashes.read_image", fail)
    assert check_unchanged(study) is None


def past_the_racy_time(folder: Path) -> None:
    """Files whose content changed two seconds ago are hashed anew: wait for them."""
    newest = max(path.stat().st_ctime for path in folder.rglob("*.PNG"))
    time.sleep(max(0.0, newest + 2.2 - time.time()))


def fail(*_: Any) -> Any:
    raise AssertionError("a picture was read")


@pytest.mark.parametrize("verb", ["resume", "extend"])
def test_an_accepted_change_is_recorded_once(
    verb: str, root: Path, tcpa: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []

    def runs(*_: Any, notices: Any, **__: Any) -> StudyOutcome:
        told.append(list(notices))
        return StudyOutcome({"completed": 2}, "finished")

    monkeypatch.setattr(run, "run_study", runs)
    study = StudyDir.open(root, "s")
    before = study.fingerprints()
    change_a_picture(root.parent)
    code, _ = tcpa(verb, "--accept-changed-data")
    assert code == 0
    (change,) = study.document()["accepted_changes"]
    assert change["recorded"] == {"data": before["data"]}
    assert study.fingerprints() == before | change["found"] != before
    assert study.document()["fingerprints"] == before, "what the study was made with stays"
    assert [line.startswith("data of study 's' changed: ") for line in told[0]] == [True]
    code, _ = tcpa(verb)
    assert code == 0 and told[1] == [], "it is compared with what was accepted"
    assert len(study.document()["accepted_changes"]) == 1
    change_a_picture_again(root.parent)
    assert tcpa(verb)[0] == 2


def change_a_picture_again(folder: Path) -> None:
    picture(folder / "pictures" / "val" / "class 1" / "1.PNG", seed=1000)


def test_a_study_made_from_changed_data_records_that(
    root: Path, tcpa: Callable[..., tuple[int, str]]
) -> None:
    change_a_picture(root.parent)
    assert tcpa("ablate", "--study", "made", "--accept-changed-data")[0] == 0
    made = StudyDir.open(root, "made")
    (change,) = made.document()["accepted_changes"]
    assert change["study"] == "s" and "data" in change["found"]
    assert made.fingerprints() == made.document()["fingerprints"], "its own data are as planned"
    assert check_unchanged(made) is None
    assert "accepted_changes" not in StudyDir.open(root, "s").document()


def test_a_trial_is_compared_with_its_own_data(root: Path) -> None:
    """Of a study on two data sets one is gone; trials on the other can be looked at."""
    study = StudyDir.open(root, "s")
    config = study.space().config({"optim.lr": 0.1}, 0)
    document = study.document()
    document["fingerprints"]["data"] += "+" + "0" * 64
    write_description(study.path, document)
    assert check_unchanged(study, trials=[config]) is None
    with pytest.raises(StudyError, match="data of study 's' changed"):
        check_unchanged(study)


def test_a_split_between_the_ends_of_a_range_is_no_change(root: Path, tmp_path: Path) -> None:
    """The plan records the splits of both ends; a trial drew one between them."""
    shutil.rmtree(tmp_path / "pictures" / "val")
    space = yaml.safe_load((tmp_path / "s.yaml").read_text())
    space["axes"] = {"data.split_seed": {"int": [0, 9]}}
    (tmp_path / "seeds.yaml").write_text(yaml.safe_dump(space))
    study = plan_space(load_space(str(tmp_path / "seeds.yaml")), "seeds", root).create()
    drawn = study.space().config({"data.split_seed": 5}, 0)
    assert check_unchanged(study, trials=[drawn]) is None
    change_a_picture(tmp_path)
    with pytest.raises(StudyError, match="data of study 'seeds' changed"):
        check_unchanged(study, trials=[drawn])


def test_a_study_of_the_last_version_is_compared_as_well(root: Path) -> None:
    study = StudyDir.open(root, "s")
    document = study.document()
    del document["data"]
    write_description(study.path, document)
    assert check_unchanged(study) is None
    change_weights(root.parent)
    with pytest.raises(StudyError, match="weights of study"):
        check_unchanged(study)
