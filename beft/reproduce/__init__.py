"""The notebooks: executed by papermill under a profile, strictly, and published with their outputs.

`python -m beft.reproduce` is the command line.
"""
