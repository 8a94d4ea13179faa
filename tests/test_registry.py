import pytest
import torch

from simtrain import registry
from simtrain.errors import ConfigError, ContractError, UnknownNameError
from simtrain.registry import Registry


class WidgetOfThisTest:
    """Found by its name in this module."""


class Widget:
    def __init__(self, size, *, colour="red", shiny: bool = False, weight: "float | torch.Tensor | None" = None):
        self.size, self.colour, self.shiny = size, colour, shiny
        self.kilos = None if weight is None else weight / 1000
        self.first = colour[0]


@pytest.fixture
def widgets():
    room = Registry("widget")
    room.register_module()(Widget)
    return room


def test_a_registered_class_is_built_from_its_config(widgets):
    built = widgets.build({"type": "Widget", "colour": "blue"}, 3)
    assert (built.size, built.colour) == (3, "blue")
    assert widgets.build({"type": "Widget", "size": 2}, colour="green").colour == "green"


def test_another_class_under_a_taken_name_is_refused_but_the_same_one_is_not(widgets):
    widgets.register_module()(Widget)
    with pytest.raises(ConfigError, match="the widget name 'Widget' is taken"):
        widgets.register_module("Widget")(dict)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"type": "Wigdet"}, "unknown widget type 'Wigdet'; did you mean 'Widget'"),
        ({"type": "Widget", "size": 1, "color": "x"}, "widget 'Widget' has no setting 'color'; did you mean 'colour'"),
        ({"type": "Widget"}, "missing a required argument: 'size'"),
        ({"size": 1}, "a widget is given as {'type': NAME, ...}"),
        ("Widget", "a widget is given as {'type': NAME, ...}"),
    ],
)
def test_bad_configs_say_what_to_do(widgets, config, message):
    for use in (widgets.build, widgets.check):
        with pytest.raises(ConfigError, match=message):
            use(config)


@pytest.mark.parametrize("shiny", ["no", 1, None])
def test_what_python_would_take_for_true_is_refused(widgets, shiny):
    for use in (widgets.build, widgets.check):
        with pytest.raises(ConfigError, match=f"widget 'Widget': shiny should be true or false, got {shiny!r}"):
            use({"type": "Widget", "size": 1, "shiny": shiny})
    assert widgets.build({"type": "Widget", "size": 1, "shiny": True}).shiny is True


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"weight": "light"}, "widget 'Widget': weight should be a number or null, got 'light'"),
        ({"weight": [1]}, r"widget 'Widget': weight should be a number or null, got \[1\]"),
        ({"colour": []}, r"widget 'Widget': list index out of range \(given size=1, colour=\[\]\)"),
        ({"colour": 3}, r"widget 'Widget': 'int' object is not subscriptable \(given size=1, colour=3\)"),
    ],
)
def test_a_value_that_breaks_the_class_is_named(widgets, words, message):
    with pytest.raises(ConfigError, match=message):
        widgets.build({"type": "Widget", "size": 1, **words})


def test_the_built_in_names_are_found_without_importing_their_rooms_first():
    assert {"SentenceTransformerEncoder", "ModuleEncoder", "PrecomputedEncoder"} <= set(registry.encoders.names())
    assert {"EmptyHead", "SkipConnectionHead", "StackedProjectionHead"} <= set(registry.heads.names())
    assert {"MultipleNegativesRankingLoss", "TripletLoss", "SupConLoss", "ContrastiveLoss"} <= set(
        registry.losses.names()
    )
    assert {"Adam", "AdamW", "SGD"} <= set(registry.optimizers.names())
    assert {"cosine", "linear", "constant"} <= set(registry.schedulers.names())
    assert {"RetrievalPrecision", "RetrievalReciprocalRank"} <= set(registry.metrics.names())


def test_a_name_of_another_kind_or_of_an_imported_class_is_pointed_to(widgets):
    with pytest.raises(UnknownNameError, match="There is a loss of that name"):
        registry.heads.get("TripletLoss")
    with pytest.raises(UnknownNameError, match=rf"A class of that name is in {__name__}: register it"):
        registry.models.get("WidgetOfThisTest")
    with pytest.raises(UnknownNameError, match=r"Names are not paths: import my\.models before, where"):
        registry.models.get("my.models.Mine")
    with pytest.raises(KeyError, match="Import the module that registers your own before it is looked up"):
        widgets.get("Nowhere")


@pytest.mark.usefixtures("without_type_checks")
@pytest.mark.parametrize("name", [3, None, Widget])
def test_a_name_is_a_text(widgets, name):
    with pytest.raises(ContractError, match="a widget is looked up by its name, got"):
        widgets.get(name)


@pytest.mark.usefixtures("without_type_checks")
def test_forgotten_parentheses_are_noticed(widgets):
    with pytest.raises(ContractError, match="with parentheses"):
        widgets.register_module(Widget)


def test_a_registry_may_ask_for_a_base_class():
    room = Registry("count", base="builtins.int")
    room.register_module()(bool)
    with pytest.raises(ContractError, match=r"a count has to be a subclass of builtins\.int, got <class .*Widget"):
        room.register_module()(Widget)


def test_every_kind_has_a_registry_that_loads_its_own_names():
    kinds = {part.kind for part in registry.ALL}
    assert {"model", "loss", "head", "encoder", "metric", "callback", "sampler", "optimizer", "scheduler"} <= kinds
    assert "TrainableModel" in registry.models
    assert "EMA" in registry.callbacks
    assert {"BaseDataPreprocessor", "ImageDataPreprocessor", "MixUpDataPreprocessor"} <= set(
        registry.preprocessors.names()
    )
    for part in registry.ALL:
        assert part.names() == sorted(part.names())


def test_a_registry_holds_classes_and_nothing_of_a_run(widgets):
    before = dict(vars(widgets))
    widgets.build({"type": "Widget", "size": 1})
    assert vars(widgets) == before
    assert all(callable(value) for value in widgets._classes.values())
