"""Pictures with masks in every layout, what their values mean, and what is refused."""

# Pictures have 12 x 9 pixels; a mask is filled with one value, but for its first pixel.

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tcpa_core.chain import check_data
from tcpa_core.config import TrialConfig
from tcpa_core.data.base import (
    IGNORED,
    SPLITS,
    Dataset,
    cache_need,
    dataset_fingerprint,
    load_dataset,
)
from tcpa_core.data.segfolder import draws_val, recognises
from tcpa_core.errors import ConfigError, DataError
from tcpa_core.settings import DataConfig
from tests.tcpa_core.data_layouts import picture

HEIGHT, WIDTH = 12, 9


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TCPA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


def mask(path: Path, value: int = 1, first: int = 0, mode: str = "L") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.full((HEIGHT, WIDTH), value, np.uint8)
    values[0, 0] = first
    image = Image.fromarray(values)
    if mode == "P":
        image.putpalette([(7 * i) % 256 for i in range(768)])
    image.save(path)


def pair(image: Path, of_mask: Path, value: int = 1, first: int = 0, mode: str = "L") -> None:
    picture(image, seed=sum(map(ord, str(image.name))))
    mask(of_mask, value, first, mode)


def camvid(root: Path) -> None:
    for split, count in (("train", 4), ("val", 2), ("test", 3)):
        for i in range(count):
            pair(root / split / f"{split}{i}.png", root / f"{split}annot/{split}{i}.png", first=2)
    (root / "classes.txt").write_text("sky\nroad\n")


def ade20k(root: Path) -> None:
    for split, count in (("training", 10), ("validation", 3)):
        for i in range(count):
            name = f"ADE_{split[:3]}_{i:08d}"
            place = f"{split}/{name}"
            pair(root / f"images/{place}.jpg", root / f"annotations/{place}.png", value=150)
    rows = [f"{i}\t0.1\t10\t1\tname {i}, other" for i in range(1, 151)]
    rows[2] = "3\t0.1\t10\t1\tname 2, of another kind"
    (root / "objectInfo150.txt").write_text("\n".join(["Idx\tRatio\tTrain\tVal\tName", *rows]))


def cityscapes(root: Path) -> None:
    for split, count in (("train", 10), ("val", 3), ("test", 2)):
        for i in range(count):
            name = f"{split}/ulm/ulm_{split}_{i:06d}"
            pair(
                root / f"leftImg8bit/{name}_leftImg8bit.png",
                root / f"gtFine/{name}_gtFine_labelIds.png",
                value=26,
                first=4,
            )
            mask(root / f"gtFine/{name}_gtFine_color.png", 200)
            (root / f"gtFine/{name}_gtFine_polygons.json").write_text("{}")


def voc(root: Path) -> None:
    lists = root / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    for split, count in (("train", 10), ("val", 3)):
        names = [f"2007_{split}_{i}" for i in range(count)]
        for name in names:
            pair(
                root / f"JPEGImages/{name}.jpg",
                root / f"SegmentationClass/{name}.png",
                value=20,
                first=255,
                mode="P",
            )
        (lists / f"{split}.txt").write_text("\n".join(names) + "\n")
    picture(root / "JPEGImages/2007_of_another_task.jpg", 5)


def plain(root: Path, masks: str = "masks", end: str = "", splits: str = "train val test") -> None:
    for split in splits.split():
        for i in range(10 if split == "train" else 3):
            name = f"{split}/{split}{i}"
            pair(root / f"images/{name}.png", root / f"{masks}/{name}{end}.png")
    (root / "classes.txt").write_text("a\nb\nvoid\n")


def inside(root: Path) -> None:
    for split in SPLITS:
        for i in range(3):
            name = f"{split}{i}.png"
            pair(root / split / "images" / name, root / split / "masks" / name)
    (root / "classes.txt").write_text("a\nb\n")


def flat(root: Path) -> None:
    for i in range(20):
        pair(root / f"images/{i:02d}.jpg", root / f"labels/{i:02d}_P.png")
    (root / "codes.txt").write_text("a\nb\n")


def flat_with_lists(root: Path) -> None:
    flat(root)
    (root / "train.txt").write_text("".join(f"images/{i:02d}.jpg\n" for i in range(10)))
    (root / "val.txt").write_text("10\n11\n")
    (root / "test.txt").write_text("12.jpg\n13.jpg\n14.jpg\n")


def painted(root: Path) -> None:
    plain(root)
    (root / "classes.txt").unlink()
    (root / "class_dict.csv").write_text("name,r,g,b\nsky,0,0,0\nVoid,9,9,9\nroad,128, 64,128\n")
    for path in (root / "masks").rglob("*.png"):
        colours = np.full((HEIGHT, WIDTH, 3), (128, 64, 128), np.uint8)
        colours[0, 0], colours[0, 1] = 0, 9
        Image.fromarray(colours).save(path)


def loaded(root: Path, **settings: object) -> Dataset:
    return load_dataset(DataConfig(name="segfolder", root=str(root), **settings), 8)


def values(data: Dataset, split: str = "test") -> tuple[int, int]:
    """Of the first mask of a split: that of the first pixel, and that of all others."""
    masks = data.splits[split].masks
    assert masks is not None
    found = masks.planes(0)[0]
    assert len(np.unique(found[1:])) == 1
    return int(found[0, 0]), int(found[1, 0])


LAYOUTS: dict[str, tuple[Callable[[Path], None], tuple[int, int, int], int, tuple[int, int]]] = {
    "camvid": (camvid, (4, 2, 3), 2, (IGNORED, 1)),
    "ade20k": (ade20k, (8, 2, 3), 150, (IGNORED, 149)),
    "cityscapes": (cityscapes, (8, 2, 3), 19, (IGNORED, 13)),
    "voc": (voc, (8, 2, 3), 21, (IGNORED, 20)),
    "plain": (plain, (10, 3, 3), 2, (0, 1)),
    "annotations": (lambda root: plain(root, "annotations"), (10, 3, 3), 2, (0, 1)),
    "labels": (lambda root: plain(root, "Labels", "_mask"), (10, 3, 3), 2, (0, 1)),
    "no_test": (lambda root: plain(root, splits="train val"), (8, 3, 2), 2, (0, 1)),
    "no_val": (lambda root: plain(root, splits="train test"), (8, 2, 3), 2, (0, 1)),
    "inside": (inside, (3, 3, 3), 2, (0, 1)),
    "flat": (flat, (13, 3, 4), 2, (0, 1)),
    "flat_with_lists": (flat_with_lists, (10, 2, 3), 2, (0, 1)),
    "painted": (painted, (10, 3, 3), 2, (0, 1)),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_is_read(name: str, root: Path) -> None:
    make, sizes, classes, expected = LAYOUTS[name]
    make(root)
    assert recognises(root)
    data = loaded(root)
    assert tuple(len(data.splits[split]) for split in SPLITS) == sizes
    assert data.num_classes == classes and values(data) == expected
    for split in data.splits.values():
        assert split.masks is not None and len(split.masks) == len(split)
        assert [Path(key).stem for key in split.paths] == sorted(Path(k).stem for k in split.paths)
    assert data.fingerprint == dataset_fingerprint(DataConfig(name="segfolder", root=str(root)))


def test_masks_are_at_the_size_of_pictures_in_training_and_of_files_in_scoring(root: Path) -> None:
    camvid(root)
    data = loaded(root)
    train, val = data.splits["train"], data.splits["val"]
    assert train.masks is not None and val.masks is not None
    assert train.masks.planes(0).shape == (1, *train.images.planes(0).shape[1:])
    assert val.masks.planes(0).shape == (1, HEIGHT, WIDTH)


@pytest.mark.parametrize("name", ["ade20k", "cityscapes", "voc"])
def test_val_is_test_where_test_is_not_published(name: str, root: Path) -> None:
    LAYOUTS[name][0](root)
    data = loaded(root)
    assert all("val" in key for key in data.splits["test"].paths)
    assert any("its val is test" in note for note in data.summary.notes)
    assert draws_val(DataConfig(name="segfolder", root=str(root)))
    other = loaded(root, split_seed=1)
    assert other.splits["test"].paths == data.splits["test"].paths
    assert other.splits["val"].paths != data.splits["val"].paths


def test_a_set_with_val_draws_none(root: Path) -> None:
    plain(root, splits="train val")
    cfg = DataConfig(name="segfolder", root=str(root))
    assert not draws_val(cfg)
    assert any("20% of train is held out as test" in note for note in loaded(root).summary.notes)


def test_names_of_ade20k_are_told_apart(root: Path) -> None:
    ade20k(root)
    names = loaded(root).class_names
    assert names[0] == "name 1" and len(set(names)) == 150
    assert names[1:3] == ("name 2, other", "name 2, of another kind")


def test_train_ids_of_cityscapes_are_taken_where_all_pictures_have_them(root: Path) -> None:
    cityscapes(root)
    for path in list((root / "gtFine").rglob("*_labelIds.png")):
        mask(path.with_name(path.name.replace("labelIds", "labelTrainIds")), 13, 255)
    assert values(loaded(root)) == (IGNORED, 13)


@pytest.mark.parametrize(
    ("settings", "classes", "expected"),
    [
        ({}, 2, (0, 1)),
        ({"ignore": [0]}, 1 + 1, (IGNORED, 0)),
        ({"reduce_zero_label": True}, 2, (IGNORED, 0)),
        ({"reduce_zero_label": True, "ignore": [2]}, 2, (IGNORED, 0)),
        ({"ignore": []}, 2, (0, 1)),
    ],
    ids=str,
)
def test_settings_say_what_values_mean(
    settings: dict, classes: int, expected: tuple[int, int], root: Path
) -> None:
    plain(root)
    (root / "classes.txt").unlink()
    data = loaded(root, num_classes=classes, **settings)
    assert data.num_classes == classes and values(data) == expected


def test_masks_count_in_the_fingerprint_and_in_what_the_cache_needs(root: Path) -> None:
    camvid(root)
    cfg = DataConfig(name="segfolder", root=str(root))
    need, first = cache_need(cfg, 8), dataset_fingerprint(cfg)
    pictures = 9
    assert need.images == 2 * pictures
    assert need.num_bytes == pictures * 3 * 8 * 8 + 4 * 8 * 8 + 5 * HEIGHT * WIDTH
    loaded(root)
    assert cache_need(cfg, 8).images == 0
    mask(root / "valannot/val0.png", 0)
    assert dataset_fingerprint(cfg) != first
    assert cache_need(cfg, 8).images == 2  # the masks of val
    more = cfg.model_copy(update={"ignore": (2, 7)})
    assert dataset_fingerprint(more) not in (first, dataset_fingerprint(cfg))


def test_pixels_are_counted_once(root: Path, cache: Path) -> None:
    camvid(root)
    summary = loaded(root).summary
    assert summary.pixels["val"] == (0, 2 * (HEIGHT * WIDTH - 1), 2)
    assert summary.sizes == {"train": 4, "val": 2, "test": 3}
    files = sorted(cache.glob("pixels/*.counts"))
    assert len(files) == 3
    files[0].write_text("[1]")
    assert loaded(root).summary.pixels == summary.pixels
    assert any("no split has a pixel of 1 of 2 classes: 'sky'" in n for n in summary.notes)


def test_masks_without_a_class_are_named(root: Path) -> None:
    camvid(root)
    mask(root / "trainannot/train1.png", 255, 255)
    notes = loaded(root).summary.notes
    assert "1 masks of train have no pixel with a class: 'train/train1.png'." in notes


@pytest.mark.parametrize("layout", [camvid, ade20k], ids=["beside", "above"])
def test_a_split_whose_masks_are_missing_is_named(
    layout: Callable[[Path], None], root: Path
) -> None:
    layout(root)
    assert not [note for note in loaded(root).summary.notes if "are not read" in note]
    (folder,) = (f for f in ("valannot", "annotations/validation") if (root / f).is_dir())
    shutil.rmtree(root / folder)
    pictures = folder.replace("annotations", "images").removesuffix("annot")
    assert f"the pictures of {pictures}/ have no masks and are not read." in (
        loaded(root).summary.notes
    )


def rgb(path: Path) -> None:
    Image.open(path).convert("RGB").save(path)


def saved(path: Path, array: np.ndarray, name: str | None = None) -> None:
    path.unlink()
    Image.fromarray(array).save(path if name is None else path.with_name(name))


def jpeg(path: Path) -> None:
    path.unlink()
    mask(path.with_suffix(".jpg"))


T = "trainannot/train1.png"
SPACE = np.zeros((HEIGHT, WIDTH), np.uint8)

WRONG: dict[str, tuple[Callable[[Path], object], dict, str]] = {
    "other_size": (
        lambda r: saved(r / T, SPACE[:-1]),
        {},
        r"9 x 11 pixels, its picture train/train1.png 9 x 12; a mask must",
    ),
    "turned": (lambda r: saved(r / T, SPACE.T), {}, r"12 x 9 pixels.*One of the two was turned"),
    "beyond": (
        lambda r: mask(r / T, 7),
        {},
        r"train1.png has 7 at 107 of 108 pixels, first in row 0, column 1, but by classes.txt 0 to "
        r"1 are 2 classes and 2 and 255 mean none; correct .*data.ignore",
    ),
    "binary": (lambda r: mask(r / T, 254), {}, r"0 and 254 look like a mask of two classes"),
    "missing": (
        lambda r: (r / T).unlink(),
        {},
        r"1 of 4 pictures of .*/train have no mask in trainannot/: 'train/train1.png'",
    ),
    "left_over": (
        lambda r: (r / "train/train1.png").unlink(),
        {},
        r"1 of 4 masks of .*/trainannot have no picture in train/: 'trainannot/train1.png'",
    ),
    "jpeg": (
        lambda r: jpeg(r / T),
        {},
        r"train1.jpg is a JPEG file, whose values .*; take the mask as PNG",
    ),
    "deep": (
        lambda r: saved(r / T, SPACE.astype(np.uint16)),
        {},
        r"mode 'I;16' \(16 bits or more.*8-bit grey PNG",
    ),
    "alpha": (
        lambda r: Image.open(r / T).convert("LA").save(r / T),
        {},
        r"alpha channel \(mode 'LA'\).*save it as 8-bit grey",
    ),
    "rgba": (
        lambda r: Image.open(r / T).convert("RGBA").save(r / T),
        {},
        r"alpha channel \(mode 'RGBA'\)",
    ),
    "rgb": (lambda r: rgb(r / T), {}, r"has colours \(mode 'RGB'\).*class_dict.csv"),
    "no_mask_file": (lambda r: (r / T).write_text("hello"), {}, r"mask .*train1.png: .*"),
    "truncated": (
        lambda r: (r / T).write_bytes((r / T).read_bytes()[:45]),
        {},
        r"mask .*train1.png is damaged or truncated .*restore the file",
    ),
    "empty": (lambda r: (r / T).write_bytes(b""), {}, r"mask .*train1.png: .*empty"),
    "two_masks": (
        lambda r: mask(r / "trainannot/train1.bmp"),
        {},
        r"'trainannot/train1.bmp' and 'trainannot/train1.png' .*have one name",
    ),
    "two_pictures": (
        lambda r: picture(r / "train/train1.jpg", 1),
        {},
        r"'train/train1.jpg' and 'train/train1.png'",
    ),
    "stray": (
        lambda r: (r / "trainannot/notes.txt").write_text(""),
        {},
        r"'trainannot/notes.txt' does not end like an image",
    ),
    "empty_split": (
        lambda r: (
            [
                p.unlink()
                for f in ("val", "valannot")
                for p in (r / f).iterdir()
                if p.name != "val0.png"
            ]
            and (r / "val/val0.png").unlink()
        ),
        {},
        r"1 of 1 masks of .*/valannot have no picture",
    ),
    "all_ignored": (
        lambda r: [mask(p, 255, 255) for p in (r / "valannot").iterdir()],
        {},
        r"no mask of val has a pixel with a class, all are ignored",
    ),
    "no_classes": (
        lambda r: (r / "classes.txt").unlink(),
        {},
        r"not known which classes.*classes.txt.*data.num_classes",
    ),
    "other_number": (
        lambda r: None,
        {"num_classes": 5},
        r"data.num_classes=5, but classes.txt in .* gives 2 classes",
    ),
    "one_class": (
        lambda r: (r / "classes.txt").write_text("road\n"),
        {"ignore": [1, 2]},
        r"at least 2 classes, classes.txt gives 1",
    ),
    "empty_line": (
        lambda r: (r / "classes.txt").write_text("road\n\nsky\n"),
        {},
        r"classes.txt:2: line is empty",
    ),
    "twice": (
        lambda r: (r / "classes.txt").write_text("road\nroad\n"),
        {},
        r"classes.txt names class 'road' twice",
    ),
    "many": (
        lambda r: (r / "classes.txt").write_text("".join(f"c{i}\n" for i in range(255))),
        {},
        r"classes.txt gives 255 classes, more than the 254",
    ),
    "per_class": (
        lambda r: None,
        {"size_per_class": 3},
        r"data.size_per_class=3 counts pictures of a class",
    ),
    "list": (lambda r: None, {"train_list": "a.txt"}, r"data.train_list='a.txt' names a list, but"),
    "all_left_out": (
        lambda r: None,
        {"ignore": [0, 1]},
        r"data.ignore=\[0, 1\] leaves 0 of the 2 classes of classes.txt",
    ),
    "no_layout": (
        lambda r: [(r / f"{s}annot").rename(r / f"{s}_xyz") for s in SPLITS],
        {},
        r"no folders of pictures and masks: data.root must hold",
    ),
    "picture": (
        lambda r: (r / "train/train1.png").write_text("<html>"),
        {},
        r"train/train1.png .*HTML",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_named(name: str, root: Path) -> None:
    camvid(root)
    damage, settings, sentence = WRONG[name]
    damage(root)
    with pytest.raises((DataError, ConfigError), match=sentence) as caught:
        loaded(root, **settings)
    assert str(caught.value).endswith(".") and "\n" not in str(caught.value)


def test_masks_that_count_from_one_are_told(root: Path) -> None:
    plain(root)
    (root / "classes.txt").write_text("a\nb\nc\n")
    for path in (root / "masks").rglob("*.png"):
        mask(path, value=3, first=1)
    with pytest.raises(DataError, match=r"seems to count from 1; set data.reduce_zero_label=true"):
        loaded(root)
    assert values(loaded(root, reduce_zero_label=True)) == (0, 2)


def test_all_wrong_masks_are_named_at_once(root: Path) -> None:
    camvid(root)
    mask(root / "trainannot/train0.png", 9)
    mask(root / "testannot/test2.png", 9)
    with pytest.raises(DataError, match=r"2 images cannot be decoded: trainannot/train0.png, test"):
        loaded(root)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "name,r,g,b\nsky,0,0,0\nroad,0,0,0\n",
            r"class_dict.csv:2 has colour \(0, 0, 0\) a second",
        ),
        ("name,r,g,b\nsky,0,0\n", r"each line must be 'name,r,g,b' .* got \['sky', '0', '0'\]"),
        ("name,r,g,b\nsky,0,0,0\nroad,1,1,1\n", r"has colour \(9, 9, 9\) in row 0, column 1"),
    ],
)
def test_wrong_colours_are_named(text: str, sentence: str, root: Path) -> None:
    painted(root)
    (root / "class_dict.csv").write_text(text)
    with pytest.raises(DataError, match=sentence):
        loaded(root)


@pytest.mark.parametrize(
    ("lists", "sentence"),
    [
        ({"train": "2007_train_0\nnobody\n"}, r"train.txt:2 names 'nobody', of which there is no"),
        ({"train": "2007_train_0\n../x\n"}, r"train.txt:2: image path must be relative"),
        ({"val": ""}, r"split test has no pictures: .*val.txt is empty"),
        ({"val": "2007_train_0\n"}, r"'JPEGImages/2007_train_0.jpg' is named twice"),
    ],
    ids=["unknown", "outside", "empty", "twice"],
)
def test_wrong_lists_are_named(lists: dict[str, str], sentence: str, root: Path) -> None:
    voc(root)
    for name, text in lists.items():
        (root / f"ImageSets/Segmentation/{name}.txt").write_text(text)
    with pytest.raises(DataError, match=sentence):
        loaded(root)


def test_another_list_of_train_is_taken(root: Path) -> None:
    voc(root)
    (root / "few.txt").write_text("".join(f"2007_train_{i}\n" for i in range(5)))
    assert len(loaded(root, train_list="few.txt").splits["train"]) == 4  # and one of val


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            {"task.name": "segment", "data.name": "cifar10"},
            r"data.name='cifar10' has one of each picture; set data.name=segfolder",
        ),
        (
            {"data.name": "segfolder"},
            r"'segfolder' has a class of each pixel, but task.name='classify'",
        ),
        (
            {"task.name": "segment", "data.name": "segfolder", "data.auto_augment": "v0"},
            r"data.auto_augment='v0' changes pictures without their masks",
        ),
        (
            {"task.name": "segment", "data.name": "segfolder", "data.resized_crop": [0.5, 1.0]},
            r"data.resized_crop=.* data.scale_range scales and cuts both",
        ),
    ],
    ids=["pictures", "masks", "augment", "crop"],
)
def test_task_and_data_have_to_fit(settings: dict, sentence: str) -> None:
    config = TrialConfig.from_flat({"methods": ["linear"], **settings})
    with pytest.raises(ConfigError, match=sentence):
        check_data(config)


def test_settings_of_masks_are_refused_elsewhere() -> None:
    with pytest.raises(ConfigError, match="data.scale_range=.* is not read by data.name='digits'"):
        load_dataset(DataConfig(name="digits", scale_range=(0.5, 2.0)), 8)
    for wrong in ([2.0, 0.5], [0.0, 1.0], [1.0, 99.0]):
        with pytest.raises(ValueError, match="scale_range must be"):
            DataConfig(name="segfolder", scale_range=wrong)
    with pytest.raises(ValueError, match="data.ignore must be values of masks"):
        DataConfig(name="segfolder", ignore=[256])
