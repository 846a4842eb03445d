"""The command line of the smallest benchmark."""

from beft.models import files as models

TINY = [
    "--model",
    models.TINY,
    "--task",
    "microworld_sentiment",
    "--rows",
    "32",
    "--seeds",
    "2",
    "--epochs",
    "1",
]
