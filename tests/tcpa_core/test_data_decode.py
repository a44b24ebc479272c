"""Image files become the RGB pixels that torchvision's loader gives, or are refused."""

import io

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import v2

from tcpa_core.data._decode import ResizeRule, decode
from tcpa_core.errors import DataError
from tcpa_core.settings import DataConfig

RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)
COLOUR = np.stack([RAMP, RAMP[::-1], RAMP.T], axis=2)


def encoded(image: Image.Image, file_format: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "LA", "RGBA", "P"])
def test_png_modes_as_the_default_loader(mode):
    image = Image.fromarray(COLOUR)
    image = image.convert("L").convert("LA") if mode == "LA" else image.convert(mode)
    if mode == "RGBA":
        image.putalpha(Image.fromarray(RAMP))
    result = decode(encoded(image, "PNG"), "x")
    assert result.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(result), np.asarray(image.convert("RGB")))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("transparency", [3, bytes(range(10))])
def test_transparent_palette_drops_alpha_without_a_warning(transparency):
    image = Image.fromarray(COLOUR).convert("P")
    result = decode(encoded(image, "PNG", transparency=transparency), "x")
    np.testing.assert_array_equal(np.asarray(result), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("file_format", ["JPEG", "TIFF"])
def test_cmyk(file_format):
    image = Image.fromarray(COLOUR).convert("CMYK")
    result = np.asarray(decode(encoded(image, file_format), "x")).astype(int)
    assert np.abs(result - COLOUR).max() <= 4  # there and back, and JPEG


@pytest.mark.parametrize(
    "data",
    [
        encoded(Image.fromarray(RAMP.astype(np.uint16) * 257), "PNG"),
        encoded(Image.fromarray(RAMP.astype(np.uint16) * 257), "TIFF"),
        b"P5 16 16 65535\n" + (RAMP.astype(np.uint16) * 257).astype(">u2").tobytes(),
        b"P6 16 16 65535\n"
        + (np.repeat(RAMP[..., None], 3, 2).astype(np.uint16) * 257).astype(">u2").tobytes(),
    ],
    ids=["png", "tiff", "pgm", "ppm"],
)
def test_sixteen_bits_are_scaled_not_clipped(data):
    result = np.asarray(decode(data, "x"))
    np.testing.assert_array_equal(result, np.repeat(RAMP[..., None], 3, 2))


@pytest.mark.parametrize("file_format", ["BMP", "PPM", "TIFF", "GIF", "WEBP", "MPO"])
def test_other_formats(file_format):
    image = Image.fromarray(COLOUR)
    options = {"lossless": True} if file_format == "WEBP" else {}
    data = encoded(image, file_format, **options)
    with Image.open(io.BytesIO(data)) as again:
        expected = np.asarray(again.convert("RGB"))
    np.testing.assert_array_equal(np.asarray(decode(data, "x")), expected)


def test_exif_rotation_is_left_alone():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(Image.new("RGB", (8, 4)), "JPEG", exif=exif)
    assert decode(data, "x").size == (8, 4)


@pytest.mark.parametrize("mode", ["F", "I", "LAB"])
def test_modes_without_a_range_are_refused(mode):
    with pytest.raises(DataError, match=rf"^here: pixels of mode '{mode}'"):
        decode(encoded(Image.new(mode, (4, 4)), "TIFF"), "here")


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, on cut TIFF headers
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP"])
def test_lost_pixels_are_noticed(file_format):
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), file_format)
    assert decode(data, "x").size == (16, 16)
    for length in range(0, len(data) * 9 // 10, 7):
        with pytest.raises(DataError, match=r"^here: "):
            decode(data[:length], "here")


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [(30, 20), (20, 30), (16, 16), (37, 16), (5, 7), (100, 33)])
class TestResize:
    def test_short_side_as_torchvision(self, size, interpolation):
        noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        image = Image.fromarray(noise)
        rule = ResizeRule("short_side", 16, interpolation)
        mode = v2.InterpolationMode(interpolation)
        expected = np.asarray(v2.Resize(16, interpolation=mode)(image))
        np.testing.assert_array_equal(rule.apply(image, "x"), expected)

    def test_squash_as_torchvision(self, size, interpolation):
        noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        image = Image.fromarray(noise)
        rule = ResizeRule("squash", 16, interpolation)
        mode = v2.InterpolationMode(interpolation)
        expected = np.asarray(v2.Resize((16, 16), interpolation=mode)(image))
        np.testing.assert_array_equal(rule.apply(image, "x"), expected)


@pytest.mark.parametrize(("img_size", "side"), [(224, 256), (384, 438), (448, 512), (32, 36)])
def test_short_side_is_that_of_the_authors_programs(img_size, side):
    assert ResizeRule.of(DataConfig(resize="short_side"), img_size).side == side


@pytest.mark.parametrize("size", [(30, 20), (20, 30), (5, 7), (100, 33), (16, 9)])
def test_without_antialiasing_only_the_nearest_pixels_count(size):
    """Half-pixel centres, clamped at the edges, as TensorFlow's resize takes them."""
    noise = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    rule = ResizeRule.of(DataConfig(interpolation="bilinear", antialias=False), 16)
    ours = rule.apply(Image.fromarray(noise), "x").astype(float)
    for y, x in [(0, 0), (3, 11), (8, 8), (15, 15), (0, 15)]:
        at_y, at_x = ((i + 0.5) * n / 16 - 0.5 for i, n in ((y, size[1]), (x, size[0])))
        expected = np.zeros(3)
        for i in (int(np.floor(at_y)), int(np.floor(at_y)) + 1):
            for j in (int(np.floor(at_x)), int(np.floor(at_x)) + 1):
                share = (1 - abs(at_y - i)) * (1 - abs(at_x - j))
                inside = np.clip(i, 0, size[1] - 1), np.clip(j, 0, size[0] - 1)
                expected += share * noise[inside]
        assert np.abs(ours[y, x] - expected).max() <= 0.501


def test_pixels_of_other_rules_are_kept_apart():
    rules = {
        str(ResizeRule.of(DataConfig(interpolation="bilinear", antialias=how), 16))
        for how in (True, False)
    }
    assert rules == {"squash 16 bilinear", "squash 16 bilinear aliased"}, "the first as ever"
