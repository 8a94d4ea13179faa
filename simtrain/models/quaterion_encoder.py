"""An encoder of simtrain as quaterion-models takes it.

Folders name this class by its module: neither may be renamed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from simtrain import registry
from simtrain.encoders.saved_classes import saved_class, type_name
from simtrain.encoders.settings_file import read_settings, write_settings
from simtrain.errors import ServableError
from simtrain.models.joined_encoders import freeze, is_frozen
from simtrain.models.part_files import load_part

TYPE_FILE, FOLDER = "simtrain.json", "encoder"


class RegisteredEncoder(nn.Module):
    """Gives an encoder of simtrain the methods that ``quaterion_models.SimilarityModel`` calls.

    Sides are unknown there: texts are encoded without the prompts of queries and documents, as ``encode`` does here.

    Args:
        encoder: An encoder whose class is registered in ``simtrain.registry.encoders``.

    Example:
        >>> from simtrain.encoders import PrecomputedEncoder
        >>> encoder = RegisteredEncoder(PrecomputedEncoder(2))
        >>> encoder(encoder.get_collate_fn()([[1, 2]])), encoder.get_meta_extractor()([[1, 2]])
        (tensor([[1., 2.]]), [{}])
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder: Any = encoder

    @property
    def trainable(self) -> bool:
        """Whether training may change the encoder."""
        return bool(self.encoder.trainable)

    @property
    def embedding_size(self) -> int:
        """Number of dimensions of one embedding."""
        return int(self.encoder.embedding_size)

    def disable_gradients_if_required(self) -> None:
        """Take the gradients of a frozen encoder."""
        freeze(self.encoder)

    def train(self, mode: bool = True) -> RegisteredEncoder:
        """Switch to train or eval mode; a frozen encoder stays in eval mode."""
        super().train(mode)
        if is_frozen(self.encoder):
            self.encoder.eval()
        return self

    def get_collate_fn(self) -> Any:
        """The encoder's own."""
        return self.encoder.get_collate_fn()

    def get_meta_extractor(self) -> Any:
        """The encoder's own; one that knows nothing of any item where it has none."""
        return self.encoder.get_meta_extractor() or nothing_known

    def forward(self, batch: Any) -> Tensor:
        """Embed a collated batch."""
        embeddings: Tensor = self.encoder(batch)
        return embeddings

    def save(self, output_path: str | Path) -> None:
        """Write the name of the encoder's class, and the encoder into a folder of its own.

        Raises:
            ServableError: The class is not registered.
        """
        name = type_name(self.encoder, registry.encoders)
        if name not in registry.encoders:
            raise ServableError(
                f"an encoder of the class {name!r} is not registered, so that quaterion-models could not load it: put "
                f"@registry.encoders.register_module() above the class"
            )
        folder = Path(output_path) / FOLDER
        folder.mkdir()
        self.encoder.save(str(folder))
        write_settings(Path(output_path) / TYPE_FILE, {"type": name})

    @classmethod
    def load(cls, input_path: str | Path) -> RegisteredEncoder:
        """Read an encoder that :meth:`save` wrote; a class of the user's own has to be registered before.

        Raises:
            ServableError: A file is missing or damaged, or the class is not registered.
        """
        return cls(load_part(registered_class(Path(input_path)), Path(input_path) / FOLDER))


def registered_class(folder: Path) -> type[Any]:
    """The class of the encoder that :meth:`RegisteredEncoder.save` wrote.

    Raises:
        ServableError: It is neither registered nor allowed.
    """
    settings = read_settings(folder / TYPE_FILE)
    if not isinstance(settings.get("type"), str):
        raise ServableError(f"{folder / TYPE_FILE} must give the encoder's class under 'type', got {settings!r:.80}")
    return saved_class(settings["type"], registry.encoders, folder)


def nothing_known(items: Sequence[Any]) -> list[dict[str, Any]]:
    """An empty dict for each item."""
    return [{} for _ in items]
