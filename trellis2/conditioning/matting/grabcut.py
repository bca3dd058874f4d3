"""Background removal without weights: GrabCut, seeded from what the picture's border looks like.

Meant for product-like pictures on a plain or gradient background. The background is a smooth surface through
the border's colours, fitted so that a subject which touches the border does not bend it; pixels far from that
surface seed the subject. Source: Rother, Kolmogorov and Blake, "GrabCut" (2004); He, Sun and Tang, "Guided
Image Filtering" (2010) for the soft edge.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from .matte import ANOTHER_SUBJECT

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

WORKING_SIDE = 384  # GrabCut's cost grows with pixels; the edge is refined at full size afterwards
BORDER = 0.02  # of the shorter side: the frame that the background is learned from
NOISE_FLOOR = 2.5  # Lab units; flat backgrounds would otherwise make compression artefacts look distant
BUSY = 10.0  # Lab units: a border that varies more than this has no background surface to speak of
NEAR, FAR = 2.5, 6.0  # distances (in spreads of the background) below and above which a pixel is sure
GRABCUT_ROUNDS = 4
SMALL_HOLE = 2e-3  # of the picture: smaller holes in the subject are highlights, not openings
NEARBY = 0.015  # of the longer side: dark creases may cut a subject that far apart
EDGE_RADIUS = 4  # pixels at 1024; half the width of the soft edge


class GrabCutMatting:
    """RGB picture in, the same picture with a matte as RGBA out. Needs OpenCV; runs on the CPU.

    A picture in which nothing stands out from the border gets an empty matte.
    """

    subjects = "largest"
    """What is kept of several subjects unless told otherwise: simple mattes often find clutter, too."""

    def __call__(self, image: Image.Image) -> Image.Image:
        """The picture with its matte."""
        image = image.convert("RGB")
        pixels = np.asarray(image)
        alpha = soften(pixels, self._silhouette(pixels))
        image.putalpha(Image.fromarray(np.rint(alpha * 255).astype(np.uint8)))
        return image

    def certain(self, image: Image.Image) -> bool:
        """Whether the border shows a background to tell the subject from; without one a cut is a guess."""
        return background_distance(working_picture(np.asarray(image.convert("RGB"))))[1] <= BUSY

    def _silhouette(self, pixels: npt.NDArray[np.uint8]) -> Mask:
        """The subject `[H, W]` at full size, found at working size."""
        import cv2

        height, width = pixels.shape[:2]
        mask = subject_mask(working_picture(pixels))
        return cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR) > 0.5

    def to(self, device: object) -> GrabCutMatting:
        """Nothing to move: this remover has no weights."""
        return self

    def cuda(self) -> GrabCutMatting:
        return self

    def cpu(self) -> GrabCutMatting:
        return self


def working_picture(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The picture at working size."""
    import cv2

    height, width = pixels.shape[:2]
    scale = min(1.0, WORKING_SIDE / max(height, width))
    size = (max(2, round(width * scale)), max(2, round(height * scale)))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def subject_mask(pixels: npt.NDArray[np.uint8]) -> Mask:
    """The subjects of a small RGB picture."""
    import cv2

    distance, spread = background_distance(pixels)
    if spread > BUSY:
        labels = grabcut(pixels, centred_seed(*distance.shape))
        return fill_small_holes(main_components((labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)))
    far = distance > FAR
    if not far.any():
        return np.zeros(far.shape, dtype=bool)
    seed = np.full(far.shape, cv2.GC_PR_BGD, dtype=np.uint8)
    seed[distance > (NEAR + FAR) / 2] = cv2.GC_PR_FGD
    seed[connected_to_border(distance < NEAR)] = cv2.GC_BGD
    core = cv2.erode(far.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
    seed[core] = cv2.GC_FGD
    labels = grabcut(pixels, seed) if (seed == cv2.GC_BGD).any() and core.any() else seed
    subject = (labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)
    return fill_small_holes(main_components(subject))


def centred_seed(height: int, width: int) -> npt.NDArray[np.uint8]:
    """For a busy background: the border is not the subject, an ellipse in the middle may be."""
    import cv2

    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    seed = np.full((height, width), cv2.GC_PR_BGD, dtype=np.uint8)
    seed[x * x + y * y < 0.64] = cv2.GC_PR_FGD
    seed[border_frame(height, width)] = cv2.GC_BGD
    return seed


def background_distance(pixels: npt.NDArray[np.uint8]) -> tuple[Floats, float]:
    """How far each pixel's Lab colour is from the background surface, in spreads of the border around it.

    The spread (Lab units) comes second.
    """
    import cv2

    lab = cv2.cvtColor(pixels.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    height, width = lab.shape[:2]
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    basis = np.stack([np.ones_like(x), x, y, x * y, x * x, y * y], axis=-1)  # [H, W, 6]
    frame = border_frame(height, width)
    surface, spread = robust_surface(basis[frame], lab[frame].astype(np.float64))
    residual = lab - basis @ surface
    residual[..., 0] *= 0.6  # shadows change lightness more than colour
    return (np.linalg.norm(residual, axis=-1) / spread).astype(np.float32), spread


def border_frame(height: int, width: int) -> Mask:
    """The pixels within `BORDER` of an edge."""
    rim = max(1, round(min(height, width) * BORDER))
    frame = np.ones((height, width), dtype=bool)
    frame[rim : height - rim, rim : width - rim] = False
    return frame


def robust_surface(
    basis: npt.NDArray[np.float64], values: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], float]:
    """Coefficients `[6, 3]` of a smooth surface through most of the border, and the spread around it.

    Starts from the border's most common colour and, round by round, refits on the pixels that agree, so that
    a subject covering a part of the border is left out.
    """
    centre = dominant_colour(values)
    distance = np.linalg.norm(values - centre, axis=1)
    keep = distance <= np.quantile(distance, 0.6)
    surface = np.zeros((basis.shape[1], 3))
    spread = NOISE_FLOOR
    for terms in (1, 3, 3, 6, 6):  # constant, then planar, then quadratic
        surface[:] = 0
        surface[:terms] = np.linalg.lstsq(basis[keep][:, :terms], values[keep], rcond=None)[0]
        distance = np.linalg.norm(values - basis @ surface, axis=1)
        spread = max(NOISE_FLOOR, 1.5 * float(np.median(distance[keep])))
        keep = distance <= max(3 * spread, float(np.quantile(distance, 0.5)))
    return surface, spread


def dominant_colour(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The mean colour of the fullest 10-unit Lab cell and its neighbours among `[N, 3]`."""
    cells = np.floor(values / 10).astype(np.int64)
    _, inverse, counts = np.unique(cells, axis=0, return_inverse=True, return_counts=True)
    fullest = cells[np.argmax(counts[inverse.reshape(-1)])]
    near = np.abs(cells - fullest).max(axis=1) <= 1
    mean: npt.NDArray[np.float64] = values[near].mean(axis=0)
    return mean


def grabcut(pixels: npt.NDArray[np.uint8], seed: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """OpenCV's GrabCut from a seeded mask; the same result every time."""
    import cv2

    cv2.setRNGSeed(0)
    labels = seed.copy()
    background, foreground = np.zeros((1, 65)), np.zeros((1, 65))
    bgr = np.ascontiguousarray(pixels[:, :, ::-1])
    cv2.grabCut(bgr, labels, (0, 0, 1, 1), background, foreground, GRABCUT_ROUNDS, cv2.GC_INIT_WITH_MASK)
    return labels


def connected_to_border(mask: Mask) -> Mask:
    """The parts of a mask that reach the picture's edge: background, not subject of the same colour."""
    import cv2

    _, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)
    edge = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    connected: Mask = np.isin(labels, edge[edge > 0])
    return connected


def main_components(mask: Mask) -> Mask:
    """The large parts, weighted towards the middle of the picture; parts a hair's breadth apart are one."""
    import cv2

    gap = max(3, round(NEARBY * max(mask.shape)))
    joined = cv2.dilate(mask.astype(np.uint8), cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (gap, gap)))
    count, labels, stats, centroids = cv2.connectedComponentsWithStats(joined, connectivity=8)
    if count <= 1:
        return mask
    middle = np.array([mask.shape[1], mask.shape[0]]) / 2
    offset = np.linalg.norm((centroids[1:] - middle) / middle, axis=1)  # 0 in the middle, 1 at an edge
    weight = stats[1:, cv2.CC_STAT_AREA] * np.exp(-(offset**2))
    main: Mask = mask & np.isin(labels, 1 + np.nonzero(weight >= ANOTHER_SUBJECT * weight.max())[0])
    return main


def fill_small_holes(mask: Mask) -> Mask:
    """Close the holes below `SMALL_HOLE` of the picture."""
    import cv2

    holes = ~mask & ~connected_to_border(~mask)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(holes.astype(np.uint8), connectivity=4)
    small = stats[:, cv2.CC_STAT_AREA] < SMALL_HOLE * mask.size
    small[0] = False  # label 0 is what is no hole
    filled: Mask = mask | small[labels]
    return filled


def soften(pixels: npt.NDArray[np.uint8], mask: Mask) -> Floats:
    """The mask as alpha 0..1 with a soft edge that follows the picture's own (guided filter on lightness)."""
    import cv2

    if not mask.any() or mask.all():
        return mask.astype(np.float32)
    radius = max(1, round(EDGE_RADIUS * max(mask.shape) / 1024))
    side = (2 * radius + 1, 2 * radius + 1)
    guide = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
    target = mask.astype(np.float32)

    def mean(image: npt.NDArray[np.floating]) -> Floats:
        return np.asarray(cv2.blur(image, side), dtype=np.float32)

    mean_guide, mean_target = mean(guide), mean(target)
    variance = mean(guide * guide) - mean_guide**2
    slope = (mean(guide * target) - mean_guide * mean_target) / (variance + 1e-4)
    offset = mean_target - slope * mean_guide
    alpha = mean(slope) * guide + mean(offset)
    alpha = np.clip((alpha - 0.1) / 0.8, 0, 1)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, side)
    inside = cv2.erode(mask.astype(np.uint8), kernel).astype(bool)
    outside = ~cv2.dilate(mask.astype(np.uint8), kernel).astype(bool)
    alpha[inside], alpha[outside] = 1.0, 0.0
    softened: Floats = alpha.astype(np.float32)
    return softened
