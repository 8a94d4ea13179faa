"""The encoder of texts that trains fast on a CPU: a mean of learned vectors of words and n-grams."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from simtrain.encoders.encoder import CollateFn, Encoder
from simtrain.encoders.ngram_hashing import NgramHash
from simtrain.encoders.partial_freezing import parse_whole
from simtrain.encoders.positive_size import positive_size
from simtrain.encoders.settings_file import build_from_settings, read_settings, write_settings
from simtrain.encoders.weights_file import load_weights, save_weights
from simtrain.errors import ConfigError, nearest
from simtrain.registry import encoders

SETTINGS_FILE = "encoder.json"
WEIGHTS_FILE = "weights.safetensors"
WEIGHTINGS = ("mean", "sqrt")


@encoders.register_module()
class NgramEncoder(Encoder):
    """Embeds a text as the mean of vectors of its words and of the character n-grams in them.

    N-grams are hashed into a table of vectors, so there is no vocabulary and no unknown word. The table is drawn at
    random: training gives it meaning, but texts that share n-grams lie near each other from the start. Texts are
    compared without case. A text without any character but spaces is the zero vector.

    Args:
        embedding_size: Number of dimensions.
        n_buckets: Number of vectors. N-grams that fall on one share it.
        ngrams: Characters of the shortest and of the longest n-grams, ``(3, 5)`` for those of 3, 4 and 5.
        weighting: ``"mean"``: the sum of the vectors over their number. ``"sqrt"``: over its square root, which keeps
            the lengths of long texts' embeddings like those of short ones.
        trainable: Whether training may change the table.
        sparse: Whether gradients name only the vectors in use: faster for a large table, with an optimizer that
            takes them (``SGD``, ``SparseAdam``, ``Adagrad``).

    Raises:
        ConfigError: An argument is wrong.

    Reference:
        Bojanowski et al., Enriching Word Vectors with Subword Information, 2017.

    Example:
        >>> from torch.nn.functional import cosine_similarity
        >>> encoder = NgramEncoder(embedding_size=64)
        >>> embeddings = encoder(encoder.get_collate_fn()(["red shoes", "a red shoe", "numpy.linalg", " "]))
        >>> bool(cosine_similarity(embeddings[:1], embeddings[1:]).argmax() == 0)
        True
        >>> embeddings[3].any().item()
        False
    """

    def __init__(
        self,
        embedding_size: int = 256,
        n_buckets: int = 2**16,
        ngrams: Sequence[int] = (3, 5),
        weighting: str = "mean",
        trainable: bool = True,
        sparse: bool = False,
    ) -> None:
        super().__init__()
        self._embedding_size = positive_size("embedding_size", embedding_size)
        self._n_buckets = positive_size("n_buckets", n_buckets)
        self._ngrams = _checked_ngrams(ngrams)
        if weighting not in WEIGHTINGS:
            raise ConfigError(f"unknown weighting {weighting!r}; {nearest(str(weighting), WEIGHTINGS)}")
        self._weighting, self._trainable, self._sparse = weighting, parse_whole(trainable), bool(sparse)
        self.vectors = nn.EmbeddingBag(self._n_buckets, self._embedding_size, mode="mean", sparse=self._sparse)
        nn.init.normal_(self.vectors.weight, std=self._embedding_size**-0.5)  # vectors of a length of about 1
        if not self._trainable:
            self.requires_grad_(False).eval()

    @property
    def trainable(self) -> bool:
        """Whether training may change the table."""
        return self._trainable

    @property
    def embedding_size(self) -> int:
        """Number of dimensions of one embedding."""
        return self._embedding_size

    def train(self, mode: bool = True) -> NgramEncoder:
        """Switch to train or eval mode; a frozen encoder stays in eval mode."""
        super().train(mode and self._trainable)
        return self

    def get_collate_fn(self) -> CollateFn:
        """Function that hashes texts; tens of thousands of short ones a second on one core."""
        return NgramHash(self._n_buckets, *self._ngrams)

    def forward(self, batch: Mapping[str, Tensor]) -> Float[Tensor, "batch dim"]:
        """Embed hashed texts.

        Args:
            batch: ``buckets`` of all n-grams and ``offsets`` of the texts, as the collate function makes them.

        Returns:
            Embeddings, shape ``(batch, embedding_size)``.
        """
        buckets, offsets = batch["buckets"], batch["offsets"]
        means: Tensor = self.vectors(buckets, offsets)
        if self._weighting == "mean":
            return means
        counts = offsets.diff(append=offsets.new_tensor([len(buckets)]))
        return means * counts.to(means.dtype).sqrt().unsqueeze(1)

    def get_config_dict(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            "embedding_size": self._embedding_size,
            "n_buckets": self._n_buckets,
            "ngrams": list(self._ngrams),
            "weighting": self._weighting,
            "trainable": self._trainable,
            "sparse": self._sparse,
        }

    def save(self, output_path: str | Path) -> None:
        """Write ``weights.safetensors`` and ``encoder.json`` into an existing folder."""
        save_weights(self, Path(output_path) / WEIGHTS_FILE)
        write_settings(Path(output_path) / SETTINGS_FILE, self.get_config_dict())

    @classmethod
    def load(cls, input_path: str | Path) -> NgramEncoder:
        """Rebuild the encoder from a folder that :meth:`save` wrote.

        Raises:
            ServableError: A file is missing or damaged.
        """
        file = Path(input_path) / SETTINGS_FILE
        encoder = build_from_settings(cls, read_settings(file), file)
        load_weights(encoder, Path(input_path) / WEIGHTS_FILE)
        return encoder


def _checked_ngrams(ngrams: Any) -> tuple[int, int]:
    if not isinstance(ngrams, Sequence) or isinstance(ngrams, str) or len(ngrams) != 2:
        raise ConfigError(f"ngrams must be two numbers, the shortest and the longest, as (3, 5), got {ngrams!r:.80}")
    shortest, longest = (positive_size("ngrams", size) for size in ngrams)
    if shortest > longest:
        raise ConfigError(f"ngrams must be the shortest and the longest, got {shortest} and {longest}")
    return shortest, longest
