"""The notebooks' figures."""
