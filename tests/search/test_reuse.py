"""Nothing twice: what an earlier study has completed is taken, and only that."""

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from search.driver import driver
from search.driver.driver import StudyOutcome, run_study
from search.driver.placement import Placement
from search.study.description import write_description
from search.study.digests import Digests
from search.study.earlier import code_of, earlier_of
from search.study.folder import StudyDir
from spaces.selection import Results
from spaces.space import Space
from tcpa_core import config as core
from tcpa_core.record import files
from tcpa_core.record.events import Epoch, Planned, Reused, Started, Tested, encode_line
from tcpa_core.record.values import TrialResult
from tests.search.conftest import PRINTS, make_space
from tests.search.dispatchers import FACTORY
from tests.search.stub import say_slots

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("local_ray")]

SEARCH = {
    "sampler": {"name": "tpe"},
    "scheduler": {"name": "asha", "grace_epochs": 1, "reduction_factor": 2},
    "seeds": [0, 1],
}
ROWS = {"low": {"optim.lr": 0.01}, "mid": {"optim.lr": 0.03}, "high": {"optim.lr": 0.1}}
ABLATION: dict[str, Any] = {
    "axes": None, "sampler": None, "scheduler": None, "budget": None,
    "ablation": {"design": "components", "rows": ROWS, "seeds": [0, 1], "test": "all"},
}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Root with a finished search, which no test changes."""
    root = tmp_path_factory.mktemp("studies")
    space = make_space(**SEARCH)
    run(space, made(root, "first", space))
    return root


@pytest.fixture
def root(place: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(place, tmp_path / "studies"))


def made(root: Path, name: str, space: Space, **more: Any) -> StudyDir:
    given = {"code": dict(code_of(space.trials)), "reuse": [], **more}
    prints = given.pop("prints", PRINTS)
    study = StudyDir.create(root, name, space, prints, "", given)
    (study.path / "stub.json").write_text(json.dumps(given.pop("orders", {})))
    return study


def run(space: Space, study: StudyDir) -> StudyOutcome:
    say_slots(study.path, 3)
    earlier, _ = earlier_of(study, space)
    placement = Placement(workers=2, slots=3, worker_factory=FACTORY)
    outcome = run_study(space, study, placement=placement, earlier=earlier)
    for state in study.path.glob(f"{files.CHECKPOINTS}/*/last.json"):  # as stubs call it
        state.with_name(files.LAST).write_bytes(state.read_bytes())
    return outcome


def trained(study: StudyDir) -> list[str]:
    return sorted({e.trial for e in study.events() if isinstance(e, Started)})


def reused(study: StudyDir) -> dict[str, str]:
    return {e.trial: e.text for e in study.events() if isinstance(e, Reused)}


def numbers(study: StudyDir) -> Any:
    """Everything that tables are made of, whoever trained it."""
    state = study.state("val_accuracy")
    assert (
        Counter(e.trial for e in study.events() if isinstance(e, Planned)).most_common(1)[0][1] == 1
    )
    return {
        name: (t.planned.params, t.planned.digest, t.status, t.values, t.test_accuracy,
               t.result and {**t.result.as_dict()})
        for name, t in state.trials.items()
    }  # fmt: skip


@pytest.fixture
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def refuse(*_: Any) -> Any:
        raise AssertionError("a cluster was asked for")

    monkeypatch.setattr(driver, "connect", refuse)
    yield


def test_a_search_with_early_stopping_is_repeated_without_training(
    root: Path, no_cluster: None
) -> None:
    first = StudyDir.open(root, "first")
    assert {"pruned", "completed"} <= set(first.state().counts())
    space = make_space(**SEARCH)
    study = made(root, "again", space)
    assert run(space, study).finished
    assert not trained(study) and numbers(study) == numbers(first)
    assert reused(study) == {n: f"first/{n}" for n in study.state().trials}
    state = study.state()
    assert state.is_finished and state.spent.hours() == 0
    tested = [e.trial for e in study.events() if isinstance(e, Tested)]
    selected = Results.of(space, state).ranking().selected
    assert selected is not None and sorted(tested) == sorted(selected.trials)
    # ... also from a study that has only reused itself, and once the first is deleted
    shutil.rmtree(first.path)
    third = made(root, "third", space)
    assert run(space, third).finished and numbers(third) == numbers(study)
    assert set(reused(third).values()) == {f"first/{n}" for n in study.state().trials}
    for name in selected.trials:
        assert (third.path / files.CHECKPOINTS / name / files.LAST).is_file()


def test_a_search_is_repeated_where_its_data_have_moved(
    root: Path, tmp_path: Path, no_cluster: None
) -> None:
    """Those that were stopped early, too; its trials name the place of today."""
    first = StudyDir.open(root, "first")
    document = first.document()
    document["space"]["base"]["data.root"] = str(tmp_path / "old")
    write_description(first.path, document)
    lines = [event.as_dict() for event in first.events()]
    for line in lines:
        if line["kind"] == "planned":
            line["params"]["data.root"] = str(tmp_path / "old")
    first.journal_path.write_bytes(b"".join(map(encode_line, lines)))
    base = {"methods": ["linear"], "train.epochs": 6, "data.root": str(tmp_path / "new")}
    space = make_space(**SEARCH, base=base)
    study = made(root, "again", space)
    assert run(space, study).finished and not trained(study)
    assert "pruned" in study.state().counts() and study.state().counts() == first.state().counts()
    roots = {one.planned.params["data.root"] for one in study.state().trials.values()}
    assert roots == {str(tmp_path / "new")}


def test_only_what_is_new_of_a_design_is_trained(designed: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(designed, tmp_path / "studies"))
    rows = {"new": {"optim.lr": 0.02}, **ROWS}
    space = make_space(**{**ABLATION, "ablation": {**ABLATION["ablation"], "rows": rows}})
    after = made(root, "four", space)
    assert run(space, after).finished
    levels = {n: t.planned.cells[0]["level"] for n, t in after.state().trials.items()}
    assert {levels[n] for n in trained(after)} == {"new"} and len(trained(after)) == 2
    assert {levels[n] for n in reused(after)} == set(ROWS) and len(reused(after)) == 6
    # every row is tested: scores are taken over with the rest
    assert all(t.test_accuracy is not None for t in after.state().trials.values())
    assert after.state().counts() == {"completed": 8}


def other_seed(study: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    study["ablation"] = {**ABLATION["ablation"], "seeds": [2, 3]}


def other_prints(name: str) -> Callable[[dict[str, Any], pytest.MonkeyPatch], None]:
    def change(study: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
        study["prints"] = {**PRINTS, name: "other"}

    return change


def other_version(study: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core, "CORE_VERSION", core.CORE_VERSION + 1)


def other_epochs(study: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    study["base"] = {"methods": ["linear"], "train.epochs": 5}


def other_selection(study: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    study["base"] = {"methods": ["linear"], "train.epochs": 6, "train.selection": "last_epoch"}


def other_code(study: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    study["code"] = {"methods/linear": "an earlier one", "data/digits": "x"}


def changed_data(study: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    change = {"study": "before", "recorded": {"data": "d"}, "found": {"data": "e"}}
    study["accepted"] = [change]


CHANGES = {
    "seed": other_seed, "data": other_prints("data"), "weights": other_prints("weights"),
    "version": other_version, "epochs": other_epochs, "selection": other_selection,
    "code": other_code, "accepted": changed_data,
}  # fmt: skip


@pytest.fixture(scope="module")
def designed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("designed")
    space = make_space(**ABLATION)
    run(space, made(root, "before", space))
    return root


def found(root: Path, space: Space, study: StudyDir) -> int:
    """Trials of a design that an earlier study has."""
    earlier, _ = earlier_of(study, space)
    assert earlier is not None
    ids = study.document()["fingerprints"]
    digests = [c.digest(ids["data"], ids["weights"]) for c in space.trials]
    return sum(earlier.find(digest) is not None for digest in digests)


@pytest.mark.parametrize("change", ["none", *CHANGES])
def test_what_differs_in_anything_is_trained(
    change: str, designed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(shutil.copytree(designed, tmp_path / "studies"))
    given: dict[str, Any] = dict(ABLATION)
    if change != "none":
        CHANGES[change](given, monkeypatch)
    prints, code = given.pop("prints", PRINTS), given.pop("code", None)
    accepted = given.pop("accepted", None)
    if code or accepted:
        path = root / "before" / files.DESCRIPTION
        document = StudyDir.open(root, "before").document()
        document |= {"code": code} if code else {"accepted_changes": accepted}
        path.write_text(json.dumps(document))  # JSON is YAML
    space = make_space(**given)
    study = made(root, "after", space, prints=prints)
    assert found(root, space, study) == (6 if change == "none" else 0)


def test_what_failed_or_was_stopped_early_is_not_taken_for_a_completed_trial(
    root: Path,
) -> None:
    """Nor by a search of another space, whose scheduler may have let it go on."""
    first = StudyDir.open(root, "first")
    done = {t.planned.digest: t.status for t in first.state().trials.values()}
    space = make_space(**{**SEARCH, "scheduler": {"name": "none"}})
    study = made(root, "other", space)
    earlier, _ = earlier_of(study, space)
    assert earlier is not None
    assert {d: earlier.find(d) is not None for d in done} == {
        d: status == "completed" for d, status in done.items()
    }
    assert run(space, study).finished
    state = study.state()
    taken = [n for n, t in state.trials.items() if done.get(t.planned.digest) == "completed"]
    assert sorted(reused(study)) == taken and taken
    assert set(trained(study)) == set(state.trials) - set(taken)


@pytest.mark.parametrize("given", [SEARCH, ABLATION], ids=["search", "ablation"])
def test_a_finished_study_with_failed_trials_is_repeated_as_it_is(
    given: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = make_space(**given)
    first = made(tmp_path, "first", space, orders={"diverges_above": 0.05})
    run(space, first)
    assert first.state().counts()["failed"]
    with monkeypatch.context() as patched:
        patched.setattr(driver, "connect", lambda *_: pytest.fail("a cluster was asked for"))
        again = made(tmp_path, "again", space)
        assert run(space, again).finished
    assert not trained(again)
    # scores stand with a trial's end where it was trained, and by themselves where it was taken
    unscored = {f.name for f in fields(TrialResult) if f.name.startswith("test_")}

    def told(study: StudyDir) -> Any:
        return {
            name: (*one[:5], {k: v for k, v in one[5].items() if k not in unscored})
            for name, one in numbers(study).items()
        }

    assert told(again) == told(first)
    # with another budget it is another study, which tries them once more
    if given is SEARCH:
        more = make_space(**SEARCH, budget={"trials": 14})
        longer = made(tmp_path, "longer", more)
        failed = {n for n, t in first.state().trials.items() if t.status == "failed"}
        assert run(more, longer).finished and failed <= set(trained(longer))


def test_a_damaged_record_is_trained_again(designed: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(designed, tmp_path / "studies"))
    path = root / "before" / files.JOURNAL
    lines = path.read_bytes().splitlines(keepends=True)
    hit = next(i for i, line in enumerate(lines) if b'"kind":"epoch"' in line)
    lines[hit] = lines[hit].replace(b'"val_accuracy":0', b'"val_accuracy":1', 1)
    path.write_bytes(b"".join(lines))
    space = make_space(**ABLATION)
    assert found(root, space, made(root, "after", space)) == 5


def test_without_its_state_a_trial_is_taken_only_if_its_test_is_on_record(
    designed: Path, root: Path, tmp_path: Path
) -> None:
    tested = Path(shutil.copytree(designed, tmp_path / "tested"))
    shutil.rmtree(tested / "before" / files.CHECKPOINTS)
    space = make_space(**ABLATION)
    study = made(tested, "after", space)
    assert run(space, study).finished and not trained(study)
    assert {e.checkpoint for e in study.events() if isinstance(e, Reused)} == {"absent"}
    first = StudyDir.open(root, "first")
    document = json.loads(json.dumps(first.document()))
    document["space"]["seeds"] = [7]  # no repetition
    (first.path / files.DESCRIPTION).write_text(json.dumps(document))
    shutil.rmtree(first.path / files.CHECKPOINTS)
    search = make_space(**SEARCH)
    earlier, _ = earlier_of(made(root, "after", search), search)
    assert earlier is not None
    state = first.state()
    known = {n for n, t in state.trials.items() if earlier.find(t.planned.digest)}
    assert known == {n for n, t in state.trials.items() if t.tested}


def test_a_driver_that_is_killed_at_any_line_loses_and_doubles_nothing(
    root: Path, tmp_path: Path, no_cluster: None
) -> None:
    space = make_space(**SEARCH)
    whole = made(root, "again", space)
    run(space, whole)
    lines = whole.journal_path.read_bytes().splitlines(keepends=True)
    wanted = numbers(whole)
    for cut in (1, 2, 3, 4, len(lines) // 3, len(lines) // 2, len(lines) - 2, len(lines) - 1):
        part = made(root, f"cut{cut}", space)
        torn = lines[cut][: len(lines[cut]) // 2]
        part.journal_path.write_bytes(b"".join(lines[:cut]) + torn)
        assert run(space, part).finished
        assert numbers(part) == wanted and not trained(part)
        ends = Counter(e.trial for e in part.events() if e.kind in ("completed", "pruned"))  # type: ignore[attr-defined]
        assert set(ends.values()) == {1} and ends.keys() == wanted.keys()
        epochs = Counter((e.trial, e.report.epoch) for e in part.events() if isinstance(e, Epoch))
        assert set(epochs.values()) == {1}
        shutil.rmtree(part.path)


def test_a_longer_search_goes_on_where_the_shorter_one_has_ended(root: Path) -> None:
    space = make_space(**{**SEARCH, "budget": {"trials": 14}})
    (root.parent / "elsewhere" / "deep").mkdir(parents=True)
    shutil.move(root / "first", root.parent / "elsewhere" / "deep" / "first")
    study = made(root, "more", space, reuse=[str(root.parent / "elsewhere")])
    assert run(space, study).finished
    first = StudyDir(root.parent / "elsewhere" / "deep" / "first")
    before, after = numbers(first), numbers(study)
    assert {n: after[n] for n in before} == {
        n: (*one[:4], after[n][4], one[5]) for n, one in before.items()
    }, "but for the test split, which is read for what is selected now"
    assert len(after) == 14 and trained(study) == ["00012", "00013"]
    assert study.state().spent.hours() > 0
    # a resume knows all of it from the journal
    shutil.rmtree(first.path)
    assert run(space, study).finished and numbers(study) == after


def test_a_study_without_the_mark_takes_nothing(root: Path) -> None:
    """As one that an earlier version made."""
    space = make_space(**SEARCH)
    study = StudyDir.create(root, "old", space, PRINTS, "", {})
    assert earlier_of(study, space) == (None, [])


def test_the_places_of_a_long_journal_are_kept_and_followed(
    designed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from search.study import digests

    monkeypatch.setattr(digests, "_MIN_NEW", 1)
    path = tmp_path / files.JOURNAL
    data = (designed / "before" / files.JOURNAL).read_bytes()
    half = data.index(b"\n", len(data) // 2) + 1
    path.write_bytes(data[:half] + b'{"n":')
    few = Digests.of(path, keep=True)
    assert (tmp_path / files.DIGESTS).is_file() and few.offset == half
    path.write_bytes(data)
    fresh = Digests.of(path, keep=False)
    monkeypatch.setattr(Digests, "_take", refuse_before(half, Digests._take))
    again = Digests.of(path, keep=True)
    assert dict(again.completed()) == dict(fresh.completed()) and len(dict(again.completed())) == 6
    (tmp_path / files.DIGESTS).write_text('{"version": 1, "offset": -5, "tail": [], "trials": 3}')
    monkeypatch.undo()
    assert dict(Digests.of(path, keep=False).completed()) == dict(fresh.completed())


def refuse_before(offset: int, take: Any) -> Any:
    def checked(self: Digests, line: bytes) -> None:
        assert self.offset >= offset, "read again"
        take(self, line)

    return checked
