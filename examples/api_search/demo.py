"""Find a function by describing it, from raw data to search: collect, train, measure, save, index, search.

Run it with ``make demo``, or ``python examples/api_search/demo.py`` from the project's root. Everything goes to
``runs/api_search``; a second run finds its data and its embeddings there.
"""

import hashlib
import json
import logging
import platform
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from simtrain import fit, load_cfg
from simtrain.data import read_pairs
from simtrain.evaluation import evaluate
from simtrain.evaluation.table import comparison_table
from simtrain.runner import FitResult

HERE = Path(__file__).parent
RUN = Path("runs/api_search")
QUERIES = [
    "remove leading and trailing whitespace from a string",
    "wait until a thread has finished",
    "copy a file together with its permissions and timestamps",
]
METRICS = ["hit_rate@1", "hit_rate@10", "mrr"]
SAMPLED_TEXTS = 256
seconds: dict[str, float] = {}


def main() -> None:
    """Run all stages and print how long each took."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("simtrain").setLevel(logging.INFO)
    with stage("collect (description, entry) pairs from installed packages"):
        collect()
    for folder in RUN.glob("checkpoints*"):  # of a demo before this one; a run of one's own puts them aside
        shutil.rmtree(folder)
    with stage("encode once, train the head, measure before and after"):
        result = fit(load_cfg(HERE / "config.yaml"))
        report(result)
    with stage("index the standard library's entries"):
        command("index", result.model_path, RUN / "test.jsonl", RUN / "index", "--cache", RUN / "cache")
    with stage("search"):
        for query in QUERIES:
            print(f"\n$ simtrain search {RUN / 'index'} {query!r} -k 3 --show entry", flush=True)
            command("search", RUN / "index", query, "-k", "3", "--show", "entry")
    summary(result)


def collect() -> None:
    """Collect both splits side by side, unless those of the same package versions and the same code are there."""
    packages = ("numpy", "scipy", "scikit-learn", "torch")
    sources = {"python": platform.python_version(), **{package: version(package) for package in packages}}
    code = b"".join((HERE / name).read_bytes() for name in ("collect.py", "docstrings.py"))
    sources["code"] = hashlib.sha256(code).hexdigest()
    record, splits = RUN / "sources.json", {split: RUN / f"{split}.jsonl" for split in ("train", "test")}
    there = all(file.is_file() for file in (record, *splits.values()))
    if there and json.loads(record.read_text()) == sources:
        print("the pairs of these package versions are there already")
        return
    RUN.mkdir(parents=True, exist_ok=True)
    running = [subprocess.Popen([sys.executable, HERE / "collect.py", *split]) for split in splits.items()]
    if any(process.wait() for process in running):
        raise SystemExit("collecting failed; see the message above")
    record.write_text(json.dumps(sources))


def report(result: FitResult) -> None:
    """Print the figures; R@k of the papers is hit_rate@k: is any entry with that docstring among the first k?"""
    assert result.before is not None
    assert result.after is not None
    print(f"\n{result.after.n_queries} descriptions over {result.after.n_gallery} entries, none of a training package")
    print("95 % bootstrap intervals over the descriptions, paired permutation test of the difference")
    print("\nthe head: the frozen encoder alone → with the trained head, both on the cleaned entries\n")
    print(comparison_table(result.before, result.after, METRICS), flush=True)
    raw = evaluate(result.model.cached.without_head(), read_pairs(RUN / "test.jsonl", {"document": "entry"}))
    print("\nall in all: the frozen encoder on bare 'name(signature)' entries → cleaned entries and trained head\n")
    print(comparison_table(raw, result.after, METRICS), flush=True)


def summary(result: FitResult) -> None:
    """Print what each stage took, and what the cache saves."""
    print("\nseconds")
    for name, taken in {**seconds, **{f"  of which {name}": taken for name, taken in result.seconds.items()}}.items():
        print(f"  {taken:7.1f}  {name}")
    epochs = load_cfg(HERE / "config.yaml").training.epochs
    cached, uncached = result.seconds["training"] / epochs, uncached_epoch(result)
    print(f"\none epoch of training: {cached:.2f} s from the cache; about {uncached:.0f} s if every text were encoded")
    print(f"model: {result.model_path}    index: {RUN / 'index'}")


def uncached_epoch(result: FitResult) -> float:
    """Seconds to encode the texts of one epoch, from a random sample of them."""
    texts = [text for pair in read_pairs(RUN / "train.jsonl").samples for text in (pair.obj_a, pair.obj_b)]
    sample = random.Random(0).sample(texts, SAMPLED_TEXTS)
    start = time.perf_counter()
    result.model.model.encode(sample)
    return (time.perf_counter() - start) * len(texts) / len(sample)


def command(*words: object) -> None:
    """Run the simtrain command as a user would."""
    subprocess.run([Path(sys.executable).with_name("simtrain"), *map(str, words)], check=True)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Announce and time a stage."""
    print(f"\n== {name}", flush=True)
    start = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - start


if __name__ == "__main__":
    main()
