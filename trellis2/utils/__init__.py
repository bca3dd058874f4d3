"""From an asset to what people look at: cameras, frames, videos.

May import `trellis2.renderers`, `trellis2.representations` and `trellis2.errors`. Start reading in
`render_utils.py`.
"""
