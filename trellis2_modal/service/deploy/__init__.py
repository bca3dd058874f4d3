"""What a deployment needs besides code: image requirements, weights, verification, measuring, start.

Plain data and commands for operators. Start reading in `image_requirements`, then `weights`.
"""
