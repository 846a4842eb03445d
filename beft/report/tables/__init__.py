"""The notebooks' tables, as frames of text."""
