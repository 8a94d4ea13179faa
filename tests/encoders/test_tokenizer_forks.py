from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

from simtrain.encoders import tokenizer_forks

PROGRAM = """
    import os
    from tokenizers import Tokenizer, models, pre_tokenizers
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    import runpy
    quiet_forks = runpy.run_path(FILE)["quiet_forks"]  # by its path: the package's other files need torch
    quiet_forks(), quiet_forks()
    tokenizer.encode_batch(["a a"] * 100)
    child = os.fork()
    if child == 0:
        tokenizer.encode_batch(["a a"] * 100)
        print("child", os.environ.get("TOKENIZERS_PARALLELISM"), flush=True)
        os._exit(0)
    os.waitpid(child, 0)
    print("parent", os.environ.get("TOKENIZERS_PARALLELISM"))
"""


def run_program(**environment: str) -> subprocess.CompletedProcess[str]:
    program = textwrap.dedent(PROGRAM).replace("FILE", repr(tokenizer_forks.__file__))
    clean = {key: value for key, value in os.environ.items() if key != "TOKENIZERS_PARALLELISM"}
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env={**clean, **environment}, check=True
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs forks")
def test_forked_tokenizers_are_quiet_and_the_parents_environment_is_left_alone() -> None:
    result = run_program()
    assert result.stderr == ""
    assert result.stdout.split() == ["child", "false", "parent", "None"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs forks")
def test_the_users_own_setting_is_left_alone() -> None:
    result = run_program(TOKENIZERS_PARALLELISM="0")
    assert result.stdout.split() == ["child", "0", "parent", "0"]
