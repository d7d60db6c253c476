"""Large JSON files read element by element: memory holds the text and one element, never the whole tree."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from json.decoder import JSONDecoder
from pathlib import Path
from typing import Any, NoReturn

from .errors import DatasetError
from .reading import read_bytes

_SPACE = re.compile(r"[ \t\r\n]*")


class JsonArrays:
    """The object at the top of a JSON file, whose members may be long arrays.

    Raises DatasetError where the file is no JSON object, naming line and column.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        try:
            self._text = read_bytes(file).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise DatasetError("not UTF-8 text", file=file, where=f"byte {error.start}") from None
        self._decoder = JSONDecoder()
        self._places: dict[str, int] = {}
        place = self._past_space(0)
        if self._text[place : place + 1] != "{":
            raise DatasetError("not a JSON object", file=file, found=self._text[place : place + 20])
        self._next = self._past_space(place + 1)
        self._done = self._text[self._next : self._next + 1] == "}"

    def elements(self, name: str) -> Iterator[Any]:
        """The elements of the array called ``name``. Raises DatasetError where it is missing or no array."""
        if not self.has(name):
            raise DatasetError("a part is missing", file=self.file, field=name, expected="an array")
        place = self._places[name]
        if self._text[place : place + 1] != "[":
            raise DatasetError("not an array", file=self.file, field=name, found=self._text[place : place + 20])
        yield from self._read_array(place)

    def has(self, name: str) -> bool:
        """Whether the object has a member of that name."""
        while name not in self._places and not self._done:
            self._pass_member()
        return name in self._places

    def rows(self, name: str) -> None:
        """None: the elements are read one by one."""

    def _pass_member(self) -> None:
        key, place = self._decode(self._next)
        if not isinstance(key, str):
            self._fail("a member's name is not text", self._next)
        if key in self._places:
            raise DatasetError("a part is given twice", file=self.file, field=key)
        place = self._expect(":", self._past_space(place))
        self._places[key] = place
        if self._text[place : place + 1] == "[":
            for _ in self._read_array(place):
                pass
            place = self._array_end
        else:
            _, place = self._decode(place)
        place = self._past_space(place)
        self._done = self._text[place : place + 1] == "}"
        self._next = place if self._done else self._expect(",", place)

    def _read_array(self, place: int) -> Iterator[Any]:
        place = self._past_space(place + 1)
        if self._text[place : place + 1] != "]":
            while True:
                element, place = self._decode(place)
                yield element
                place = self._past_space(place)
                if self._text[place : place + 1] == "]":
                    break
                place = self._expect(",", place)
        self._array_end = place + 1

    def _decode(self, place: int) -> tuple[Any, int]:
        try:
            return self._decoder.raw_decode(self._text, place)
        except json.JSONDecodeError as error:
            self._fail(error.msg, error.pos)
        except RecursionError:
            self._fail("nested too deeply", place)
        except ValueError as error:
            self._fail(str(error), place)

    def _expect(self, sign: str, place: int) -> int:
        if self._text[place : place + 1] != sign:
            self._fail(f"{sign!r} is missing", place)
        return self._past_space(place + 1)

    def _past_space(self, place: int) -> int:
        match = _SPACE.match(self._text, place)
        return match.end() if match else place

    def _fail(self, problem: str, place: int) -> NoReturn:
        line = self._text.count("\n", 0, place) + 1
        column = place - self._text.rfind("\n", 0, place)
        raise DatasetError(
            f"not valid JSON: {problem}",
            file=self.file,
            where=f"line {line} column {column}",
            found=self._text[place : place + 20] or "the end of the file",
        )
