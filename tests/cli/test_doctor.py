import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from simtrain.cli import app
from simtrain.cli.extras import EXTRAS, Extra

if sys.version_info >= (3, 11):
    import tomllib

# Collections of other extras, and what only development needs.
COLLECTIONS = {"all", "demo", "test", "dev"}


def test_it_tells_versions_devices_extras_and_settings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    result = CliRunner().invoke(app, ["doctor"], catch_exceptions=False)
    assert result.exit_code == 0
    assert result.stdout.startswith("simtrain ")
    for word in ("torch ", "lightning ", "index (search indexes: simtrain index and search): ", "HF_HUB_OFFLINE=1"):
        assert f"\n{word}" in result.stdout
    found = json.loads(CliRunner().invoke(app, ["doctor", "--json"]).stdout)
    assert found["missing"] == []
    assert set(found["extras"]) == {extra.name for extra in EXTRAS}


def test_a_missing_package_comes_with_what_it_is_for_and_the_pip_line():
    extra = Extra("text", "encoders", ("no-such-package", "torch"))
    assert (extra.missing, extra.pip) == (["no-such-package"], "pip install 'simtrain[text]'")


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib is of Python 3.11")
def test_every_extra_of_the_package_is_known_to_the_doctor():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    extras = {name: needs for name, needs in project["optional-dependencies"].items() if name not in COLLECTIONS}
    assert set(extras) == {extra.name for extra in EXTRAS}
    for extra in EXTRAS:
        assert set(extra.packages) <= {need.split(">")[0].split(";")[0].strip() for need in extras[extra.name]}
