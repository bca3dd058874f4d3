"""The HTTP side of the service: app, routes, request parsing, authentication, problems, transport.

Imports neither `trellis2` nor `o_voxel`. Start reading in `app`, then `routes` and `request_parsing`.
"""
