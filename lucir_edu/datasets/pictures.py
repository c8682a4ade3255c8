"""An image file as RGB pixels, whatever it holds: grey, a palette, CMYK, 16 bits, transparency."""

import contextlib
import warnings
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

SIZE = 224  # pixels of an image's side, after cropping
RESIZED = 256  # of the shorter side, before the middle is cut out

Box = tuple[float, float, float, float]  # left, top, right, bottom, in pixels


def read(path: str | bytes, box: Callable[[Image.Image], Box]) -> Image.Image:
    """A part of an image, SIZE pixels high and wide.

    The picture is turned as its EXIF data say, transparent parts become white, and an animation is
    represented by its first frame.

    Args:
        box: says which part, given an image whose pixels are not read yet.

    Raises:
        Exception: the file cannot be read; Pillow raises many kinds. :func:`why` names the reason.
    """
    # Warnings are mostly about odd metadata
    with warnings.catch_warnings(action="ignore"), Image.open(path) as image:
        width, height = image.size
        left, top, right, bottom = box(image)
        # A JPEG is decoded at a fraction of its size where that leaves enough pixels; twice as
        # many as are needed look the same (Pillow's reducing_gap).
        needed = (2 * SIZE / (right - left), 2 * SIZE / (bottom - top))
        image.draft(None, (max(1, int(width * needed[0])), max(1, int(height * needed[1]))))
        pixels = _plain(image)
        across, down = pixels.width / width, pixels.height / height
        # Only this part is resized: the whole of a very long image would fill the memory.
        pixels = pixels.resize(
            (SIZE, SIZE),
            Image.Resampling.BILINEAR,
            box=(left * across, top * down, right * across, bottom * down),
        )
        with contextlib.suppress(Exception):  # damaged EXIF data say nothing reliable
            pixels = ImageOps.exif_transpose(pixels)
    if pixels.mode == "RGBA":
        white = Image.new("RGBA", pixels.size, "white")
        pixels = Image.alpha_composite(white, pixels).convert("RGB")
    return pixels


def middle(image: Image.Image) -> Box:
    """The part that is left when the shorter side is made RESIZED and the middle is cut out."""
    shorter = min(image.size)
    box = []
    for side in image.size:
        resized = RESIZED * side // shorter
        start = round((resized - SIZE) / 2)
        box.append((start * side / resized, (start + SIZE) * side / resized))
    (left, right), (top, bottom) = box
    return left, top, right, bottom


def why(error: Exception) -> str:
    """In a few words, why a file could not be read."""
    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(reason.split())


def shown(path: str) -> str:
    """A file's name for a message of one line."""
    return path if path.isprintable() else ascii(path)


def _plain(image: Image.Image) -> Image.Image:
    """All pixels, as RGB or RGBA."""
    if image.mode.startswith("I"):  # 16 bits; Pillow would make everything over 255 white
        grey = np.asarray(image) / 257
        image = Image.fromarray(grey.round().clip(0, 255).astype(np.uint8))
    return image.convert("RGBA" if image.has_transparency_data else "RGB")
