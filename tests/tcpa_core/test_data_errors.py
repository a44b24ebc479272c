"""Every broken input is refused by a message that names the place; nothing is skipped."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tcpa_core.config import TrialConfig
from tcpa_core.data.base import load_dataset, split_off
from tcpa_core.errors import ConfigError, DataError
from tcpa_core.settings import DataConfig
from tests.tcpa_core.data_layouts import make, picture

Change = Callable[[Path], object]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("TCPA_CACHE", str(tmp_path / "cache"))


def append(file: str, text: str) -> Change:
    def change(root: Path) -> None:
        path = root / file
        path.write_text(path.read_text().rstrip("\n") + "\n" + text + "\n")

    return change


def write(file: str, data: bytes) -> Change:
    return lambda root: (root / file).write_bytes(data)


def remove(file: str) -> Change:
    return lambda root: (root / file).unlink()


def move(file: str, target: str) -> Change:
    return lambda root: (root / file).rename(root / target)


def drop(folder: str) -> Change:
    return lambda root: shutil.rmtree(root / folder)


def fill(folder: str) -> Change:
    """Empty a folder but keep it."""

    def change(root: Path) -> None:
        shutil.rmtree(root / folder)
        (root / folder).mkdir(parents=True)

    return change


def truncate(file: str) -> Change:
    return lambda root: (root / file).write_bytes((root / file).read_bytes()[:-60])


def wide(file: str, width: int) -> Change:
    return lambda root: Image.new("1", (width, 9_000)).save(root / file)


def cut(old: str, new: str, file: str) -> Change:
    return lambda root: (root / file).write_text((root / file).read_text().replace(old, new))


IMAGE = "images/test/000001.png"

LISTS: list[tuple[str, Change, str]] = [
    ("no train list", remove("train800.txt"), r"list train800\.txt is missing below .*data\.root"),
    (
        "no val list",
        lambda r: [remove(n)(r) for n in ("val200.txt", "train800val200.txt")],
        r"list val200\.txt is missing",
    ),
    ("no test list", remove("test.txt"), r"list test\.txt is missing"),
    ("list is a folder", lambda r: [remove("test.txt")(r), (r / "test.txt").mkdir()], "test.txt"),
    (
        "list is binary",
        write("test.txt", b"\xff\xfe\x00x"),
        r"test\.txt must be UTF-8 text, byte 0",
    ),
    ("empty list", write("val200.txt", b""), r"split val has no images: val200\.txt .*is empty"),
    ("only blank lines", write("val200.txt", b"\n\n"), "split val has no images"),
    (
        "no label",
        append("test.txt", "images/a.png"),
        r"test\.txt:4: a line must be .*'images/a.png'",
    ),
    ("blank line", cut("\n", "\n\n", "test.txt"), r"test\.txt:2: a line must be .*got ''"),
    (
        "label not integer",
        append("test.txt", "images/a.png 1.0"),
        r"test\.txt:4: .*'images/a.png 1.0'",
    ),
    ("label negative", append("test.txt", "images/a.png -1"), r"test\.txt:4: .*integer >= 0.* -1'"),
    ("label is a word", append("test.txt", "images/a.png cat"), r"test\.txt:4: .*a.png cat'"),
    ("label is huge", append("test.txt", "a.png " + "9" * 5000), r"test\.txt:4: a line must be"),
    ("label without digits", append("test.txt", "a.png \u0663"), r"test\.txt:4: a line must be"),
    (
        "no such image",
        append("test.txt", "images/a.png 1"),
        r"1 of 13 .*images/a\.png \(test\.txt:4\)",
    ),
    ("image is a folder", append("test.txt", "images/test/d.png 1"), r"d\.png \(test\.txt:4\)"),
    (
        "absolute path",
        append("test.txt", "/etc/passwd.png 1"),
        r"test\.txt:4: .*'/etc/passwd\.png'",
    ),
    ("path leaves", append("test.txt", "images/../../x.png 1"), r"test\.txt:4: .*without '\.\.'"),
    (
        "suffix",
        append("test.txt", "images/a.heic 1"),
        r"test\.txt:4: 'images/a\.heic' .*HEIC .*not read: convert it .*Accepted: \.jpg",
    ),
    ("no suffix", append("test.txt", "images/a 1"), r"test\.txt:4: 'images/a' does not end like"),
    (
        "twice in a split",
        append("test.txt", f"{IMAGE} 1"),
        r"000001.png' .*test\.txt:2.*test\.txt:4",
    ),
    ("twice by spelling", append("test.txt", f"./{IMAGE} 1"), r"000001\.png' is named twice"),
    (
        "in two splits",
        append("val200.txt", "images/train800/000000.png 0"),
        r"'images/train800/000000\.png' .*train \(train800\.txt:1\) and in val \(val200\.txt:4\)",
    ),
    (
        "text as image",
        write(IMAGE, b"not a picture"),
        r"000001\.png \(test\.txt:2\): 13 bytes that",
    ),
    ("empty image", write(IMAGE, b""), r"000001\.png \(test\.txt:2\): 0 bytes"),
    ("truncated image", truncate(IMAGE), r"000001\.png \(test\.txt:2\): image is damaged or trunc"),
    ("large image", wide(IMAGE, 10_000), r"test\.txt:2\): image is larger than 89,478,485 pixels"),
    ("pixel bomb", wide(IMAGE, 20_000), r"test\.txt:2\): image is larger than 89,478,485 pixels"),
    (
        "float image",
        lambda r: Image.new("F", (4, 4)).save(r / IMAGE, "TIFF"),
        r"test\.txt:2\).*'F'",
    ),
    (
        "class beyond classes.txt",
        write("classes.txt", b"a\nb\n"),
        r"0\.\.1 \(2 .*classes\.txt\), got 2",
    ),
    (
        "class named twice",
        write("classes.txt", b"a\nb\na\n"),
        r"classes\.txt names class 'a' twice",
    ),
    ("class without name", write("classes.txt", b"a\n\nb\n"), r"classes\.txt:2: line is empty"),
    ("one class", write("classes.txt", b"a\n"), "at least 2 classes, classes.txt gives 1"),
    ("bad union list", write("train800val200.txt", b"x"), r"train800val200\.txt:1: a line must be"),
]


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(("change", "match"), [c[1:] for c in LISTS], ids=[c[0] for c in LISTS])
def test_vtab1k_refuses(tmp_path, change, match):
    cfg = make("vtab1k", tmp_path / "task")
    (tmp_path / "task/images/test/d.png").mkdir()
    change(tmp_path / "task")
    with pytest.raises(DataError, match=match):
        load_dataset(cfg, 8)


def test_vtab1k_checks_labels_against_the_task(tmp_path):
    cfg = make("vtab1k", tmp_path / "patch_camelyon")
    with pytest.raises(DataError, match=r"train800\.txt:3: .*0\.\.1 .*VTAB task 'patch_cam.*got 2"):
        load_dataset(cfg, 8)


def test_vtab1k_lists_the_tasks_below_the_root(tmp_path):
    make("vtab1k", tmp_path / "svhn")
    make("vtab1k", tmp_path / "cifar")
    with pytest.raises(DataError, match=r"folder of one task.*cifar, svhn"):
        load_dataset(DataConfig(name="vtab1k", root=str(tmp_path)), 8)


FOLDERS: list[tuple[str, Change, str]] = [
    ("no train", drop("train"), r"folder train/ is missing below"),
    ("empty train", fill("train"), r"of val/ differ .*3 more"),
    ("empty test", fill("test"), r"of test/ differ .*3 lacking"),
    ("class lacking", drop("test/class 1"), r"of test/ differ .*1 lacking \['class 1'\]"),
    ("class more", lambda r: picture(r / "val/new/a.png", 1), r"of val/ differ .*more \['new'\]"),
    ("empty class", fill("val/class 0"), r"val/class 0 has no images"),
    ("file beside classes", lambda r: picture(r / "train/a.png", 1), r"train/a\.png lies beside"),
    ("other file", write("test/class 0/notes.txt", b"x"), r"test/: 'test/class 0/notes\.txt' does"),
    ("svg by name", write("test/class 0/a.svg", b"x"), r"a\.svg' does not end like an image"),
    (
        "text as image",
        write("test/class 0/0.PNG", b"x"),
        r"test/class 0/0\.PNG .*1 bytes that are not",
    ),
    ("broken link", lambda r: (r / "val/class 0/l.png").symlink_to("gone"), r"1 of 13 .*l\.png"),
]


@pytest.mark.parametrize(("change", "match"), [c[1:] for c in FOLDERS], ids=[c[0] for c in FOLDERS])
def test_folder_refuses(tmp_path, change, match):
    cfg = make("folder", tmp_path / "set")
    change(tmp_path / "set")
    with pytest.raises(DataError, match=match):
        load_dataset(cfg, 8)


def test_folder_cannot_split_one_image(tmp_path):
    cfg = make("folder", tmp_path / "set")
    shutil.rmtree(tmp_path / "set/val")
    (tmp_path / "set/train/class 2/2.PNG").unlink()
    with pytest.raises(DataError, match=r"train/class 2 has one image, too few"):
        load_dataset(cfg, 8)


SPLIT_FILES: list[tuple[str, Change, str]] = [
    ("no val file", remove("val.json"), r"list val\.json is missing"),
    ("not JSON", write("val.json", b'{"a": 1'), r"val\.json is not JSON: .*line 1"),
    ("nested too deep", write("val.json", b"[" * 100_000), r"val\.json is not JSON"),
    ("an array", write("val.json", b'["a.png"]'), r"val\.json: must be one object .*got a list"),
    ("no images", write("val.json", b"{}"), r"split val has no images: val\.json"),
    ("key twice", write("val.json", b'{"a.png": 5, "a.png": 15}'), r"'a\.png' is named twice"),
    (
        "key twice by spelling",
        write("val.json", b'{"a.png": 5, "./a.png": 5}'),
        r"'a\.png' is named",
    ),
    ("id is a float", write("val.json", b'{"a.png": 5.0}'), r"'a\.png' must be an integer .*5\.0"),
    ("id is a truth value", write("val.json", b'{"a.png": true}'), r"'a\.png' must be .*got True"),
    ("id is nothing", write("val.json", b'{"a.png": null}'), r"'a\.png' must be .*got None"),
    ("id is an object", write("val.json", b'{"a.png": {}}'), r"'a\.png' must be .*got an object"),
    (
        "mixed ids",
        write("val.json", b'{"a.png": "5"}'),
        r"all integers or all texts.*'val': \['str'\]",
    ),
    (
        "path leaves",
        write("val.json", b'{"../a.png": 5}'),
        r"val\.json: image path .*'\.\./a\.png'",
    ),
    ("path is empty", write("val.json", b'{"": 5}'), r"val\.json: image path must be .*got ''"),
    ("image missing", write("val.json", b'{"0/no.png": 5}'), r"1 of 10 .*0/no\.png \(val\.json\)"),
    (
        "overlap",
        write("val.json", b'{"0/train_0.png": 5}'),
        r"train_0\.png' is named twice, in train",
    ),
    (
        "no image folder",
        move("images", "pictures"),
        r"no image of train\.json .*images, Images, \.",
    ),
]


@pytest.mark.parametrize(
    ("change", "match"), [c[1:] for c in SPLIT_FILES], ids=[c[0] for c in SPLIT_FILES]
)
def test_fgvc_refuses(tmp_path, change, match):
    cfg = make("fgvc", tmp_path / "set")
    change(tmp_path / "set")
    with pytest.raises(DataError, match=match):
        load_dataset(cfg, 8)


def test_fgvc_with_one_id_is_refused(tmp_path):
    cfg = make("fgvc", tmp_path)
    for file in tmp_path.glob("*.json"):
        file.write_text(json.dumps(dict.fromkeys(json.loads(file.read_text()), 1)))
    with pytest.raises(DataError, match=r"at least 2 classes, the ids in train\.json.*gives 1"):
        load_dataset(cfg, 8)


@pytest.mark.parametrize("name", ["vtab1k", "folder", "fgvc"])
class TestRoot:
    def test_must_be_set(self, name):
        with pytest.raises(ConfigError, match=rf"data\.root must name .*data\.name='{name}'"):
            load_dataset(DataConfig(name=name), 8)

    def test_must_exist(self, name, tmp_path):
        with pytest.raises(DataError, match=r"data\.root='.*gone' .*does not exist"):
            load_dataset(DataConfig(name=name, root=str(tmp_path / "gone")), 8)

    def test_must_be_a_folder(self, name, tmp_path):
        (tmp_path / "file").write_text("x")
        with pytest.raises(DataError, match=r"data\.root='.*file' must be a folder.*is a file"):
            load_dataset(DataConfig(name=name, root=str(tmp_path / "file")), 8)


def test_digits_have_no_root(tmp_path):
    with pytest.raises(ConfigError, match=r"data\.root must be left out for data\.name='digits'"):
        load_dataset(DataConfig(root=str(tmp_path)), 8)


class TestSettings:
    def test_crop_must_fit(self):
        cfg = DataConfig(resize="short_side", resize_to=7)
        with pytest.raises(
            ConfigError, match=r"data\.resize_to must be >= the image size 8.*got 7"
        ):
            load_dataset(cfg, 8)

    @pytest.mark.parametrize("setting", [{"random_crop": True}, {"resize_to": 256}])
    def test_squash_has_no_crop(self, setting):
        flat = {f"data.{key}": value for key, value in setting.items()}
        with pytest.raises(ConfigError, match=r"need data\.resize='short_side', got 'squash'"):
            TrialConfig.from_flat(flat)


def test_a_strip_that_explodes_when_resized(tmp_path):
    cfg = make("vtab1k", tmp_path)
    Image.new("L", (100_000, 1)).save(tmp_path / IMAGE)
    cfg = cfg.model_copy(update={"resize": "short_side", "resize_to": 64})
    with pytest.raises(
        DataError, match=r"test\.txt:2\): 100000 x 1 pixels would become 6400000 x 64"
    ):
        load_dataset(cfg, 8)


def test_no_pixels_are_kept_of_a_split_with_a_broken_image(tmp_path):
    cfg = make("vtab1k", tmp_path)
    truncate(IMAGE)(tmp_path)
    with pytest.raises(DataError, match="damaged or truncated"):
        load_dataset(cfg, 8)
    assert not list((tmp_path / "cache/pixels").glob("*.tmp"))
    picture(tmp_path / IMAGE, seed=1)
    assert len(load_dataset(cfg, 8).splits["test"]) == 3


def test_split_off_keeps_both_parts():
    keys = [f"{i}.png" for i in range(10)]
    first, second = split_off(keys, 0.2, "val 0")
    assert sorted(first + second) == list(range(10)) and len(second) == 2
    assert split_off(keys[:2], 0.01, "val 0")[1] != []
    assert split_off(keys[:2], 0.99, "val 0")[0] != []
