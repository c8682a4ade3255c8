"""Glyphs-100: six alphabets in twelve typefaces, rendered from a seed. Nothing to download.

The story: an OCR service learns Latin letters and digits first, then a new alphabet in every
phase. The faces are the DejaVu fonts that matplotlib installs.
"""

import contextlib
import hashlib
import json
from pathlib import Path

import numpy as np
import PIL
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lucir_edu.datasets.images import Dataset, TensorSplit
from lucir_edu.files import whole

ALPHABETS = {
    "Latin and digits": "ABCDEFGHIJKLMNOPQRSTUVWXYZabdefghijnqrty0123456789",
    "Greek capitals": "ΓΔΘΛΞΠΣΦΨΩ",
    "Cyrillic": "БДЖШИЛУЦЮЯ",
    "Armenian": "ԱԳԴԵԹԽԿՁՃՓ",
    "Georgian": "აგდვთიკლმნ",
    "Greek small": "αβδεζηθλμξ",
}
CLASSES = tuple("".join(ALPHABETS.values()))
FACES = tuple(
    f"DejaVu{family}{style}"
    for family, styles in {
        "Sans": ("", "-Bold", "-Oblique", "-BoldOblique"),
        "SansMono": ("", "-Bold", "-Oblique", "-BoldOblique"),
        "Serif": ("", "-Bold", "-Italic", "-BoldItalic"),
    }.items()
    for style in styles
)
TRAIN_PER_CLASS, TEST_PER_CLASS = 100, 50
SIZE = 24  # pixels of an image's side
CANVAS = 64  # pixels of the side of the drawing it is made from
FONT_SIZE = 40
SEED = 2019
VERSION = 1  # to be raised whenever a change here changes the images


def load(root: Path) -> Dataset:
    """Glyphs-100, from the cache under ``root`` or rendered and cached there.

    The same library versions give the same bytes; another FreeType or processor gives
    nearly the same ones; the fingerprint shows the difference.
    """
    key = hashlib.sha256(
        json.dumps([VERSION, SEED, PIL.__version__, torch.__version__.split("+")[0]]).encode()
    ).hexdigest()[:12]
    cache = root / "glyphs" / f"glyphs-{key}.safetensors"
    tensors = _read(cache)
    if tensors is None:
        tensors = render()
        _write(cache, tensors)
    pixels = tensors["train_images"].float() / 255
    return Dataset(
        name="glyphs",
        classes=CLASSES,
        train=TensorSplit(tensors["train_images"], tensors["train_labels"]),
        test=TensorSplit(tensors["test_images"], tensors["test_labels"]),
        mean=(pixels.mean().item(),),
        std=(pixels.std().item(),),
        fingerprint=_digest(tensors),
    )


def drawings() -> Tensor:
    """Every class in every face, undistorted: (classes, faces, CANVAS, CANVAS), ink is 1."""
    import matplotlib

    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    sheet = np.zeros((len(CLASSES), len(FACES), CANVAS, CANVAS), dtype=np.float32)
    for column, face in enumerate(FACES):
        font = ImageFont.truetype(str(fonts / f"{face}.ttf"), FONT_SIZE)
        for row, character in enumerate(CLASSES):
            left, top, right, bottom = font.getbbox(character)
            image = Image.new("L", (CANVAS, CANVAS))
            corner = ((CANVAS - left - right) / 2, (CANVAS - top - bottom) / 2)
            ImageDraw.Draw(image).text(corner, character, font=font, fill=255)
            sheet[row, column] = np.asarray(image, dtype=np.float32) / 255
    return torch.from_numpy(sheet)


def render(seed: int = SEED) -> dict[str, Tensor]:
    """The images and labels of both splits, from a seed."""
    sheet = drawings()
    tensors = {}
    for split, per_class in (("train", TRAIN_PER_CLASS), ("test", TEST_PER_CLASS)):
        generator = torch.Generator().manual_seed(seed + (split == "test"))
        labels = torch.arange(len(CLASSES)).repeat_interleave(per_class)
        tensors[f"{split}_images"] = distort(sheet, labels, generator)
        tensors[f"{split}_labels"] = labels
    return tensors


def distort(sheet: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
    """A camera's view of each label's glyph in a random face.

    Args:
        sheet: as returned by :func:`drawings`.
        labels: (n,) rows of the sheet.

    Returns:
        (n, 1, SIZE, SIZE) of uint8.
    """
    n = len(labels)

    def normal(sd: float, *shape: int) -> Tensor:
        return sd * torch.randn(n, *shape, generator=generator)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(n, *shape, generator=generator)

    faces = torch.randint(len(FACES), (n,), generator=generator)
    angle, shear = normal(np.deg2rad(15)), normal(0.1)
    scale, shift = uniform(0.85, 1.15), uniform(-6 / 32, 6 / 32, 2)  # half a canvas is 1
    cos, sin = angle.cos() / scale, angle.sin() / scale
    rows = [
        torch.stack([cos, shear * cos - sin, shift[:, 0]], dim=1),
        torch.stack([sin, shear * sin + cos, shift[:, 1]], dim=1),
    ]
    grid = F.affine_grid(torch.stack(rows, dim=1), [n, 1, 2 * SIZE, 2 * SIZE], align_corners=False)
    ink = F.grid_sample(sheet[labels, faces][:, None], grid, align_corners=False)
    ink = F.avg_pool2d(ink, 2)  # (n, 1, SIZE, SIZE)

    contrast = uniform(0.3, 0.8, 1, 1, 1)
    polarity = torch.where(uniform(0, 1, 1, 1, 1) < 0.5, -1.0, 1.0)
    ramp = torch.linspace(-1, 1, SIZE)
    slope = uniform(-0.2, 0.2, 2)
    light = slope[:, 0, None, None, None] * ramp[:, None] + slope[:, 1, None, None, None] * ramp
    grey = 0.5 + polarity * contrast * (ink - 0.5) + light + normal(0.12, 1, SIZE, SIZE)
    return (grey.clamp(0, 1) * 255).round().to(torch.uint8)


def _digest(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(tensors[name].contiguous().numpy())
    return digest.hexdigest()[:16]


def _read(cache: Path) -> dict[str, Tensor] | None:
    """What the cache holds, or None when it is missing or damaged."""
    try:
        with safe_open(cache, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            stored = (file.metadata() or {}).get("digest")
    except (OSError, SafetensorError):
        return None
    return tensors if stored == _digest(tensors) else None


def _write(cache: Path, tensors: dict[str, Tensor]) -> None:
    """A folder that cannot be written to, or is full, only means that images are rendered again."""
    with contextlib.suppress(OSError, SafetensorError), whole(cache) as temporary:
        save_file(tensors, temporary, metadata={"digest": _digest(tensors)})
