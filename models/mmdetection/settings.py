"""A configuration as data that knows where each of its values stands and which of them were used."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

NOTHING: Any = object()


class ConfigError(ValueError):
    """A configuration cannot be read, or asks for something that is not translated; names the place and the value."""


class Settings(dict):
    """A mapping of a configuration that remembers which of its keys were read, and says where each of them stands.

    What is never read would silently be lost: ``unread`` finds it.
    """

    def __init__(self, values: dict | None = None, *, file: str = "", lines: dict[str, int] | None = None) -> None:
        super().__init__(values or {})
        self.file, self.lines, self.path = file, dict(lines or {}), ""
        self.used: set[str] = set()
        self.passed: set[str] = set()

    def place(self, key: str | None = None) -> str:
        """File, line and dotted name of a key, or of the mapping itself."""
        line = self.lines.get(key) if key in self.lines else min(self.lines.values(), default=None)
        name = ".".join(part for part in (self.path, key) if part)
        return f"{self.file or 'configuration'}{'' if line is None else f', line {line}'}: {name}"

    def take(self, key: str, default: Any = NOTHING) -> Any:
        """The value of ``key``; a mapping in it knows its name from then on."""
        if key not in self:
            if default is NOTHING:
                raise ConfigError(f"{self.place()}: expected {key}, found {', '.join(map(str, self)) or 'nothing'}")
            return default
        self.used.add(key)
        value = self[key]
        name = f"{self.path}.{key}" if self.path else key
        for part in [value, *(value if isinstance(value, (list, tuple)) else ())]:
            if isinstance(part, Settings):
                part.path = name
        return value

    def only(self, key: str, *allowed: Any, default: Any = NOTHING) -> Any:
        """The value of ``key``, which must be one of ``allowed``; where the key is absent ``default`` or the first."""
        value = self.take(key, allowed[0] if default is NOTHING else default)
        if not any(same(value, one) for one in allowed):
            raise self.untranslated(key, f"expected {' or '.join(repr(one) for one in allowed)}")
        _read_all(value)
        return value

    def part(self, key: str) -> Settings:
        """The mapping under ``key``."""
        value = self.take(key)
        if not isinstance(value, Settings):
            raise self.untranslated(key, "expected a mapping")
        return value

    def ignored(self, *keys: str) -> None:
        """Marks keys as read that decide over nothing here, such as where pretrained weights lay."""
        found = [key for key in keys if key in self]
        self.used.update(found)
        self.passed.update(found)
        for key in found:
            _pass_all(self[key])

    def untranslated(self, key: str, why: str = "this is not translated") -> ConfigError:
        """The error of a value that is not translated."""
        return ConfigError(f"{self.place(key)} = {self.get(key)!r:.200}: {why}")

    def unread(self) -> Iterator[tuple[Settings, str]]:
        """Every key below this mapping that nothing has read."""
        for key, value in self.items():
            if key not in self.used:
                yield self, key
                continue
            for part in value if isinstance(value, (list, tuple)) else (value,):
                if isinstance(part, Settings):
                    yield from part.unread()

    def require_read(self) -> None:
        """Raises ConfigError where a key was never read, with the names and values of all of them."""
        left = [f"{owner.place(key)} = {owner[key]!r:.100}" for owner, key in self.unread()]
        if left:
            raise ConfigError(
                f"{left[0]}: this is not translated" + (f"; nor are {'; '.join(left[1:6])}" * bool(left[1:]))
            )


def same(value: Any, other: Any) -> bool:
    """Whether two values of configurations are equal; lists and tuples are the same, truth values are no numbers."""
    if isinstance(value, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(value) == len(other) and all(map(same, value, other))
    if isinstance(value, dict) and isinstance(other, dict):
        return value.keys() == other.keys() and all(same(one, other[key]) for key, one in value.items())
    if isinstance(value, bool) != isinstance(other, bool):
        return False
    return value == other


def _read_all(value: Any) -> None:
    """Marks everything below a value as read."""
    if isinstance(value, Settings):
        value.used.update(value)
        _read_all(list(value.values()))
    elif isinstance(value, (list, tuple)):
        for part in value:
            _read_all(part)


def _pass_all(value: Any) -> None:
    if isinstance(value, Settings):
        value.ignored(*value)
    elif isinstance(value, (list, tuple)):
        for part in value:
            _pass_all(part)


def from_plain(value: Any, file: str = "") -> Any:
    """Plain mappings and lists, as JSON and YAML give them, as settings without lines."""
    if isinstance(value, dict):
        return Settings({str(key): from_plain(one, file) for key, one in value.items()}, file=file)
    if isinstance(value, (list, tuple)):
        return [from_plain(one, file) for one in value]
    return value


def to_plain(value: Any) -> Any:
    """The reverse of ``from_plain``: what JSON can hold."""
    if isinstance(value, dict):
        return {key: to_plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(one) for one in value]
    return value


def without(value: Any, names: Collection[str]) -> Any:
    """Plain data without the keys of these names, at any depth."""
    if isinstance(value, dict):
        return {key: without(one, names) for key, one in value.items() if key not in names}
    if isinstance(value, (list, tuple)):
        return [without(one, names) for one in value]
    return value
