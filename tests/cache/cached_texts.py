"""Texts and what their embeddings are."""

import torch

TEXTS = [f"text {number} " + "x" * (number % 7) for number in range(40)]


def expected(encoder, texts):
    with torch.inference_mode():
        return torch.cat([encoder.eval()(encoder.get_collate_fn()([text])) for text in texts]).clone()


def close(got, want):
    return torch.allclose(got, want, atol=1e-5)
