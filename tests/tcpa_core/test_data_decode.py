"""Image files become the RGB pixels that torchvision's loader gives, or are refused."""

import io

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import v2

from tcpa_core.config import DataConfig
from tcpa_core.data._decode import ResizeRule, decode
from tcpa_core.errors import DataError

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


@pytest.mark.parametrize(("img_size", "side"), [(224, 256), (384, 439), (448, 512), (32, 37)])
def test_short_side_follows_the_image_size(img_size, side):
    assert ResizeRule.of(DataConfig(resize="short_side"), img_size).side == side
