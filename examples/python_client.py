"""A picture to a GLB with the Python client: python_client.py PICTURE ASSET.glb"""

from __future__ import annotations

import os
import sys

from trellis2_modal.client.api import Client


def main(picture: str, asset: str) -> None:
    with Client(os.environ["TRELLIS2_URL"], key=os.environ["TRELLIS2_API_KEY"]) as client:
        job = client.submit(picture, seed=7)
        for event in job.events():
            if event.type == "progress":
                print(event.data["stage"], event.data["step"], "of", event.data["steps"])
        client.extract_glb(job.result(), simplify="web").save(asset)


if __name__ == "__main__":
    main(*sys.argv[1:])
