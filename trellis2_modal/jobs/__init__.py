"""Jobs: what a job is, when it is accepted, and who runs it, on this machine (`local`) or on Modal (`modal`).

Start reading in `backend` (the seam between the HTTP app and what runs the jobs), then `local`.
"""
