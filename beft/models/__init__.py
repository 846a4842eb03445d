"""Models by name: where their files are, checked by hash, and reading them as frozen models."""
