"""The light around an asset: environment pictures, cube maps, and what is prepared of them once.

Start reading in `envmap`; `environments` says where pictures come from, `prefilter` what is prepared.
"""
