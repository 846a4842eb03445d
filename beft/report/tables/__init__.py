"""Tables of the notebooks, as frames of text."""
