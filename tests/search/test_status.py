"""`tcpa status` and `tcpa list`, in words and as JSON."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from search import cli
from search.study.folder import StudyDir
from search.study.glance import glance
from search.study.journal import Journal
from search.verbs.look import Look
from search.verbs.status import status_lines
from tcpa_core.errors import RecordError
from tcpa_core.record.state import StudyState
from tests.journals import write
from tests.search.conftest import make_space

BASE = {"train.epochs": 4}
AXES = {
    "methods": {"choice": [["linear"], ["vpt"]]},
    "optim.lr": {"float": [1e-3, 1e-1], "log": True},
}
BEGUN = {"kind": "study", "name": "x"}
FINISHED = {"kind": "finished"}
Event = dict[str, Any]


def planned(n: int, point: str = "") -> Event:
    params = {"methods": ["vpt"], "optim.lr": 0.01, "seed": 0, "train.epochs": 4}
    return {"kind": "planned", "trial": f"{n:05d}", "point": point or str(n), "params": params}


def started(n: int, epoch: int = 0) -> Event:
    hardware = {"host": "node1"}
    return {
        "kind": "started", "trial": f"{n:05d}", "device": "cuda:1", "epoch": epoch,
        "hardware": hardware,
    }  # fmt: skip


def epoch(n: int, number: int, value: float = 0.5) -> Event:
    return {
        "kind": "epoch", "trial": f"{n:05d}", "epoch": number, "train_loss": 1.0, "val_loss": 0.7,
        "val_accuracy": value,
    }  # fmt: skip


def ended(n: int, status: str, epochs: int, value: float | None = None, reason: str = "") -> Event:
    return {
        "kind": status, "trial": f"{n:05d}", "num_epochs": epochs, "duration_s": float(epochs),
        "val_accuracy": value, "reason": reason, "best_epoch": epochs,
    }  # fmt: skip


def make(root: Path, name: str, *events: Event, **changes: Any) -> StudyDir:
    space = make_space(**{"base": BASE, "axes": AXES, **changes})
    study = StudyDir.create(root, name, space, {}, "")
    journal = Journal(study.journal_path)
    write(journal, *events)
    journal.close()
    return study


RUNNING = [
    BEGUN,
    *(planned(n) for n in range(6)),
    *(started(n) for n in range(5)),
    *(epoch(n, 1, 0.4) for n in range(5)),
    ended(0, "pruned", 1, 0.4),
    ended(1, "failed", 1, reason="train_loss is nan at epoch 1, step 7"),
    ended(2, "failed", 1, reason="train_loss is nan at epoch 1, step 12"),
    *(epoch(3, e, 0.6) for e in (2, 3, 4)),
    ended(3, "completed", 4, 0.6),
    epoch(4, 2, 0.8),
]


REUSED = {"kind": "reused", "trial": "00002", "study": "first", "study_id": "f", "source": "00009",
          "checkpoint": "absent"}  # fmt: skip


def test_status_of_a_study_that_runs(tmp_path: Path) -> None:
    study = make(tmp_path, "s", *RUNNING)
    study.lock()
    try:
        lines = list(status_lines(Look.at(study)))
    finally:
        study.unlock()
    assert lines[0] == (
        "s: 1 completed, 2 failed, 1 pruned, 1 running, 1 waiting; last event: epoch."
    )
    assert lines[1].startswith("search, running: 4 of 12 trials ended, 9 of about ")
    assert " of " in lines[2] and lines[2].startswith("run by pid ")
    assert lines[3].startswith("  trial 00004: epoch 2/4, val_accuracy 0.8000, vpt, lr 0.01, on ")
    assert " on cuda:1 of node1 since " in lines[3]
    assert lines[4:] == [
        "best val_accuracy 0.6000 (trial 00003)",
        "  its setting: vpt, lr 0.01",
        "leading val_accuracy 0.8000 at epoch 2 of 4 (trial 00004, still running: vpt, lr 0.01)",
        "failed: 2 x train_loss is nan at epoch 1, step 7 (trials 00001, 00002)",
        "stopped early: 1 after epoch 1",
        f"next: tcpa report s --live --root {tmp_path} | tcpa stop s --root {tmp_path}",
    ]


DONE = [planned(0), planned(1), *(ended(n, "completed", 4, 0.5 + n / 10) for n in (0, 1))]


@pytest.mark.parametrize(
    ("events", "state", "command"),
    [
        ([], "planned", "resume"),
        ([BEGUN, *DONE], "interrupted", "resume"),
        ([BEGUN, *DONE, {"kind": "stopped", "reason": "x"}], "stopped", "resume"),
        ([BEGUN, *DONE, FINISHED, {"kind": "extended", "trials": 2}], "extended", "resume"),
        ([BEGUN, *DONE, FINISHED], "finished", "confirm"),
        ([BEGUN, planned(0), ended(0, "failed", 0, reason="x"), FINISHED], "finished", "report"),
    ],
)
def test_what_comes_next(events: list[Event], state: str, command: str, tmp_path: Path) -> None:
    look = Look.at(make(tmp_path, "s", *events))
    assert look.phase == state
    assert look.next_commands(look.confirmation())[0] == f"tcpa {command} s --root {tmp_path}"


@pytest.mark.parametrize(("end", "command"), [([], "resume"), ([FINISHED], "report")])
def test_a_search_that_was_confirmed_says_so(
    end: list[Event], command: str, tmp_path: Path
) -> None:
    look = Look.at(make(tmp_path, "s", BEGUN, *DONE, FINISHED))
    none = dict.fromkeys(("axes", "sampler", "scheduler", "budget"))
    rows = {"point 1": {"methods": ["vpt"]}, "point 2": {"methods": ["linear"]}}
    design = {"design": "components", "rows": rows, "seeds": [5, 6]}
    make(tmp_path, "s_confirm", BEGUN, *end, ablation=design, **none)
    state = "finished" if end else "interrupted"
    lines = list(status_lines(look))
    assert f"confirmed by s_confirm, {state}" in lines
    assert lines[-1].startswith(f"next: tcpa {command} s_confirm --root {tmp_path}")


# ---- JSON


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """What a command prints to stdout, as the one JSON document that it must be."""

    def run(*words: str) -> Any:
        assert (cli.app(words, standalone_mode=False) or 0) == 0
        said = capsys.readouterr()
        assert said.err == ""
        return json.loads(said.out, parse_constant=lambda name: pytest.fail(name))

    return run


OF_STUDY = {
    "study": str, "error": None, "folder": str, "storage": None, "kind": str, "state": str,
    "trials": {
        "total": int, "ended": int, "completed": int, "pruned": int, "failed": int,
        "running": int, "interrupted": int, "waiting": int,
    },
    "objective": {"metric": str, "goal": str},
    "best": {
        "value": float, "test_accuracy": None, "trials": [str], "seeds": [int],
        "missing_seeds": [], "settings": {"methods": [str], "optim.lr": float},
    },
    "last_event": {"kind": str, "time": str},
}  # fmt: skip
STATUS = OF_STUDY | {
    "schema": int, "driver": None, "waiting_for": None, "epochs": {"trained": int, "left": float},
    "elapsed_s": float, "epochs_per_hour": float, "left_s": float, "note": None,
    "leading": {
        "value": float, "trial": str, "epoch": int,
        "settings": {"methods": [str], "optim.lr": float},
    },
    "open_trials": [
        {
            "trial": str, "epoch": int, "epochs": int, "train_loss": float, "val_loss": float,
            "val_accuracy": float, "device": str, "host": str, "since": str, "seed": int,
            "settings": {"methods": [str], "optim.lr": float},
        }
    ],
    "failures": [{"reason": str, "count": int, "trials": [str]}],
    "stopped_early": [{"epoch": int, "count": int}], "reused": [{"study": str, "count": int}],
    "confirmed_by": None, "next": [str],
}  # fmt: skip


def shape(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: shape(one) for key, one in value.items() if key != "params"}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return None if value is None else type(value)


def test_keys_of_status_are_those_documented(tmp_path: Path, printed: Callable[..., Any]) -> None:
    events = [{**event, "t": 100.0 + n} for n, event in enumerate([*RUNNING, REUSED])]
    make(tmp_path, "s", *events)
    found = printed("status", "s", "--json", "--root", str(tmp_path))
    assert found["reused"] == [{"study": "first", "count": 1}]
    assert found["best"]["params"]["train.epochs"] == 4
    del found["best"]["params"]
    if found["left_s"] is None or found["epochs_per_hour"] is None:  # events of one moment
        found["left_s"] = found["epochs_per_hour"] = 0.5
    assert shape(found) == STATUS
    assert found["trials"]["total"] == 12 and found["trials"]["interrupted"] == 1
    assert found["failures"][0]["count"] == 2
    text = (Path(cli.__file__).parents[1] / "docs" / "watching.md").read_text()
    assert all(f"`{key}`" in text for key in _keys(STATUS)), "each is documented"


def _keys(shape: Any) -> set[str]:
    if isinstance(shape, list):
        return _keys(shape[0]) if shape else set()
    if not isinstance(shape, dict):
        return set()
    own = {key for key in shape if key not in ("methods", "optim.lr")}
    return own.union(*(_keys(one) for one in shape.values()))


def test_a_study_of_which_nothing_is_known_has_the_same_keys(
    tmp_path: Path, printed: Callable[..., Any]
) -> None:
    make(tmp_path, "s")
    found = printed("status", "s", "--json", "--root", str(tmp_path))
    assert found.keys() == STATUS.keys()
    assert found["best"] is None and found["left_s"] is None and found["last_event"] is None
    assert found["epochs"] == {"trained": 0, "left": None}


def test_a_number_that_is_not_finite_is_null(tmp_path: Path, printed: Callable[..., Any]) -> None:
    nan = {**epoch(0, 1, float("nan")), "train_loss": float("inf")}
    make(tmp_path, "s", BEGUN, planned(0), started(0), nan)
    (found,) = printed("status", "s", "--json", "--root", str(tmp_path))["open_trials"]
    assert found["train_loss"] is None and found["val_accuracy"] is None


def test_the_list_has_every_study(tmp_path: Path, printed: Callable[..., Any]) -> None:
    make(tmp_path, "a", *RUNNING)
    make(tmp_path, "b")
    make(tmp_path, "c").journal_path.write_bytes(b"no line\nanother\n")
    found = printed("list", "--json", "--root", str(tmp_path))
    assert (found["schema"], found["root"], found["storage"]) == (1, str(tmp_path), None)
    first, second, third = found["studies"]
    assert shape(first) == OF_STUDY
    assert second.keys() == OF_STUDY.keys() and second["state"] == "planned"
    assert third.keys() == {"study", "error"} and "damaged" not in third["study"]
    assert "journal.jsonl:1" in third["error"]


def test_an_empty_folder_is_an_empty_list(tmp_path: Path, printed: Callable[..., Any]) -> None:
    assert printed("list", "--json", "--root", str(tmp_path))["studies"] == []


@pytest.mark.parametrize("words", [("status", "none"), ("list",)])
def test_an_error_leaves_stdout_empty(
    words: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(
            lambda **_: cli.app([*words, "--json", "--root", str(tmp_path / "x")],
                                standalone_mode=False)
        )  # fmt: skip
    said = capsys.readouterr()
    assert end.value.code == 2 and said.out == "" and said.err.startswith("error: ")


# ---- what is read of a journal


def random_events(draw: random.Random) -> list[Event]:
    """Trials of several drivers; some end, some are taken up again, some start a second time."""
    events: list[Event] = [BEGUN]
    open_: dict[int, int] = {}
    count = 0
    for _ in range(150):
        choice = draw.random()
        if choice < 0.2:
            events += [planned(count), started(count)]
            open_[count] = 0
            count += 1
        elif choice < 0.8 and open_:
            trial = draw.choice(list(open_))
            open_[trial] += 1
            events.append(epoch(trial, open_[trial], round(draw.random(), 3)))
        elif choice < 0.93 and open_:
            trial = draw.choice(list(open_))
            status = draw.choice(["completed", "pruned", "failed"])
            events.append(ended(trial, status, open_.pop(trial), 0.5))
        elif choice < 0.96:
            events.append({"kind": "notice", "text": "x"})
        else:
            events.append({"kind": "resumed"})
            events += [started(trial, at) for trial, at in open_.items()]
    return events


@pytest.mark.parametrize("seed", range(8))
def test_a_glance_sees_what_the_whole_journal_says(seed: int, tmp_path: Path) -> None:
    draw = random.Random(seed)
    events = random_events(draw)
    now = 0.0
    for event in events:
        now += draw.random()
        event["t"] = now
    study = make(tmp_path, "s", *events)
    whole = StudyState.of(study.events(), "val_accuracy")
    seen = list(glance(study.journal_path))
    found = StudyState.of(seen, "val_accuracy")
    assert len(seen) < len(events)
    assert found.spent.hours() == pytest.approx(whole.spent.hours())
    assert found.last == whole.last and found.phase == whole.phase
    assert found.trials.keys() == whole.trials.keys()
    for name, one in whole.trials.items():
        other = found.trials[name]
        assert (one.status, one.trained, one.driver) == (other.status, other.trained, other.driver)
        assert (one.ended, one.started) == (other.ended, other.started)
        if one.ended is None:
            assert (one.epoch, one.values, one.report) == (other.epoch, other.values, other.report)
    assert found.training_since() == whole.training_since()
    assert found.earlier_s == pytest.approx(whole.earlier_s)


def test_damage_is_found_where_nothing_is_parsed(tmp_path: Path) -> None:
    study = make(tmp_path, "s", BEGUN, planned(0), started(0), epoch(0, 1), epoch(0, 2),
                 ended(0, "completed", 2, 0.5))  # fmt: skip
    lines = study.journal_path.read_bytes().splitlines(keepends=True)
    assert b"0.5" in lines[3]
    damaged = [*lines[:3], lines[3].replace(b"0.5", b"0.9"), *lines[4:]]
    study.journal_path.write_bytes(b"".join(damaged))
    with pytest.raises(RecordError, match=r"journal.jsonl:4: .*checksum"):
        list(glance(study.journal_path))
    study.journal_path.write_bytes(b"".join(lines)[:-9])  # as a killed writer leaves it
    assert len(list(glance(study.journal_path))) == 5
