"""What `make setup` installs fits what the package promises."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def locked() -> dict[str, str]:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


def test_every_locked_package_installs_on_the_oldest_python_promised():
    oldest = PROJECT["requires-python"].removeprefix(">=") + ".0"
    refused, seen = {}, 0
    for name, version in locked().items():
        try:
            found = distribution(name)
        except PackageNotFoundError:  # of another platform
            continue
        if found.version.split("+")[0] == version:
            seen += 1
            needs = found.metadata.get("Requires-Python") or ""
            if oldest not in SpecifierSet(needs):
                refused[name] = needs
    assert refused == {} and seen > 0


def test_the_lock_holds_a_version_of_every_dependency_that_the_project_accepts():
    versions = locked()
    extras = dict(PROJECT["optional-dependencies"])
    assert extras.pop("browser")  # not in the lock, which says why
    wanted = [Requirement(text) for text in PROJECT["dependencies"] + sum(extras.values(), [])]
    assert wanted
    for requirement in wanted:
        if requirement.name != "beft":
            assert versions[canonicalize_name(requirement.name)] in requirement.specifier, requirement


def test_what_was_fetched_loads_under_a_cut_network(carried):
    encoder, decoder = carried("all-MiniLM-L6-v2"), carried("SmolLM2-135M-Instruct-Q4_1")
    carried("rated-sentences")
    program = f"""
import socket, sys
def cut(*_):
    raise AssertionError("the network was asked")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = cut
from beft import data, models
rows = data.load("film_sentiment")
print(len(rows.train), models.load({encoder!r}, labels=2).source, models.load_causal({decoder!r}).source, sep="; ")
"""
    environment = {n: v for n, v in os.environ.items() if n not in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("; ")[0] == "8180" and done.stdout.count("wheel") == 2


def test_containers_and_workflows_install_what_make_setup_installs():
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())
    assert container["postCreateCommand"] == "make setup"
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "site.yml").read_text())["jobs"]
    steps = [step["run"] for step in jobs["build"]["steps"] if "run" in step]
    assert [step for step in steps if step.startswith("make ")] == ["make setup", "make test", "make site"]
    assert (ROOT / "binder" / "requirements.txt").read_text().splitlines()[-1] == "-r ../requirements.lock"
    setup = (ROOT / "Makefile").read_text().replace("--quiet --disable-pip-version-check ", "")
    post = (ROOT / "binder" / "postBuild").read_text().splitlines()
    commands = [line.removeprefix("python ") for line in post if line.startswith("python ")]
    assert commands and all(command in setup for command in commands)
