"""The command itself: its parts, its exit codes, and what is said when something is wrong.

Every part imports what it needs when it runs, so that ``simtrain --help`` answers at once.

Exit codes: 0 done; 1 something unexpected broke (with a traceback), a check found what it looks for, or the machine
refused (a full disk); 2 the input is wrong (arguments, config, data, a folder): one sentence on stderr; 130 it was
interrupted; 143 it was ended by SIGTERM.
"""

from __future__ import annotations

import logging
import sys
from typing import Annotated

import typer

from simtrain.cli import cache, compare, config, doctor, encode, evaluate, index, search, sweep, train
from simtrain.errors import SimtrainError

EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143
# A path that the user gave, or what is there, is wrong; other errors of the system are the machine's.
_PATH_ERRORS = (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError, PermissionError)

app = typer.Typer(
    name="simtrain",
    help="Fine-tune similarity-search models, measure them, and search with them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command()(train.train)
app.command()(sweep.sweep)
app.command()(evaluate.evaluate)
app.command()(evaluate.evaluate_embeddings)
app.command()(compare.compare)
app.command()(encode.encode)
app.command()(index.index)
app.command()(search.search)
app.add_typer(cache.app)
app.add_typer(config.app)
app.command()(doctor.doctor)


def main() -> None:
    """Run the command; bad input is one sentence on stderr and exit code 2."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    # What breaks a command off is told below, in one sentence, or by Python.
    handler.addFilter(lambda record: record.exc_info is None)
    logging.getLogger("simtrain").addHandler(handler)
    logging.getLogger("simtrain").setLevel(logging.INFO)
    try:
        app(prog_name="simtrain")
    except KeyboardInterrupt:
        _end("interrupted", EXIT_INTERRUPTED)
    except SystemExit as end:
        if end.code == EXIT_INTERRUPTED:  # typer has made it of a KeyboardInterrupt, and says nothing
            _end("interrupted", EXIT_INTERRUPTED)
        if end.code == EXIT_TERMINATED:
            _end("ended by SIGTERM", EXIT_TERMINATED)
        raise
    except (SimtrainError, *_PATH_ERRORS) as error:
        _end(str(error), EXIT_BAD_INPUT)
    except OSError as error:
        _end(str(error), EXIT_FAILED)


def _end(sentence: str, code: int) -> None:
    typer.echo(f"simtrain: {sentence}", err=True)
    sys.exit(code)


def _print_version(wanted: bool | None) -> None:
    if wanted:
        from simtrain import __version__

        typer.echo(f"simtrain {__version__}")
        raise typer.Exit()


@app.callback()
def _options(
    version: Annotated[
        bool | None,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop."),
    ] = None,
) -> None:
    """Options of the command itself."""
