"""What makes numbers measured on a data set doubtful is refused or said, in every kind of set."""

import json
import runpy
import shutil
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tcpa_core import data as data_package
from tcpa_core.config import TrialConfig
from tcpa_core.data._classes import alike, listed
from tcpa_core.data.base import DataSummary, dataset_summary, load_dataset
from tcpa_core.data.vtab1k import TASKS
from tcpa_core.errors import ConfigError, DataError
from tcpa_core.model.load_backbone import load_backbone
from tcpa_core.settings import DataConfig
from tcpa_core.training.trial_data import load_trial_data
from tests.tcpa_core.data_layouts import LABELLED, LAYOUTS, make, picture

LISTS = {"train": "train800.txt", "val": "val200.txt", "test": "test.txt"}
Images = Mapping[str, Sequence[tuple[str, str]]]
"""Path and class of every image, by split."""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TCPA_CACHE", str(tmp_path / "cache"))


def classes(**used: Sequence[str]) -> Images:
    """Two images of each class that a split uses."""
    return {s: [(f"{s}/{i}.png", c) for i, c in enumerate([*of, *of])] for s, of in used.items()}


def write(kind: str, root: Path, images: Images) -> DataConfig:
    """A data set of a kind with these images; each picture is its own."""
    seed = 0
    for split, rows in images.items():
        for path, name in rows:
            seed += 1
            key = f"{split}/{name}/{Path(path).name}" if kind == "folder" else f"images/{path}"
            picture(root / key, seed)
        if kind == "fgvc":
            (root / f"{split}.json").write_text(json.dumps(dict(rows)))
        if kind == "imagelist":
            lines = [f"images/{path},{name}" for path, name in rows]
            (root / f"{split}.csv").write_text("\n".join(["image,label", *lines]))
        if kind == "vtab1k":
            lines = [f"images/{path} {name}" for path, name in rows]
            (root / LISTS[split]).write_text("\n".join(lines) + "\n")
    return DataConfig(name=kind, root=str(root))


def described(cfg: DataConfig) -> DataSummary:
    """The summary; that of the listing alone says the same as far as it looks."""
    full, quick = load_dataset(cfg, 8).summary, dataset_summary(cfg)
    assert quick.fingerprint == full.fingerprint and quick.counts == full.counts
    assert full.notes[: len(quick.notes)] == quick.notes
    return full


@pytest.mark.parametrize("kind", [*sorted(LAYOUTS), "digits"])
def test_a_sound_data_set_is_read_without_a_word(kind: str, tmp_path: Path) -> None:
    found = described(make(kind, tmp_path / "mine"))
    assert found.warnings() == []
    assert found.shared == {"train/val": 0, "train/test": 0, "val/test": 0}
    assert found.two_labels == 0
    assert all(len(of) == len(found.class_names) for of in found.counts.values())


class TestPictures:
    @pytest.mark.parametrize("kind", LABELLED)
    def test_identical_ones_are_counted_by_pair_of_splits(self, kind: str, tmp_path: Path) -> None:
        cfg = write(kind, tmp_path, classes(train="0123", val="0123", test="0123"))
        files = {s: sorted(tmp_path.rglob(f"{s}/**/*.png")) for s in LISTS}
        for i in (0, 1, 2):
            shutil.copy(files["train"][i], files["test"][i])
        shutil.copy(files["train"][3], files["val"][3])
        shutil.copy(files["val"][5], files["test"][5])
        found = described(cfg)
        assert found.shared == {"train/val": 1, "train/test": 3, "val/test": 1}
        text = " ".join(found.warnings())
        said = {"val images are also in train": 1, "test images are also in train": 3}
        for pair, count in (said | {"test images are also in val": 1}).items():
            assert f"{count} of 8 {pair}, byte for byte (first: " in text

    def test_two_copies_in_test_count_twice(self, tmp_path: Path) -> None:
        cfg = write("folder", tmp_path, classes(train="ab", val="ab", test="ab"))
        for name in ("0.png", "2.png"):
            shutil.copy(tmp_path / "train/a/0.png", tmp_path / "test/a" / name)
        assert described(cfg).shared["train/test"] == 2

    @pytest.mark.parametrize("kind", LABELLED)
    def test_one_under_two_labels_is_said(self, kind: str, tmp_path: Path) -> None:
        cfg = write(kind, tmp_path, classes(train="012", val="012", test="012"))
        files = sorted(tmp_path.rglob("train/**/*.png"))
        shutil.copy(files[0], files[2 if kind == "folder" else 1])
        found = described(cfg)
        assert found.two_labels == 1
        assert "1 pictures stand under two or more labels, byte for byte (first: " in found.notes[0]
        assert "(0) and " in found.notes[0] and "(1))" in found.notes[0]

    def test_those_of_one_colour_are_named(self, tmp_path: Path) -> None:
        cfg = make("folder", tmp_path)
        for i, colour in enumerate([(0, 0, 0), (255, 0, 0)]):
            Image.new("RGB", (9, 12), colour).save(tmp_path / f"val/class {i}/{i}.PNG")
        (note,) = load_dataset(cfg, 8).summary.notes
        assert note == (
            "2 pictures are of one colour throughout: 'val/class 0/0.PNG', 'val/class 1/1.PNG'."
        )
        assert dataset_summary(cfg).notes == (), "no picture was decoded"

    @pytest.mark.parametrize("splits", [("train", "val", "test"), ("test",)])
    @pytest.mark.parametrize("kind", ["16 bit", "8 bit", "16 bit ppm"])
    def test_a_range_left_unused_is_said(
        self, kind: str, splits: Sequence[str], tmp_path: Path
    ) -> None:
        """16-bit files of a 12-bit sensor beside one of the whole range, and 8-bit files that hold
        0 to 15."""
        cfg = make("folder", tmp_path)
        suffix = ".ppm" if kind == "16 bit ppm" else ".PNG"
        for split in splits:
            for path in sorted((tmp_path / split).rglob("*.PNG")):
                values = np.random.default_rng(1).integers(0, 4096, (12, 9))
                values[0, :2] = 0, 4095
                deep = values.astype(np.uint16) if kind != "8 bit" else (values >> 8).astype("u1")
                path.unlink()
                Image.fromarray(deep).save(path.with_suffix(suffix))
        if kind != "8 bit":
            deepest = np.full((12, 9), 65535, np.uint16)
            # Without it the data set would be scaled by 12 bits. A split that has it is not narrow.
            Image.fromarray(deepest).save(tmp_path / "val/class 0/deepest.png")
            splits = [split for split in splits if split != "val"]
        store = load_dataset(cfg, 12)  # twelve rows: no row is lost
        notes = [note for note in store.summary.notes if "values 0 to 255" in note]
        assert len(notes) == 1
        shown = ", ".join(f"0 to 15 in {split}" for split in splits)
        assert f"pictures use only {shown}; scale" in notes[0].replace("16 in", "15 in")

    def test_those_that_use_the_range_are_not(self, tmp_path: Path) -> None:
        cfg = make("folder", tmp_path)
        for path in sorted(tmp_path.rglob("*.PNG")):
            values = np.random.default_rng(1).integers(0, 65536, (12, 9)).astype(np.uint16)
            Image.fromarray(values).save(path)
        assert not [note for note in load_dataset(cfg, 8).summary.notes if "255" in note]

    def test_a_few_of_a_narrower_sensor_are_named(self, tmp_path: Path) -> None:
        cfg = make("folder", tmp_path)
        names = ["train/class 0/0.PNG", "val/class 1/1.PNG"]
        for seed, name in enumerate(names):
            values = np.random.default_rng(seed).integers(0, 4096, (12, 9)).astype(np.uint16)
            Image.fromarray(values).save(tmp_path / name)
        values = np.random.default_rng(2).integers(0, 65536, (12, 9)).astype(np.uint16)
        Image.fromarray(values).save(tmp_path / "val/class 0/deep.png")
        (note,) = load_dataset(cfg, 8).summary.notes
        assert note.startswith("2 pictures use none of the values 32 to 255")
        assert all(repr(name) in note for name in names)

    def test_a_warm_cache_says_the_same(self, tmp_path: Path) -> None:
        cfg = make("folder", tmp_path)
        Image.new("RGB", (9, 12)).save(tmp_path / "val/class 0/0.PNG")
        first = load_dataset(cfg, 8)
        stages: list[str] = []
        again = load_dataset(cfg, 8, progress=lambda stage, *_: stages.append(stage))
        assert not [stage for stage in stages if "decode" in stage]
        assert again.summary == first.summary and first.summary.notes

    @pytest.mark.parametrize("count", [2, 10, 11, 25])
    def test_broken_ones_are_all_told(self, count: int, tmp_path: Path) -> None:
        names = [f"{i:02d}" for i in range(15)]
        cfg = write("folder", tmp_path, classes(train=names, val=names, test=names))
        files = [p for s in LISTS for p in sorted((tmp_path / s).rglob("*.png"))]
        chosen = files[:: len(files) // count][:count]
        for path in chosen:
            path.write_bytes(path.read_bytes()[:-60])
        with pytest.raises(DataError) as err:
            load_dataset(cfg, 8)
        keys = [str(path.relative_to(tmp_path)) for path in chosen]
        more = f" and {count - 10} more" if count > 10 else ""
        start = f"{count} images cannot be decoded: {', '.join(keys[:10])}{more}. {chosen[0]}"
        assert str(err.value).startswith(start)
        assert all(key not in str(err.value) for key in keys[10:])

    @pytest.mark.parametrize("count", [1, 12])
    def test_missing_ones_are_named(self, count: int, tmp_path: Path) -> None:
        cfg = write("vtab1k", tmp_path, classes(train="0123456", val="01", test="01"))
        gone = [tmp_path / f"images/train/{i}.png" for i in range(count)]
        for path in gone:
            path.unlink()
        more = r" and 2 more\." if count == 12 else r"\. "
        with pytest.raises(DataError, match=rf"{count} of 22 .*train/0\.png.*{more}"):
            load_dataset(cfg, 8)


SPELLINGS = [
    ("1", "001"),
    ("7", "7.0"),
    ("owl", "Owl"),
    ("barn owl", "barn_owl"),
    ("barn-owl", "barn owl"),
    ("owl", "owl "),
    ("crème", unicodedata.normalize("NFD", "crème")),
    ("class_01", "class_1"),
]


class TestClasses:
    @pytest.mark.parametrize(("one", "other"), SPELLINGS)
    def test_two_spellings_in_two_splits_are_refused(
        self, one: str, other: str, tmp_path: Path
    ) -> None:
        used = {"train": (one, "fox"), "val": (one, "fox"), "test": (other, "fox")}
        cfg = write("fgvc", tmp_path, classes(**used))
        with pytest.raises(DataError, match="classes are spelt differently") as err:
            dataset_summary(cfg)
        assert f"{one!a} in train and val" in str(err.value)
        assert f"{other!a} in test" in str(err.value)

    @pytest.mark.parametrize(("one", "other"), SPELLINGS)
    def test_folders_show_both_spellings(self, one: str, other: str, tmp_path: Path) -> None:
        used = {"train": (one, "fox"), "val": (one, "fox"), "test": (other, "fox")}
        cfg = write("folder", tmp_path, classes(**used))
        with pytest.raises(DataError, match="two spellings of one class") as err:
            dataset_summary(cfg)
        assert ascii(one) in str(err.value) and ascii(other) in str(err.value)

    def test_many_are_counted(self, tmp_path: Path) -> None:
        plain, padded = [[f"{i:0{n}d}" for i in range(1, 31)] for n in (1, 4)]
        cfg = write("fgvc", tmp_path, classes(train=plain, val=plain, test=padded))
        with pytest.raises(DataError, match=r"'0010' in test, .*; and 20 more \(below"):
            dataset_summary(cfg)

    def test_names_that_differ_in_case_alone_are_classes_where_all_splits_have_them(
        self, tmp_path: Path
    ) -> None:
        letters = classes(train="aAbB", val="aAbB", test="aAbB")
        assert described(write("fgvc", tmp_path, letters)).warnings() == []

    @pytest.mark.parametrize("kind", ["vtab1k", "fgvc"])
    @pytest.mark.parametrize("shifted", ["train", "val", "test"])
    def test_a_split_that_counts_from_one_is_refused(
        self, shifted: str, kind: str, tmp_path: Path
    ) -> None:
        used = {split: "12345" if split == shifted else "01234" for split in LISTS}
        with pytest.raises(DataError, match="numbers its classes one higher than") as err:
            dataset_summary(write(kind, tmp_path, classes(**used)))
        assert f"{shifted} numbers" in str(err.value) or shifted == "train"
        assert "1 to 5" in str(err.value) and "0 to 4" in str(err.value)

    def test_also_where_some_classes_lack(self, tmp_path: Path) -> None:
        used = classes(train="01234", val="0124", test="2345")
        with pytest.raises(DataError, match="test numbers its classes one higher than train"):
            dataset_summary(write("vtab1k", tmp_path, used))

    def test_a_label_beyond_the_known_classes_says_what_it_looks_like(self, tmp_path: Path) -> None:
        cfg = write("vtab1k", tmp_path, classes(train="012", val="012", test="123"))
        (tmp_path / "classes.txt").write_text("a\nb\nc\n")
        with pytest.raises(DataError, match=r"got 3 .* seems to count from 1; subtract 1"):
            dataset_summary(cfg)

    def test_splits_without_a_common_class_are_refused(self, tmp_path: Path) -> None:
        used = {"train": ("ant", "bee"), "val": ("ant", "bee"), "test": ("n01", "n02")}
        with pytest.raises(DataError, match=r"test has no class of train: .*'ant'.*'n01', 'n02'"):
            dataset_summary(write("fgvc", tmp_path, classes(**used)))

    def test_what_a_split_lacks_is_said_with_names(self, tmp_path: Path) -> None:
        found = described(write("fgvc", tmp_path, classes(train="abc", val="ab", test="abcd")))
        assert found.notes == (
            "train has no image of 1 of 4 classes that other splits have and cannot learn them: "
            "'d'.",
            "val has no image of 2 of 4 classes that other splits have: 'c', 'd'.",
        )

    def test_a_class_of_no_split_is_said(self, tmp_path: Path) -> None:
        found = described(write("vtab1k", tmp_path, classes(train="123", val="123", test="123")))
        assert found.notes == (
            "no split has an image of 1 of 4 classes: '0'; lists that count from 1 leave class 0 "
            "empty.",
        )

    def test_names_are_listed_up_to_ten(self) -> None:
        assert listed("abcdefghij").endswith("'j'")
        assert listed("abcdefghijkl").endswith("'j' and 2 more")
        assert len(listed(["x" * 10_000])) < 100

    def test_spellings(self) -> None:
        assert len({alike(name) for name in ("10", "0010", "10.0", " 10")}) == 1
        assert len({alike(name) for name in ("1", "10", "100", "0", "1.5", "1.05", "-1")}) == 7

    def test_a_kind_of_ones_own_is_checked_as_well(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "stripes.py").write_text(PLUGIN)
        monkeypatch.setattr(data_package, "__path__", list(data_package.__path__))
        monkeypatch.setenv("TCPA_PLUGINS", str(tmp_path))
        with pytest.raises(DataError, match="'owl' in train and val, 'Owl' in test"):
            dataset_summary(DataConfig(name="stripes"))


PLUGIN = '''
import numpy as np
from tcpa_core.data.base import Listing, SplitListing

def read(cfg):
    """Two classes; test spells one of them otherwise."""
    def split(name, labels):
        images = np.random.default_rng(len(name)).integers(0, 256, (2, 4, 4, 3), dtype=np.uint8)
        keys = (f"{name} 0", f"{name} 1")
        return SplitListing(keys=keys, labels=labels, source="noise", read=images.__getitem__)
    names = ("owl", "fox", "Owl")
    splits = {"train": split("train", (0, 1)), "val": split("val", (0, 1)),
              "test": split("test", (2, 1))}
    return Listing(root=None, class_names=names, class_source="noise", splits=splits)
'''


class TestVtab:
    def test_the_table_has_all_tasks(self) -> None:
        assert len(TASKS) == 19
        assert sum(classes for classes, _ in TASKS.values()) == 940

    def test_lists_of_another_length_and_fewer_classes_are_told(self, tmp_path: Path) -> None:
        cfg = make("vtab1k", tmp_path / "eurosat")
        notes = dataset_summary(cfg).notes
        assert notes[:5] == (
            "train800.txt names 6 images, VTAB's eurosat has 800.",
            "val200.txt names 3 images, VTAB's eurosat has 200.",
            "test.txt names 3 images, VTAB's eurosat has 5,400.",
            "train800val200.txt names 9 images, VTAB's eurosat has 1,000.",
            "the lists use 3 classes, VTAB's eurosat has 10.",
        )

    def test_class_names_of_another_number_are_told(self, tmp_path: Path) -> None:
        cfg = make("vtab1k", tmp_path / "kitti")
        (tmp_path / "kitti" / "classes.txt").write_text("a\nb\nc\n")
        assert "classes.txt names 3 classes, VTAB's kitti has 4." in dataset_summary(cfg).notes


def tracks(root: Path, num_classes: int = 3, per_class: int = 5, frames: int = 6) -> DataConfig:
    """Class folders named and filled as GTSRB's, without val."""
    rows = {
        "train": [
            (f"{track:05d}_{frame:05d}.png", f"{c:05d}")
            for c in range(num_classes)
            for track in range(per_class)
            for frame in range(frames)
        ],
        "test": [(f"{c:05d}.png", f"{c:05d}") for c in range(num_classes)],
    }
    return write("folder", root, rows)


def groups(keys: Sequence[str]) -> set[str]:
    return {key.rpartition("_")[0] for key in keys}


class TestGroups:
    def test_a_track_stays_in_one_split(self, tmp_path: Path) -> None:
        cfg = tracks(tmp_path).model_copy(update={"group": r"(.*)_\d+\.png"})
        splits = load_dataset(cfg, 8).splits
        train, val = (groups(splits[name].paths) for name in ("train", "val"))
        assert not train & val and len(train | val) == 15
        assert np.bincount(splits["val"].labels).tolist() == [6, 6, 6], "a fifth: one track of five"
        assert not described(cfg).notes

    def test_without_it_frames_are_torn_and_that_is_said(self, tmp_path: Path) -> None:
        cfg = tracks(tmp_path)
        splits = load_dataset(cfg, 8).splits
        train, val = (groups(splits[name].paths) for name in ("train", "val"))
        assert val & train
        (note,) = described(cfg).notes
        assert "names look like frames of 15 tracks ('train/00000/0000" in note
        assert "of 18 val images have frames of their track in train; data.group" in note

    @pytest.mark.parametrize("kind", ["folder", "digits"])
    def test_other_names_do_not_look_like_tracks(self, kind: str, tmp_path: Path) -> None:
        cfg = make(kind, tmp_path)
        if kind == "folder":
            shutil.rmtree(tmp_path / "val")
        assert not described(cfg).notes

    def test_the_split_follows_seed_and_names(self, tmp_path: Path) -> None:
        cfg = tracks(tmp_path / "a").model_copy(update={"group": r"(.*)_\d+"})
        shutil.copytree(tmp_path / "a", tmp_path / "b")
        moved = cfg.model_copy(update={"root": str(tmp_path / "b")})
        other = cfg.model_copy(update={"split_seed": 1})
        assert dataset_summary(cfg).fingerprint == dataset_summary(moved).fingerprint
        assert dataset_summary(cfg).fingerprint != dataset_summary(other).fingerprint
        for seed in range(20):
            counts = dataset_summary(cfg.model_copy(update={"split_seed": seed})).counts
            assert counts["val"] == (6, 6, 6)

    def test_the_whole_match_is_a_group_too(self, tmp_path: Path) -> None:
        cfg = tracks(tmp_path)
        first, second = (
            dataset_summary(cfg.model_copy(update={"group": text})).fingerprint
            for text in (r"train/\d+/\d+(?=_)", r"(train/\d+/\d+)_")
        )
        assert first == second

    def test_groups_that_span_classes(self, tmp_path: Path) -> None:
        """Patients of whom each has pictures of every class, and one class that only two have."""
        rows = [(f"p{p}_{c}{i}.png", c) for p in range(10) for c in "ab" for i in range(2)]
        rows += [(f"p{p}_c{i}.png", "c") for p in (3, 7) for i in range(3)]
        cfg = write("folder", tmp_path, {"train": rows, "test": [(f"{c}.png", c) for c in "abc"]})
        for seed in range(10):
            grouped = cfg.model_copy(update={"group": r"/(p\d+)_", "split_seed": seed})
            splits = load_dataset(grouped, 8).splits
            patients = [
                {Path(key).name.split("_")[0] for key in splits[name].paths}
                for name in ("train", "val")
            ]
            assert not patients[0] & patients[1]
            counts = dataset_summary(grouped).counts
            assert min(counts["train"]) > 0 and min(counts["val"]) > 0, "every class in both"
            assert 4 <= counts["val"][0] <= 6

    def test_a_class_of_one_group_stays_in_train(self, tmp_path: Path) -> None:
        cfg = tracks(tmp_path, per_class=4)
        for path in (tmp_path / "train/00001").glob("*.png"):
            path.rename(path.with_name(path.name.replace("_", "")))
        for path in sorted((tmp_path / "train/00001").glob("*.png")):
            path.rename(path.with_name(f"00000_{path.name}"))
        grouped = cfg.model_copy(update={"group": r"(.*)_\d+"})
        assert "val has no image of 1 of 3 classes" in described(grouped).notes[0]

    def test_a_path_that_does_not_match_is_named(self, tmp_path: Path) -> None:
        cfg = tracks(tmp_path)
        picture(tmp_path / "train/00001/odd.png", 77)
        with pytest.raises(
            DataError, match=r"data\.group=.* does not match 'train/00001/odd\.png'"
        ):
            dataset_summary(cfg.model_copy(update={"group": r"(.*)_\d+"}))
        with pytest.raises(DataError, match="does not match"):
            dataset_summary(cfg.model_copy(update={"group": r"(nothing)?train"}))

    def test_one_group_cannot_be_split(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"data\.group finds 1 groups"):
            dataset_summary(tracks(tmp_path).model_copy(update={"group": "train"}))

    @pytest.mark.parametrize("text", ["(", "[a", "(?P<x", "*"])
    def test_what_is_no_expression_is_refused(self, text: str) -> None:
        with pytest.raises(ConfigError, match=r"data\.group must be a regular expression, got"):
            TrialConfig.from_flat({"data.group": text})

    def test_splits_of_the_data_set_itself_are_counted(self, tmp_path: Path) -> None:
        images = {s: [(f"{s}/p{i % 2}_{i}.png", str(i % 2)) for i in range(4)] for s in LISTS}
        cfg = write("fgvc", tmp_path, images).model_copy(update={"group": r"p\d+"})
        assert [note.split(";")[0] for note in described(cfg).notes] == [
            f"4 of 4 {second} images belong to a group of {first} (data.group='p\\\\d+')"
            for first, second in (("train", "val"), ("train", "test"), ("val", "test"))
        ]

    def test_digits_can_be_grouped(self) -> None:
        cfg = DataConfig(group="^..")
        splits = load_dataset(cfg, 8).splits
        train, val = ({key[:2] for key in splits[name].paths} for name in ("train", "val"))
        assert not train & val
        assert 200 < len(splits["val"]) < 340

    def test_it_is_part_of_the_identity_where_it_is_set(self) -> None:
        plain, grouped = (TrialConfig.from_flat({"data.group": g}) for g in (None, "x"))
        assert plain.digest("d", "w") != grouped.digest("d", "w")


def test_a_trial_and_a_record_carry_the_notes(tmp_path: Path) -> None:
    cfg = write("fgvc", tmp_path, classes(train="ab", val="ab", test="ab"))
    shutil.copy(tmp_path / "images/train/0.png", tmp_path / "images/test/0.png")
    summary = load_dataset(cfg, 32).summary
    config = TrialConfig.from_flat({"data.name": "fgvc", "data.root": str(tmp_path)})
    data = load_trial_data(config, load_backbone(config.backbone))
    assert list(data.warnings) == summary.warnings() and len(data.warnings) == 1
    assert data.warnings[0].startswith(f"data fgvc {tmp_path.name}: 1 of 4 test images are also")
    record = summary.as_dict()
    assert json.loads(json.dumps(record)) == json.loads(json.dumps(record | {}))
    assert record["images"] == {"train": 4, "val": 4, "test": 4} and record["classes"] == 2
    assert record["shared"]["train/test"] == 1 and record["notes"] == summary.notes


CASES = {
    "plain": [],
    "list_plain": [],
    "numeric_order": [],
    "odd_names": [],
    "exif_rotated": [],
    "sixteen_full": [],
    "dup_across_splits": ["6 of 15 test images are also in train"],
    "dup_random": ["60 of 60 test images are also in train"],
    "list_one_based": ["no split has an image of 1 of 5 classes: '0'"],
    "list_test_one_based": DataError("test numbers its classes one higher than train"),
    "fgvc_padded": DataError("'001' in test, '1' in train and val; '002' in test"),
    "fgvc_only_in_test": [
        "train has no image of 1 of 4 classes that other splits have and cannot learn them: '4'",
        "val has no image of 2 of 4 classes that other splits have: '3', '4'",
    ],
    "sixteen_12bit": [],
    "two_broken": DataError("3 images cannot be decoded: train/bee/"),
}
"""What each odd data set of the shared folder gives: its warnings, or the error."""


@pytest.mark.parametrize("case", CASES)
def test_shared_cases(case: str, shared: Path, tmp_path: Path) -> None:
    made = runpy.run_path(str(shared / "cases" / "data" / "make_data.py"))["CASES"]
    assert made.keys() == CASES.keys()
    root = tmp_path / case
    root.mkdir()
    made[case](root)
    marks = {"vtab1k": "*.txt", "fgvc": "*.json", "folder": "train"}
    kind = next(kind for kind, mark in marks.items() if any(root.glob(mark)))
    cfg, right = DataConfig(name=kind, root=str(root)), CASES[case]
    if isinstance(right, DataError):
        with pytest.raises(DataError) as err:
            load_dataset(cfg, 32)
        assert str(right) in str(err.value)
    else:
        notes = load_dataset(cfg, 32).summary.notes
        assert [note[: len(text)] for note, text in zip(notes, right, strict=True)] == right
