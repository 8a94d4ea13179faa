"""Completion works in the shells that are here, and is written for those that are not."""

import os
import shutil
import subprocess
import sys

import pytest

from simtrain.cli.completion import complete_override

COMMAND = [sys.executable, "-m", "simtrain.cli"]


def simtrain(*words, **variables):
    result = subprocess.run(
        [*COMMAND, *words], env={**os.environ, **variables}, capture_output=True, text=True, check=False
    )
    return result.stdout


def test_bash_asks_the_command_and_gets_its_commands_and_options():
    found = simtrain(_SIMTRAIN_COMPLETE="complete_bash", COMP_WORDS="simtrain e", COMP_CWORD="1")
    assert found.split() == ["evaluate", "evaluate-embeddings", "encode"]
    assert "--json" in simtrain(_SIMTRAIN_COMPLETE="complete_bash", COMP_WORDS="simtrain train --", COMP_CWORD="2")


def test_zsh_gets_keys_of_the_config_with_a_line_on_each():
    found = simtrain(_SIMTRAIN_COMPLETE="complete_zsh", _TYPER_COMPLETE_ARGS="simtrain train job.yaml training.ep")
    assert "training.epochs=" in found
    assert "Passes over the training data" in found


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_the_script_for_bash_completes_in_bash(tmp_path):
    variables = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    script = simtrain("--show-completion", "bash", **variables)
    assert "complete -o default -F" in script
    (tmp_path / "simtrain").write_text(f'#!/bin/sh\nexec {sys.executable} -m simtrain.cli "$@"\n')
    (tmp_path / "simtrain").chmod(0o755)
    session = (
        f'{script}\nCOMP_WORDS=(simtrain tr); COMP_CWORD=1; _simtrain_completion simtrain; echo "${{COMPREPLY[@]}}"'
    )
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", session], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.split() == ["train"]


def test_there_is_a_script_for_zsh():
    script = simtrain("--show-completion", "zsh", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert script.startswith("#compdef simtrain")


def test_values_are_completed_where_there_are_few():
    assert [word for word, _ in complete_override("training.device=c")] == [
        "training.device=cpu",
        "training.device=cuda",
    ]
    assert list(complete_override("training.epochs=")) == []
