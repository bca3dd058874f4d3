"""Every picture of a folder to a GLB of the same name: folder.py PICTURES ASSETS

Four pictures are on their way at a time, and those that have an asset already are passed over.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from trellis2_modal.client.api import AsyncClient
from trellis2_modal.protocol.errors import ServiceError

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp"}


async def main(pictures: Path, assets: Path) -> int:
    """How many pictures failed."""
    assets.mkdir(parents=True, exist_ok=True)
    at_once = asyncio.Semaphore(4)
    async with AsyncClient(os.environ["TRELLIS2_URL"], key=os.environ["TRELLIS2_API_KEY"]) as client:

        async def make(picture: Path) -> bool:
            target = assets / f"{picture.stem}.glb"
            async with at_once:
                try:
                    made = await client.generate(picture, preview="none")
                    (await client.extract_glb(made, simplify="web")).save(target)
                except ServiceError as error:
                    print(f"{picture.name}: {error}", file=sys.stderr)
                    return False
            print(target)
            return True

        missing = [
            path
            for path in sorted(pictures.iterdir())
            if path.suffix.lower() in SUFFIXES and not (assets / f"{path.stem}.glb").exists()
        ]
        made = await asyncio.gather(*(make(path) for path in missing))
    return made.count(False)


if __name__ == "__main__":
    sys.exit(1 if asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2]))) else 0)
