"""Rows of text written to a file of each kind that is read."""

import gzip
import json
from pathlib import Path
from typing import Any

import pandas as pd


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    """Write rows as the name of the file says (.csv, .tsv, .jsonl, .json, .parquet; .gz after all but the last)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = path.name.removesuffix(".gz").rpartition(".")[2]
    if kind == "parquet":
        pd.DataFrame(rows).to_parquet(path)
        return str(path)
    if kind == "jsonl":
        text = "".join(json.dumps(row) + "\n" for row in rows)
    elif kind == "json":
        text = json.dumps(rows)
    else:
        text = pd.DataFrame(rows).to_csv(index=False, sep="\t" if kind == "tsv" else ",")
    return write_text(path, text)


def write_text(path: Path, text: str, encoding: str = "utf-8") -> str:
    """Write a text as it is, packed where the name says so."""
    content = text.encode(encoding)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return str(path)
