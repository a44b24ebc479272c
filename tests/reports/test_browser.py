"""The report as a person opens it: offline, in a browser, by mouse, keyboard and finger."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from reports.build import build_report
from tests.reports.studies import components, epoch, final, planned, write

HOSTILE = "<img src=x onerror=alert(1)>"

pytestmark = pytest.mark.integration


@pytest.fixture
def errors() -> list[str]:
    """What the page complained about."""
    return []


@pytest.fixture
def page(browser: Any, errors: list[str]) -> Iterator[Any]:
    """A page at desktop width that collects script errors and dialogs."""
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
    page.on("dialog", lambda d: (errors.append(d.message), d.dismiss()))
    yield page
    page.close()


def search(folder: Path, trials: int = 3, name: str | None = None) -> Path:
    """A study of some trials; the page of its report."""
    events = []
    for n in range(trials):
        method = ["linear"] if n % 3 == 2 else ["vfpt", "tcpa"]
        value = [0.7, 0.9, 0.8][n % 3] + 0.0001 * (n // 3)
        events += [planned(n, methods=method, optim__lr=0.01 * (n + 1)), epoch(n, 1, value)]
        events += [final(n, "completed", value, duration_s=1.0 + n, flops_per_image=1e8)]
    study = write(folder, events)
    if name:
        document = yaml.safe_load((study / "study.yaml").read_text())
        (study / "study.yaml").write_text(yaml.safe_dump({**document, "name": name}))
    return build_report(study).html


FIRST = "#trials tbody tr >> nth=0"


def test_sorts_filters_and_turns_pages(page: Any, errors: list[str], tmp_path: Path) -> None:
    page.goto(search(tmp_path / "seen", 120).as_uri())
    widths = page.eval_on_selector_all("img", "all => all.map(i => i.naturalWidth)")
    assert len(widths) >= 4 and all(width > 0 for width in widths)
    assert page.locator("#trials tbody tr").count() == 50, "one page of them"
    page.get_by_role("button", name="val_accuracy").focus()
    page.keyboard.press("Enter")
    assert page.inner_text(FIRST).startswith("00118"), "highest first"
    assert page.get_attribute("#trials th >> nth=2", "aria-sort") == "descending"
    page.get_by_role("button", name="val_accuracy").click()
    assert page.inner_text(FIRST).startswith("00000"), "lowest first"
    page.get_by_role("button", name="next").click()
    assert page.inner_text("#page") == "page 2 of 3"
    page.get_by_role("searchbox").fill("linear val_accuracy<80.2")
    assert page.inner_text("#shown") == "20 of 120 trials"
    assert page.inner_text("#page") == "page 1 of 1"
    assert page.inner_text(FIRST).startswith("00002")
    assert errors == []


def test_points_tell_their_trial(page: Any, errors: list[str], tmp_path: Path) -> None:
    page.goto(search(tmp_path / "points").as_uri())
    canvas = page.locator("#points")
    canvas.focus()
    page.keyboard.press("ArrowRight")
    assert "trial 00000" in page.inner_text("#tip")
    page.keyboard.press("End")
    tip = page.inner_text("#tip")
    assert "trial 00002" in tip and "linear" in tip and "tcpa replay points 00002" in tip
    page.keyboard.press("Escape")
    assert page.locator("#tip").is_hidden()
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    for x in range(60, int(box["width"]) - 10, 8):
        for y in range(12, int(box["height"]) - 40, 8):
            page.mouse.move(box["x"] + x, box["y"] + y)
            if page.locator("#tip").is_visible():
                break
        if page.locator("#tip").is_visible():
            break
    assert "vfpt + tcpa" in page.inner_text("#tip"), "the pointer finds a point"
    page.select_option("#against", "duration_s")
    assert errors == []


def test_hostile_name_harms_nothing(page: Any, errors: list[str], tmp_path: Path) -> None:
    page.goto(search(tmp_path / "hostile", name=HOSTILE).as_uri())
    assert page.inner_text("h1") == HOSTILE and page.title() == HOSTILE
    page.locator("#points").focus()
    page.keyboard.press("ArrowRight")
    assert HOSTILE in page.inner_text("#tip")
    assert page.locator("img[src=x]").count() == 0 and errors == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_fits_a_phone_and_the_dark(
    scheme: str, page: Any, errors: list[str], tmp_path: Path
) -> None:
    rows = {"VPT": {0: 0.8, 1: 0.81, 2: 0.83}, "+R": {0: 0.85, 1: 0.86, 2: 0.84}}
    path = build_report(write(tmp_path / "phone", components(rows), "ablation")).html
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": 380, "height": 800})
    page.goto(path.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= 380
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
    assert dark == (scheme == "dark")
    page.locator("table.ablation th button >> nth=0").click()
    assert page.inner_text("table.ablation tbody tr >> nth=0").startswith("VPT")
    page.emulate_media(media="print")
    assert page.locator("nav").is_hidden()
    assert errors == []
