"""Jobs as spawned calls of the GPU class on Modal. Start reading in `ports`, then `calls`."""
