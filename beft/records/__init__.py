"""One run, one checked JSON record: format, store, folders here and remote, provenance."""
