"""Picture formats: what is read, what else a file may be, and 16-bit grey by the range in use."""

import io
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from tcpa_core.data._decode import MAX_PIXELS, Traits, decode, traits
from tcpa_core.data._formats import FORMATS, SUFFIXES, unread, unread_suffix
from tcpa_core.data.base import dataset_fingerprint, dataset_summary, load_dataset
from tcpa_core.errors import DataError
from tcpa_core.settings import DataConfig
from tests.tcpa_core.data_layouts import make

RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)
COLOUR = Image.fromarray(np.stack([RAMP, RAMP[::-1], RAMP.T], axis=2))
FRAMES = [COLOUR.rotate(90 * i) for i in range(1, 4)]

needs_avif = pytest.mark.skipif("AVIF" not in FORMATS, reason="Pillow reads AVIF from 11.3 on")
needs_jpeg_2000 = pytest.mark.skipif(
    "JPEG2000" not in FORMATS, reason="this Pillow is built without JPEG 2000"
)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def frames(kind: str, **options: object) -> bytes:
    return encoded(COLOUR, kind, save_all=True, append_images=FRAMES, **options)


@pytest.mark.parametrize(
    ("suffix", "data"),
    [
        (".jfif", encoded(COLOUR, "JPEG")),
        (".jpe", encoded(COLOUR, "JPEG", progressive=True)),
        (".TIF", encoded(COLOUR, "TIFF", compression="tiff_lzw")),
        (".tiff", encoded(COLOUR, "TIFF", big_tiff=True)),
        (".tif", frames("TIFF")),
        (".gif", frames("GIF")),
        (".webp", frames("WEBP", lossless=True)),
        (".png", frames("PNG")),
        (".mpo", frames("MPO")),
        pytest.param(".avif", lambda: encoded(COLOUR, "AVIF"), marks=needs_avif),
        pytest.param(".avif", lambda: frames("AVIF"), marks=needs_avif),
        pytest.param(".jp2", lambda: encoded(COLOUR, "JPEG2000"), marks=needs_jpeg_2000),
        pytest.param(
            ".j2k", lambda: encoded(COLOUR, "JPEG2000", no_jp2=True), marks=needs_jpeg_2000
        ),
    ],
)
def test_read_as_the_default_loader_reads_it(
    suffix: str, data: bytes | Callable[[], bytes], tmp_path: Path
) -> None:
    """Of several pictures the first, whatever the file is called."""
    data = data if isinstance(data, bytes) else data()
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(np.asarray(decode(data, "x")), expected)
    cfg = make("folder", tmp_path)
    (tmp_path / f"train/class 0/new{suffix}").write_bytes(data)
    assert len(load_dataset(cfg, 8).splits["train"]) == 7
    assert suffix.lower() in SUFFIXES


NOT_READ = {
    "an empty file; download": b"",
    "a git-lfs pointer; run `git lfs pull`": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
    ),
    "an HTML page (a failed download); download": b"\n<!DOCTYPE html>\n<html><body>Sign in",
    "an XML text (a failed": b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>',
    "a zip archive; unpack": b"PK\x03\x04" + bytes(40),
    "a packed archive; unpack": b"\x1f\x8b\x08" + bytes(40),
    "HEIC; convert": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40),
    "SVG; render": b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>',
    "DICOM; export": bytes(128) + b"DICM" + bytes(40),
    "NIfTI; export": struct.pack("<i", 348) + bytes(340) + b"n+1\0" + bytes(40),
    "a camera's RAW picture; develop": b"II*\0\x10\0\0\0CR\2\0" + bytes(40),
    "a PDF document; render": encoded(COLOUR, "PDF"),
    "EPS or PostScript; render": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) run\n",
    "a video; extract": b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + bytes(40),
    "a NumPy array; save": b"\x93NUMPY\x01\0" + bytes(100),
    "Parquet; set data.name=parquet": b"PAR1" + bytes(40),
    "zero bytes only (a copy that broke off); download": bytes(500),
    "not an image": bytes(range(1, 255)),
}


@pytest.mark.parametrize("what", NOT_READ)
def test_what_is_not_read_is_named(what: str) -> None:
    with pytest.raises(DataError, match=r"^here: ") as err:
        decode(NOT_READ[what], "here")
    assert f" bytes that are {what}" in str(err.value)


@pytest.mark.parametrize("kind", FORMATS)
def test_no_format_that_is_read_is_taken_for_another(kind: str) -> None:
    assert "that are not an image" in unread(encoded(COLOUR, kind))


def test_suffixes_that_are_not_read_have_advice() -> None:
    for name in ("a.heic", "a.svg", "a.dcm", "a.nii.gz", "a.NEF", "a.pdf", "a.mp4", "a.eps"):
        assert "not read: " in unread_suffix(name)
    assert not [suffix for suffix in SUFFIXES if unread_suffix(f"a{suffix}")]
    assert unread_suffix("notes.xyz") == ""


def test_a_small_copy_in_a_raw_file_is_not_taken_for_the_picture() -> None:
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    tags = ImageFileDirectory_v2()
    tags[254] = 1
    with pytest.raises(DataError, match="^here: the first picture of this TIFF is a small copy"):
        decode(encoded(COLOUR, "TIFF", tiffinfo=tags), "here")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
class TestHostile:
    @needs_jpeg_2000
    def test_a_header_that_lies_about_a_code_stream(self) -> None:
        data = bytearray(encoded(Image.new("RGB", (3000, 3000)), "JPEG2000"))
        at = data.index(b"ihdr") + 4
        data[at : at + 8] = struct.pack(">II", 16, 16)
        with pytest.raises(DataError, match="^here: image is damaged"):
            decode(bytes(data), "here")

    @pytest.mark.parametrize(
        "kind",
        [pytest.param("AVIF", marks=needs_avif), pytest.param("JPEG2000", marks=needs_jpeg_2000)],
    )
    def test_pixels_are_counted_before_they_are_decoded(
        self, kind: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        data = bytearray(encoded(COLOUR, kind))
        at = data.index({"AVIF": b"ispe", "JPEG2000": b"ihdr"}[kind]) + (8 if kind == "AVIF" else 4)
        side = 9_500 if kind == "AVIF" else 4_800
        data[at : at + 8] = struct.pack(">II", side, side)
        assert side**2 > MAX_PIXELS or kind == "JPEG2000"

        def loads(image: Image.Image) -> None:
            raise AssertionError("pixels were decoded")

        monkeypatch.setattr("PIL.ImageFile.ImageFile.load", loads)
        for plugin in ("AvifImagePlugin.AvifImageFile", "Jpeg2KImagePlugin.Jpeg2KImageFile"):
            monkeypatch.setattr(f"PIL.{plugin}.load", loads, raising=False)
        with pytest.raises(DataError, match="^here: image is larger than [0-9,]+ pixels"):
            decode(bytes(data), "here")

    @pytest.mark.parametrize("kind", [k for k in ("AVIF", "JPEG2000", "GIF") if k in FORMATS])
    def test_cut_and_changed_files_give_pixels_or_an_error(self, kind: str) -> None:
        whole = encoded(COLOUR, kind)
        random = np.random.default_rng(0)
        for _ in range(60):
            data = bytearray(whole)
            data[int(random.integers(len(data)))] ^= 1 << int(random.integers(8))
            for changed in (bytes(data), whole[: int(random.integers(len(whole)))]):
                try:
                    assert decode(changed, "here").mode == "RGB"
                except DataError as err:
                    assert str(err).startswith("here: ")


def deep(values: np.ndarray, kind: str) -> bytes:
    """A 16-bit grey file."""
    return encoded(Image.fromarray(values.astype(np.uint16)), kind)


class TestDepth:
    """16-bit grey is scaled by the bits that the whole data set uses."""

    KINDS = ("PNG", "TIFF", "PPM")

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize(
        ("largest", "bits"),
        [(0, 8), (255, 8), (256, 10), (1023, 10), (1024, 12), (4095, 12), (16383, 14),
         (16384, 16), (65535, 16)],
    )  # fmt: skip
    def test_smallest_that_holds_the_largest_value(
        self, kind: str, largest: int, bits: int
    ) -> None:
        assert traits(deep(np.array([[0, largest]]), kind)) == Traits(bits)

    @pytest.mark.parametrize("kind", ["RGB", "L", "LA", "P", "1"])
    def test_other_pictures_have_none(self, kind: str) -> None:
        assert traits(encoded(COLOUR.convert(kind), "PNG")) == Traits()
        assert traits(encoded(COLOUR.convert(kind), "PNG")[:50]) == Traits()

    @needs_jpeg_2000
    def test_jpeg_2000(self) -> None:
        values = np.arange(256).reshape(16, 16) * 16
        assert traits(deep(values, "JPEG2000")) == Traits(12)

    def write(self, root: Path, bits: int, one: int | None = None) -> DataConfig:
        """Every picture holds 16-bit grey of so many bits; one of them of others."""
        cfg = make("folder", root)
        for i, path in enumerate(sorted(root.rglob("*.PNG"))):
            own = one if one is not None and i == 0 else bits
            values = np.random.default_rng(i).integers(0, 1 << own, (12, 9)) | 1 << (own - 1)
            values[0, 0] = 0
            path.write_bytes(deep(values, "PNG"))
        return cfg

    def values(self, cfg: DataConfig) -> np.ndarray:
        return np.concatenate([s.images.pixels for s in load_dataset(cfg, 12).splits.values()])

    @pytest.mark.parametrize("bits", [8, 10, 12, 14])
    def test_a_narrower_range_is_brought_to_the_whole(self, bits: int, tmp_path: Path) -> None:
        narrow, full = tmp_path / "narrow", tmp_path / "full"
        cfg = self.write(narrow, bits)
        shutil.copytree(narrow, full)
        for path in full.rglob("*.PNG"):
            with Image.open(path) as image:
                values = np.asarray(image).astype(np.uint32) << (16 - bits)
            path.write_bytes(deep(values, "PNG"))
        other = DataConfig(name="folder", root=str(full))
        np.testing.assert_array_equal(self.values(cfg), self.values(other))
        assert load_dataset(cfg, 12).summary.notes == ()

    def test_one_deeper_picture_keeps_the_others_dark(self, tmp_path: Path) -> None:
        """So that brightness stays comparable: not each picture by its own range."""
        cfg = self.write(tmp_path, 12, one=16)
        found = load_dataset(cfg, 12)
        highs = np.concatenate([s.images.highs for s in found.splits.values()])
        assert sorted(highs)[-1] > 127 and (np.sort(highs)[:-1] < 17).all()

    def test_fingerprints_change_with_the_pixels_only(self, tmp_path: Path) -> None:
        """As they were before ranges were looked for, where the whole range is used."""
        known = {16: "", 12: ""}
        for bits in known:
            cfg = self.write(tmp_path / str(bits), bits)
            known[bits] = dataset_fingerprint(cfg)
            assert known[bits] == load_dataset(cfg, 8).fingerprint
        assert known[16] == plain_fingerprint(tmp_path / "16")
        assert known[12] != plain_fingerprint(tmp_path / "12")
        eight = make("folder", tmp_path / "8")
        assert dataset_fingerprint(eight) == plain_fingerprint(tmp_path / "8")

    def test_the_range_is_remembered(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        cfg = self.write(tmp_path / "set", 12)
        before, pixels = dataset_fingerprint(cfg), self.values(cfg)

        def opens(*_: object) -> int:
            raise AssertionError("a file was read again")

        # Old enough to be remembered.
        monkeypatch.setattr("tcpa_core.data._hashes.RACY_NS", -(10**18))
        dataset_fingerprint(cfg)
        monkeypatch.setattr("tcpa_core.data._hashes.traits", opens)
        assert dataset_fingerprint(cfg) == before
        np.testing.assert_array_equal(self.values(cfg), pixels)


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


GLASS = COLOUR.copy()
GLASS.putalpha(Image.fromarray(RAMP))


class TestTraits:
    """What the default loader ignores is counted, and told by `tcpa data`, without a warning."""

    @pytest.mark.parametrize(
        "kind", ["JPEG", "PNG", "WEBP", *(["AVIF"] if "AVIF" in FORMATS else [])]
    )
    @pytest.mark.parametrize(("orientation", "expected"), [(6, True), (1, False)])
    def test_orientations(self, kind: str, orientation: int, expected: bool) -> None:
        data = encoded(COLOUR, kind, exif=turned(orientation))
        assert traits(data) == Traits(is_turned=expected)
        assert traits(encoded(COLOUR, kind)) == Traits()

    @pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
    @pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF", "TIFF"])
    def test_transparent_pixels(self, kind: str, mode: str) -> None:
        image = COLOUR.convert("P") if mode == "P" else GLASS.convert(mode)
        options = {"transparency": image.getpixel((0, 0))} if mode == "P" else {}
        if (kind, mode) in {("WEBP", "P"), ("TIFF", "P"), ("GIF", "LA"), ("GIF", "RGBA")}:
            pytest.skip("cannot be written so")
        assert traits(encoded(image, kind, **options)) == Traits(is_transparent=True)

    def test_an_opaque_alpha_channel_is_none(self) -> None:
        opaque = COLOUR.convert("RGBA")
        assert traits(encoded(opaque, "PNG")) == traits(encoded(opaque, "WEBP")) == Traits()

    def test_they_are_counted_and_remembered(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("tcpa_core.data._hashes.RACY_NS", -(10**18))
        cfg = make("folder", tmp_path)
        for i, place in enumerate(("train/class 0", "train/class 1", "test/class 0")):
            GLASS.rotate(90 * i).save(tmp_path / place / "glass.png")
        COLOUR.save(tmp_path / "val/class 1/photo.jpg", exif=turned(8))
        first = load_dataset(cfg, 8).summary
        assert first.notes == () and len(first.remarks) == 2
        assert first.remarks[0].startswith("1 pictures have an EXIF orientation, which is ignored")
        assert first.remarks[1].startswith("3 pictures have transparent pixels; alpha is dropped")
        assert "remarks" not in first.as_dict()

        def asked(_: bytes) -> Traits:
            raise AssertionError("a file was read again")

        monkeypatch.setattr("tcpa_core.data._hashes.traits", asked)
        assert dataset_summary(cfg).remarks == first.remarks

    def test_a_range_in_use_is_told(self, tmp_path: Path) -> None:
        cfg = TestDepth().write(tmp_path, 12)
        assert dataset_summary(cfg).remarks == (
            "16-bit grey is scaled by the 12 bits that the pictures use.",
        )


def plain_fingerprint(root: Path) -> str:
    """What fingerprints have been made of from the first version on."""
    import hashlib
    import json

    classes = sorted(path.name for path in (root / "train").iterdir())
    digest = hashlib.sha256(json.dumps(["tcpa data 1", classes]).encode())
    for split in ("train", "val", "test"):
        rows = []
        for label, name in enumerate(classes):
            for path in sorted((root / split / name).iterdir()):
                content = hashlib.sha256(path.read_bytes()).hexdigest()
                rows.append([path.relative_to(root).as_posix(), label, content])
        digest.update(json.dumps([split, *rows]).encode())
    return digest.hexdigest()


def test_versions_of_decoders_are_part_of_what_pixels_depend_on() -> None:
    from tcpa_core.data._decode import DECODER

    for feature in ("jpg", "webp", *(f for f in ("avif", "jpg_2000") if features.check(f))):
        assert str(features.version(feature)) in DECODER
