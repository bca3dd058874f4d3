"""The model's files on the weights volume: which they are, where they come from, when they are whole.

Start reading in `manifest`, then `fetch`; `download` is the command that fills the volume.
"""
