"""Which code is somebody else's and known by its version, and which is the user's and is read."""

import sys
import types
from pathlib import Path

import lightning
import numpy as np
import pytest
import torch

from simtrain.cache.installed_code import installed_version


def loaded(monkeypatch: pytest.MonkeyPatch, name: str, file: Path | None) -> str:
    module = types.ModuleType(name)
    module.__file__ = None if file is None else str(file)
    monkeypatch.setitem(sys.modules, name, module)
    return name


@pytest.mark.parametrize("name", ["json", "zlib", "_thread", "builtins", "posixpath", "collections.abc"])
def test_python_s_own_modules_have_no_version(name):
    assert installed_version(name) == ""


@pytest.mark.parametrize(("name", "package"), [("torch.nn", torch), ("numpy", np), ("lightning.pytorch", lightning)])
def test_packages_are_known_by_their_version(name, package):
    assert installed_version(name) == package.__version__.split("+")[0]


@pytest.mark.parametrize("name", ["test", "code", "tokenize"])
def test_a_module_of_the_user_s_with_the_name_of_one_of_python_s_is_read(name, monkeypatch, tmp_path):
    assert installed_version(loaded(monkeypatch, name, tmp_path / f"{name}.py")) is None


def test_a_package_that_is_imported_by_another_name_and_silent_about_its_version_has_one(monkeypatch, tmp_path):
    place = tmp_path / "site-packages" / "imported_as_this"
    place.mkdir(parents=True)
    about = tmp_path / "site-packages" / "called_otherwise-1.2.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: called-otherwise\nVersion: 1.2\n")
    (about / "top_level.txt").write_text("imported_as_this\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site-packages"), *sys.path])
    name = loaded(monkeypatch, "imported_as_this", place / "__init__.py")
    assert installed_version(name) == "called-otherwise 1.2"
