"""A stranger's pictures: structure read byte by byte, decoded and matted in processes of their own.

Start reading in `checks`, then `structure`; `child_process` ends what takes too long.
"""
