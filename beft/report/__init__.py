"""Records in, tables and figures out.

`tables` and `figures` make them from the frames of `dataframes`, `intervals` and `comparisons`, `verdict` judges
the differences, `write` saves them with captions and an index. Nothing here imports torch or trains.
"""

from .._lazy import hand_on

__getattr__, __all__ = hand_on(
    __name__,
    {"display": "write", "save_figure": "write", "save_table": "write"},
    modules=("comparisons", "dataframes", "figures", "intervals", "names", "tables", "verdict"),
)
