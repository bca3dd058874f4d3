"""A picture to a GLB in one call: one_call.py PICTURE ASSET.glb"""

import base64
import os
import sys
from pathlib import Path

import requests

headers = {"Authorization": f"Bearer {os.environ['TRELLIS2_API_KEY']}", "Accept": "model/gltf-binary"}
picture = base64.b64encode(Path(sys.argv[1]).read_bytes()).decode()
body = {"image": picture, "preview": "none", "export": {"simplify": "web"}}
reply = requests.post(f"{os.environ['TRELLIS2_URL']}/generate", headers=headers, json=body, timeout=3600)
assert reply.ok, reply.text
Path(sys.argv[2]).write_bytes(reply.content)
