"""The layout that CONTRIBUTING.md promises: light imports, thin `__init__` files, a loop that can be read."""

import ast
import importlib
import pkgutil
import subprocess
import sys

import pytest

import beft
from beft import paths

PACKAGES = ["beft", *(m.name for m in pkgutil.walk_packages(beft.__path__, "beft.") if m.ispkg)]
HEAVY = "torch", "transformers", "peft", "datasets", "matplotlib", "seaborn", "papermill", "pandas", "numpy", "scipy"


def _tree(module):
    return ast.parse(paths.ROOT.joinpath(*module.split(".")).with_suffix(".py").read_text(encoding="utf-8"))


def _depth(function):
    """Levels of loops, conditions and contexts around the deepest statement of a function of a module."""
    return max(node.col_offset for node in ast.walk(function) if isinstance(node, ast.stmt)) // 4 - 1


def _functions(module):
    return {node.name: node for node in ast.walk(_tree(module)) if isinstance(node, ast.FunctionDef)}


def test_the_depth_of_a_function_is_counted():
    source = "def f():\n    for x in y:\n        with x:\n            if x:\n                pass\n"
    assert _depth(ast.parse(source).body[0]) == 3


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_imports_alone_and_loads_nothing_heavy(name):
    script = f"import sys, {name}; print(*sorted({set(HEAVY)} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", script], cwd=paths.ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_says_what_lives_there_and_every_name_it_hands_on_is_there(name):
    package = importlib.import_module(name)
    assert package.__doc__ and len(package.__doc__) > 40
    assert not [node for node in _tree(f"{name}.__init__").body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    for public in getattr(package, "__all__", ()):
        assert getattr(package, public) is not None


def test_the_training_loop_is_at_most_four_deep():
    functions = _functions("beft.training.loop")
    assert _depth(functions["train_epoch"]) <= 4 and _depth(functions["fit"]) <= 4


def test_tests_lie_in_the_folders_of_what_they_test():
    rooms = {p.name for p in (paths.ROOT / "beft").iterdir() if (p / "__init__.py").is_file()}
    tested = {p.name for p in (paths.ROOT / "tests").iterdir() if list(p.glob("test_*.py"))}
    assert rooms <= tested <= rooms | {"benchmarks", "reports"}
