"""An image generator for TRELLIS2_TEXT_TO_IMAGE: `prompt` then makes an asset from words.

It asks any server that has OpenAI's call for images (many local ones do):

    export IMAGE_API_URL=http://127.0.0.1:8000/v1 IMAGE_API_KEY=... IMAGE_MODEL=...
    export TRELLIS2_TEXT_TO_IMAGE=examples.text_to_image:draw
    trellis2-modal serve

Any function of a prompt and a seed that returns a PNG, JPEG or WebP will do. A ValueError is told to the
caller.
"""

from __future__ import annotations

import base64
import json
import os
import urllib.error
import urllib.request

STYLE = "one whole object, centred, plain light background, soft even light, no text: "
TIMEOUT = 120.0


def draw(prompt: str, seed: int) -> bytes:
    """A picture of the prompt. Raises ValueError for a prompt that the server refuses."""
    body = {
        "model": os.environ.get("IMAGE_MODEL", ""),
        "prompt": STYLE + prompt,
        "seed": seed,
        "n": 1,
        "size": "1024x1024",
        "response_format": "b64_json",
    }
    request = urllib.request.Request(
        os.environ["IMAGE_API_URL"].rstrip("/") + "/images/generations",
        json.dumps(body).encode(),
        {
            "Content-Type": "application/json",
            "Authorization": f"Bearer {os.environ.get('IMAGE_API_KEY', '')}",
        },
    )
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            return base64.b64decode(json.load(response)["data"][0]["b64_json"])
    except urllib.error.HTTPError as error:
        if error.code == 400:
            raise ValueError("the image generator does not draw this") from error
        raise
