"""What a card should reach: `python -m benchmarks.roofline` prints the flows' times from its published peaks.

Arithmetic of the published networks (30 blocks, 1,536 channels, MLP 8,192) at the share of the peak that
products and attention were measured to reach, and what the element-wise kernels read and write at the share
of the memory's rate. A service that is much slower than this has a fault or a throttled card.
"""

from __future__ import annotations

from dataclasses import dataclass

CHANNELS, HIDDEN, BLOCKS = 1536, 8192, 30
IMAGE_TOKENS = {512: 1029, 1024: 4101}


@dataclass(frozen=True)
class Card:
    """Dense bfloat16 peak (FLOP/s), memory (bytes/s), and the shares of them that kernels reach."""

    name: str
    capability: str
    flops: float
    bytes: float
    products: float
    attention: float  # the kernel of `trellis2.backends.ATTENTION_ORDERS` at this length
    streams: float = 0.8
    eight_bits: float = 1.7  # how many times as fast products of 8-bit floats are, quantising included


CARDS = (
    # H200: measured (benchmarks/RESULTS.md). Others: flash 2 at 200 of 312 on an A100 (published by others),
    # products at 75 % of the peak; an A100 has no 8-bit floats.
    Card("H200, up to 8,192 tokens (ours)", "9.0", 989e12, 4.8e12, 0.68, 0.40),
    Card("H200, longer and structure (cuDNN)", "9.0", 989e12, 4.8e12, 0.68, 0.62),
    Card("A100 80 GB SXM (flash)", "8.0", 312e12, 2.0e12, 0.75, 0.64, eight_bits=1.0),
    Card("L40S (flash)", "8.9", 362e12, 0.86e12, 0.70, 0.50),
    Card("RTX 4090 (flash)", "8.9", 165e12, 1.0e12, 0.85, 0.85),
)


def pass_seconds(card: Card, tokens: int, image_tokens: int, fast: bool = False) -> float:
    """Of one forward pass over one item; `image_tokens` 1 for the null condition, a constant result; `fast`:
    products in 8 bits where the card has them.
    """
    c = CHANNELS
    cross = image_tokens > 1
    products = 2.0 * tokens * (4 * c * c + (2 * c * c if cross else 0) + 2 * c * HIDDEN)
    attention = 4.0 * tokens * c * (tokens + (image_tokens if cross else 0))
    moved = 2.0 * tokens * c * (36 if cross else 28)  # reads and writes of the element-wise kernels, in rows
    return BLOCKS * (
        products / (card.flops * card.products * (card.eight_bits if fast else 1.0))
        + attention / (card.flops * card.attention)
        + moved / (card.bytes * card.streams)
    )


@dataclass(frozen=True)
class Run:
    """Passes of a stage: with the picture, and with none (`quality` exact, 12 published steps)."""

    tokens: int
    image_tokens: int
    conditional: int
    null: int
    fast: bool = False

    def seconds(self, card: Card) -> float:
        seen = pass_seconds(card, self.tokens, self.image_tokens, self.fast)
        return self.conditional * seen + self.null * pass_seconds(card, self.tokens, 1, self.fast)


def stages(low: int = 2890, high: int = 12044, fast: bool = False) -> dict[str, Run]:
    """The flows of a 512 run and of a 1024 cascade."""
    conditional = 8 if fast else 12
    few, many = IMAGE_TOKENS[512], IMAGE_TOKENS[1024]
    return {
        "structure": Run(4096, few, conditional, 7 if fast else 10, fast),
        "shape 512": Run(low, few, conditional, 6 if fast else 9, fast),
        "texture 512": Run(low, few, conditional, 0, fast),
        "shape 1024": Run(high, many, conditional, 6 if fast else 9, fast),
        "texture 1024": Run(high, many, conditional, 0, fast),
    }


WHOLE = {
    "512": ("structure", "shape 512", "texture 512"),
    "1024 cascade": ("structure", "shape 512", "shape 1024", "texture 1024"),
}


def table() -> str:
    """Markdown: seconds by card and stage."""
    names = [*stages(), *(f"all of {name}" for name in WHOLE)]
    lines = ["| card | " + " | ".join(names) + " |", "| --- " * (len(names) + 1) + "|"]
    for card in CARDS:
        for fast in (False, True):
            times = {name: run.seconds(card) for name, run in stages(fast=fast).items()}
            times |= {f"all of {name}": sum(times[part] for part in parts) for name, parts in WHOLE.items()}
            label = f"{card.name}{', fast' if fast else ''}"
            lines.append(f"| {label} | " + " | ".join(f"{times[name]:.2f}" for name in names) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
