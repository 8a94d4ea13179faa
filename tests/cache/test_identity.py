"""Ways of writing code and items behind which an edit could hide; each case once was a stale vector."""

import dataclasses
import functools
import operator
import os
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from simtrain.cache import callable_fingerprint, item_key, item_keys
from simtrain.errors import CacheError


class Prefixed:
    """A decorator that is an object."""

    def __init__(self, function: Callable[[str], str], prefix: int) -> None:
        functools.update_wrapper(self, function)
        self.function, self.prefix = function, prefix

    def __call__(self, text: str) -> str:
        return self.function(f"{self.prefix}{text}")


class Held:
    def __init__(self, library: types.ModuleType) -> None:
        self.library = library

    def __call__(self, texts: list[str]) -> Any:
        return self.library.clean(texts)


def plain(text: str) -> str:
    return text


def helpers(value: int) -> types.ModuleType:
    """A module of the user's."""
    module = types.ModuleType("helpers_of_mine")
    exec(f"LIMIT = {value}\ndef clean(text): return text[:LIMIT]", module.__dict__)
    return module


def module_in_a_closure(value: int) -> Any:
    library = helpers(value)
    return lambda texts: library.clean(texts)


def module_as_a_default(value: int) -> Any:
    def collate(texts: Any, library: types.ModuleType = helpers(value)) -> Any:  # noqa: B008
        return library.clean(texts)

    return collate


def module_as_an_argument(value: int) -> Any:
    names: dict[str, Any] = {"__name__": "mine", "helpers": helpers(value)}
    exec("def run(library, x): return library.clean(x)\ndef collate(x): return run(helpers, x)", names)
    return names["collate"]


def cached_call(value: int) -> Any:
    class Cutting:
        @functools.lru_cache  # noqa: B019
        def __call__(self, text: str) -> str:
            return text[:value]

    return Cutting()


def partial_call(value: int) -> Any:
    class Cutting:
        def cut(self, text: str, limit: int) -> str:
            return text[:limit]

        __call__ = functools.partialmethod(cut, limit=value)

    return Cutting()


def installed_call(value: int) -> Any:
    class Picking:
        __call__ = operator.itemgetter(value)

    return Picking()


def class_of_a_class(value: int) -> Any:
    class Making(type):
        def __call__(cls, *args: Any) -> Any:
            return value

    class Made(metaclass=Making):
        pass

    return lambda texts: Made()


def attribute_of_a_partial(value: int) -> Any:
    made = functools.partial(plain)
    made.limit = value  # type: ignore[attr-defined]
    return made


def tokenizer(kind: type[PreTrainedTokenizerFast] = PreTrainedTokenizerFast) -> Any:
    words = {"[UNK]": 0, "[PAD]": 1, "[CLS]": 2}
    return kind(tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="[UNK]")), unk_token="[UNK]")


def tokenizer_setting(name: str, values: tuple[Any, Any]) -> Callable[[int], Any]:
    def made(value: int) -> Any:
        one = tokenizer()
        setattr(one, name, values[value])
        return lambda texts: one(texts)

    return made


def tokenizer_of_the_users(value: int) -> Any:
    class Cutting(PreTrainedTokenizerFast):
        def __call__(self, texts: Any, **words: Any) -> Any:
            return super().__call__([text[:value] for text in texts], **words)

    one = tokenizer(Cutting)
    return lambda texts: one(texts)


def tokenizer_with_a_number(value: int) -> Any:
    class Cutting(PreTrainedTokenizerFast):
        def __call__(self, texts: Any, **words: Any) -> Any:
            return super().__call__([text[: self.limit] for text in texts], **words)

    one = tokenizer(Cutting)
    one.limit = value
    return lambda texts: one(texts)


HIDDEN: dict[str, Callable[[int], Any]] = {
    "a decorator's own setting": lambda value: Prefixed(plain, value),
    "a module in a closure": module_in_a_closure,
    "a module in an attribute": lambda value: Held(helpers(value)),
    "a module as a default": module_as_a_default,
    "a module as an argument": module_as_an_argument,
    "a cached __call__": cached_call,
    "a partial __call__": partial_call,
    "a __call__ of another's": installed_call,
    "a metaclass": class_of_a_class,
    "an attribute of a partial": attribute_of_a_partial,
    "special tokens": tokenizer_setting("pad_token", ("[PAD]", "[CLS]")),
    "special tokens split": tokenizer_setting("split_special_tokens", (False, True)),
    "a chat template": tokenizer_setting("chat_template", ("a", "b")),
    "a tokenizer's class": tokenizer_of_the_users,
    "a tokenizer's attribute": tokenizer_with_a_number,
}


@pytest.mark.parametrize("make", HIDDEN.values(), ids=HIDDEN)
def test_an_edit_is_noticed_wherever_it_hides(make: Callable[[int], Any]) -> None:
    assert callable_fingerprint(make(0)) == callable_fingerprint(make(0)) != callable_fingerprint(make(1))


def test_the_default_number_type_counts() -> None:
    before = callable_fingerprint(torch.tensor)
    torch.set_default_dtype(torch.float64)
    try:
        assert callable_fingerprint(torch.tensor) != before
    finally:
        torch.set_default_dtype(torch.float32)
    assert callable_fingerprint(torch.tensor) == before


def with_a_method(value: int) -> Any:
    @dataclasses.dataclass
    class Product:
        title: str

        def text(self) -> str:
            return self.title[:value]

    return Product("shoe")


def with_a_property(value: int) -> Any:
    class Product(NamedTuple("Product", [("title", str)])):
        @property
        def text(self) -> str:
            return self.title * value

    return [Product("shoe")]


@pytest.mark.parametrize("make", [with_a_method, with_a_property])
def test_what_an_item_says_of_itself_counts(make: Callable[[int], Any]) -> None:
    assert item_key(make(1)) == item_key(make(1)) != item_key(make(2))
    assert item_keys([make(1), make(1)]).tobytes() == 2 * item_key(make(1))


def test_an_item_whose_class_has_no_identity_asks_for_a_key_extractor(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file:

        @dataclasses.dataclass
        class Product:
            title: str

            def text(self) -> str:
                return file.name + self.title

        expected = r"the class of an item, .*Product: .*; or set CacheConfig\(key_extractors=...\) to a function"
        with pytest.raises(CacheError, match=expected):
            item_key(Product("shoe"))


def test_what_a_class_counts_for_itself_can_be_left_out() -> None:
    @dataclasses.dataclass
    class Product:
        title: str
        cache_ignores = frozenset({"n_read"})
        n_read = 0

    before = item_key(Product("shoe"))
    Product.n_read += 1
    assert item_key(Product("shoe")) == before


class Cropped(os.PathLike[str]):
    """A path that says more than where a file is."""

    def __init__(self, path: Path, crop: int) -> None:
        self.path, self.crop = path, crop

    def __fspath__(self) -> str:
        return str(self.path)


class Lit(type(Path())):  # type: ignore[misc]
    """A Path with an attribute."""

    light: int


def test_a_path_of_the_users_is_more_than_its_place(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_text("a")
    with pytest.raises(CacheError, match="an item of type Cropped cannot be identified by its content"):
        item_key(Cropped(file, 1))
    one, other = Lit(file), Lit(file)
    one.light, other.light = 1, 2
    assert len({item_key(one), item_key(other), item_key(file)}) == 3


SCRIPT = """
from dataclasses import dataclass

LIMIT = 3


def cut(text):
    return text[:LIMIT]


@dataclass
class Product:
    title: str

    def text(self):
        return cut(self.title)
"""


def test_a_spawned_worker_gives_items_of_the_scripts_own_classes_the_same_keys() -> None:
    scripts: list[dict[str, Any]] = [{"__name__": "__main__"}, {"__name__": "__mp_main__"}]
    for names in scripts:
        exec(SCRIPT, names)
    one, other = (names["Product"]("shoe") for names in scripts)
    assert item_key(one) == item_key(other)
    assert callable_fingerprint(scripts[0]["cut"]) == callable_fingerprint(scripts[1]["cut"])
