"""Background removal, and what a matte says; `registry` finds removers by the names of pipeline configs.

OpenCV and transformers load when a remover is used. Start reading in `matte`, then `grabcut`.
"""
