"""Tables and figures come from records: nothing in `beft.report` loads torch, by itself or through other modules."""

import subprocess
import sys

from beft import paths

SCRIPT = """
import importlib, pkgutil, sys, beft.report
for module in pkgutil.walk_packages(beft.report.__path__, "beft.report."):
    importlib.import_module(module.name)
print(*{"torch", "transformers", "peft", "accelerate"} & sys.modules.keys())
"""


def _output(script):
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=paths.repository(), capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_no_module_of_report_loads_torch():
    assert _output(SCRIPT) == ""


def test_tables_are_written_without_matplotlib():
    script = "import sys; from beft.report import save_table, tables; tables.cells; print('matplotlib' in sys.modules)"
    assert _output(script) == "False"
