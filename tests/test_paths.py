"""Where things are: found from any folder, moved by the environment, in the cache that each platform has."""

from __future__ import annotations

import subprocess
import sys

import platformdirs
import pytest
from platformdirs.macos import MacOS
from platformdirs.unix import Unix
from platformdirs.windows import Windows

from beft import paths
from beft.errors import BeftError
from beft.records.store import Store


def test_the_root_holds_the_package_and_the_repository_is_around_it(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert (paths.ROOT / "beft" / "paths.py").samefile(paths.__file__)
    assert paths.repository() == paths.ROOT


def test_an_installed_package_finds_the_repository_above_the_working_folder(monkeypatch, tmp_path):
    (tmp_path / "notebooks" / "profiles").mkdir(parents=True)
    monkeypatch.setattr(paths, "ROOT", tmp_path / "site-packages")
    monkeypatch.chdir(tmp_path / "notebooks")
    assert paths.repository() == tmp_path


def test_without_a_repository_the_error_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "ROOT", tmp_path / "site-packages")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BeftError, match="run from inside a clone"):
        paths.repository()


def test_the_local_part_of_a_url_is_in_the_cache(monkeypatch, tmp_path):
    for variable in ("BEFT_HOME", "BEFT_CACHE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(platformdirs, "PlatformDirs", Unix)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    one, two = Store("memory://one").folder, Store("memory://two").folder
    assert one != two and one.parent == two.parent == tmp_path / ".cache" / "beft" / "remote"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert Store("memory://one").folder.parent == tmp_path / "xdg" / "beft" / "remote"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(platformdirs, "PlatformDirs", MacOS)
    assert Store("memory://one").folder.parent == tmp_path / "Library" / "Caches" / "beft" / "remote"
    monkeypatch.setattr(platformdirs, "PlatformDirs", Windows)
    monkeypatch.setattr("platformdirs.windows.get_win_folder", lambda name: str(tmp_path / "local"))
    assert Store("memory://one").folder.parent == tmp_path / "local" / "beft" / "remote"
    assert not list(tmp_path.iterdir())


def test_results_go_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("BEFT_RESULTS", "s3://bucket/results/")
    assert paths.results("laptop") == "s3://bucket/results/laptop"
    monkeypatch.setenv("BEFT_RESULTS", str(tmp_path))
    assert paths.results("laptop") == tmp_path / "laptop"
    monkeypatch.delenv("BEFT_RESULTS")
    monkeypatch.setenv("BEFT_HOME", str(tmp_path))
    monkeypatch.delenv("BEFT_CACHE", raising=False)
    assert paths.results("laptop") == tmp_path.resolve() / "data" / "results" / "laptop"
    assert paths.home() == paths.cache() == tmp_path.resolve()
    monkeypatch.setenv("BEFT_CACHE", str(tmp_path / "cache"))
    assert paths.cache() == tmp_path.resolve() / "cache"


def test_paths_load_neither_torch_nor_yaml():
    code = "import sys; import beft.paths; sys.exit(bool({'torch', 'yaml', 'numpy'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], cwd=paths.ROOT).returncode == 0
