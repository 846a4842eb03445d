"""The notebooks: executed by papermill under a profile, strictly, published with their outputs, and shown on a website.

`python -m beft.reproduce` is the command line.
"""
