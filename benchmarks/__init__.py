"""The project's own measurements: `make bench` (CPU), `make bench-gpu`; each `run()` returns records."""
