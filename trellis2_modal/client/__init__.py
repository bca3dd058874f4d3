"""Runs on a laptop: talks to the service, keeps states, shows the app. Imports neither torch nor `trellis2`.

Start reading in `api` (the Python client), then `app` (the desktop web app) and `compression`.
"""
