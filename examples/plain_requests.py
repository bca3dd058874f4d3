"""A picture to a GLB with nothing but `requests`: plain_requests.py PICTURE ASSET.glb"""

from __future__ import annotations

import os
import sys
import time

import requests

URL = os.environ["TRELLIS2_URL"]
KEY = {"X-API-Key": os.environ["TRELLIS2_API_KEY"]}


def call(method: str, path: str, **options: object) -> requests.Response:
    """One request; an error shows what the service says."""
    reply = requests.request(method, URL + path, headers=KEY, timeout=60, **options)  # type: ignore[arg-type]
    if not reply.ok:
        sys.exit(f"{reply.status_code}: {reply.json()['detail']}")
    return reply


def finished(job: str) -> None:
    """Wait for the end of a job."""
    while (found := call("GET", f"/jobs/{job}").json())["status"] in ("queued", "running"):
        time.sleep(0.5)
    if found["status"] != "finished":
        sys.exit(f"the job was {found['status']}: {found['problem']}")


def main(picture: str, asset: str) -> None:
    with open(picture, "rb") as file:
        job = call("POST", "/jobs", files={"image": file}, data={"seed": 7}).json()["id"]
    finished(job)
    extraction = {"kind": "extract", "job": job, "simplify": "web"}
    job = call("POST", "/jobs", json=extraction).json()["id"]
    finished(job)
    with open(asset, "wb") as file:
        file.write(call("GET", f"/jobs/{job}/glb").content)


if __name__ == "__main__":
    main(*sys.argv[1:])
