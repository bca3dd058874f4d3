"""What a caller hands in, checked before anything is sent: pictures and camera files.

Start reading in `pictures`.
"""
