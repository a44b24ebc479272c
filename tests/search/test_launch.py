"""Whole studies: Ray and Optuna are real, the training is a stub."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, make_space, run_stubs

from search.study import StudyDir
from spaces.space import Space
from tcpa_core.errors import StudyError
from tcpa_core.record import FINAL_KINDS

pytestmark = pytest.mark.integration

MakeStudy = Callable[..., StudyDir]


def finals(study: StudyDir) -> dict[str, str]:
    """Status by trial; a second final event of a trial is an error."""
    out: dict[str, str] = {}
    for event in study.events():
        if event["kind"] in FINAL_KINDS:
            assert event["trial"] not in out, f"trial {event['trial']} ended twice"
            out[event["trial"]] = event["status"]
    return out


def check_whole(study: StudyDir) -> Counter[str]:
    """Every planned trial ended once, none was planned twice, events are in order."""
    events = list(study.events())
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
        stopped_at = {e["num_epochs"] for e in study.events() if e["kind"] == "pruned"}
        assert stopped_at <= {1, 3}, "trials end at rungs only"
        tested = [e for e in study.events() if e["kind"] == "tested"]
        best = max(
            (e for e in study.events() if e["kind"] == "completed"),
            key=lambda e: float(e["val_accuracy"]),
        )
        assert [e["trial"] for e in tested] == [best["trial"]], "the test split is read once"

    def test_diverged_trials_fail_and_the_study_goes_on(self, make_study: MakeStudy) -> None:
        space = make_space()
        study = make_study(space, diverges_above=0.01)
        run_stubs(space, study)
        counts = check_whole(study)
        rates = {
            e["trial"]: e["params"]["optim.lr"] for e in study.events() if e["kind"] == "planned"
        }
        assert counts["failed"] == sum(rate > 0.01 for rate in rates.values()) > 0
        failed = [e for e in study.events() if e["kind"] == "failed"]
        assert all("nan" in e["reason"] for e in failed)

    def test_listeners_get_what_the_journal_got(self, make_study: MakeStudy) -> None:
        heard: list[dict[str, Any]] = []
        space = make_space(budget={"trials": 3})
        study = make_study(space)
        from search.launch import Placement, run_study

        run_study(
            space,
            study,
            placement=Placement(workers=1, worker_factory="tests.search.stub:make_worker"),
            listeners=[lambda event: heard.append(dict(event))],
        )
        assert heard == list(study.events())
        assert heard[0]["kind"] == "study" and heard[-1]["kind"] == "finished"

    def test_ablation_runs_its_design_and_tests_every_trial(self, make_study: MakeStudy) -> None:
        cut = dict.fromkeys(("axes", "objective", "sampler", "scheduler", "budget"))
        ablation = {
            "design": "one_factor",
            "factors": {"optim.lr": [0.001, 0.01], "optim.momentum": [0.9, 0.0]},
            "seeds": [0, 1, 2],
        }
        space = make_space(**cut, ablation=ablation)
        study = make_study(space)
        run_stubs(space, study)
        assert check_whole(study) == {"completed": 9}
        done = [e for e in study.events() if e["kind"] == "completed"]
        assert all(e["test_accuracy"] is not None for e in done)
        assert not [e for e in study.events() if e["kind"] == "tested"]

    def test_several_objectives_run_without_early_stopping(self, make_study: MakeStudy) -> None:
        goals = [
            {"metric": "val_accuracy", "goal": "maximize"},
            {"metric": "num_trainable", "goal": "minimize"},
        ]
        space = make_space(objective=goals, scheduler={"name": "asha"}, budget={"trials": 8})
        study = make_study(space)
        run_stubs(space, study)
        assert check_whole(study) == {"completed": 8}

    def test_seeds_are_replicates_of_a_point(self, make_study: MakeStudy) -> None:
        space = make_space(seeds=[0, 1], budget={"trials": 7})
        study = make_study(space)
        run_stubs(space, study)
        assert check_whole(study) == {"completed": 6}
        planned = [e for e in study.events() if e["kind"] == "planned"]
        assert Counter(Counter(e["point"] for e in planned).values()) == {2: 3}
        assert len([e for e in study.events() if e["kind"] == "tested"]) == 2

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
        from search.launch import Placement, run_study

        def fail(event: Any) -> None:
            if event["kind"] == "completed":
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


class Driver:
    """`run_study` in a process of its own, as `tcpa search` does it."""

    CODE = (
        "import sys; sys.path[:0] = [{root!r}, {here!r}]\n"
        "from pathlib import Path\n"
        "from conftest import run_stubs\n"
        "from search.study import StudyDir\n"
        "study = StudyDir.open(Path({folder!r}), 'stubs')\n"
        "outcome = run_stubs(study.space(), study)\n"
        "print('outcome:', outcome.reason)\n"
    )

    def __init__(self, study: StudyDir) -> None:
        self.study = study
        here = str(Path(__file__).parent)
        code = self.CODE.format(root=str(ROOT), here=here, folder=str(study.path.parent))
        self.process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def wait_for(self, kind: str, number: int) -> None:
        """Wait until the journal has this many events of a kind."""
        until = time.monotonic() + 90
        while time.monotonic() < until:
            text = self.study.journal_path
            if text.exists() and text.read_text().count(f'"kind":"{kind}"') >= number:
                return
            assert self.process.poll() is None, self.process.communicate()
            time.sleep(0.02)
        raise AssertionError(f"no {number} events {kind!r} within 90 s")

    def signal_all(self, number: int) -> None:
        """As a terminal does: to the driver and everything that it has started."""
        os.killpg(self.process.pid, number)

    def remaining(self) -> list[str]:
        """What it has started and still runs; Ray's own agents notice its end a little later."""
        command = ["ps", "-s", str(self.process.pid), "-o", "args="]
        listed = subprocess.run(command, capture_output=True, text=True).stdout.splitlines()
        return [line for line in listed if "agent" not in line.lower() and "<defunct>" not in line]


def slow_space(**changes: Any) -> Space:
    return make_space(sampler={"name": "tpe"}, budget={"trials": 12}, **changes)


def test_ctrl_c_ends_in_order_and_resume_completes(make_study: MakeStudy) -> None:
    study = make_study(slow_space(), epoch_s=0.3)
    driver = Driver(study)
    driver.wait_for("completed", 2)
    with pytest.raises(StudyError, match=f"another driver: .*pid {driver.process.pid}"):
        run_stubs(study.space(), study)
    sent = time.monotonic()
    driver.signal_all(signal.SIGINT)
    out, err = driver.process.communicate(timeout=60)
    assert "outcome: interrupted by SIGINT" in out, err
    assert time.monotonic() - sent < 30
    assert "Traceback" not in err and "Traceback" not in out
    events = list(study.events())
    assert events[-1]["kind"] == "stopped" and "SIGINT" in events[-1]["reason"]
    assert not any(e["kind"] in ("failed", "pruned") for e in events)
    (study.path / "stub.json").write_text(json.dumps({}))
    outcome = run_stubs(study.space(), study)
    assert outcome.finished
    assert check_whole(study) == {"completed": 12}
    epochs = [(e["trial"], e["epoch"]) for e in study.events() if e["kind"] == "epoch"]
    assert len(epochs) == len(set(epochs)), "no epoch was trained twice"
    assert len(epochs) == 12 * 6, "no epoch was lost"
    assert [e["kind"] for e in study.events()].count("resumed") == 1


def test_first_sigterm_waits_for_the_epoch_and_the_second_leaves_at_once(
    make_study: MakeStudy,
) -> None:
    study = make_study(slow_space(), epoch_s=6.0)
    driver = Driver(study)
    driver.wait_for("started", 2)
    time.sleep(0.5)
    driver.process.send_signal(signal.SIGTERM)
    time.sleep(1.0)
    assert driver.process.poll() is None, driver.process.communicate()
    driver.process.send_signal(signal.SIGTERM)
    driver.process.communicate(timeout=5)
    assert driver.process.returncode == -signal.SIGTERM


def test_killed_driver_loses_and_repeats_no_trial(make_study: MakeStudy) -> None:
    asha = {"name": "asha", "grace_epochs": 2}
    study = make_study(slow_space(scheduler=asha), epoch_s=0.2)
    driver = Driver(study)
    driver.wait_for("epoch", 12)
    driver.process.kill()
    driver.process.communicate(timeout=20)
    planned = [e["digest"] for e in study.events() if e["kind"] == "planned"]
    until = time.monotonic() + 60
    while driver.remaining() and time.monotonic() < until:
        time.sleep(0.2)
    assert not driver.remaining(), "processes outlive the driver"
    run_stubs(study.space(), study)
    assert sum(check_whole(study).values()) == 12
    again = [e["digest"] for e in study.events() if e["kind"] == "planned"]
    assert again[: len(planned)] == planned
