"""Rows of text, from a file, a folder, a package, the hub, or generated, as tasks, prompts and grouped rows."""
