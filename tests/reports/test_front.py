"""The page's first screen, as text and in a browser; and how search and confirmation find it."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from reports.build import build_report, confirming
from reports.frames import load
from reports.page.best import best
from reports.page.cell_text import adjusted_p, stars
from reports.page.html import write_html
from reports.plots.base import styles_of
from reports.summary import ReportSummary
from reports.verdict import verdict_of
from spaces.confirmations import confirmation_of, search_of
from spaces.load import load_space
from tests.reports.studies import SPACE, components, epoch, final, planned, write

START = 1_796_026_823.0
HARDWARE = {"host": "node7", "id": "cpu", "name": "AMD EPYC", "memory_bytes": 1, "free_bytes": 1}
DATA = {
    "name": "pets", "classes": 37, "images": {"train": 2944, "val": 736, "test": 3669},
    "fingerprint": "0123456789abcdef", "settings": {"data.name": "pets", "data.root": None},
}  # fmt: skip
AXES = {
    "methods": {"choice": [["linear"], ["vpt"], ["cvpt"]]},
    "optim.lr": {"float": [0.003, 0.1], "log": True},
    "vpt.num_prompts": {"choice": [5, 10], "when": {"methods": ["vpt"]}},
}


def changed(study: Path, **more: Any) -> Path:
    """A study whose description says more."""
    document = yaml.safe_load((study / "study.yaml").read_text())
    (study / "study.yaml").write_text(yaml.safe_dump({**document, **more}))
    return study


def trial(number: int, method: str, value: float | None, status: str, **more: Any) -> list[Any]:
    """Events of one trial on a known machine."""
    settings = {"train__epochs": 20, "train__batch_size": 64, "optim__name": "adamw",
                "backbone__name": "vit_base_patch16_224", "data__name": "pets"}  # fmt: skip
    name = f"{number:05d}"
    result = {"duration_s": 120.0, "peak_memory_bytes": 3_200_000_000, **more}
    lr = 0.01 * (number + 1)
    return [
        planned(number, methods=[method], optim__lr=lr, **settings),
        {"kind": "started", "trial": name, "device": "cpu", "epoch": 0, "hardware": HARDWARE},
        *([] if value is None else [epoch(number, 1, value)]),
        final(number, status, value, **result) | {"num_trainable": 1290 * (number + 1)},
    ]


def search(folder: Path) -> Path:
    """A search with a winner, a method that was stopped early and one that failed."""
    events = [
        *trial(0, "vpt", 0.9, "completed"),
        *trial(1, "vpt", 0.8, "completed"),
        *trial(2, "linear", 0.6, "pruned"),
        *trial(3, "cvpt", None, "failed", reason="loss is nan"),
        {"kind": "tested", "trial": "00000", "test_loss": 0.5, "test_accuracy": 0.876},
        {"kind": "finished"},
    ]
    timed = [event | {"t": START + 60 * n} for n, event in enumerate(events)]
    space = {**SPACE, "axes": AXES, "budget": {"trials": 4}, "seeds": [0],
             "sampler": {"name": "tpe", "seed": 0},
             "scheduler": {"name": "asha", "grace_epochs": 2, "reduction_factor": 3},
             "base": {"data.name": "digits"}}  # fmt: skip
    return changed(
        write(folder, timed, space=space),
        id="f" * 32,
        git="6d3e5818d7d0",
        versions={"tcpa-search": "0.1.0"},
        data=[DATA],
        preprocessing=[{"backbone": "vit_base_patch16_224", "mean": [0.5, 0.4, 0.3],
                        "std": [0.2, 0.2, 0.2], "source": "the model's tag", "img_size": 224}],
        backbones=["vit_base_patch16_224: 85.8 M parameters (343 MB in fp32), 12 blocks"],
        trained_backbone=[],
        fingerprints={"weights": "sha256:5f6f3fba666ea405", "data": "d"},
    )  # fmt: skip


def confirmation(folder: Path, *, dropped: bool = False, **more: Any) -> Path:
    """Of that search, won by what it selected; the other row got all seeds, or was dropped."""
    later = [0.905, 0.91] if dropped else []
    rows = {"point 1": [0.90, 0.91, 0.92, *later], "point 2": [0.70, 0.72, 0.715]}
    events = components({row: dict(enumerate(found, 1)) for row, found in rows.items()})
    settings = {f"point {n}": {"methods": ["vpt"], "optim.lr": 0.01 * n} for n in (1, 2)}
    design = {"design": "components", "baseline": "point 1", "rows": settings,
              "seeds": list(range(1, 4 + len(later))), "race": True, "test": "winner"}  # fmt: skip
    space = {"name": folder.name, "ablation": design}
    study = write(folder, [*events, {"kind": "finished"}], "ablation", space)
    says = {"name": "hunt", "id": "f" * 32, "axes": ["methods", "optim.lr"],
            "values": {"point 1": 0.9, "point 2": 0.8}}  # fmt: skip
    return changed(study, **{"confirms": says, **more})


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search, its confirmation, a study that failed and one of many methods, all reported."""
    root = tmp_path_factory.mktemp("front")
    confirmation(root / "hunt_confirm")
    build_report(search(root / "hunt"))
    build_report(root / "hunt_confirm")
    build_report(root / "hunt")  # as when a confirmation ends
    return root


@pytest.fixture(scope="module")
def page(browser: Any, root: Path) -> Any:
    """The page of the search."""
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    page.goto((root / "hunt" / "report" / "report.html").as_uri())
    return page


@pytest.mark.integration
class TestTheFirstScreen:
    """In a browser, 1,400 pixels wide."""

    def test_its_title_line(self, page: Any) -> None:
        line = page.inner_text("#about")
        assert line.startswith("Search · ") and " · finished · report made " in line
        assert "tcpa-search 0.1.0 (6d3e5818d7d0)" in line
        hrefs = page.eval_on_selector_all("#about a", "all => all.map(a => a.getAttribute('href'))")
        assert hrefs == ["space.yaml", "../tables/trials.csv",
                         "../../hunt_confirm/report/report.html"]  # fmt: skip
        for href in hrefs:
            assert page.evaluate("href => new URL(href, location).pathname", href)

    def test_its_verdict_and_one_warning(self, page: Any) -> None:
        assert page.inner_text(".headline") == (
            "Confirmed: on fresh seeds point 1 (vpt, lr 0.01) wins with 91.0 ± 2.5 % on val."
        )
        said = page.inner_text("#answer")
        assert "Selected: vpt, lr 0.01 (trial 00000), 90.0 % on val, 87.6 % on test." in said
        assert "p < 0.001" in said or "p = 0.0" in said
        assert page.inner_text(".warning") == (
            "2 of 3 methods were never trained to the end more than once: 1 of 4 trials were "
            "stopped early."
        )

    def test_its_four_tiles(self, page: Any) -> None:
        tiles = page.locator(".tile").all_inner_texts()
        assert tiles[0].split("\n") == ["4 trials", "2 completed, 1 stopped early, 1 failed"]
        assert tiles[1].split("\n") == ["1 seed", "seed 0; 3 fresh seeds in its confirmation"]
        assert tiles[2].startswith("16 min\nwall time, 8.0 min of training over all trials, on AMD")
        assert "EPYC of node7, peak memory 3.2 GB" in tiles[2]
        assert tiles[3].startswith("test read once\ntest accuracy 87.60 %, trial 00000, ")
        assert tiles[3].endswith("val selects epoch and setting")

    def test_the_best_of_each_method_has_its_colour(self, page: Any, root: Path) -> None:
        rows = page.locator("#best tbody tr").all_inner_texts()
        assert [row.split()[0] for row in rows] == ["vpt", "linear", "cvpt"]
        assert "lr 0.01 (00000)" in rows[0] and "90.0 %" in rows[0] and "1,290" in rows[0]
        assert "stopped at epoch 2" in rows[1] and "1 stopped" in rows[1]
        assert "no value" in rows[2] and "1 failed" in rows[2]
        fills = page.eval_on_selector_all(
            "#best rect", "all => all.map(r => [r.getAttribute('fill'), r.getAttribute('stroke')])"
        )
        colours = {name: style[0] for name, style in styles_of(load(root / "hunt")).items()}
        assert fills[0] == [colours["vpt"]] * 2
        assert fills[1] == ["none", colours["linear"]], "what was stopped is hollow"

    def test_what_failed_and_what_was_stopped(self, page: Any) -> None:
        said = page.inner_text("#ended")
        assert "1 trial failed: loss is nan. ASHA stopped 1: 1 after epoch 2." in said
        assert "2 of 4 enter statistics" in said

    def test_what_was_searched(self, page: Any) -> None:
        said = page.inner_text("#searched")
        assert "pets: 2,944 train / 736 val / 3,669 test, 37 classes; fingerprint" in said
        assert "0123456789ab" in said
        assert "vit_base_patch16_224, weights (sha256 5f6f3fba666e), 85.8 M parameters" in said
        assert "224 px, frozen" in said
        assert "mean 0.5, 0.4, 0.3, std 0.2, 0.2, 0.2 (the model's tag)" in said
        assert "linear, vpt or cvpt" in said and "0.003 to 0.1, log" in said
        assert "5 or 10 (where methods: vpt)" in said

    def test_how_it_was_done_and_how_to_do_it_again(self, page: Any) -> None:
        said = page.inner_text("#how")
        assert "20 epochs, batch 64, AdamW" in said
        assert "TPE, seed 0" in said and "ASHA, grace 2 epochs, factor 3" in said
        assert "4 trials" in said and "val_accuracy, maximized" in said
        assert "tcpa search space.yaml --study hunt_again" in said

    def test_all_of_it_is_on_the_first_screen(self, page: Any) -> None:
        ends = page.eval_on_selector_all(
            "#answer, .tiles, #best", "all => all.map(e => e.getBoundingClientRect().bottom)"
        )
        assert max(ends) < 900

    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_a_phone_shows_all_of_it(self, browser: Any, root: Path, scheme: str) -> None:
        page = browser.new_page(viewport={"width": 390, "height": 844}, color_scheme=scheme)
        page.goto((root / "hunt" / "report" / "report.html").as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        wide = "e => e.scrollWidth > e.clientWidth + 1"
        assert not page.eval_on_selector("#best", f"e => ({wide})(e.parentElement)")
        page.close()

    @pytest.mark.parametrize("width", [1400, 390])
    def test_a_row_that_a_race_dropped(self, browser: Any, tmp_path: Path, width: int) -> None:
        """What stands beside its seeds cuts nothing; it lacks nothing that it was not given."""
        study = confirmation(tmp_path / "hunt_confirm", dropped=True)
        page = browser.new_page(viewport={"width": width, "height": 900})
        page.goto(build_report(study).html.as_uri())
        row = page.locator("#best tbody tr").nth(1).inner_text()
        assert "no more seeds than 3" in row and "71.1 ± 2.6 %" in row
        wide = "e => e.scrollWidth > e.clientWidth + 1"
        assert not page.eval_on_selector("#best", f"e => ({wide})(e.parentElement)")
        page.close()

    def test_a_confirmation(self, browser: Any, root: Path) -> None:
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.goto((root / "hunt_confirm" / "report" / "report.html").as_uri())
        assert page.inner_text("#about").startswith("Confirmation of hunt · ")
        assert page.inner_text(".headline").startswith("point 1 (vpt, lr 0.01) wins with 91.0")
        assert "This confirms what hunt selected." in page.inner_text("#answer")
        rows = page.locator("#best tbody tr").all_inner_texts()
        assert rows[0].startswith("point 1: vpt, lr 0.01") and "90.0 %" in rows[0]
        assert rows[1].startswith("point 2: vpt, lr 0.02") and "80.0 %" in rows[1]
        assert "none was used in the search" in page.locator(".tile").all_inner_texts()[1]
        page.click("text=the search hunt")
        assert page.inner_text("h1") == "hunt"
        page.close()


def test_space_yaml_beside_the_page_has_the_study_s_points(root: Path) -> None:
    beside = load_space(str(root / "hunt" / "report" / "space.yaml"))
    assert beside.axes.keys() == AXES.keys() and beside.budget.trials == 4
    assert beside.scheduler.grace_epochs == 2


def test_the_terminal_says_what_the_page_says(root: Path) -> None:
    found = load(root / "hunt")
    verdict = verdict_of(found, confirming(root / "hunt", found)[0])
    page = (root / "hunt" / "report" / "report.html").read_text()
    lines = ReportSummary("hunt", root, {}, None, "", (), verdict=verdict).lines()
    for sentence in verdict.text.splitlines():
        assert sentence in lines and sentence in page.replace("&lt;", "<").replace("&#39;", "'")


def test_many_methods_have_a_row_each(tmp_path: Path) -> None:
    names = [f"method{i}" for i in range(20)]
    events = [e for n, name in enumerate(names) for e in trial(n, name, 0.5 + n / 100, "completed")]
    choice = [[name] for name in names]
    space = {**SPACE, "axes": {**SPACE["axes"], "methods": {"choice": choice}}}
    rows = best(load(write(tmp_path / "many", events, space=space)))["rows"]
    assert [row["name"] for row in rows] == names[::-1]
    assert rows[0]["bar"] == "100.0" and rows[0]["text"] == "69.0 %"


def test_a_setting_that_was_given_to_break_the_page_is_text(tmp_path: Path) -> None:
    hostile = "<img src=x onerror=alert(1)>"
    study = search(tmp_path / "hunt")
    changed(study, name=hostile, git=hostile, data=[DATA | {"name": hostile}],
            backbones=[f"vit_base_patch16_224: {hostile} parameters"])  # fmt: skip
    summary = ReportSummary(hostile, study / "report" / "x.html", {}, None, "", ())
    (study / "report").mkdir()
    found = load(study)
    write_html(replace(summary, verdict=verdict_of(found)), found, [])
    page = summary.html.read_text()
    assert page.count("&lt;img src=x onerror=alert(1)&gt;") >= 4 and hostile not in page


def says(**confirms: Any) -> Mapping[str, Any]:
    return {"confirms": confirms}


@pytest.mark.parametrize(
    ("folder", "more", "found"),
    [
        ("hunt_confirm", {}, True),
        ("renamed", {}, True),
        ("hunt_confirm", says(name="hunt", id="0" * 32), False),
        ("hunt_confirm", says(name="hunt"), True),
        ("other", says(name="../hunt", id="0" * 32), False),
    ],
)
def test_which_study_confirms_a_search(
    folder: str, more: Mapping[str, Any], found: bool, tmp_path: Path
) -> None:
    """By its identity, whatever it is called; where that is not recorded, by the name."""
    study, confirming = search(tmp_path / "hunt"), confirmation(tmp_path / folder, **more)
    document, own = (yaml.safe_load((p / "study.yaml").read_text()) for p in (study, confirming))
    assert confirmation_of(study, document) == (confirming if found else None)
    assert search_of(confirming, own) == (study if found else None)


def test_the_newest_of_two_confirmations_counts(tmp_path: Path) -> None:
    study = search(tmp_path / "hunt")
    confirmation(tmp_path / "before", created="2026-11-01T00:00:00+00:00")
    newest = confirmation(tmp_path / "hunt_confirm", created="2026-11-02T00:00:00+00:00")
    document = yaml.safe_load((study / "study.yaml").read_text())
    assert confirmation_of(study, document) == newest


def test_a_confirmation_that_an_older_version_made(tmp_path: Path) -> None:
    """It does not say what it confirms; its name does, and its rows have all settings."""
    study, old = search(tmp_path / "hunt"), confirmation(tmp_path / "hunt_confirm")
    document = yaml.safe_load((old / "study.yaml").read_text())
    del document["confirms"]
    (old / "study.yaml").write_text(yaml.safe_dump(document))
    assert confirmation_of(study, yaml.safe_load((study / "study.yaml").read_text())) == old
    found = load(old)
    assert verdict_of(load(study), found).headline.startswith("Confirmed: ")
    assert "point 2: lr 0.02" in set(found.ablation["level"])


def test_a_confirmation_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    study, confirmed = search(tmp_path / "hunt"), confirmation(tmp_path / "hunt_confirm")
    (confirmed / "journal.jsonl").unlink()
    found, notes = confirming(study, load(study))
    assert found is None and notes[0].startswith("The confirmation hunt_confirm could not be read:")


def test_a_course_is_the_same_from_a_journal_that_was_read_before(tmp_path: Path) -> None:
    study = search(tmp_path / "hunt")
    fresh, again = load(study).course, load(study).course
    assert fresh == again and fresh is not None and (study / "tables" / ".read").is_dir()
    assert fresh.began == START and fresh.is_finished and list(fresh.tested) == ["00000"]


ROWS = [
    (0.04996, "0.04996"),
    (0.0496, "0.0496"),
    (0.0504, "0.050"),
    (0.00996, "0.00996"),
    (0.0004, "<0.001"),
    (0.2, "0.200"),
]


@pytest.mark.parametrize(("p", "text"), ROWS)
def test_a_printed_p_is_on_the_side_of_its_star(p: float, text: str) -> None:
    row = {"p_holm": p}
    assert adjusted_p(row) == text
    shown = float(text.removeprefix("<"))
    assert len(stars(row)) == (shown < 0.05) + (shown < 0.01)
