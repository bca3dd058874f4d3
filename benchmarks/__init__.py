"""The project's own measurements: `make bench` (CPU) and `make bench-gpu`; each module has a `run()` that returns records."""
