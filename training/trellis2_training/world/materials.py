"""Random metallic-roughness materials by name of the stuff."""

from __future__ import annotations

import colorsys

import numpy as np

from .builder import Material
from .table import Pattern

Colour = tuple[float, float, float]
Rng = np.random.Generator


def uniform(rng: Rng, low: float, high: float) -> float:
    """One number in [low, high)."""
    return float(rng.uniform(low, high))


def chance(rng: Rng, probability: float) -> bool:
    """True with this probability."""
    return bool(rng.random() < probability)


def hsv(h: float, s: float, v: float) -> Colour:
    """Colour from hue (wrapped), saturation and value, all in 0..1."""
    r, g, b = colorsys.hsv_to_rgb(h % 1.0, min(max(s, 0.0), 1.0), min(max(v, 0.0), 1.0))
    return (r, g, b)


def paint(rng: Rng) -> Material:
    """Any colour: saturated, pastel, grey, black or white; from matt to glossy."""
    mood = rng.random()
    if mood < 0.55:
        colour = hsv(rng.random(), uniform(rng, 0.55, 1.0), uniform(rng, 0.45, 1.0))
    elif mood < 0.8:
        colour = hsv(rng.random(), uniform(rng, 0.15, 0.5), uniform(rng, 0.6, 1.0))
    else:
        colour = hsv(rng.random(), uniform(rng, 0.0, 0.1), uniform(rng, 0.05, 1.0))
    return Material(colour, 0.0, uniform(rng, 0.15, 0.9))


def metal(rng: Rng) -> Material:
    """Steel, gold, copper, bronze or coloured metal."""
    tones = [
        (0.6, 0.03, 0.8),
        (0.12, 0.6, 0.9),
        (0.06, 0.55, 0.85),
        (0.09, 0.5, 0.6),
        (rng.random(), 0.5, 0.8),
    ]
    h, s, v = tones[int(rng.integers(len(tones)))]
    colour = hsv(h + uniform(rng, -0.02, 0.02), s * uniform(rng, 0.8, 1.2), v * uniform(rng, 0.75, 1.1))
    return Material(colour, uniform(rng, 0.85, 1.0), uniform(rng, 0.12, 0.5))


def wood(rng: Rng) -> Material:
    """Light to dark brown, often with a soft grain."""
    h, s, v = uniform(rng, 0.05, 0.1), uniform(rng, 0.4, 0.75), uniform(rng, 0.25, 0.8)
    plain = Material(hsv(h, s, v), 0.0, uniform(rng, 0.45, 0.85))
    if chance(rng, 0.5):
        dark = Material(hsv(h, s, v * uniform(rng, 0.65, 0.9)), 0.0, plain.roughness)
        return plain.with_pattern(dark, Pattern.WAVES, uniform(rng, 1.5, 4.0), rng.random())
    return plain


def stone(rng: Rng) -> Material:
    """Grey, sand or brick."""
    h, s, v = uniform(rng, 0.02, 0.14), uniform(rng, 0.02, 0.45), uniform(rng, 0.35, 0.9)
    return Material(hsv(h, s, v), 0.0, uniform(rng, 0.7, 1.0))


def leaf(rng: Rng) -> Material:
    """Green, sometimes autumn colours, pale at one end now and then."""
    hue = uniform(rng, 0.22, 0.4) if chance(rng, 0.75) else uniform(rng, 0.0, 0.16)
    colour = hsv(hue, uniform(rng, 0.5, 0.95), uniform(rng, 0.3, 0.8))
    plain = Material(colour, 0.0, uniform(rng, 0.6, 0.95))
    if chance(rng, 0.3):
        other = Material(hsv(hue + 0.05, 0.6, uniform(rng, 0.4, 0.9)), 0.0, 0.8)
        return plain.with_pattern(other, Pattern.WAVES, uniform(rng, 1.0, 3.0), rng.random())
    return plain


def skin(rng: Rng) -> Material:
    """Skin from light to dark, or a toy's flat yellow."""
    colour = hsv(uniform(rng, 0.04, 0.13), uniform(rng, 0.3, 0.65), uniform(rng, 0.4, 1.0))
    return Material(colour, 0.0, uniform(rng, 0.4, 0.7))


def dark(rng: Rng) -> Material:
    """Rubber, eyes, buttons."""
    return Material(
        hsv(rng.random(), uniform(rng, 0, 0.3), uniform(rng, 0.03, 0.2)), 0.0, uniform(rng, 0.3, 0.9)
    )


def white(rng: Rng) -> Material:
    """Snow, porcelain, plaster."""
    return Material(
        hsv(rng.random(), uniform(rng, 0, 0.06), uniform(rng, 0.88, 1.0)), 0.0, uniform(rng, 0.1, 0.9)
    )


def glass(rng: Rng) -> Material:
    """Opaque, glossy and bluish or dark: windows and screens."""
    colour = hsv(uniform(rng, 0.5, 0.65), uniform(rng, 0.2, 0.7), uniform(rng, 0.15, 0.8))
    return Material(colour, 0.0, uniform(rng, 0.05, 0.2))


def anything(rng: Rng) -> Material:
    """Paint mostly; metal, wood or stone otherwise."""
    return [paint, paint, paint, metal, wood, stone][int(rng.integers(6))](rng)


def decorated(rng: Rng, material: Material, probability: float = 0.4) -> Material:
    """The material, sometimes patterned with a second paint (rings, checks, sectors or a blend)."""
    if not chance(rng, probability):
        return material
    pattern = [Pattern.RINGS, Pattern.CHECKER, Pattern.SECTORS, Pattern.BLEND][int(rng.integers(4))]
    if pattern is Pattern.SECTORS:
        frequency = float(rng.integers(2, 7))
    elif pattern is Pattern.BLEND:
        frequency = uniform(rng, 0.6, 1.2)
    else:
        frequency = uniform(rng, 1.0, 3.0)
    return material.with_pattern(paint(rng), pattern, frequency, rng.random())
