"""Pickles of numpy arrays, read without running anything of what they name.

The standard unpickler calls what a file asks for. Even where only numpy's own constructors are allowed, a damaged file
can bring them to crash the interpreter. Here the instructions are carried out on plain values: the few calls that
arrays are made of are recognized by name, and an array is only made once its type, shape and bytes are known to fit.
"""

from __future__ import annotations

import math
import pickletools
from dataclasses import dataclass
from typing import Any

import numpy as np

_MULTIARRAY = ("numpy.core.multiarray", "numpy._core.multiarray")
_NUMERIC = ("numpy.core.numeric", "numpy._core.numeric")
_KINDS = {"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"}


class NotArrays(ValueError):
    """The pickle is damaged, or holds something else than numbers, text, lists, tuples, dictionaries and arrays."""


@dataclass
class _Name:
    module: str
    name: str


@dataclass
class _Type:
    """A number type; the byte order comes in a later instruction."""

    code: str
    order: str = "<"

    def dtype(self) -> np.dtype:
        return np.dtype(self.order + self.code)


@dataclass
class _Array:
    """An array that is announced first and filled in a later instruction."""

    content: np.ndarray | None = None


def load_arrays(data: bytes) -> Any:
    """What a pickle holds: numbers, text, bytes, lists, tuples, dictionaries and numpy arrays of numbers.

    Protocols 0 to 5, of Python 2 as well; time and memory are bounded by the size of the file.
    Raises NotArrays for anything else.
    """
    machine = _Machine()
    try:
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name == "STOP":
                return _finished(machine.pop(), [4 * len(data) + 16])
            machine.step(opcode.name, argument)
    except NotArrays:
        raise
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise NotArrays(f"the pickle is damaged ({error})") from error
    raise NotArrays("the pickle ends early")


class _Machine:
    """The stack machine of the pickle format, with the instructions that data needs."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def pop(self) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise NotArrays("the pickle is damaged (nothing to take)")
        return self.stack.pop()

    def pop_to_mark(self) -> list[Any]:
        start = self.marks.pop()
        taken = self.stack[start:]
        del self.stack[start:]
        return taken

    def step(self, name: str, argument: Any) -> None:
        if name in _NOTHING:
            return
        if name in _CONSTANTS:
            self.stack.append(argument)
        elif name in _MAKERS:
            self.stack.append(_MAKERS[name]())
        elif name == "MARK":
            self.marks.append(len(self.stack))
        elif name == "POP":
            self.pop()
        elif name == "POP_MARK":
            self.pop_to_mark()
        elif name in ("LIST", "TUPLE"):
            taken = self.pop_to_mark()
            self.stack.append(taken if name == "LIST" else tuple(taken))
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            taken = [self.pop() for _ in range(int(name[-1]))]
            self.stack.append(tuple(reversed(taken)))
        elif name in ("APPEND", "APPENDS"):
            taken = [self.pop()] if name == "APPEND" else self.pop_to_mark()
            _expect(self.stack[-1], list).extend(taken)
        elif name in ("SETITEM", "SETITEMS", "DICT"):
            taken = [self.pop(), self.pop()][::-1] if name == "SETITEM" else self.pop_to_mark()
            if name == "DICT":
                self.stack.append({})
            _expect(self.stack[-1], dict).update(_pairs(taken))
        elif name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            self.memo[len(self.memo) if name == "MEMOIZE" else argument] = self.stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[argument])
        elif name == "GLOBAL":
            self.stack.append(_Name(*argument.split(" ", 1)))
        elif name == "STACK_GLOBAL":
            last, first = self.pop(), self.pop()
            self.stack.append(_Name(_expect(first, str), _expect(last, str)))
        elif name == "REDUCE":
            arguments, called = self.pop(), self.pop()
            self.stack.append(_called(_expect(called, _Name), _expect(arguments, tuple)))
        elif name == "BUILD":
            state = self.pop()
            _build(self.stack[-1], _expect(state, tuple))
        else:
            raise NotArrays(f"{name} is not a part of numpy arrays")


_NOTHING = {"PROTO", "FRAME"}
_MAKERS = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_TUPLE": tuple,
}
_CONSTANTS = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}


def _called(function: _Name, arguments: tuple[Any, ...]) -> Any:
    """What a call that belongs to arrays gives."""
    module, name = function.module, function.name
    if name == "_reconstruct" and module in _MULTIARRAY:
        return _Array()
    if name == "scalar" and module in _MULTIARRAY:
        kind, data = arguments
        return _array(_expect(kind, _Type), (), data, "C")[()]
    if name == "_frombuffer" and module in _NUMERIC:
        data, kind, shape, order = arguments
        return _Array(_array(_expect(kind, _Type), shape, data, order))
    if (module, name) == ("numpy", "dtype"):
        code = _expect(arguments[0], str)
        if code not in _KINDS:
            raise NotArrays(f"arrays of {code!r} are not read, only of numbers")
        return _Type(code)
    if (module, name) == ("_codecs", "encode") and arguments[1:] in (("latin1",), ("latin-1",)):
        # How protocol 2 writes bytes, and, below, an array without elements.
        return _expect(arguments[0], str).encode("latin1")
    if name == "bytes" and module in ("__builtin__", "builtins") and not arguments:
        return b""
    raise NotArrays(f"{module}.{name} is not a part of numpy arrays")


def _build(value: Any, state: tuple[Any, ...]) -> None:
    """Fills in what was announced: the byte order of a type, or type, shape and bytes of an array."""
    if isinstance(value, _Type):
        order = state[1]
        if order not in ("<", ">", "|", "="):
            raise NotArrays(f"the byte order {order!r:.20} is unknown")
        value.order = order
    elif isinstance(value, _Array):
        _, shape, kind, fortran, data = state
        value.content = _array(_expect(kind, _Type), shape, data, "F" if fortran else "C")
    else:
        raise NotArrays(f"{type(value).__name__} has no state to set")


def _array(kind: _Type, shape: Any, data: Any, order: Any) -> np.ndarray:
    if isinstance(data, str):  # Bytes of Python 2.
        data = data.encode("latin1")
    dtype, shape = kind.dtype(), tuple(_expect(shape, tuple))
    whole = all(type(length) is int and 0 <= length < 1 << 48 for length in shape) and len(shape) <= 8
    if not isinstance(data, (bytes, bytearray)) or not whole or len(data) != math.prod(shape) * dtype.itemsize:
        raise NotArrays(f"the bytes of an array do not fit its shape {shape!r:.60}")
    values = np.frombuffer(bytes(data), dtype) if data else np.zeros(0, dtype)
    return values.reshape(shape, order="F" if order == "F" else "C")


def _pairs(taken: list[Any]) -> dict[Any, Any]:
    if len(taken) % 2:
        raise NotArrays("a dictionary has a key without a value")
    return dict(zip(taken[::2], taken[1::2]))


def _expect(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise NotArrays(f"the pickle is damaged ({type(value).__name__} where {kind.__name__} is due)")
    return value


def _finished(value: Any, left: list[int], depth: int = 0) -> Any:
    """The value with its arrays in place; ``left`` counts down, so that a few lists that hold each other many times
    over, or themselves, end here."""
    left[0] -= 1
    if left[0] < 0 or depth > 16:
        raise NotArrays("the lists of the pickle hold each other")
    if isinstance(value, _Array):
        if value.content is None:
            raise NotArrays("an array is announced and not there")
        return value.content
    if isinstance(value, (_Name, _Type)):
        raise NotArrays("a name stands where a value is due")
    if isinstance(value, list):
        return [_finished(item, left, depth + 1) for item in value]
    if isinstance(value, tuple):
        return tuple(_finished(item, left, depth + 1) for item in value)
    if isinstance(value, dict):
        return {key: _finished(item, left, depth + 1) for key, item in value.items()}
    return value
