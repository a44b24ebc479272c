"""Cache entries appear whole, are checked when opened, and are made once by several processes."""

import errno
import fcntl
import multiprocessing
import os
import platform
import resource
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest

from tcpa_core.data import _cache, _hashes, _marks
from tcpa_core.data._cache import ImageStore, cache_root, open_or_build
from tcpa_core.data._parallel import ordered_map
from tcpa_core.data.base import dataset_fingerprint, load_dataset
from tcpa_core.errors import DataError
from tests.tcpa_core.data_layouts import make, picture

SHAPES = [(4, 5), (1, 1), (7, 2)]
IMAGES = [
    np.random.default_rng(i).integers(0, 256, (*shape, 3), dtype=np.uint8)
    for i, shape in enumerate(SHAPES)
]


def build(folder: Path, *, calls: list[int] | None = None, progress=None) -> ImageStore:
    def decode(index: int) -> np.ndarray:
        if calls is not None:
            calls.append(index)
        return IMAGES[index]

    return open_or_build(folder, "key", len(IMAGES), decode, progress, "decode")


def entry(folder: Path) -> Path:
    return folder / "key.pixels"


class TestEntry:
    def test_gives_back_what_was_put_in(self, tmp_path):
        store = build(tmp_path)
        assert len(store) == 3
        for i, image in enumerate(IMAGES):
            np.testing.assert_array_equal(store.image(i), image)

    def test_is_made_once(self, tmp_path):
        calls: list[int] = []
        build(tmp_path, calls=calls)
        store = build(tmp_path, calls=calls)
        assert sorted(calls) == [0, 1, 2]
        np.testing.assert_array_equal(store.image(2), IMAGES[2])

    def test_is_mapped_and_private(self, tmp_path):
        before = (build(tmp_path), entry(tmp_path).read_bytes())[1]
        store = build(tmp_path)
        base = store.pixels
        while not isinstance(base, np.memmap):
            base = base.base
        store.pixels[:] = 0
        assert entry(tmp_path).read_bytes() == before

    def test_leaves_no_temporary_file(self, tmp_path):
        build(tmp_path)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["key.lock", "key.pixels"]

    def test_failed_build_leaves_nothing(self, tmp_path):
        def decode(index: int) -> np.ndarray:
            raise DataError(f"image {index} is broken")

        with pytest.raises(DataError, match="image 0 is broken"):
            open_or_build(tmp_path, "key", 3, decode, None, "decode")
        assert [path.name for path in tmp_path.iterdir()] == ["key.lock"]

    def test_leftovers_of_a_killed_builder_are_removed(self, tmp_path):
        (tmp_path / "key.pixels.abc.tmp").write_bytes(b"half")
        (tmp_path / "other.pixels.abc.tmp").write_bytes(b"of another entry")
        build(tmp_path)
        assert sorted(p.name for p in tmp_path.glob("*.tmp")) == ["other.pixels.abc.tmp"]

    def test_what_another_machine_writes_is_left_to_it(self, tmp_path, monkeypatch):
        monkeypatch.setattr("platform.node", lambda: "other")
        theirs = f"key.pixels.{_cache._host()}-abc.tmp"
        monkeypatch.undo()
        ours = f"key.pixels.{_cache._host()}-abc.tmp"
        for name in (theirs, ours):
            (tmp_path / name).write_bytes(b"half")
        build(tmp_path)
        assert [path.name for path in tmp_path.glob("*.tmp")] == [theirs]

    def test_of_another_machine_it_is_removed_once_nobody_can_write_it(self, tmp_path):
        (tmp_path / "key.pixels.00000000-abc.tmp").write_bytes(b"half")
        os.utime(tmp_path / "key.pixels.00000000-abc.tmp", (0, 0))
        build(tmp_path)
        assert not list(tmp_path.glob("*.tmp"))


def flip_byte(position: int):
    def damage(data: bytearray) -> bytearray:
        data[position] ^= 1
        return data

    return damage


PIXEL_BYTES = sum(h * w * 3 for h, w in SHAPES)
DAMAGES = {
    "pixel": (flip_byte(0), "checksum of image 0 differs"),
    "last pixel": (flip_byte(PIXEL_BYTES - 1), "checksum of image 2 differs"),
    "table": (flip_byte(PIXEL_BYTES), "footer does not describe it"),
    "footer": (flip_byte(PIXEL_BYTES + 3 * 24 + 12), "footer does not describe it|JSON|Expecting"),
    "magic": (flip_byte(-1), "its end is missing"),
    "footer length": (flip_byte(-9), "its end is missing"),
    "cut by one": (lambda data: data[:-1], "its end is missing"),
    "cut in half": (lambda data: data[: len(data) // 2], "its end is missing"),
    "front cut": (lambda data: data[3:], "its pixels are not complete"),
    "tiny": (lambda data: data[-5:], "it is too short"),
    "empty": (lambda data: bytearray(), "empty file"),
    "zeros": (lambda data: bytearray(len(data)), "its end is missing"),
}


class TestDamage:
    @pytest.mark.parametrize("name", list(DAMAGES))
    def test_is_noticed_said_and_repaired(self, tmp_path, name):
        damage, reason = DAMAGES[name]
        build(tmp_path)
        good = entry(tmp_path).read_bytes()
        entry(tmp_path).write_bytes(damage(bytearray(good)))
        calls: list[int] = []
        with pytest.warns(RuntimeWarning, match=rf"key\.pixels .*is damaged: .*({reason}).*again"):
            store = build(tmp_path, calls=calls)
        assert sorted(calls) == [0, 1, 2]
        np.testing.assert_array_equal(store.image(1), IMAGES[1])
        assert entry(tmp_path).read_bytes() == good

    def test_every_single_byte_counts(self, tmp_path):
        build(tmp_path)
        good = entry(tmp_path).read_bytes()
        for position in range(0, len(good), 5):
            entry(tmp_path).write_bytes(flip_byte(position)(bytearray(good)))
            with pytest.warns(RuntimeWarning, match="is damaged"):
                build(tmp_path)

    def test_entry_under_another_name_is_noticed(self, tmp_path):
        build(tmp_path)
        entry(tmp_path).rename(tmp_path / "other.pixels")
        with pytest.warns(RuntimeWarning, match="footer does not describe it"):
            open_or_build(tmp_path, "other", 3, lambda i: IMAGES[i], None, "decode")

    def test_open_maps_survive_the_repair(self, tmp_path):
        store = build(tmp_path)
        damaged = flip_byte(-1)(bytearray(entry(tmp_path).read_bytes()))
        entry(tmp_path).unlink()
        entry(tmp_path).write_bytes(damaged)
        with pytest.warns(RuntimeWarning, match="is damaged"):
            build(tmp_path)
        np.testing.assert_array_equal(store.image(0), IMAGES[0])

    def test_full_disk_leaves_nothing_behind(self, tmp_path):
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
        try:
            with pytest.raises(DataError, match=r"cannot be used \(File too large\); make room"):
                build(tmp_path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert [path.name for path in tmp_path.iterdir()] == ["key.lock"]
        assert len(build(tmp_path)) == 3

    def test_folder_that_cannot_be_made(self, tmp_path):
        (tmp_path / "file").write_text("x")
        with pytest.raises(DataError, match=r"cache folder .*file.* cannot be used .*TCPA_CACHE"):
            build(tmp_path / "file" / "cache")


def _build_in_process(folder: Path, log: Path, barrier) -> None:
    barrier.wait(60)
    calls: list[int] = []
    store = build(folder, calls=calls)
    assert np.array_equal(store.image(2), IMAGES[2])
    (log / f"{os.getpid()}").write_text(str(len(calls)))


def _build_on_another_machine(folder: Path, locks: str, number: int, barrier) -> None:
    """All of them are in the middle of writing at the same time."""
    platform.node = lambda: f"machine {number}" if locks == "local" else "machine"

    def flock(file: object, operation: int) -> None:
        if locks == "none":
            raise OSError(errno.ENOLCK, "No locks available")

    fcntl.flock = flock

    def decode(index: int) -> np.ndarray:
        if index == 0:
            barrier.wait(60)
        return IMAGES[index]

    store = open_or_build(folder, "key", len(IMAGES), decode, None, "decode")
    for i, image in enumerate(IMAGES):
        np.testing.assert_array_equal(store.image(i), image)


class TestConcurrency:
    @pytest.mark.parametrize("locks", ["local", "none"])
    def test_several_machines_write_one_entry_where_locks_do_not_reach(self, tmp_path, locks):
        """A shared file system may keep locks to each machine, or have none."""
        context = multiprocessing.get_context("spawn")
        barrier = context.Barrier(2)
        processes = [
            context.Process(
                target=_build_on_another_machine, args=(tmp_path, locks, number, barrier)
            )
            for number in range(2)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join(120)
        assert [process.exitcode for process in processes] == [0, 0]
        assert sorted(path.name for path in tmp_path.iterdir()) == ["key.lock", "key.pixels"]

    def test_one_of_several_processes_builds(self, tmp_path):
        (tmp_path / "log").mkdir()
        context = multiprocessing.get_context("spawn")
        barrier = context.Barrier(3)
        processes = [
            context.Process(
                target=_build_in_process, args=(tmp_path / "cache", tmp_path / "log", barrier)
            )
            for _ in range(3)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join(60)
        assert [process.exitcode for process in processes] == [0] * 3
        counts = sorted(int(path.read_text()) for path in (tmp_path / "log").iterdir())
        assert counts == [0, 0, 3]

    def test_who_waits_says_so(self, tmp_path):
        first_is_inside, go_on = threading.Event(), threading.Event()
        stages: list[str] = []

        def slow(index: int) -> np.ndarray:
            first_is_inside.set()
            assert go_on.wait(10)
            return IMAGES[index]

        def report(stage: str, done: int, total: int) -> None:
            stages.append(stage)
            go_on.set()

        builder = threading.Thread(
            target=open_or_build, args=(tmp_path, "key", 3, slow, None, "decode")
        )
        builder.start()
        assert first_is_inside.wait(10)
        store = build(tmp_path, progress=report)
        builder.join()
        assert stages == ["decode (waiting for another process)"]
        assert len(store) == 3


class TestDatasetCache:
    def test_resize_is_part_of_the_name(self, tmp_path):
        cfg = make("vtab1k", tmp_path / "set")
        pixels = tmp_path / "cache" / "pixels"
        for count, (size, interpolation) in enumerate(
            [(8, "bicubic"), (8, "bilinear"), (9, "bicubic")], start=1
        ):
            changed = cfg.model_copy(update={"interpolation": interpolation})
            load_dataset(changed, size, cache_dir=tmp_path / "cache")
            assert len(list(pixels.glob("*.pixels"))) == 3 * count

    def test_same_images_elsewhere_share_the_entry(self, tmp_path):
        for place in ("a", "b"):
            load_dataset(make("vtab1k", tmp_path / place), 8, cache_dir=tmp_path / "cache")
        assert len(list((tmp_path / "cache/pixels").glob("*.pixels"))) == 3

    def test_changed_image_is_decoded_again(self, tmp_path):
        cfg = make("vtab1k", tmp_path / "set")
        before = load_dataset(cfg, 8, cache_dir=tmp_path / "cache").splits["test"]
        picture(tmp_path / "set/images/test/000001.png", seed=77)
        after = load_dataset(cfg, 8, cache_dir=tmp_path / "cache").splits["test"]
        same = [np.array_equal(before.images.image(i), after.images.image(i)) for i in range(3)]
        assert same == [True, False, True]

    def test_file_that_changes_between_hash_and_decode(self, tmp_path):
        cfg = make("vtab1k", tmp_path / "set")

        def meddle(stage: str, done: int, total: int) -> None:
            if stage == "hash images" and done == total:
                picture(tmp_path / "set/images/train800/000002.png", seed=77)

        with pytest.raises(DataError, match=r"000002\.png \(train800\.txt:3\): file changed while"):
            load_dataset(cfg, 8, cache_dir=tmp_path / "cache", progress=meddle)

    def test_root_of_the_cache(self, tmp_path, monkeypatch):
        monkeypatch.setenv("TCPA_CACHE", str(tmp_path / "env"))
        assert cache_root() == tmp_path / "env"
        assert cache_root(tmp_path) == tmp_path
        monkeypatch.delenv("TCPA_CACHE")
        assert cache_root() == Path.home() / ".cache" / "tcpa"

    @pytest.mark.parametrize("name", ["a" * 5000, "a/" * 3000, "/dev/null/cache", "/proc/1/x/y"])
    def test_a_folder_that_cannot_be(self, tmp_path, name):
        cfg = make("vtab1k", tmp_path / "set")
        with pytest.raises(DataError, match=r"cache folder .* cannot be used .*TCPA_CACHE"):
            load_dataset(cfg, 8, cache_dir=Path(name))


class TestHashMemory:
    @pytest.fixture
    def cfg(self, tmp_path, monkeypatch):
        monkeypatch.setattr(_hashes, "RACY_NS", -1)
        return make("vtab1k", tmp_path / "set")

    def hashed(self, cfg, tmp_path) -> tuple[str, int]:
        """Fingerprint, and how many files were read for it."""
        reports: list[int] = []
        fingerprint = dataset_fingerprint(
            cfg, cache_dir=tmp_path / "cache", progress=lambda stage, done, total: reports.append(1)
        )
        return fingerprint, len(reports)

    def test_repeat_reads_no_image(self, cfg, tmp_path):
        first, count = self.hashed(cfg, tmp_path)
        assert count == 12
        assert self.hashed(cfg, tmp_path) == (first, 0)

    def test_changed_file_is_read_again(self, cfg, tmp_path):
        first, _ = self.hashed(cfg, tmp_path)
        path = tmp_path / "set/images/test/000001.png"
        times = path.stat()
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # same size, same mtime
        second, count = self.hashed(cfg, tmp_path)
        assert count == 1 and second != first

    @pytest.mark.parametrize("damage", [b"", b"x", b"00000000\n{}", None])
    def test_damaged_memory_is_made_again(self, cfg, tmp_path, damage):
        first, _ = self.hashed(cfg, tmp_path)
        (memory,) = (tmp_path / "cache/hashes").glob("*.json")
        good = memory.read_bytes()
        memory.write_bytes(good.replace(b"a", b"b") if damage is None else damage)
        assert self.hashed(cfg, tmp_path) == (first, 12)
        assert self.hashed(cfg, tmp_path) == (first, 0)

    def test_fresh_files_are_not_remembered(self, cfg, tmp_path, monkeypatch):
        monkeypatch.setattr(_hashes, "RACY_NS", 3600 * 10**9)
        first, _ = self.hashed(cfg, tmp_path)
        assert self.hashed(cfg, tmp_path) == (first, 12)


class TestOrderedMap:
    def test_keeps_order(self):
        assert list(ordered_map(lambda x: x * x, range(1000))) == [x * x for x in range(1000)]

    def test_passes_errors_on(self):
        with pytest.raises(ZeroDivisionError, match="division"):
            list(ordered_map(lambda x: 1 / (x - 5), range(10)))

    def test_runs_only_a_little_ahead(self):
        started: list[int] = []
        results = ordered_map(started.append, range(100_000))
        next(results)
        assert len(started) < 10_000
        results.close()


class TestChecked:
    """What was found whole is not read again before the machine starts anew or it is touched."""

    @pytest.fixture(autouse=True)
    def temporary(self, tmp_path, monkeypatch) -> Path:
        (tmp_path / "tmp").mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
        return tmp_path / "tmp"

    @pytest.fixture
    def folder(self, tmp_path) -> Path:
        return tmp_path / "pixels"

    @pytest.fixture
    def read(self, monkeypatch) -> list[int]:
        """Sizes of the images whose bytes were read."""
        sizes: list[int] = []
        crc = _cache._crc
        monkeypatch.setattr(_cache, "_crc", lambda pixels: sizes.append(pixels.size) or crc(pixels))
        return sizes

    def test_once_made_no_pixel_is_read(self, folder, read):
        build(folder)
        read.clear()
        store = build(folder)
        assert read == []
        np.testing.assert_array_equal(store.image(2), IMAGES[2])

    def test_in_another_process_neither(self, folder, temporary):
        build(folder)
        context = multiprocessing.get_context("spawn")
        process = context.Process(target=_open_without_reading, args=(folder, str(temporary)))
        process.start()
        process.join(60)
        assert process.exitcode == 0

    def test_after_a_start_of_the_machine_all_are(self, folder, read, monkeypatch):
        build(folder)
        monkeypatch.setattr(_marks, "_boot", lambda: "another")
        for expected in (PIXEL_BYTES, 0):
            read.clear()
            monkeypatch.setattr(_marks, "RACY_NS", -1)
            build(folder)
            assert sum(read) == expected

    def test_a_machine_that_does_not_say_when_it_started(self, folder, read, monkeypatch):
        def unknown() -> str:
            raise FileNotFoundError("boot_id")

        monkeypatch.setattr(_marks, "_boot", unknown)
        build(folder)
        read.clear()
        build(folder)
        assert sum(read) == PIXEL_BYTES

    @pytest.mark.parametrize("position", [0, PIXEL_BYTES - 1])
    def test_damage_is_found_although_size_and_time_are_those_of_before(self, folder, position):
        build(folder)
        build(folder)
        times = entry(folder).stat()
        with entry(folder).open("r+b") as file:
            file.seek(position)
            byte = file.read(1)
            file.seek(position)
            file.write(bytes([byte[0] ^ 1]))
        os.utime(entry(folder), ns=(times.st_atime_ns, times.st_mtime_ns))
        with pytest.warns(RuntimeWarning, match="the checksum of image"):
            build(folder)

    @pytest.mark.parametrize("position", range(PIXEL_BYTES, PIXEL_BYTES + 3 * 48, 8))
    def test_the_table_is_checked_each_time(self, folder, position, monkeypatch):
        build(folder)
        good = entry(folder).read_bytes()
        entry(folder).write_bytes(flip_byte(position)(bytearray(good)))
        monkeypatch.setattr(_cache, "is_marked", lambda path, found: True)
        with pytest.warns(RuntimeWarning, match="footer does not describe it"):
            build(folder)

    def test_one_that_changed_just_now_is_not_marked(self, folder, read, monkeypatch):
        build(folder)
        monkeypatch.setattr(_marks, "RACY_NS", 3600 * 10**9)
        entry(folder).write_bytes(entry(folder).read_bytes())
        for _ in range(2):
            read.clear()
            build(folder)
            assert sum(read) == PIXEL_BYTES

    def test_who_keeps_nothing_marks_nothing(self, folder, read, temporary, monkeypatch):
        build(folder)
        (marks,) = temporary.iterdir()
        for mark in marks.iterdir():
            mark.unlink()
        monkeypatch.setattr(_marks, "RACY_NS", -1)
        for _ in range(2):
            read.clear()
            store = open_or_build(folder, "key", 3, lambda i: IMAGES[i], None, "decode", keep=False)
            assert sum(read) == PIXEL_BYTES and store.is_kept
        assert list(marks.iterdir()) == []

    @pytest.mark.parametrize("how", ["open to all", "of another user", "a link", "a file"])
    def test_no_word_of_others_is_taken(self, folder, read, temporary, how):
        build(folder)
        marks = temporary / f"tcpa-{os.geteuid()}"
        assert marks.stat().st_mode & 0o777 == 0o700
        if how == "open to all":
            marks.chmod(0o777)
        elif how == "of another user":
            if os.geteuid():
                pytest.skip("only root gives folders away")
            os.chown(marks, 12345, -1)
        elif how == "a link":
            marks.rename(temporary / "elsewhere")
            marks.symlink_to(temporary / "elsewhere")
        else:
            marks.rename(temporary / "elsewhere")
            marks.write_text("")
        read.clear()
        build(folder)
        assert sum(read) == PIXEL_BYTES

    def test_marks_of_entries_that_are_gone_do_not_pile_up(self, tmp_path, temporary, monkeypatch):
        monkeypatch.setattr(_marks, "MOST", 3)
        for n in range(5):
            build(tmp_path / str(n))
        (marks,) = temporary.iterdir()
        assert len(list(marks.iterdir())) == 3

    def test_large_entries_are_checked_to_the_last_image(self, folder, monkeypatch):
        monkeypatch.setattr(_cache, "_PART", 100)
        random = np.random.default_rng(0)
        sides = [*random.integers(1, 9, 40), 20, 1, 20]  # also of more than one part
        images = [random.integers(0, 256, (n, n, 3), dtype=np.uint8) for n in sides]

        def opened() -> ImageStore:
            return open_or_build(folder, "key", len(images), lambda i: images[i], None, "decode")

        opened()
        good = entry(folder).read_bytes()
        starts = np.cumsum([0, *(image.size for image in images[:-1])])
        for index, start in enumerate(starts):
            entry(folder).write_bytes(flip_byte(int(start))(bytearray(good)))
            with pytest.warns(RuntimeWarning, match=f"checksum of image {index} differs"):
                opened()


def _open_without_reading(folder: Path, temporary: str) -> None:
    tempfile.tempdir = temporary

    def fail(pixels: np.ndarray) -> int:
        raise AssertionError("a pixel was read")

    _cache._crc = fail  # type: ignore[assignment]
    assert np.array_equal(build(folder).image(2), IMAGES[2])
