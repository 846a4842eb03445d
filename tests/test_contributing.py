"""CONTRIBUTING.md stays true: every place, test and folder that it names is there."""

import re

import pytest

from beft import paths

TEXT = (paths.ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
PLACES = re.findall(r"`(beft/[\w/]+\.py):(\d+)`[^`|]*`(\w+)`", TEXT)
TESTS = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", TEXT)


def test_it_is_short_and_names_some_places():
    assert len(TEXT.splitlines()) <= 80 and len(PLACES) >= 16 and len(TESTS) >= 6


@pytest.mark.parametrize(("file", "line", "name"), PLACES)
def test_a_line_that_it_names_defines_what_it_says(file, line, name):
    lines = (paths.ROOT / file).read_text(encoding="utf-8").splitlines()
    assert re.match(rf"\s*(def |class )?{name}\b", lines[int(line) - 1]), f"{name} is not at {file}:{line}"


@pytest.mark.parametrize(("file", "name"), TESTS)
def test_a_test_that_it_names_is_there(file, name):
    assert f"def {name}(" in (paths.ROOT / file).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(\w+\.py)`", TEXT))))
def test_a_module_that_it_names_is_there(name):
    assert list((paths.ROOT / "beft").rglob(name))


def test_every_floor_of_the_package_is_drawn():
    rooms = {p.name for p in (paths.ROOT / "beft").iterdir() if (p / "__init__.py").is_file()}
    assert all(f"{room}/" in TEXT for room in rooms)
