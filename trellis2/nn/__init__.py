"""The layers that dense and sparse networks share: attention, norms, rotary phases, the one transformer
block.

Imports torch, `trellis2.errors` and `trellis2.backends` only. Start reading at `block.py`; `precision.py`
says which dtype computes.
"""
