"""Runs where the model runs: the HTTP app, keys, jobs, the worker that owns the model, the Modal deployment.

May import `trellis2` and `o_voxel`, but the app and the gateway load neither: only the worker does. Start
reading in `app`, then `backend` (the seam between the app and what runs the jobs), `local` and `generator`.
"""
