"""What the weights are worth: scores on held-out objects, of colours, of exported files; pictures of results.

Start reading in `evaluate`, then `measures`.
"""
