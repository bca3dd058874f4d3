"""The maps of a material: baked from the dense surface, filled between charts, encoded as pictures.

`encode` needs Pillow when called. Start reading in `bake`.
"""
