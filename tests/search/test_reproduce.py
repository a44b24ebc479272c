"""`tcpa reproduce`: a published cell as an ordinary study, and what is refused before it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from search.driver.placement import Placement
from search.exit_codes import DONE
from search.options import NEW, Common, Where
from search.study.folder import StudyDir
from search.verbs.reproduce import chosen_cell, reproduce, space_of_cell
from spaces.setting_values import Entry
from tcpa_core.errors import StudyError
from tcpa_core.record.events import Reused, Started, Tested
from tests.search.dispatchers import FACTORY
from tests.tcpa_core import data_layouts

SMALL = {"backbone.name": "vit_nano", "train.epochs": 2}
"""Makes it a stand-in, which the verdict has to say."""


@dataclass(frozen=True, slots=True)
class Stubs(Where):
    """Workers that train nothing."""

    def placement(self) -> Placement:
        return Placement(workers=1, slots=3, worker_factory=FACTORY)


Reproduce = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Reproduce:
    """Reproduces linear probing on VTAB's CIFAR-100, or what is laid out in its place."""
    data_layouts.make("vtab1k", tmp_path / "sets" / "cifar")

    def reproduced(**changes: Any) -> str:
        given: dict[str, Any] = {
            "data": tmp_path / "sets", "settings": SMALL, "seeds": 3, "runs": 1, "margin": 0.01,
            "search": None, "dry_run": False, **changes,
        }  # fmt: skip
        common = Common("", root=tmp_path / "studies")
        cell = chosen_cell("vpt-vtab", "linear", "cifar100")
        assert reproduce(cell, common, Stubs(), NEW, None, **given) == DONE
        return capsys.readouterr().out

    return reproduced


@pytest.mark.integration
def test_a_cell_is_trained_judged_and_trained_no_second_time(
    run: Reproduce, tmp_path: Path, local_ray: None
) -> None:
    said = run(dry_run=True)
    assert "then its test scores beside linear on cifar100: 63.4 % on test (arXiv:2505" in said
    assert "trials           3" in said and not (tmp_path / "studies").exists()
    said = run()
    verdict = said[said.index("Outside our interval, but not the published setting: ") :]
    for text in (
        "linear on cifar100 by vpt-vtab, published 63.4 % on test (arXiv:2505.02406 Table 1).",
        "over 3 seeds, theirs 63.4 %, one run: difference",
        "MDD at 3 seeds: ",
        "Deviates: train.epochs=2 (vpt-vtab: 100); backbone vit_nano (published: ViT-B/16, ",
        "Left open by vpt-vtab and chosen here: lr 0.001, weight_decay 0.01, head_lr 1.",
    ):
        assert text in verdict, verdict
    study = StudyDir.open(tmp_path / "studies", "vpt_vtab-cifar100-linear-3_seeds")
    flat = [one.planned.params for one in study.state().trials.values()]
    assert [one["seed"] for one in flat] == [0, 1, 2]
    assert {one["train.selection"] for one in flat} == {"last_epoch"}, "as the protocol has it"
    tested = [event.trial for event in study.events() if isinstance(event, Tested)]
    assert sorted(tested) == ["00000", "00001", "00002"], "read once for each seed"

    # again: nothing is trained; from what a kill leaves: the rest
    whole = study.journal_path.read_bytes()
    assert run().endswith(verdict) and study.journal_path.read_bytes() == whole
    lines = whole.splitlines(keepends=True)
    study.journal_path.write_bytes(b"".join(lines[: len(lines) // 2]))
    assert run().endswith(verdict)
    with pytest.raises(StudyError, match=r"begun with --margin 1 --runs 1, not --margin 2 --runs"):
        run(margin=0.02)
    # with a seed more it is another study, which takes what the first has
    assert "over 4 seeds" in run(seeds=4)
    more = StudyDir.open(tmp_path / "studies", "vpt_vtab-cifar100-linear-4_seeds")
    assert sum(isinstance(event, Reused) for event in more.events()) == 3
    assert {event.trial for event in more.events() if isinstance(event, Started)} == {"00003"}


def test_what_a_search_found_is_trained_with_the_protocol(tmp_path: Path) -> None:
    found = {
        "optim.lr": Entry(0.25, "--from s", tmp_path),
        "vpt.num_prompts": Entry(7, "", tmp_path),
    }
    data_layouts.make("vtab1k", tmp_path / "dtd")
    space = space_of_cell(
        chosen_cell("vpt-vtab", "vpt", "dtd"), [4, 5], tmp_path, {"optim.weight_decay": 0.1}, found
    )
    flat = space.trials[0].flat()
    wanted = {
        "optim.lr": 0.25, "optim.weight_decay": 0.1, "vpt.num_prompts": 7, "train.epochs": 100,
        "data.train_on": "train_and_val", "train.selection": "last_epoch", "data.name": "vtab1k",
        "data.root": str(tmp_path / "dtd"), "optim.name": "sgd",
    }  # fmt: skip
    assert {path: flat[path] for path in wanted} == wanted
    assert space.seeds == (4, 5) and space.budget.trials == 2


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("nope", "no protocol 'nope'"),
        ("cvpt-vtab", "no number for a single data set is on record for protocol 'cvpt-vtab'"),
        ("vpt-vtab", "9 published cells; name one with --dataset: dtd, cifar100, svhn; name one "),
        ("vpt-vtab --dataset dtd", "3 published cells; name one with --method: full, linear, vpt."),
        ("vpt-vtab --dataset cub", "--dataset: nothing is published of 'cub' by vpt-vtab"),
        ("vpt-vtab --dataset dtd --method tcpa", "nothing is published of 'tcpa' by vpt-vtab on "),
        ("vpt-vtab --dataset dtd --method vpt --set seeds=[1]", "--set seeds: a reproduction has"),
        ("vpt-vtab --dataset dtd --method vpt --learn-from x", "--learn-from: a reproduction has"),
        ("vpt-vtab --dataset dtd --method vpt --data sets", "sets/dtd does not exist"),
        ("vpt-vtab --dataset dtd --method vpt --from s", "no study 's' in studies"),
        ("vpt-vtab --dataset dtd --method vpt --seeds 1", "--seeds"),
    ],
)
def test_what_cannot_be_reproduced_is_said_in_a_sentence(
    words: str, told: str, typed: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    code, _, error = typed("reproduce", *words.split())
    assert code == 2 and told in error and "Traceback" not in error
    assert not (tmp_path / "studies").exists()
