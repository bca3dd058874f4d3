"""The project's own measurements: `make bench` (CPU), `make bench-gpu`; each module's `run()` returns records."""
