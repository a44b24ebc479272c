"""What the page says of single images, as a person sees it in a browser."""

from pathlib import Path
from typing import Any

import pytest

import reports
from reports.build import build_report
from reports.labels import p_text
from reports.samples.measures import mcnemar
from tests.reports.images import ablation

pytestmark = pytest.mark.integration
LEVELS = {"VPT": 2.6, "+R": 3.0, "+R+T": 3.1}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = ablation(tmp_path_factory.mktemp("page") / "parts", LEVELS, 2, 500, 30)
    build_report(folder)
    return folder


@pytest.fixture
def page(page: Any, study: Path) -> Any:
    """The report; it must not complain."""
    page.goto((study / "report" / "report.html").as_uri())
    return page


def test_single_images_are_told_on_every_screen_and_on_paper(page: Any, study: Path) -> None:
    (data,) = reports.load(study).samples.by_data
    part = page.locator(".images")
    first, second = part.locator(".compare select").all()
    names = first.locator("option").all_inner_texts()
    assert set(names) == {one.name for one in data.trials}
    by_name = {one.name: one.test for one in data.trials}
    for a, b in ((names[0], names[1]), (names[5], names[2]), (names[3], names[3])):
        first.select_option(label=a)
        second.select_option(label=b)
        test = mcnemar(by_name[a], by_name[b])
        said = part.locator(".compare output").inner_text()
        assert f"right on {test.only_first} test images" in said
        assert f"the second on {test.only_second};" in said
        assert said.endswith(p_text(test.p) if test.p >= 0.001 else "p < 0.001")
    pictures = part.locator(".pictures img")
    assert pictures.count() > 5
    assert all(pictures.evaluate_all("all => all.map(one => one.naturalWidth === 64)"))
    rows = part.locator("table.classes >> nth=0").locator("tbody tr")
    assert rows.count() == 12 and part.locator("details").locator("tr").first.is_hidden()
    part.locator("summary").click()
    assert part.locator("details").locator("tbody tr").count() == 18
    for width in (1400, 390):
        for scheme in ("light", "dark"):
            page.set_viewport_size({"width": width, "height": 900})
            page.emulate_media(color_scheme=scheme)
            assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.emulate_media(media="print")
    left_out = part.locator(".print-only")
    assert left_out.is_visible() and "18 classes with higher accuracy" in left_out.inner_text()
    assert part.locator(".compare").is_hidden()
