"""Every kind of data set keeps the same contract; the shared packs load as their READMEs say."""

import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from tcpa_core import plugins
from tcpa_core.data import digits
from tcpa_core.data.base import SPLITS, dataset_fingerprint, load_dataset
from tcpa_core.errors import PluginError
from tcpa_core.settings import DATASETS, DataConfig
from tcpa_core.training.image_source import ImageSource
from tests.tcpa_core.data_layouts import LAYOUTS, make, mask, picture

KINDS = plugins.names(DATASETS)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("TCPA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(params=KINDS)
def cfg(request, tmp_path) -> DataConfig:
    return make(request.param, tmp_path / "here")


def test_helpers_are_not_kinds():
    assert {"digits", "fgvc", "folder", "vtab1k"} <= set(KINDS)
    assert not {"base", "_images", "images", "cache"} & set(KINDS)


def test_unknown_kind_names_the_known_ones():
    with pytest.raises(PluginError, match="'vtab'.*vtab1k"):
        dataset_fingerprint(DataConfig(name="vtab"))


class TestContract:
    def test_splits_are_complete_and_disjoint(self, cfg):
        data = load_dataset(cfg, 8)
        assert tuple(data.splits) == SPLITS
        assert data.name == cfg.name and data.img_size == 8
        assert len(data.class_names) == data.num_classes >= 2
        names = [path for split in data.splits.values() for path in split.paths]
        assert len(set(names)) == len(names)
        for split in data.splits.values():
            assert len(split) == len(split.labels) == len(split.paths) == len(split.images) > 0
            assert split.labels.dtype == np.int64
            assert 0 <= split.labels.min() and split.labels.max() < data.num_classes
        train = data.splits["train"]
        classes = train.labels if train.masks is None else [0, *np.unique(train.masks.pixels)[:-1]]
        assert set(classes) == set(range(data.num_classes))

    def test_val_may_be_trained_on(self, cfg):
        apart = load_dataset(cfg, 8).splits
        joined = load_dataset(cfg.model_copy(update={"train_on": "train_and_val"}), 8).splits
        parts = [apart["train"], apart["val"]]
        train = joined["train"]
        assert train.paths == tuple(path for part in parts for path in part.paths)
        assert train.labels.tolist() == [int(n) for part in parts for n in part.labels]
        pixels = [part.images.image(i) for part in parts for i in range(len(part))]
        assert all((train.images.image(i) == one).all() for i, one in enumerate(pixels))
        assert joined["val"].paths == apart["val"].paths
        assert joined["test"].paths == apart["test"].paths

    def test_squash_gives_squares(self, cfg):
        split = load_dataset(cfg, 8).splits["train"]
        assert {split.images.image(i).shape for i in range(len(split))} == {(8, 8, 3)}
        assert split.images.pixels.dtype == np.uint8
        assert len({split.images.image(i).tobytes() for i in range(6)}) == 6

    def test_short_side_leaves_room_for_the_crop(self, cfg):
        cfg = cfg.model_copy(update={"resize": "short_side", "resize_to": 10})
        images = load_dataset(cfg, 8).splits["val"].images
        assert {min(images.image(i).shape[:2]) for i in range(len(images))} == {10}

    def test_fingerprint_needs_no_pixels(self, cfg, cache):
        fingerprint = dataset_fingerprint(cfg)
        assert not (cache / "pixels").exists()
        assert len(fingerprint) == 64
        for size in (8, 16):
            assert load_dataset(cfg, size).fingerprint == fingerprint

    def test_second_load_decodes_nothing(self, cfg):
        stages = set()
        first = load_dataset(cfg, 8, progress=lambda stage, done, total: stages.add(stage))
        assert {"decode train", "decode val", "decode test"} <= stages
        stages.clear()
        second = load_dataset(cfg, 8, progress=lambda stage, done, total: stages.add(stage))
        assert not [stage for stage in stages if "decode" in stage]
        for name in SPLITS:
            np.testing.assert_array_equal(
                first.splits[name].images.pixels, second.splits[name].images.pixels
            )

    def test_progress_counts_to_the_total(self, cfg):
        seen = []
        data = load_dataset(cfg, 8, progress=lambda *report: seen.append(report))
        total = len(data.splits["test"])
        counts = [report[1:] for report in seen if report[0] == "decode test"]
        assert counts == [(i + 1, total) for i in range(total)]

    def test_batches(self, cfg):
        split = load_dataset(cfg, 8).splits["train"]
        source = ImageSource(split, cfg, 8, (0.5,) * 3, (0.5,) * 3, "cpu")
        batch = source.batch(torch.tensor([2, 0]))
        assert batch.shape == (2, 3, 8, 8) and batch.dtype == torch.float32
        assert batch.is_contiguous() and batch.isfinite().all()
        assert source.labels.tolist() == split.labels.tolist()

    def test_is_documented(self, cfg):
        module = plugins.load(DATASETS, cfg.name)
        assert module.__doc__ and module.read.__doc__


@pytest.mark.parametrize("name", sorted(LAYOUTS))
class TestFingerprintOfFiles:
    def test_does_not_depend_on_the_place(self, name, tmp_path):
        cfg = make(name, tmp_path / "here")
        shutil.copytree(tmp_path / "here", tmp_path / "there" / "deeper")
        moved = cfg.model_copy(update={"root": str(tmp_path / "there" / "deeper")})
        assert dataset_fingerprint(moved) == dataset_fingerprint(cfg)

    def test_changes_with_one_image(self, name, tmp_path):
        cfg = make(name, tmp_path)
        before = dataset_fingerprint(cfg)
        key = next(path for path in sorted(tmp_path.rglob("*.[pP][nN][gG]")))
        picture(key, seed=999)
        assert dataset_fingerprint(cfg) != before

    def test_changes_with_a_label(self, name, tmp_path):
        cfg = make(name, tmp_path)
        before = dataset_fingerprint(cfg)
        if name == "folder":
            (tmp_path / "test/class 0/0.PNG").rename(tmp_path / "test/class 1/0.PNG")
            shutil.copy(tmp_path / "test/class 1/1.PNG", tmp_path / "test/class 0/1.PNG")
        elif name == "segfolder":
            mask(tmp_path / "testannot/test_0.png", seed=999)
        else:
            file, *swap = {
                "vtab1k": ("test.txt", "png 0", "png 2"),
                "fgvc": ("test.json", ": 5", ": 25"),
                "imagelist": ("test.csv", "png,0", "png,2"),
            }[name]
            listed = tmp_path / file
            listed.write_text(listed.read_text().replace(*swap))
        assert dataset_fingerprint(cfg) != before


class TestDigits:
    def test_counts(self):
        data = load_dataset(DataConfig(), 8)
        assert {name: len(split) for name, split in data.splits.items()} == {
            "train": 1078,
            "val": 269,
            "test": 450,
        }
        for split in data.splits.values():
            counts = np.bincount(split.labels)
            assert counts.max() - counts.min() <= 6

    def test_pixels_are_scaled_to_eight_bits(self):
        images = load_dataset(DataConfig(), 8).splits["train"].images
        assert images.pixels.max() == 255 and images.pixels.min() == 0
        image = images.image(0)
        assert (image[..., 0] == image[..., 1]).all() and (image[..., 0] == image[..., 2]).all()

    def test_split_seed_moves_val_but_not_test(self):
        first, other = (digits.read(DataConfig(split_seed=seed)).splits for seed in (0, 1))
        assert first["test"].keys == other["test"].keys
        assert set(first["val"].keys) != set(other["val"].keys)
        assert set(first["val"].keys + first["train"].keys) == set(
            other["val"].keys + other["train"].keys
        )


class TestVtab:
    @pytest.fixture
    def root(self, tmp_path) -> Path:
        make("vtab1k", tmp_path / "svhn")
        return tmp_path / "svhn"

    def classes(self, root: Path) -> tuple[str, ...]:
        return load_dataset(DataConfig(name="vtab1k", root=str(root)), 8).class_names

    def test_classes_by_task_name(self, root):
        assert len(self.classes(root)) == 10

    def test_classes_file_comes_first(self, root):
        (root / "classes.txt").write_text("zero\r\none\r\ntwo\r\nthree\r\n")
        assert self.classes(root) == ("zero", "one", "two", "three")

    def test_classes_by_all_lists_where_nothing_else_is_known(self, root):
        root = root.rename(root.parent / "mine")
        assert len(self.classes(root)) == 3
        union = root / "train800val200.txt"
        union.write_text(union.read_text() + "\nimages/extra.png 6\n")
        assert len(self.classes(root)) == 7

    def test_lists_decide_not_folders(self, root):
        text = (root / "val200.txt").read_text()
        picture(root / "images/train800/also.png", seed=5)
        (root / "val200.txt").write_text(text + "images/train800/also.png 1\n")
        split = load_dataset(DataConfig(name="vtab1k", root=str(root)), 8).splits["val"]
        assert split.paths[-1] == "images/train800/also.png"

    def test_windows_lines_and_a_byte_order_mark(self, root):
        cfg = DataConfig(name="vtab1k", root=str(root))
        before = dataset_fingerprint(cfg)
        text = (root / "test.txt").read_text()
        (root / "test.txt").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
        assert dataset_fingerprint(cfg) == before

    def test_union_list_is_not_needed(self, root):
        (root / "train800val200.txt").unlink()
        assert len(self.classes(root)) == 10


class TestFgvc:
    def test_one_numbering_for_all_splits(self, tmp_path):
        cfg = make("fgvc", tmp_path)
        (tmp_path / "val.json").write_text('{"2/val_2.png": 25}')
        data = load_dataset(cfg, 8)
        assert data.class_names == ("5", "15", "25")
        assert data.splits["val"].labels.tolist() == [2]

    @pytest.mark.parametrize(
        ("ids", "expected"),
        [
            ('["010", "9", "2"]', ("2", "9", "010")),
            ('["b", "a10", "a9"]', ("a10", "a9", "b")),
            ("[300, -1, 7]", ("-1", "7", "300")),
        ],
    )
    def test_ids_are_sorted_by_value(self, tmp_path, ids, expected):
        cfg = make("fgvc", tmp_path)
        for file in tmp_path.glob("*.json"):
            text = file.read_text()
            for old, new in zip(("25", "15", "5"), ids[1:-1].split(", "), strict=True):
                text = text.replace(f": {old}", f": {new}")
            file.write_text(text)
        assert load_dataset(cfg, 8).class_names == expected

    @pytest.mark.parametrize("name", ["Images", "."])
    def test_image_root_is_found(self, tmp_path, name):
        cfg = make("fgvc", tmp_path)
        before = dataset_fingerprint(cfg)
        for path in (tmp_path / "images").iterdir():
            (tmp_path / name).mkdir(exist_ok=True)
            path.rename(tmp_path / name / path.name)
        (tmp_path / "images").rmdir()
        assert dataset_fingerprint(cfg) == before


class TestFolder:
    def test_val_is_split_off_per_class(self, tmp_path):
        cfg = make("folder", tmp_path).model_copy(update={"val_fraction": 0.5})
        shutil.rmtree(tmp_path / "val")
        data = load_dataset(cfg, 8)
        assert np.bincount(data.splits["train"].labels).tolist() == [1, 1, 1]
        assert np.bincount(data.splits["val"].labels).tolist() == [1, 1, 1]
        other = cfg.model_copy(update={"split_seed": 3})
        assert dataset_fingerprint(other) != data.fingerprint

    def test_split_follows_the_seed_alone(self, tmp_path):
        cfg = make("folder", tmp_path / "a").model_copy(update={"val_fraction": 0.5})
        shutil.rmtree(tmp_path / "a" / "val")
        shutil.copytree(tmp_path / "a", tmp_path / "b")
        moved = cfg.model_copy(update={"root": str(tmp_path / "b")})
        assert (
            load_dataset(cfg, 8).splits["val"].paths == load_dataset(moved, 8).splits["val"].paths
        )

    def test_hidden_and_desktop_files_are_passed_over(self, tmp_path):
        cfg = make("folder", tmp_path)
        before = dataset_fingerprint(cfg)
        (tmp_path / "train/.ipynb_checkpoints").mkdir()
        (tmp_path / "train/.DS_Store").write_text("x")
        (tmp_path / "train/class 0/._0.PNG").write_text("x")
        (tmp_path / "test/class 0/Thumbs.db").write_text("x")
        (tmp_path / "README.txt").write_text("beside the splits")
        assert dataset_fingerprint(cfg) == before

    def test_deeper_folders_belong_to_the_class(self, tmp_path):
        cfg = make("folder", tmp_path)
        picture(tmp_path / "test/class 1/a/b/x.png", seed=1)
        split = load_dataset(cfg, 8).splits["test"]
        assert split.labels[split.paths.index("test/class 1/a/b/x.png")] == 1


PACKS = {
    "cifar10-1k": ("vtab1k", 10, (800, 200, 1000), "airplane"),
    "fashion-1k": ("vtab1k", 10, (800, 200, 1000), None),
    "gtsrb-1k": ("vtab1k", 43, (800, 200, 1000), "00"),
    "ucmerced-112": ("folder", 21, (840, 210, 840), "agricultural"),
    "dtd10": ("fgvc", 10, (500, 200, 500), "1"),
}


@pytest.fixture(scope="module")
def packs(shared, tmp_path_factory) -> Path:
    target = tmp_path_factory.mktemp("packs")
    for name in PACKS:
        for archive in (shared / "data" / name).glob("*.tar.gz"):
            with tarfile.open(archive) as tar:
                tar.extractall(target, filter="data")
        for archive in (shared / "data" / name).glob("*.zip"):
            with zipfile.ZipFile(archive) as zipped:
                zipped.extractall(target)
    return target


@pytest.mark.parametrize("name", sorted(PACKS))
def test_pack_loads_as_documented(packs, name):
    kind, num_classes, counts, first_class = PACKS[name]
    data = load_dataset(DataConfig(name=kind, root=str(packs / name)), 32)
    assert tuple(len(data.splits[split]) for split in SPLITS) == counts
    assert data.num_classes == num_classes
    assert first_class is None or data.class_names[0] == first_class
    assert set(data.splits["train"].labels) == set(range(num_classes))
    image = data.splits["test"].images.image(0)
    assert image.shape == (32, 32, 3) and image.std() > 0
    is_grey = all((image[..., 0] == image[..., c]).all() for c in (1, 2))
    assert is_grey == (name == "fashion-1k")
