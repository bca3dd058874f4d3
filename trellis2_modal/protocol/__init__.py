"""What the service and its clients agree on: requests, replies, errors, limits, presets, the state format.

Imports numpy, lz4, pydantic and safetensors only, and nothing of this at package import. Start reading in
`requests` (every parameter with its default, bounds and help), then `replies`, `errors` and `state`.
"""
