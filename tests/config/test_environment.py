import shutil
import subprocess

import pytest

from simtrain.config.environment import environment, working_tree

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="there is no git")


def git(folder, *words):
    person = ("-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "commit.gpgsign=false")
    done = subprocess.run(["git", *person, *words], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@needs_git
def test_commit_and_changes_of_the_working_tree_are_told(tmp_path):
    git(tmp_path, "init", "-q")
    assert working_tree(tmp_path) is None
    (tmp_path / "train.py").write_text("1\n")
    git(tmp_path, "add", "train.py")
    git(tmp_path, "commit", "-q", "-m", "first")
    commit = git(tmp_path, "rev-parse", "HEAD")
    (tmp_path / "sub").mkdir()
    assert working_tree(tmp_path / "sub") == {"commit": commit, "dirty": False}
    (tmp_path / "notes.txt").write_text("not of the tree\n")
    assert working_tree(tmp_path) == {"commit": commit, "dirty": False}
    (tmp_path / "train.py").write_text("2\n")
    assert environment(tmp_path)["git"] == {"commit": commit, "dirty": True}


def test_outside_of_a_working_tree_there_is_none(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert working_tree(tmp_path) is None
    monkeypatch.setenv("PATH", "")
    assert working_tree(tmp_path) is None
