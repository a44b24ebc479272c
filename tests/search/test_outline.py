"""What a look at a study needs of its space, and that it needs no more."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from search.study.folder import StudyDir
from search.study.journal import Journal
from spaces.load import load_space
from spaces.selection import Results
from spaces.space import Space
from tcpa_core.errors import ConfigError
from tests.journals import write
from tests.search.conftest import make_space

MakeStudy = Callable[..., StudyDir]
DESIGN = {"design": "components", "rows": {"a": {}, "b": {"optim.lr": 0.5}}, "seeds": [3, 4]}


def run_some(study: StudyDir) -> None:
    journal = Journal(study.journal_path)
    write(journal, {"kind": "study", "name": "x"})
    for trial, point, seed, value in (("0", "p", 0, 0.5), ("1", "p", 1, 0.7), ("2", "q", 0, 0.65)):
        write(journal, {"kind": "planned", "trial": trial, "point": point, "seed": seed})
        write(journal, {"kind": "completed", "trial": trial, "val_accuracy": value,
                        "val_loss": value})  # fmt: skip
    journal.close()


def ablation(**changes: object) -> Space:
    none = dict.fromkeys(("axes", "sampler", "scheduler", "budget"))
    return make_space(**none, ablation={**DESIGN, **changes})


@pytest.mark.parametrize(
    "space",
    [
        make_space(),
        make_space(seeds=2, objective={"metric": "val_loss", "goal": "minimize"}),
        ablation(),
        ablation(race=True, test="winner"),
    ],
    ids=["search", "loss", "ablation", "race"],
)
def test_points_stand_as_the_whole_space_has_them(space: Space, make_study: MakeStudy) -> None:
    study = make_study(space)
    run_some(study)
    state = study.state()
    outline = study.outline()
    found, whole = outline.results(state), Results.of(study.space(), state)
    assert found.ranking() == whole.ranking() and whole.ranking().points
    assert found.objective == whole.objective
    assert outline.budget == study.space().budget
    assert (outline.ablation is None) is (space.ablation is None)


def change(study: StudyDir, **parts: object) -> None:
    path = study.path / "study.yaml"
    document = yaml.safe_load(path.read_text())
    document["space"] |= parts
    path.write_text(yaml.safe_dump(document))


def test_what_an_earlier_version_wrote_is_read_by_the_whole_space(make_study: MakeStudy) -> None:
    study = make_study(make_space(seeds=3))
    change(study, objective={"metric": "val_accuracy"}, seeds=3)
    assert study.outline().seeds == (0, 1, 2)


def test_a_damaged_space_is_told_where_it_is_needed(make_study: MakeStudy) -> None:
    study = make_study(make_space())
    change(study, objective=[{"metric": "beauty"}])
    with pytest.raises(ConfigError, match=r"objective.*metric.*'beauty'"):
        study.outline()


@pytest.mark.parametrize("more", [[], ["--json"]], ids=["text", "json"])
@pytest.mark.parametrize("space", ["quickstart", "tcpa_components"])
@pytest.mark.parametrize("verb", ["status", "list"])
def test_a_look_at_a_study_loads_nothing_heavy(
    verb: str, space: str, more: list[str], tmp_path: Path
) -> None:
    run_some(StudyDir.create(tmp_path, "s", load_space(space), {}, ""))
    words = ["tcpa", verb, *(["s"] if verb == "status" else []), "--root", str(tmp_path), *more]
    script = (
        f"import sys; sys.argv = {words!r}\n"
        "from search import cli\n"
        "try:\n    cli.main()\n"
        "except SystemExit as end:\n    assert end.code == 0, end.code\n"
        "heavy = {'torch', 'ray', 'mlflow', 'optuna', 'pandas', 'matplotlib', 'timm', 'numpy'}\n"
        "print('loaded', sorted(heavy & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    said, _, loaded = done.stdout.rpartition("loaded ")
    if more:
        document = json.loads(said)
        (about,) = document["studies"] if verb == "list" else (document,)
        assert about["best"]["value"] == pytest.approx(0.6)
    else:
        assert "val_accuracy 0.6000" in said
    assert loaded == "[]\n", done.stderr
