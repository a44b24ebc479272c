"""Whole studies: Ray and Optuna are real, the training is a stub."""

import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks._faults import scene
from search.study.folder import StudyDir
from search.workers.dispatcher import Dispatcher
from tcpa_core.errors import StoppedError, StudyError
from tcpa_core.record.events import FINAL_KINDS, Event
from tests.journals import recorded
from tests.search.conftest import make_space, run_stubs

pytestmark = pytest.mark.integration

MakeStudy = Callable[..., StudyDir]


def finals(study: StudyDir) -> dict[str, str]:
    """Status by trial; a second final event of a trial is an error."""
    out: dict[str, str] = {}
    for event in recorded(study):
        if event["kind"] in FINAL_KINDS:
            assert event["trial"] not in out, f"trial {event['trial']} ended twice"
            out[event["trial"]] = event["status"]
    return out


def check_whole(study: StudyDir) -> Counter[str]:
    """Every planned trial ended once, none was planned twice, events are in order."""
    events = recorded(study)
    planned = [e for e in events if e["kind"] == "planned"]
    ends = finals(study)
    assert [e["trial"] for e in planned] == [f"{n:05d}" for n in range(len(planned))]
    assert len({e["digest"] for e in planned}) == len(planned), "a trial was run twice"
    assert ends.keys() == {e["trial"] for e in planned}
    assert [e["n"] for e in events] == list(range(len(events)))
    seen: dict[str, list[str]] = {}
    for event in events:
        if "trial" in event and event["kind"] != "tested":
            seen.setdefault(event["trial"], []).append(event["kind"])
    for kinds in seen.values():
        assert kinds[0] == "planned" and kinds[-1] in FINAL_KINDS
    return Counter(ends.values())


@pytest.mark.usefixtures("local_ray")
class TestOneDriver:
    def test_asha_stops_trials_and_each_ends_once(self, make_study: MakeStudy) -> None:
        space = make_space(
            scheduler={"name": "asha", "grace_epochs": 1, "reduction_factor": 3},
            budget={"trials": 20},
        )
        study = make_study(space)
        outcome = run_stubs(space, study)
        counts = check_whole(study)
        assert outcome.finished and outcome.counts == counts
        assert counts["completed"] + counts["pruned"] == 20
        assert counts["completed"] >= 1, "the first at a rung goes on"
        assert counts["pruned"] >= 4
        stopped_at = {e["num_epochs"] for e in recorded(study) if e["kind"] == "pruned"}
        assert stopped_at <= {1, 3}, "trials end at rungs only"
        tested = [e for e in recorded(study) if e["kind"] == "tested"]
        best = max(
            (e for e in recorded(study) if e["kind"] == "completed"),
            key=lambda e: float(e["val_accuracy"]),
        )
        assert [e["trial"] for e in tested] == [best["trial"]], "the test split is read once"

    def test_diverged_trials_fail_and_the_study_goes_on(self, make_study: MakeStudy) -> None:
        space = make_space()
        study = make_study(space, diverges_above=0.01)
        run_stubs(space, study)
        counts = check_whole(study)
        rates = {
            e["trial"]: e["params"]["optim.lr"] for e in recorded(study) if e["kind"] == "planned"
        }
        assert counts["failed"] == sum(rate > 0.01 for rate in rates.values()) > 0
        failed = [e for e in recorded(study) if e["kind"] == "failed"]
        assert all("nan" in e["reason"] for e in failed)

    def test_a_fault_in_the_dispatcher_s_code_is_no_lost_cluster(
        self, make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Broken(Dispatcher):
            def __init__(self, *_: object) -> None:
                raise TypeError("one argument too many")

        monkeypatch.setattr("search.driver.workforce.Dispatcher", Broken)
        space = make_space()
        says = r"fault in the code or the .* 'stubs' \(TypeError: one argument too many\).*resume"
        with pytest.raises(StoppedError, match=says):
            run_stubs(space, make_study(space))

    def test_listeners_get_what_the_journal_got(self, make_study: MakeStudy) -> None:
        heard: list[Event] = []
        space = make_space(budget={"trials": 3})
        study = make_study(space)
        from search.driver.driver import run_study
        from search.driver.placement import Placement

        run_study(
            space,
            study,
            placement=Placement(workers=1, worker_factory="tests.search.stub:make_worker"),
            listeners=[heard.append],
        )
        assert heard == list(study.events())
        assert heard[0].kind == "study" and heard[-1].kind == "finished"

    def test_ablation_runs_its_design_and_tests_every_trial(self, make_study: MakeStudy) -> None:
        cut = dict.fromkeys(("axes", "objective", "sampler", "scheduler", "budget"))
        ablation = {
            "design": "one_factor",
            "factors": {"optim.lr": [0.001, 0.01], "optim.warmup_fraction": [0.1, 0.0]},
            "seeds": [0, 1, 2],
        }
        space = make_space(**cut, ablation=ablation)
        study = make_study(space)
        run_stubs(space, study)
        assert check_whole(study) == {"completed": 9}
        done = [e for e in recorded(study) if e["kind"] == "completed"]
        assert all(e["test_accuracy"] is not None for e in done)
        assert not [e for e in recorded(study) if e["kind"] == "tested"]

    @pytest.mark.parametrize("name", ["asha", "none"])
    def test_several_objectives_may_be_stopped_early(
        self, make_study: MakeStudy, name: str
    ) -> None:
        goals = [
            {"metric": "val_accuracy", "goal": "maximize"},
            {"metric": "num_trainable", "goal": "minimize"},
        ]
        space = make_space(objective=goals, scheduler={"name": name}, budget={"trials": 8})
        study = make_study(space)
        run_stubs(space, study)
        counts = check_whole(study)
        assert counts.total() == 8 and (counts["pruned"] > 0) == (name == "asha")

    def test_seeds_are_replicates_of_a_point(self, make_study: MakeStudy) -> None:
        space = make_space(seeds=[0, 1], budget={"trials": 7})
        study = make_study(space)
        run_stubs(space, study)
        assert check_whole(study) == {"completed": 6}
        planned = [e for e in recorded(study) if e["kind"] == "planned"]
        assert Counter(Counter(e["point"] for e in planned).values()) == {2: 3}
        assert len([e for e in recorded(study) if e["kind"] == "tested"]) == 2

    def test_spent_time_ends_the_study_after_what_runs(self, make_study: MakeStudy) -> None:
        space = make_space(budget={"hours": 1.5 / 3600})
        study = make_study(space, epoch_s=0.1)
        outcome = run_stubs(space, study)
        assert outcome.finished
        counts = check_whole(study)
        assert counts["completed"] == sum(counts.values()) > 0

    def test_finished_study_is_left_alone(self, make_study: MakeStudy) -> None:
        space = make_space(budget={"trials": 2})
        study = make_study(space)
        run_stubs(space, study)
        before = study.journal_path.read_bytes()
        assert run_stubs(space, study).counts == {"completed": 2}
        assert study.journal_path.read_bytes() == before

    def test_workers_that_cannot_start_are_an_error(self, make_study: MakeStudy) -> None:
        space = make_space()
        study = make_study(space, broken=True)
        with pytest.raises(StudyError, match="told not to start.*tcpa resume stubs"):
            run_stubs(space, study)
        study.lock()
        study.unlock()

    def test_error_of_a_listener_is_raised_and_the_study_can_go_on(
        self, make_study: MakeStudy
    ) -> None:
        from search.driver.driver import run_study
        from search.driver.placement import Placement

        def fail(event: Any) -> None:
            if event.kind == "completed":
                raise ZeroDivisionError("table")

        space = make_space(budget={"trials": 6})
        study = make_study(space)
        placement = Placement(workers=1, worker_factory="tests.search.stub:make_worker")
        with pytest.raises(ZeroDivisionError, match="table"):
            run_study(space, study, placement=placement, listeners=[fail])
        run_stubs(space, study)
        assert sum(check_whole(study).values()) == 6

    def test_no_thread_is_left(self, make_study: MakeStudy) -> None:
        before = {t for t in threading.enumerate() if not t.name.startswith("ray_")}
        space = make_space(budget={"trials": 2})
        run_stubs(space, make_study(space))
        after = {t for t in threading.enumerate() if not t.name.startswith("ray_")}
        assert after <= before


def test_killed_driver_loses_and_repeats_no_trial(tmp_path: Path) -> None:
    asha = {"name": "asha", "grace_epochs": 2}
    space = scene.make_space(trials=12, sampler={"name": "tpe"}, scheduler=asha)
    study = scene.make_study(tmp_path, space, slots=3, epoch_s=0.2)
    with scene.Driver(study) as driver:
        driver.wait_for("epoch", 12)
        driver.kill()
    planned = [e["digest"] for e in recorded(study) if e["kind"] == "planned"]
    scene.order(study)
    run_stubs(space, study)
    assert sum(check_whole(study).values()) == 12
    again = [e["digest"] for e in recorded(study) if e["kind"] == "planned"]
    assert again[: len(planned)] == planned
