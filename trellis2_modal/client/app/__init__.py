"""The desktop web app: one task queue, one page over it, served on this machine. Needs the extra `[app]`.

Imports neither torch nor `trellis2`. Start reading in `launch` (`make_app`, `run`), then `task_queue`,
`page` and `actions`.
"""
