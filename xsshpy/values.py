"""Dataclasses and enumerations that cost next to nothing to define.

``dataclasses.dataclass`` writes and compiles half a dozen methods for each class while its module
is imported: half a millisecond, a hundred times over in one start. The classes here get methods
that are there already, and do the same. Whoever looks at such a class as a dataclass (``fields``,
``replace``, ``asdict``), or makes an instance with arguments that don't fit, makes it one: the
standard library's own decorator then does its work, on the class in place.

Known to it: ``frozen`` and ``eq``, and ``field`` with a default, a factory, ``repr`` and
``compare``. With any other option a class is the standard library's at once.

``enum`` itself takes as long to import as everything that a passenger loads of xsshpy. ``Enum`` and
``IntEnum`` are what it has for classes with plain values: members by attribute, name and value, in
order, compared by identity (or as numbers), with no more methods than the class defines.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # what type checkers take for true; to import typing takes 3 ms

if TYPE_CHECKING:
    from dataclasses import dataclass, field, replace
    from enum import Enum, IntEnum
else:
    _FIELDS = "__dataclass_fields__"
    _MISSING = object()

    def dataclass(cls: type | None = None, /, **options: object) -> object:
        """As ``dataclasses.dataclass``."""
        if cls is None:
            return lambda decorated: dataclass(decorated, **options)
        fields = _read_fields(cls)
        if not options.keys() <= {"frozen", "eq"} or fields is None:
            return _by_the_standard_library(cls, options)
        return _Values(cls, fields, options).adorn()

    def field(**options: object) -> _Field:
        """As ``dataclasses.field``."""
        return _Field(options)

    def replace(instance: object, /, **changes: object) -> object:
        """As ``dataclasses.replace``."""
        values = _values_of(type(instance))
        if values is None:
            import dataclasses

            return dataclasses.replace(instance, **changes)
        state = {name: getattr(instance, name) for name in values.names}
        return type(instance)(**{**state, **changes})

    class _Field:
        """One field: its default or factory, and whether it shows and counts."""

        def __init__(self, options: dict[str, object]) -> None:
            self.options = options
            self.default = options.get("default", _MISSING)
            self.factory = options.get("default_factory")
            self.shows = bool(options.get("repr", True))
            self.counts = bool(options.get("compare", True))

    class _Values:
        """What is known of one class. In its place the class finds ``__dataclass_fields__``."""

        def __init__(self, cls: type, fields: dict[str, _Field], options: dict[str, bool]) -> None:
            self.cls = cls
            self.fields = fields
            self.options = options
            self.names = tuple(fields)
            self.shown = tuple(name for name, each in fields.items() if each.shows)
            self.counted = tuple(name for name, each in fields.items() if each.counts)
            self.added: list[str] = []

        def __get__(self, instance: object, owner: type) -> object:
            """Be a dataclass for those who ask."""
            self.complete()
            return self.cls.__dict__[_FIELDS]

        def adorn(self) -> type:
            """Give the class its methods, save those that it has."""
            own = self.cls.__dict__
            self._take_factories_away()
            self._add("__init__", _make_init(self))
            if "__repr__" not in own:
                self._add("__repr__", _make_repr(self))
            if self.options.get("eq", True):
                has_hash = own.get("__hash__") is not None
                if "__eq__" not in own:
                    self._add("__eq__", _make_eq(self))
                if not has_hash:
                    frozen = self.options.get("frozen")
                    self._add("__hash__", _make_hash(self) if frozen else None)
            if self.options.get("frozen"):
                self._add("__setattr__", _make_guard(self, "assign to"))
                self._add("__delattr__", _make_guard(self, "delete"))
            if "__match_args__" not in own:
                self._add("__match_args__", self.names)
            setattr(self.cls, _FIELDS, self)
            return self.cls

        def _add(self, name: str, value: object) -> None:
            setattr(self.cls, name, value)
            self.added.append(name)

        def _take_factories_away(self) -> None:
            for name, value in list(self.cls.__dict__.items()):
                if isinstance(value, _Field):
                    if value.default is _MISSING:
                        delattr(self.cls, name)
                    else:
                        setattr(self.cls, name, value.default)

        def complete(self) -> None:
            """Let the standard library take over."""
            if self.cls.__dict__.get(_FIELDS) is not self:
                return
            for name in (*self.added, _FIELDS):
                delattr(self.cls, name)
            for name in self.cls.__annotations__:
                if name in self.fields and self.fields[name].options:
                    setattr(self.cls, name, self.fields[name])
            _by_the_standard_library(self.cls, self.options)

    def _values_of(cls: type) -> _Values | None:
        for each in cls.__mro__:
            if _FIELDS in each.__dict__:
                found = each.__dict__[_FIELDS]
                return found if isinstance(found, _Values) else None
        return None

    def _read_fields(cls: type) -> dict[str, _Field] | None:
        """Return the fields, those of the bases first; None where the standard library must."""
        found: dict[str, _Field] = {}
        for base in reversed(cls.__mro__[1:]):
            if _FIELDS in base.__dict__:
                values = base.__dict__[_FIELDS]
                if not isinstance(values, _Values):
                    return None
                found.update(values.fields)
        for name, annotation in cls.__annotations__.items():
            if (
                not isinstance(annotation, str)
                or "InitVar" in annotation
                or "KW_ONLY" in annotation
            ):
                return None
            if "ClassVar" in annotation:
                continue
            value = cls.__dict__.get(name, _MISSING)
            if not isinstance(value, _Field):
                value = _Field({} if value is _MISSING else {"default": value})
            if not value.options.keys() <= {"default", "default_factory", "repr", "compare"}:
                return None
            found[name] = value
        return found

    def _by_the_standard_library(cls: type, options: dict[str, object]) -> type:
        import dataclasses

        for name, value in list(cls.__dict__.items()):
            if isinstance(value, _Field):
                setattr(cls, name, dataclasses.field(**value.options))
        return dataclasses.dataclass(**options)(cls)

    def _make_init(values: _Values) -> object:
        cls, names, fields = values.cls, values.names, values.fields
        count = len(names)
        finishes = hasattr(cls, "__post_init__")

        def __init__(self: object, *given: object, **named: object) -> None:
            state = dict(zip(names, given, strict=False))
            state.update(named)
            fits = len(state) == len(given) + len(named)
            if len(state) < count:
                for name in names:
                    if name not in state:
                        if fields[name].factory is not None:
                            state[name] = fields[name].factory()
                        elif fields[name].default is not _MISSING:
                            state[name] = fields[name].default
            if not fits or len(state) != count or not fields.keys() >= named.keys():
                values.complete()
                cls.__init__(self, *given, **named)  # it says what is wrong
                return
            self.__dict__.update(state)
            if finishes:
                self.__post_init__()

        return __init__

    def _make_repr(values: _Values) -> object:
        def __repr__(self: object) -> str:
            from reprlib import recursive_repr

            values.cls.__repr__ = recursive_repr()(show)
            return values.cls.__repr__(self)

        def show(self: object) -> str:
            shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in values.shown)
            return f"{type(self).__qualname__}({shown})"

        return __repr__

    def _make_eq(values: _Values) -> object:
        names = values.counted
        # Until Python 3.12 tuples of the fields are compared: what is identical is equal.
        identical = sys.version_info < (3, 13)

        def __eq__(self: object, other: object) -> bool:
            if other.__class__ is not self.__class__:
                return NotImplemented
            for name in names:
                mine, others = self.__dict__[name], other.__dict__[name]
                if not (mine == others or (identical and mine is others)):
                    return False
            return True

        return __eq__

    def _make_hash(values: _Values) -> object:
        names = values.counted

        def __hash__(self: object) -> int:
            return hash(tuple([self.__dict__[name] for name in names]))

        return __hash__

    def _make_guard(values: _Values, action: str) -> object:
        cls, names = values.cls, values.names

        def guard(self: object, name: str, *value: object) -> None:
            if type(self) is cls or name in names:
                from dataclasses import FrozenInstanceError

                raise FrozenInstanceError(f"cannot {action} field {name!r}")
            method = "__setattr__" if value else "__delattr__"
            getattr(super(cls, self), method)(name, *value)

        return guard

    class _EnumType(type):
        """Makes members of the values in a class's body."""

        def __new__(cls, name: str, bases: tuple[type, ...], body: dict[str, object]) -> type:
            values = {key: value for key, value in body.items() if _is_member(key, value)}
            rest = {key: value for key, value in body.items() if key not in values}
            made = super().__new__(cls, name, bases, rest)
            made._by_name, made._by_value = {}, {}
            for key, value in values.items():
                member = made._by_value.get(value)
                if member is None:
                    member = made.__new__(made, *([value] if issubclass(made, int) else []))
                    member.__dict__.update(name=key, value=value)
                    made._by_value[value] = member
                made._by_name[key] = member
                type.__setattr__(made, key, member)
            return made

        def __call__(cls, value: object) -> object:
            try:
                return cls._by_value[value]
            except (KeyError, TypeError):
                raise ValueError(f"{value!r} is not a valid {cls.__qualname__}") from None

        def __getitem__(cls, name: str) -> object:
            return cls._by_name[name]

        def __iter__(cls) -> object:
            return iter(cls._by_value.values())

        def __len__(cls) -> int:
            return len(cls._by_value)

        def __contains__(cls, value: object) -> bool:
            return isinstance(value, cls) or value in cls._by_value

        def __setattr__(cls, name: str, value: object) -> None:
            if name in cls.__dict__.get("_by_name", ()):
                raise AttributeError(f"cannot reassign member {name!r}")
            super().__setattr__(name, value)

    def _is_member(name: str, value: object) -> bool:
        return not name.startswith("_") and not hasattr(value, "__get__")

    class Enum(metaclass=_EnumType):
        """As ``enum.Enum``."""

        def __setattr__(self, name: str, value: object) -> None:
            raise AttributeError(f"a member of {type(self).__qualname__} does not change")

        def __repr__(self) -> str:
            return f"<{type(self).__name__}.{self.name}: {self.value!r}>"

        def __str__(self) -> str:
            return f"{type(self).__name__}.{self.name}"

        def __reduce_ex__(self, protocol: object) -> object:
            return type(self), (self.value,)

    class IntEnum(Enum, int):
        """As ``enum.IntEnum``, which since Python 3.11 is shown as the number."""

        __str__ = int.__repr__


__all__ = ["Enum", "IntEnum", "dataclass", "field", "replace"]
