"""Image encoders: pictures to tokens [B, L, C]; `registry` finds them by the names of pipeline configs.

torch, transformers and torch.hub load when one is built. Start reading in `image_batch`, then `dinov3`.
"""
