"""Objects, classes and enums that behave as a pybind11 library's, with the names of a recorded surface only.

Every name that is used is noted, and every one that is asked for in vain. Surfaces: see `tensorrt_surfaces`.
"""

from __future__ import annotations

from typing import Any

from tensorrt_surfaces import Surface


class Library:
    """One version of a library: its surface, and what was used of it.

    ``touched`` and ``missed`` hold dotted names, as ``BuilderFlag.DEBUG`` or ``Builder.create_network``.
    """

    def __init__(self, surface: Surface, derivable: tuple[str, ...]) -> None:
        self.surface = surface
        self.touched: set[str] = set()
        self.missed: set[str] = set()
        self.enums = {name: _make_enum(self, name, values) for name, values in surface["enums"].items()}
        self.bases = {name: _make_base(self, name) for name in derivable}

    def use(self, owner: str, name: str) -> str:
        """Note that a name is used and return its kind; ``owner`` is a class, an enum, or empty for the module.

        Raises AttributeError if this version lacks the name.
        """
        known = self.surface["classes"].get(owner) or self.surface["enums"].get(owner) or {}
        if owner == "":
            known = dict.fromkeys(self.surface["module"], "read")
        dotted = f"{owner}.{name}".lstrip(".")
        if name not in known:
            self.missed.add(dotted)
            what = f"'{owner}' object" if owner else f"module '{self.surface['library']}'"
            raise AttributeError(f"{what} has no attribute '{name}'")
        self.touched.add(dotted)
        return str(known[name])

    def member(self, enum: str, name: str) -> Any:
        """A member of an enum that nobody asked for by its name."""
        return self.enums[enum].__members__[name]

    def check_member(self, enum: str, value: Any) -> None:
        """Raises TypeError for a value that is no member: pybind11 takes no number for one."""
        if type(value) is not self.enums[enum]:
            raise TypeError(f"incompatible function arguments: {value!r} is no {enum}")


class Member:
    """A member of an enum: equal to and ordered with its own kind alone, a number only by ``int``."""

    def __init__(self, value: int) -> None:
        self.value = value

    @property
    def name(self) -> str:
        members: dict[str, Member] = type(self).__members__  # type: ignore[attr-defined]
        return next((name for name, member in members.items() if member.value == self.value), "???")

    def __int__(self) -> int:
        return self.value

    __index__ = __int__
    __hash__ = __int__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, type(self)) and other.value == self.value

    def _compared(self, other: object) -> int:
        if not isinstance(other, type(self)):
            raise TypeError("Expected an enumeration of matching type!")
        return other.value

    def __lt__(self, other: object) -> bool:
        return self.value < self._compared(other)

    def __le__(self, other: object) -> bool:
        return self.value <= self._compared(other)

    def __gt__(self, other: object) -> bool:
        return self.value > self._compared(other)

    def __ge__(self, other: object) -> bool:
        return self.value >= self._compared(other)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}.{self.name}: {self.value}>"


def _make_enum(library: Library, name: str, values: dict[str, int]) -> Any:
    class Meta(type):
        def __getattr__(cls, member: str) -> Any:
            if member.startswith("_"):
                raise AttributeError(member)
            library.use(name, member)
            return members[member]

        @property
        def __members__(cls) -> dict[str, Any]:
            return dict(members)

    enum: Any = Meta(name.rsplit(".", maxsplit=1)[-1], (Member,), {})
    members = {member: enum(value) for member, value in values.items()}
    return enum


def _make_base(library: Library, name: str) -> Any:
    """A class that Python code derives from, as ``class Log(trt.ILogger)``; it must call our ``__init__``."""

    class Meta(type):
        def __getattr__(cls, attribute: str) -> Any:
            if attribute.startswith("_"):
                raise AttributeError(attribute)
            library.use(name, attribute)
            severity = library.enums[f"{name}.Severity"]
            return severity if attribute == "Severity" else severity.__members__[attribute]

        def __call__(cls, *args: Any) -> Any:
            made = super().__call__(*args)
            if not hasattr(made, "_made"):
                raise TypeError(f"{name}.__init__() must be called when overriding __init__")
            return made

    def init(self: Any) -> None:
        self._made = True

    return Meta(name, (), {"__init__": init})


class BoundClass:
    """A class that Python code does not derive from: ``make`` makes an object of it, None if nobody may."""

    def __init__(self, library: Library, name: str, make: Any) -> None:
        self._library, self._name, self._make = library, name, make

    def __call__(self, *args: Any) -> Any:
        if self._make is None:
            raise TypeError(f"{self._name}: No constructor defined!")
        return self._make(self._library, *args)

    def __getattr__(self, name: str) -> Any:
        self._library.use(self._name, name)
        return property()


class BoundObject:
    """An object of the library: it has what the surface lists for its class, which is named as its type.

    ``values`` are its properties, of which those that the surface says may be set can be.
    """

    def __init__(self, library: Library, **values: Any) -> None:
        self._library, self._values = library, values

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("_"):
            return super().__getattribute__(name)
        owner = type(self).__name__
        self._library.use(owner, name)
        if name in self._values:
            return self._values[name]
        if not hasattr(type(self), name):  # not an AttributeError, which hasattr would take for an answer
            raise NotImplementedError(f"the stand-in has no {owner}.{name} yet: write it")
        return super().__getattribute__(name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            super().__setattr__(name, value)
            return
        owner = type(self).__name__
        if self._library.use(owner, name) != "read write":
            raise AttributeError(f"property of '{owner}' object has no setter")
        self._check(name, value)
        self._values[name] = value

    def _check(self, name: str, value: Any) -> None:
        """Raises TypeError for a value of another type than the property has."""
        wanted = type(self._values[name])
        if not isinstance(value, wanted):
            raise TypeError(f"incompatible function arguments: {value!r} is no {wanted.__name__}")


class BoundBuffer(bytearray):
    """Memory of the library: a buffer with what its class is written to have, and nothing else of what bytes do."""

    def __init__(self, library: Library, content: bytes) -> None:
        super().__init__(content)
        self._library = library

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("_"):
            return super().__getattribute__(name)
        owner = type(self)
        self._library.use(owner.__name__, name)
        if name not in vars(owner):
            raise NotImplementedError(f"the stand-in has no {owner.__name__}.{name} yet: write it")
        return super().__getattribute__(name)

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_"):
            raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}' that can be set")
        super().__setattr__(name, value)

    def __bool__(self) -> bool:
        return True

    __eq__ = object.__eq__
    __hash__ = object.__hash__  # type: ignore[assignment]

    def _refuse(self, *_: Any) -> Any:
        raise TypeError(f"'{type(self).__name__}' object has no len(), no items and is not iterable")

    __len__ = __getitem__ = __iter__ = _refuse
