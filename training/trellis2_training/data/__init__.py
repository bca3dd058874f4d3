"""From the world's tables to batches on the training device: pictures, voxels, tables.

Start reading in `batches`, then `voxelize` and `render`.
"""
