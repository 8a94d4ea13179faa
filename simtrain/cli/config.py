"""``simtrain config``: every key there is, what a file comes to, and whether it is right."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from simtrain.cli.options import AsJson, Overrides
from simtrain.cli.output import answering

EXIT_WRONG = 2

app = typer.Typer(name="config", help="Show the keys of a config, resolve one, check one.", no_args_is_help=True)

ConfigFile = Annotated[Path, typer.Argument(help="YAML file of a training job.", show_default=False)]


@app.command()
def schema(as_json: AsJson = False) -> None:
    """Print every key with its type, its default and a line on it; with --json as a JSON Schema."""
    with answering(as_json) as answer:
        from simtrain.config.keys import json_schema, schema_keys, section_docs

        docs = section_docs()
        lines: list[str] = []
        for key in schema_keys():
            section = key.name.rpartition(".")[0]
            if section and not any(line.startswith(f"{section}.") for line in lines):
                lines.append(f"\n# {section}: {docs[section]}")
            default = "required" if key.required else f"default {_yaml(key.default)}"
            lines += [f"{key.name}: {key.type}, {default}", f"    {key.doc}"]
        answer(json_schema(), "\n".join(lines))


@app.command()
def show(
    config: Annotated[Path | None, typer.Argument(help="YAML file; without one, the defaults.")] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Print the whole config that a file and overrides come to, defaults filled in."""
    with answering(as_json) as answer:
        from omegaconf import OmegaConf

        from simtrain.config import load_cfg

        cfg = load_cfg(config, overrides or [])
        values = OmegaConf.to_container(cfg, resolve=True)
        answer(values, OmegaConf.to_yaml(cfg, resolve=True).rstrip())


@app.command()
def check(config: ConfigFile, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Say all that is wrong with a config and shows without loading encoders or data; exit code 2 if something is."""
    with answering(as_json) as answer:
        from simtrain.config.loading import examine
        from simtrain.runner.job_check import job_problems

        cfg, wrong = examine(config, overrides or [])
        sentences = list(dict.fromkeys(str(error) for error in [*wrong, *job_problems(cfg)]))
        text = "\n".join(sentences) if sentences else f"{config} is right"
        answer({"config": str(config), "problems": sentences}, text)
    if sentences:
        raise typer.Exit(EXIT_WRONG)


def _yaml(value: Any) -> str:
    from omegaconf import OmegaConf

    if isinstance(value, (dict, list)):
        words = OmegaConf.to_yaml(OmegaConf.create(value)).strip().splitlines()
        return "{" + ", ".join(words) + "}" if words != ["{}"] else "{}"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
