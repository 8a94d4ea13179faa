"""Filling a cache: what it encodes, in which order, what it says and refuses."""

import io
import logging
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from simtrain.cache import DiskStore, EmbeddingCache, MemoryStore
from simtrain.encoders import Encoder, ModuleEncoder
from simtrain.encoders.item_error import ItemError
from simtrain.errors import CacheError, DataError
from tests.cache.cached_texts import TEXTS, close, expected
from tests.clock import Clock


def test_a_second_filling_encodes_nothing(make_encoder, opened):
    encoder = make_encoder()
    cache = opened(encoder)
    cache.fill(TEXTS)
    encoder.batches.clear()
    report = cache.fill(TEXTS[:20])
    assert encoder.batches == []
    assert (report.n_reused, report.n_encoded) == (20, 0)


def test_longest_items_go_first_and_equal_lengths_keep_their_order(make_encoder):
    class Noting(make_encoder):
        def get_collate_fn(self):
            collate = super().get_collate_fn()
            return lambda texts: (seen.append(list(texts)), collate(texts))[1]

    seen: list[list[str]] = []
    EmbeddingCache(Noting(), MemoryStore(4)).fill(["a", "bbb", "cc", "d", "eee"], batch_size=2)
    assert seen == [["bbb", "eee"], ["cc", "a"], ["d"]]


def test_filling_encodes_in_eval_mode_and_restores_every_mode(make_encoder):
    encoder = make_encoder()
    encoder.frozen_part = nn.Dropout().eval()
    encoder.train()
    encoder.frozen_part.eval()
    cache = EmbeddingCache(encoder, MemoryStore(4))
    cache.fill(TEXTS)
    assert encoder.training
    assert not encoder.frozen_part.training
    assert close(cache.gather(cache.rows(TEXTS)), expected(make_encoder(), TEXTS))


def test_filling_leaves_the_random_numbers_alone(make_encoder):
    state = torch.get_rng_state()
    EmbeddingCache(make_encoder(), MemoryStore(4)).fill(TEXTS)
    assert torch.equal(torch.get_rng_state(), state)


def test_an_empty_data_set_fills_nothing(make_encoder, opened):
    cache = opened(make_encoder())
    assert cache.fill([]).n_items == 0
    assert cache.rows([]).shape == (0,)


class Augmented:
    """A data set whose items are others at each reading."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return torch.rand(2)


class Lazy:
    def __init__(self, texts):
        self.texts = texts

    def __len__(self):
        return len(self.texts)

    def __getitem__(self, index):
        return self.texts[range(len(self.texts))[index]]


def test_items_that_change_while_filling_are_refused():
    cache = EmbeddingCache(ModuleEncoder(nn.Identity(), 2), MemoryStore(2), name="image")
    with pytest.raises(
        CacheError, match="an item of data changed while encoder 'image' was cached: the data set gives"
    ):
        cache.fill(Augmented())
    assert len(cache.store) == 0


@pytest.mark.parametrize("num_workers", [0, 2])
def test_lazy_data_sets_are_read_item_by_item(make_encoder, num_workers):
    cache = EmbeddingCache(make_encoder(), MemoryStore(4))
    cache.fill(Lazy(TEXTS), num_workers=num_workers, batch_size=16)
    assert close(cache.gather(cache.rows(TEXTS)), expected(make_encoder(), TEXTS))


class Faulty(Encoder):
    trainable = False
    embedding_size = 2

    def __init__(self, value: float = float("nan"), size: int = 2) -> None:
        super().__init__()
        self.value, self.size = value, size

    def get_collate_fn(self):
        return lambda texts: torch.tensor([text == "bad" for text in texts])

    def forward(self, batch):
        return torch.where(batch, self.value, 1.0)[:, None].expand(-1, self.size)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_embeddings_that_are_not_finite_name_encoder_and_item(value):
    cache = EmbeddingCache(Faulty(value), MemoryStore(2), name="text")
    message = "encoder 'text' gives an embedding that is not finite for item 2, 'bad'"
    with pytest.raises(DataError, match=message):
        cache.fill(["a", "b", "bad", "d"], batch_size=3)


def test_numbers_too_large_for_the_stored_type_say_so():
    cache = EmbeddingCache(Faulty(1e5), MemoryStore(2, "float16"))
    with pytest.raises(DataError, match=r"gives numbers up to 1e\+05, too large for float16"):
        cache.fill(["bad"])


def test_embeddings_of_another_size_are_refused():
    cache = EmbeddingCache(Faulty(1.0, size=3), MemoryStore(2), name="text")
    with pytest.raises(DataError, match=r"encoder 'text' must give shape \(1, 2\) for 1 items, got \(1, 3\)"):
        cache.fill(["a"])


def refuse_empty(texts):
    for position, text in enumerate(texts):
        if not text:
            raise ItemError(position, "is empty")
    return torch.ones(len(texts), 4)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_complaint_about_an_item_names_its_position_in_the_data(make_encoder, num_workers):
    encoder = make_encoder()
    encoder.get_collate_fn = lambda: refuse_empty
    encoder.forward = lambda batch: batch
    cache = EmbeddingCache(encoder, MemoryStore(4))
    with pytest.raises(DataError, match="item 1 is empty"):
        cache.fill(["a", "", "bbb", "cc"], batch_size=2, num_workers=num_workers)


def test_an_interrupted_filling_keeps_what_it_encoded(make_encoder, tmp_path):
    class Stopped(make_encoder):
        def forward(self, batch):
            if len(self.batches) == 3:
                raise KeyboardInterrupt
            return super().forward(batch)

    Stopped.__module__, Stopped.__qualname__ = make_encoder.__module__, make_encoder.__qualname__
    store = DiskStore(tmp_path, 4)
    with pytest.raises(KeyboardInterrupt):
        EmbeddingCache(Stopped(), store).fill(TEXTS, batch_size=5)
    encoder = make_encoder()
    report = EmbeddingCache(encoder, DiskStore(tmp_path, 4)).fill(TEXTS)
    assert (report.n_reused, report.n_encoded) == (15, 25)


def test_one_line_says_what_was_reused(make_encoder, caplog):
    cache = EmbeddingCache(make_encoder(), MemoryStore(4), name="text")
    cache.fill(TEXTS[:10])
    with caplog.at_level(logging.INFO, logger="simtrain"):
        cache.fill(TEXTS + TEXTS[:5], name="train")
    assert [record.getMessage().split(" in ")[0] for record in caplog.records] == [
        "cache of encoder 'text', train: 45 items, 40 distinct: 10 reused, 30 encoded"
    ]


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("progress", "pause", "shown"), [(None, 0.0, False), (None, 0.6, True), (True, 0.0, True), (False, 0.6, False)]
)
def test_a_bar_is_shown_when_filling_takes_long(make_encoder, monkeypatch, progress, pause, shown):
    clock = Clock(monkeypatch)

    class Pausing(make_encoder):
        def forward(self, batch):
            clock.now += pause
            return super().forward(batch)

    monkeypatch.setattr("sys.stderr", Terminal())
    monkeypatch.setenv("COLUMNS", "120")
    EmbeddingCache(Pausing(), MemoryStore(4)).fill(TEXTS[:9], batch_size=3, progress=progress, name="train")
    output = sys.stderr.getvalue()
    assert ("encoding train with 'encoder'" in output) == ("items/s" in output) == ("0:00:0" in output) == shown


def test_no_bar_is_shown_where_nobody_looks(make_encoder, capsys, monkeypatch):
    clock = Clock(monkeypatch)

    class Pausing(make_encoder):
        def forward(self, batch):
            clock.now += 0.6
            return super().forward(batch)

    EmbeddingCache(Pausing(), MemoryStore(4)).fill(TEXTS[:9], batch_size=3)
    assert capsys.readouterr().err == ""


def test_filling_holds_one_batch_beyond_the_store():
    """In a process of its own: 40 MB of embeddings, 20,000 items; nothing near a second copy."""
    script = """
import re, torch
from torch import nn
from simtrain.cache import EmbeddingCache, MemoryStore
from simtrain.encoders import ModuleEncoder

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024

torch.set_num_threads(1)
table = nn.Embedding(1000, 512)
cache = lambda: EmbeddingCache(ModuleEncoder(table, 512), MemoryStore(512))
cache().fill([torch.tensor(1), torch.tensor(2)])
items = torch.arange(1000).repeat(20)
texts = [(int(number), i) for i, number in enumerate(items)]
filled = cache()
filled.encoder.get_collate_fn = lambda: lambda pairs: torch.tensor([pair[0] for pair in pairs])
before = peak()
filled.fill(texts, batch_size=256)
print(len(filled.store), peak() - before)
"""
    if not Path("/proc/self/status").exists():
        pytest.skip("reads the peak of memory from /proc")
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    count, grown = map(int, output.split())
    assert count == 20_000
    assert grown < 20_000 * 512 * 4 + 12 * 2**20, f"{grown / 2**20:.0f} MB"
