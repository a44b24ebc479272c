"""`tcpa predict` of a trial that segments: masks as files, and what they are worth."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tcpa_core.errors import ConfigError
from tests.search.test_trained_verbs import refused, tcpa
from tests.tcpa_core.test_trained_masks import CLASSES, SIZES, left_behind, paint, settings


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """pictures/, a data set with masks, and trial/, which has been trained on it."""
    folder = tmp_path_factory.mktemp("predict")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TCPA_CACHE", str(folder / "cache"))
        paint(folder / "pictures")
        miou, _ = left_behind(settings(folder / "pictures", "linear"), folder / "trial")
        (folder / "miou").write_text(f"{miou:.4f}")
    return folder


@pytest.fixture(autouse=True)
def here(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)


def test_masks_are_written_and_scored_as_the_test_was(project: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, said = tcpa("predict", "trial", "pictures/test", "--masks", out, "--csv", tmp_path / "t")
    assert code == 0
    assert f"mIoU {(project / 'miou').read_text()}, mean accuracy" in said
    assert "(4 pictures)" in said and f"4 masks: {out}" in said
    for number, (height, width) in enumerate(SIZES):
        with Image.open(out / f"{number}.png") as image:
            assert image.mode == "P" and image.size == (width, height)
            assert np.asarray(image).max() < len(CLASSES)
    rows = list(csv.DictReader((tmp_path / "t").open()))
    assert [Path(row["mask"]) for row in rows] == [out / f"{n}.png" for n in range(4)]
    shares = [sum(float(row[f"share{n}"]) for n in ("", "_2", "_3")) for row in rows]
    assert shares == pytest.approx([1.0] * 4, abs=1e-5)


def test_pictures_without_masks_are_segmented_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "mine" / "a").mkdir(parents=True)
    for place in ("0.png", "a/0.png"):
        shutil.copy("pictures/test/0.png", tmp_path / "mine" / place)
    (tmp_path / "mine" / "broken.png").write_bytes(b"no picture")
    code, said = tcpa("predict", "trial", tmp_path / "mine", "--masks", tmp_path / "out")
    assert code == 1 and "mIoU" not in said and "not read:" in said and "broken.png" in said
    found = sorted(path for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert found == [tmp_path / "out" / "0.png", tmp_path / "out" / "a" / "0.png"]
    code, said = tcpa("predict", "trial", "pictures/test/0.png", tmp_path / "mine" / "0.png")
    assert code == 0 and "(1 of 2 pictures, those with a mask beside)" in said
    assert "0.png: " in said and not any(Path().glob("*.png"))


def test_a_place_for_masks_is_checked_first(tmp_path: Path) -> None:
    assert "has other things in it" in refused("predict", "trial", "pictures/test", "--masks", ".")
    shutil.copy("pictures/test/0.png", tmp_path / "x.png")
    Image.open(tmp_path / "x.png").save(tmp_path / "x.bmp")
    with pytest.raises(ConfigError, match="would both be"):
        tcpa("predict", "trial", tmp_path, "--masks", tmp_path / "out")
    assert not (tmp_path / "out").exists()
