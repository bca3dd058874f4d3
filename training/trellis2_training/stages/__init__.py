"""What is trained, a stage each: autoencoders, conditioning, flows, decoders; and the latents between them.

Each stage makes its networks, batches and losses; `loop` drives it. Start reading in `autoencoders`.
"""
