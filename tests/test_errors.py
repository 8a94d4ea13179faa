import pytest

from simtrain import errors
from simtrain.errors import MissingExtraError, import_extra, nearest


def test_every_error_is_a_simtrain_error_and_the_fitting_builtin():
    tree = {
        errors.ConfigError: ValueError,
        errors.DataError: ValueError,
        errors.CacheError: RuntimeError,
        errors.CheckpointError: RuntimeError,
        errors.ServableError: ValueError,
        errors.MissingExtraError: ImportError,
    }
    for error, builtin in tree.items():
        assert issubclass(error, errors.SimtrainError)
        assert issubclass(error, builtin)


def test_a_missing_package_is_answered_with_the_pip_line():
    with pytest.raises(MissingExtraError, match=r"'no_such_package'.*pip install 'simtrain\[text\]'"):
        import_extra("no_such_package", "text")


def test_a_package_that_is_there_but_broken_keeps_its_own_message(tmp_path, monkeypatch):
    (tmp_path / "half_installed.py").write_text("import something_it_needs\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="something_it_needs") as error:
        import_extra("half_installed", "text")
    assert not isinstance(error.value, MissingExtraError)


def test_the_nearest_name_comes_first():
    assert nearest("marginn", ["scale", "margin"]).startswith("did you mean 'margin'?")
    assert nearest("xyz", ["scale", "margin"]) == "accepted: 'margin', 'scale'"
    assert nearest("", []) == "accepted: none"
