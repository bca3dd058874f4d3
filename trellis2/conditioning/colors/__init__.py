"""Colours read off the picture: `base_color` takes its light out, `visible_colors` puts it on the voxels that
the camera sees. Start at `visible_colors`.
"""
