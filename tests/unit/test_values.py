"""Our dataclasses do what the standard library's do, and become those when somebody asks."""

from __future__ import annotations

import copy
import dataclasses
import enum
import pickle
from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from xsshpy import values

MAKERS = {
    "ours": (values.dataclass, values.field),
    "theirs": (dataclasses.dataclass, dataclasses.field),
}


def make_classes(maker: str) -> dict[str, Any]:
    dataclass, field = MAKERS[maker]

    @dataclass(frozen=True)
    class Point:
        x: int
        y: int = 2
        names: list[str] = field(default_factory=list, compare=False)
        secret: str = field(default="hidden", repr=False)
        count: ClassVar[int] = 7

        def total(self) -> int:
            return self.x + self.y

    @dataclass(frozen=True)
    class Solid(Point):
        z: int = 3

    @dataclass
    class Mutable:
        value: int
        other: tuple[int, ...] = ()

        def __post_init__(self) -> None:
            self.value += 1

    @dataclass(eq=False)
    class Identity:
        value: int = 0

    @dataclass(frozen=True)
    class Spoken:
        value: int = 1

        def __repr__(self) -> str:
            return "spoken"

        def __hash__(self) -> int:
            return 5

    @dataclass(order=True)
    class Ordered:
        value: int

    class Plain(Point):
        pass

    return {
        each.__name__: each for each in (Point, Solid, Mutable, Identity, Spoken, Ordered, Plain)
    }


QUESTIONS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "repr": lambda c: repr(c["Point"](1)),
    "repr, inherited": lambda c: repr(c["Solid"](1, 2, ["a"], "b", 9)),
    "repr, by hand": lambda c: repr(c["Spoken"]()),
    "keywords": lambda c: repr(c["Solid"](z=5, x=1)),
    "method": lambda c: c["Point"](1, 5).total(),
    "default of the class": lambda c: (
        c["Point"].y,
        hasattr(c["Point"], "names"),
        c["Point"].count,
    ),
    "factory": lambda c: c["Point"](1).names is c["Point"](1).names,
    "equal": lambda c: (
        c["Point"](1) == c["Point"](1, 2, ["not compared"]),
        c["Point"](1) == c["Point"](1, 3),
        c["Point"](1) == c["Solid"](1),
        c["Point"](1) != 1,
        c["Plain"](1) == c["Plain"](1),
        c["Identity"]() == c["Identity"](),
        c["Mutable"](1) == c["Mutable"](1),
    ),
    "not a number": lambda c: c["Point"](float("nan")) == c["Point"](float("nan")),
    "the same not a number": lambda c: (lambda n: c["Point"](n) == c["Point"](n))(float("nan")),
    "hash": lambda c: (hash(c["Point"](1)) == hash(c["Point"](1)), hash(c["Spoken"]())),
    "hash, value": lambda c: hash(c["Point"](1, 2)),
    "unhashable": lambda c: hash(c["Mutable"](1)),
    "hash by identity": lambda c: isinstance(hash(c["Identity"]()), int),
    "frozen": lambda c: setattr(c["Point"](1), "x", 2),
    "frozen, new": lambda c: setattr(c["Point"](1), "w", 2),
    "frozen, deleted": lambda c: delattr(c["Point"](1), "x"),
    "frozen, inherited": lambda c: setattr(c["Plain"](1), "x", 2),
    "free in a subclass": lambda c: setattr(c["Plain"](1), "w", 2),
    "post init": lambda c: c["Mutable"](1).value,
    "mutable": lambda c: (lambda m: (setattr(m, "value", 9), m.value))(c["Mutable"](1)),
    "too few": lambda c: c["Solid"](),
    "too many": lambda c: c["Point"](1, 2, [], "", 5),
    "twice": lambda c: c["Point"](1, x=2),
    "unknown": lambda c: c["Point"](1, w=2),
    "unknown in place of one": lambda c: c["Mutable"](1, w=2),
    "ordered": lambda c: c["Ordered"](1) < c["Ordered"](2),
    "match": lambda c: c["Point"].__match_args__,
    "vars": lambda c: vars(c["Solid"](1, names=["q"])),
    "copy": lambda c: (copy.copy(c["Point"](4)).x, copy.deepcopy(c["Solid"](4)).z),
    "fields": lambda c: [
        (each.name, each.repr, each.compare) for each in dataclasses.fields(c["Solid"])
    ],
    "asdict": lambda c: dataclasses.asdict(c["Solid"](1)),
    "replace": lambda c: repr(dataclasses.replace(c["Solid"](1), z=7)),
    "is dataclass": lambda c: dataclasses.is_dataclass(c["Point"]),
}


def answer(question: Callable[[dict[str, Any]], Any], classes: dict[str, Any]) -> Any:
    try:
        return question(classes)
    except (TypeError, AttributeError) as error:
        return type(error), str(error).replace("make_classes.<locals>.", "")


@pytest.mark.parametrize("completed", [False, True], ids=["light", "completed"])
@pytest.mark.parametrize("name", QUESTIONS)
def test_the_same_as_the_standard_librarys(name: str, completed: bool) -> None:
    ours, theirs = make_classes("ours"), make_classes("theirs")
    if completed:
        for each in ours.values():
            assert dataclasses.fields(each) is not None
    assert answer(QUESTIONS[name], ours) == answer(QUESTIONS[name], theirs)


def test_an_instance_survives_the_completion_of_its_class() -> None:
    classes = make_classes("ours")
    before = classes["Solid"](1, 2, ["n"])
    assert dataclasses.replace(before, z=8) != before
    assert before == classes["Solid"](1, 2, ["n"]) and repr(before) == repr(copy.copy(before))


@pytest.mark.parametrize("maker", MAKERS)
def test_replace(maker: str) -> None:
    classes = make_classes(maker)
    before = classes["Solid"](1, names=["n"])
    after = values.replace(before, y=5)
    assert (after.x, after.y, after.names, before.y) == (1, 5, ["n"], 2)
    with pytest.raises(TypeError):
        values.replace(before, w=5)


def test_a_class_is_light_until_it_is_asked() -> None:
    point = make_classes("ours")["Point"]
    assert not hasattr(point.__init__, "__wrapped__") and "__dataclass_params__" not in vars(point)
    point(1)
    assert "__dataclass_params__" not in vars(point)
    assert dataclasses.is_dataclass(point) and "__dataclass_params__" in vars(point)


@values.dataclass(frozen=True)
class Sent:
    """At the module's level, so that pickle finds it."""

    value: int
    text: str = "t"


def test_pickle() -> None:
    assert pickle.loads(pickle.dumps(Sent(3))) == Sent(3)


def make_enumerations(module: Any) -> tuple[Any, Any]:
    class Loudness(module.IntEnum):
        """How loud."""

        LOW = 1
        HIGH = 2
        TOP = 2

        @property
        def next(self) -> int:
            return self + 1

        @classmethod
        def parse(cls, name: str) -> Any:
            return cls[name.upper()]

    class Choice(module.Enum):
        NO = "no"
        YES = "yes"

        def __bool__(self) -> bool:
            return self is not type(self).NO

    return Loudness, Choice


@pytest.mark.parametrize("module", [values, enum], ids=["ours", "theirs"])
def test_enumerations(module: Any) -> None:
    loudness, choice = make_enumerations(module)
    low, high = loudness.LOW, loudness.HIGH
    assert (low.name, low.value, low + 1, low.next) == ("LOW", 1, 2, 2)
    assert isinstance(low, int) and low < high == 2 and {1: "x"}[low] == "x"
    assert [*loudness] == [low, high] and len(loudness) == 2
    assert loudness.TOP is high and loudness["TOP"] is high
    assert loudness(2) is high and loudness.parse("low") is low and low in loudness
    assert f"{low}" == "1" and repr(low) == "<Loudness.LOW: 1>"
    assert loudness.__doc__ == "How loud."
    assert choice("yes") is choice.YES and choice.YES != "yes" and choice.YES != choice.NO
    assert str(choice.NO) == "Choice.NO" and repr(choice.NO) == "<Choice.NO: 'no'>"
    assert choice.YES and not choice.NO and {choice.NO: 1}[choice.NO] == 1
    assert copy.deepcopy([choice.NO])[0] is choice.NO and copy.copy(low) is low


@pytest.mark.parametrize("module", [values, enum], ids=["ours", "theirs"])
def test_what_enumerations_refuse(module: Any) -> None:
    loudness, choice = make_enumerations(module)
    for wrong in (3, "LOW", []):
        with pytest.raises(ValueError, match=r"is not a valid .*Loudness"):
            loudness(wrong)
    with pytest.raises(KeyError):
        choice["MAYBE"]
    with pytest.raises(AttributeError):
        choice.NO = 1
    with pytest.raises(AttributeError):
        choice.NO.name = "YES"
