"""Configuration files as data: Python files are parsed and their literals taken, nothing in them is run.

Understood of Python: assignments of literals, ``dict(...)``, lists, arithmetic, names assigned above, ``_base_`` files,
``_delete_``, ``{{ fileDirname }}`` and its kin, ``_base_.name``, and ``with read_base():``. Imported names stand for
themselves as text (``type=ResNet`` is ``type='ResNet'``). Everything else is an error that names the line.
"""

from __future__ import annotations

import ast
import json
import operator
import re
from pathlib import Path
from typing import Any

from .settings import ConfigError, Settings, from_plain

LONGEST = 4_000_000
"""Characters of a file, and elements of all lists and mappings of a configuration."""
DEEPEST = 40
"""Levels of nested values, and of base files."""
ARITHMETIC = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
FILE_VARIABLES = re.compile(r"\{\{\s*(file\w+)\s*\}\}")
BASE_VARIABLES = re.compile(r"""(['"]?)\{\{\s*_base_\.([\w.]+)\s*\}\}(['"]?)""")


def read_config(file: Path) -> Settings:
    """A ``.py``, ``.json``, ``.yaml`` or ``.yml`` file with its bases merged in.

    Raises:
        ConfigError: when a file is missing, is no configuration, or holds what is no data.
    """
    return _read(Path(file), ())


def parse_config(text: str, name: str) -> Settings:
    """The text of a Python configuration without bases, such as a checkpoint carries; ``name`` is for error texts."""
    return _Module(text, name, None, ()).settings()


def _read(file: Path, above: tuple[Path, ...]) -> Settings:
    if not file.is_file():
        asked = f"; {above[-1]} asks for it as its base" if above else ""
        raise ConfigError(f"{file}: no such file{asked}")
    if file.resolve() in above or len(above) > DEEPEST:
        raise ConfigError(f"{file}: its bases lead back to itself")
    if file.stat().st_size > LONGEST:
        raise ConfigError(f"{file}: {file.stat().st_size} bytes; no configuration is longer than {LONGEST}")
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: expected text in UTF-8: {error}") from error
    above = (*above, file.resolve())
    if file.suffix == ".py":
        return _Module(text, str(file), file.parent, above).settings()
    if file.suffix not in (".json", ".yaml", ".yml"):
        raise ConfigError(f"{file}: expected a file that ends in .py, .json, .yaml or .yml")
    own = _plain_file(text, file)
    return _with_bases(own, own.pop("_base_", []), file.parent, above)


def _plain_file(text: str, file: Path) -> Settings:
    try:
        if file.suffix == ".json":
            content = json.loads(text)
        else:
            import yaml

            # Aliases can make a short text into an endless structure.
            if re.search(r"(^|[\s\[,:])[*&]\w", text):
                raise ConfigError(f"{file}: anchors and aliases of YAML are not read")
            content = yaml.safe_load(text)
    except ImportError as error:
        raise ConfigError(f"{file}: reading YAML needs PyYAML: pip install pyyaml") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{file}: not readable as {file.suffix[1:].upper()}: {error}") from error
    except Exception as error:
        if type(error).__module__.startswith("yaml"):
            raise ConfigError(f"{file}: not readable as YAML: {error}") from error
        raise
    if not isinstance(content, dict):
        raise ConfigError(f"{file}: expected a mapping, found {type(content).__name__}")
    return from_plain(content, str(file))


def _with_bases(own: Settings, bases: Any, folder: Path | None, above: tuple[Path, ...]) -> Settings:
    return _merged(_bases(bases, folder, above, own.file), own)


def _bases(bases: Any, folder: Path | None, above: tuple[Path, ...], where: str) -> Settings:
    """The base files merged into one; the same name in two of them is an error, as it is for its authors."""
    names = [bases] if isinstance(bases, str) else list(bases)
    merged = Settings(file=where)
    for name in names:
        if not isinstance(name, str):
            raise ConfigError(f"{where}: _base_: expected file names, found {name!r:.100}")
        if folder is None or "::" in name:
            raise ConfigError(
                f"{where}: _base_ = {name!r}: the file does not lie here; give the configuration that MMDetection "
                "dumped into the work folder, which holds everything"
            )
        base = _read(folder / name, above)
        both = sorted(merged.keys() & base.keys())
        if both:
            raise ConfigError(f"{where}: two of its bases set {both[0]}")
        merged.update(base)
        merged.lines.update(base.lines)
    return merged


def _merged(base: Settings, own: Settings) -> Settings:
    """``own`` over ``base``: mappings are merged unless they say ``_delete_``, all else is replaced."""
    result = Settings(base, file=own.file or base.file, lines={**base.lines, **own.lines})
    for key, value in own.items():
        before = result.get(key)
        if isinstance(value, Settings):
            value = Settings(value, file=value.file, lines=value.lines)
            if not value.pop("_delete_", False) and isinstance(before, Settings):
                value = _merged(before, value)
        result[key] = value
    return result


class _Module:
    """One Python file: its statements from the top, by a small interpreter of literals."""

    def __init__(self, text: str, name: str, folder: Path | None, above: tuple[Path, ...]) -> None:
        self.name, self.folder, self.above = name, folder, above
        self.base = Settings(file=name)
        self.values: dict[str, Any] = {}
        self.lines: dict[str, int] = {}
        self.imported: dict[str, str] = {}
        self.size = 0
        if len(text) > LONGEST:
            raise ConfigError(f"{name}: {len(text)} characters; no configuration is longer than {LONGEST}")
        try:
            self.tree = ast.parse(self.with_file_variables(text))
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise ConfigError(f"{name}: not readable as Python: {error}") from error

    def with_file_variables(self, text: str) -> str:
        """The text with ``{{ file... }}`` filled in, and ``{{ _base_.name }}`` as an attribute of ``_base_``."""
        file = Path(self.name)
        known = {
            "fileDirname": str(file.parent),
            "fileBasename": file.name,
            "fileBasenameNoExtension": file.stem,
            "fileExtname": file.suffix,
        }

        def variable(match: re.Match) -> str:
            if match[1] not in known:
                raise ConfigError(f"{self.name}: {match[0]} is no variable; there are {', '.join(known)}")
            return known[match[1]].replace("\\", "/")

        def base(match: re.Match) -> str:
            if bool(match[1]) != bool(match[3]):
                raise ConfigError(f"{self.name}: {match[0]}: a variable inside a longer text is not read")
            return f"_base_.{match[2]}"

        return BASE_VARIABLES.sub(base, FILE_VARIABLES.sub(variable, text))

    def settings(self) -> Settings:
        for statement in self.tree.body:
            self.run(statement)
        own = {key: value for key, value in self.values.items() if key != "_base_"}
        return _merged(self.base, Settings(own, file=self.name, lines=self.lines))

    def run(self, statement: ast.stmt) -> None:
        if isinstance(statement, ast.Assign) and all(isinstance(target, ast.Name) for target in statement.targets):
            value = self.value(statement.value)
            for target in statement.targets:
                self.assign(target.id, value, statement.lineno)  # type: ignore[union-attr]
        elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and statement.value:
            self.assign(statement.target.id, self.value(statement.value), statement.lineno)
        elif isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
            pass  # A text that explains.
        elif isinstance(statement, ast.With) and _is_read_base(statement):
            self.take_bases(statement)
        elif isinstance(statement, ast.ImportFrom) and statement.level == 0:
            # Nothing is imported: the names stand for themselves.
            for alias in statement.names:
                self.imported[alias.asname or alias.name] = alias.name
        else:
            raise self.refused(statement)

    def assign(self, name: str, value: Any, line: int) -> None:
        if name == "_base_":
            self.base = _bases(value, self.folder, self.above, self.name)
        self.values[name], self.lines[name] = value, line

    def take_bases(self, statement: ast.With) -> None:
        """``with read_base(): from .a.b import *``: the files of those modules."""
        for one in statement.body:
            if not isinstance(one, ast.ImportFrom) or one.level == 0 or one.module is None:
                raise self.refused(one)
            file = "/".join([*([".."] * (one.level - 1)), *one.module.split(".")]) + ".py"
            found = _bases(file, self.folder, self.above, self.name)
            names = [alias.name for alias in one.names]
            if names != ["*"]:
                found = Settings({name: found[name] for name in names if name in found}, file=found.file)
            self.base = _merged(self.base, found)

    def value(self, node: ast.expr, depth: int = 0) -> Any:
        """The value of a literal expression."""
        self.size += 1
        if self.size > LONGEST or depth > DEEPEST:
            raise ConfigError(f"{self.name}, line {node.lineno}: too large for a configuration")
        deeper = depth + 1
        if isinstance(node, ast.Constant) and isinstance(node.value, (str, int, float, bool, type(None))):
            return node.value
        if isinstance(node, (ast.List, ast.Tuple, ast.Set)):
            found = [self.value(one, deeper) for one in node.elts]
            return tuple(found) if isinstance(node, ast.Tuple) else found
        if isinstance(node, ast.Dict):
            return self.mapping([(key, value) for key, value in zip(node.keys, node.values)], node, deeper)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict" and not node.args:
            return self.mapping([(key.arg, key.value) for key in node.keywords], node, deeper)
        if isinstance(node, ast.Name):
            return self.named(node)
        if isinstance(node, ast.Attribute):
            return self.attribute(node)
        if isinstance(node, ast.Subscript):
            return self.item(node, deeper)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd, ast.Not)):
            operand = self.value(node.operand, deeper)
            if isinstance(node.op, ast.Not):
                return not operand
            if isinstance(operand, (int, float)):
                return -operand if isinstance(node.op, ast.USub) else operand
        if isinstance(node, ast.BinOp) and type(node.op) in ARITHMETIC:
            return self.arithmetic(node, deeper)
        raise self.refused(node)

    def mapping(self, pairs: list[tuple[Any, ast.expr]], node: ast.expr, depth: int) -> Settings:
        found = Settings(file=self.name)
        found.lines[""] = node.lineno
        for key, value in pairs:
            given = self.value(value, depth)
            name = self.value(key, depth) if isinstance(key, ast.expr) else key
            if name is None and isinstance(given, Settings):
                # ** of a mapping that was assigned above.
                found.update(given)
                found.lines.update(dict.fromkeys(given, value.lineno))
            elif isinstance(name, (str, int)) and not isinstance(name, bool):
                found[str(name)] = given
                found.lines[str(name)] = value.lineno
            else:
                raise self.refused(node)
        return found

    def named(self, node: ast.Name) -> Any:
        if node.id in self.values:
            return _copied(self.values[node.id])
        if node.id in self.base:
            return _copied(self.base[node.id])
        if node.id in self.imported:
            return self.imported[node.id]
        raise ConfigError(f"{self.name}, line {node.lineno}: {node.id} is a name that nothing above assigns")

    def attribute(self, node: ast.Attribute) -> Any:
        """``_base_.name.name``: a value of the bases."""
        parts = [node.attr]
        root = node.value
        while isinstance(root, ast.Attribute):
            parts.insert(0, root.attr)
            root = root.value
        if not isinstance(root, ast.Name) or root.id != "_base_":
            raise self.refused(node)
        value: Any = self.base
        for part in parts:
            if isinstance(value, (list, tuple)) and part.isdigit() and int(part) < len(value):
                value = value[int(part)]
            elif isinstance(value, Settings) and part in value:
                value = value[part]
            else:
                raise ConfigError(f"{self.name}, line {node.lineno}: the bases have no {'.'.join(parts)}")
        return _copied(value)

    def item(self, node: ast.Subscript, depth: int) -> Any:
        value, key = self.value(node.value, depth), self.value(node.slice, depth)
        try:
            return value[key]
        except (LookupError, TypeError) as error:
            raise ConfigError(f"{self.name}, line {node.lineno}: there is no {key!r:.80} in it") from error

    def arithmetic(self, node: ast.BinOp, depth: int) -> Any:
        left, right = self.value(node.left, depth), self.value(node.right, depth)
        lengths = [len(one) for one in (left, right) if isinstance(one, (str, list, tuple))]
        if lengths and isinstance(node.op, ast.Mult):
            count = next((one for one in (left, right) if isinstance(one, int)), 0)
            self.size += max(lengths) * max(count, 0)
        if self.size > LONGEST or any(isinstance(one, int) and abs(one) > 2**63 for one in (left, right)):
            raise ConfigError(f"{self.name}, line {node.lineno}: too large for a configuration")
        if isinstance(node.op, ast.Mod) and isinstance(left, str):
            raise self.refused(node)
        try:
            return ARITHMETIC[type(node.op)](left, right)
        except (TypeError, ZeroDivisionError, OverflowError) as error:
            raise ConfigError(f"{self.name}, line {node.lineno}: {error}") from error

    def refused(self, node: ast.AST) -> ConfigError:
        text = ast.unparse(node)  # type: ignore[arg-type]
        line = getattr(node, "lineno", 0)
        return ConfigError(
            f"{self.name}, line {line}: {text:.120}: this is code, and a configuration is read as data alone; "
            "give the configuration that MMDetection dumped into the work folder"
        )


def _is_read_base(statement: ast.With) -> bool:
    calls = [item.context_expr for item in statement.items]
    return len(calls) == 1 and ast.unparse(calls[0]) == "read_base()"


def _copied(value: Any) -> Any:
    """A copy that can be read and marked by itself."""
    if isinstance(value, Settings):
        return Settings({key: _copied(one) for key, one in value.items()}, file=value.file, lines=value.lines)
    if isinstance(value, (list, tuple)):
        return type(value)(_copied(one) for one in value)
    return value
