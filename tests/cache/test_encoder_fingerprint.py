"""What in an encoder counts, and what does not."""

import pytest
import torch
from torch import nn

from simtrain.cache import encoder_fingerprint
from simtrain.encoders import ModuleEncoder, VisionEncoder
from simtrain.errors import CacheError


def test_encoders_with_equal_content_are_equal(make_encoder):
    assert encoder_fingerprint(make_encoder()) == encoder_fingerprint(make_encoder())


def changed_weight(encoder):
    with torch.no_grad():
        encoder.weight[0, 0] += 1e-6


def changed_config(encoder):
    encoder.scale = 2.0


def changed_collate(encoder):
    encoder.get_collate_fn = lambda: lambda texts: texts


def changed_buffer(encoder):
    encoder.register_buffer("mean", torch.zeros(2))


def changed_type(encoder):
    encoder.double()


def changed_part(encoder):
    encoder.last = nn.GELU()


def changed_part_settings(encoder):
    encoder.last = nn.GELU(approximate="tanh")


def changed_forward(encoder):
    encoder.__class__ = type("DigestEncoder", (type(encoder),), {"forward": lambda self, batch: batch})
    encoder.__class__.__module__ = type(encoder).__mro__[1].__module__
    encoder.__class__.__qualname__ = type(encoder).__mro__[1].__qualname__


CHANGES = [
    changed_weight,
    changed_config,
    changed_collate,
    changed_buffer,
    changed_type,
    changed_part,
    changed_part_settings,
    changed_forward,
]


def test_every_change_of_an_encoder_is_noticed(make_encoder):
    prints = [encoder_fingerprint(make_encoder())]
    for change in CHANGES:
        encoder = make_encoder()
        change(encoder)
        prints.append(encoder_fingerprint(encoder))
    assert len(set(prints)) == len(CHANGES) + 1


def test_mode_and_use_do_not_count(make_encoder):
    encoder = make_encoder()
    before = encoder_fingerprint(encoder)
    encoder.eval()
    encoder(torch.zeros(1, 16))
    assert encoder_fingerprint(encoder) == before


def test_weights_of_zero_dimensions_and_sizes_are_taken():
    encoder = ModuleEncoder(nn.Identity(), 1)
    encoder.temperature = nn.Parameter(torch.tensor(1.0))
    encoder.register_buffer("none", torch.zeros(0, 2))
    assert len(encoder_fingerprint(encoder)) == 32


def test_weights_without_content_are_refused():
    with pytest.raises(CacheError, match=r"the weight 'module.weight' is on the meta device"):
        encoder_fingerprint(ModuleEncoder(nn.Linear(2, 2, device="meta"), 2))


class CountingVision(VisionEncoder):
    cache_ignores = frozenset({"n_images"})
    n_images = 0

    def forward(self, batch):
        self.n_images += len(batch)
        return super().forward(batch)


def test_what_a_forward_keeps_for_itself_does_not_change_an_encoder_of_the_users():
    encoder = CountingVision(nn.Conv2d(3, 4, 4, stride=4), image_size=8)
    before = encoder_fingerprint(encoder)
    encoder(torch.zeros(2, 3, 8, 8, dtype=torch.uint8))
    assert encoder.n_images == 2
    assert encoder_fingerprint(encoder) == before
