"""What stands for code that nobody edits in place: the version of the package that it was installed with."""

from __future__ import annotations

import functools
import importlib.metadata
import sys
import sysconfig
from pathlib import Path

import xxhash

_OWN = __name__.split(".")[0]
_STANDARD_LIBRARY = sysconfig.get_path("stdlib")
_INSTALL_FOLDERS = frozenset({"site-packages", "dist-packages"})


def installed_version(module_name: str) -> str | None:
    """Version of an installed module, or None for a module of the user's, whose code has to be read.

    Args:
        module_name: Full name of a module, such as ``"torch.nn.functional"``.

    Returns:
        The version of its package without what names a build (``2.6.0`` for ``2.6.0+cpu``); an empty text for the
        standard library; a digest of the source files for a room of this package; None for everything else:
        scripts, notebooks, and projects that lie outside ``site-packages``.

    Example:
        >>> installed_version("json"), installed_version("__main__")
        ('', None)
    """
    top, _, rest = module_name.partition(".")
    if top == _OWN:
        return _room_digest(rest.split(".")[0])
    if top in ("__main__", "__mp_main__"):
        return None  # whatever file it was started from
    file = _file_of(module_name) or _file_of(top)
    if _is_of_python(top, file):
        return ""
    if file is None or not _INSTALL_FOLDERS & set(Path(file).parts):
        return None
    return _version_of(top).split("+")[0]


def _is_of_python(top: str, file: str | None) -> bool:
    # By its place, too: a folder of the user's may be called "test", "code" or "token".
    if top not in sys.stdlib_module_names and top != "builtins":
        return False
    if file is None:  # built in
        return True
    path = Path(file)
    is_beside = path.is_relative_to(_STANDARD_LIBRARY) or path.parent.name == "lib-dynload"
    return is_beside and not _INSTALL_FOLDERS & set(path.parts)


def _file_of(module_name: str) -> str | None:
    return getattr(sys.modules.get(module_name), "__file__", None)


@functools.cache
def _version_of(package: str) -> str:
    version = getattr(sys.modules.get(package), "__version__", None)
    if version is not None:
        return str(version)
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        pass  # installed under another name than it is imported by
    names = importlib.metadata.packages_distributions().get(package, [])
    return " ".join(f"{name} {importlib.metadata.version(name)}" for name in sorted(names))


@functools.cache
def _room_digest(room: str) -> str:
    # By its files, not its version: a release that leaves the encoders alone keeps everybody's caches.
    place = Path(__file__).parents[1] / room
    files = sorted(place.glob("*.py")) if place.is_dir() else [place.with_suffix(".py")]
    digest = xxhash.xxh3_128()
    for file in files:
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()
