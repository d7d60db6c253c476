import os
import pickle
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from sdk.models.weights.errors import WeightsError
from sdk.models.weights.reading import read

STATE = {"backbone.conv1.weight": torch.arange(6.0).view(2, 3), "neck.bias": torch.ones(2, dtype=torch.float16)}


class Call:
    """Pickles as a call of any function with any arguments."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def text_call(module: str, name: str, *arguments: str) -> bytes:
    """A pickle of protocol 0 that calls a function by name; it need not be importable here."""
    given = "".join(f"V{argument}\n" for argument in arguments)
    return f"c{module}\n{name}\n({given}tR.".encode()


def hostile(mark: Path) -> list:
    """Objects whose unpickling would leave ``mark`` behind, and raw pickles that would."""
    shell, code = f"touch {mark}", f"open({str(mark)!r}, 'w').close()"
    functions = [
        *((module, name, shell) for module, name in (
            ("os", "system"), ("posix", "system"), ("nt", "system"), ("os", "popen"), ("subprocess", "getoutput"),
            ("subprocess", "getstatusoutput"), ("commands", "getoutput"), ("pty", "spawn"),
        )),
        *((module, name, code) for module, name in (
            ("builtins", "eval"), ("builtins", "exec"), ("__builtin__", "eval"), ("__builtin__", "exec"),
            ("code", "InteractiveInterpreter"), ("timeit", "timeit"), ("timeit", "repeat"), ("cProfile", "run"),
            ("profile", "run"), ("pdb", "run"), ("bdb", "Bdb.run"), ("doctest", "debug_script"),
            ("numpy.testing._private.utils", "runstring"), ("torch._inductor.codecache", "PyCodeCache.load"),
            ("torch.jit.unsupported_tensor_ops", "execWrapper"), ("torch.fx.graph_module", "_forward_from_src"),
            ("lib2to3.pgen2.grammar", "Grammar.loads"), ("idlelib.run", "Executive.runcode"),
        )),
        *((module, name, str(mark)) for module, name in (
            ("builtins", "open"), ("io", "open"), ("os", "mkdir"), ("os", "makedirs"), ("shutil", "rmtree"),
            ("pathlib", "Path.touch"), ("importlib", "import_module"), ("runpy", "run_path"),
            ("pickle", "loads"), ("_pickle", "loads"), ("torch", "load"), ("torch.hub", "load"), ("webbrowser", "open"),
            ("urllib.request", "urlopen"), ("socket", "create_connection"), ("ctypes", "CDLL"), ("sys", "exit"),
            ("types", "CodeType"), ("marshal", "loads"), ("functools", "partial"), ("builtins", "__import__"),
        )),
    ]  # fmt: skip
    raw = [text_call(*function) for function in functions]
    chain = Call(getattr, Call(__import__, "os"), "system")
    objects = [
        Call(os.system, shell),
        Call(eval, code),
        Call(exec, code),
        Call(getattr, Call(__import__, "os"), "system"),
        {"state_dict": OrderedDict(a=Call(os.system, shell))},
        {"state_dict": STATE, "meta": {"CLASSES": Call(eval, code)}},
        {"state_dict": STATE, "optimizer": [[Call(os.mkdir, str(mark))]]},
        [Call(map, eval, [code])],
        Call(pickle.loads, pickle.dumps(Call(os.system, shell))),
        {"state_dict": {"a": Call(torch._utils._rebuild_tensor_v2, Call(os.system, shell))}},
        {Call(str, Call(eval, code)): 1},
        (chain, shell),
    ]
    return [*raw, *objects]


def test_no_hostile_pickle_runs(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    variants = hostile(mark)
    assert len(variants) >= 50
    for index, content in enumerate(variants):
        for zipped in (True, False):
            file = tmp_path / f"{index}.pth"
            if isinstance(content, bytes):
                if zipped:
                    with zipfile.ZipFile(file, "w") as archive:
                        archive.writestr("archive/data.pkl", content)
                        archive.writestr("archive/version", "3\n")
                else:
                    file.write_bytes(content)
            else:
                torch.save(content, file, _use_new_zipfile_serialization=zipped)
            with pytest.raises(WeightsError, match=file.name):
                read(file)
            assert not mark.exists(), content


@pytest.mark.parametrize("zipped", [True, False])
def test_metadata_of_absent_libraries_is_passed_over(tmp_path: Path, monkeypatch, zipped: bool) -> None:
    config = ModuleType("mmcv.utils.config")

    class ConfigDict(dict):
        __module__ = "mmcv.utils.config"
        __qualname__ = "ConfigDict"

        def __getstate__(self):
            return dict(self)

    class Config:
        __module__ = "mmcv.utils.config"
        __qualname__ = "Config"

        def __init__(self):
            self.content = ConfigDict(a=1)

    config.ConfigDict, config.Config = ConfigDict, Config  # type: ignore[attr-defined]
    for name in ("mmcv", "mmcv.utils"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "mmcv.utils.config", config)
    meta = {
        "CLASSES": ("cat", "dog"),
        "mmdet_version": "2.3.0",
        "config": ConfigDict(model=ConfigDict(depth=50)),
        "whole": Config(),
        "hook_msgs": {"best_score": np.float64(0.4), "table": np.arange(3)},
    }
    torch.save({"meta": meta, "state_dict": OrderedDict(STATE)}, tmp_path / "a.pth",
               _use_new_zipfile_serialization=zipped)  # fmt: skip
    for name in ("mmcv.utils.config", "mmcv.utils", "mmcv"):
        monkeypatch.delitem(sys.modules, name)
    found = read(tmp_path / "a.pth")
    assert found.classes == ("cat", "dog")
    assert found.version == "2.3.0"
    assert found.state.keys() == STATE.keys()
    assert all(torch.equal(found.state[key], value) for key, value in STATE.items())


def test_parallel_prefix_is_dropped(tmp_path: Path) -> None:
    torch.save({f"module.{key}": value for key, value in STATE.items()}, tmp_path / "a.pth")
    assert read(tmp_path / "a.pth").state.keys() == STATE.keys()


def test_safetensors_with_classes(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "a.safetensors", {"classes": '["cat", "dog"]'})
    found = read(tmp_path / "a.safetensors")
    assert found.classes == ("cat", "dog")
    assert torch.equal(found.state["neck.bias"], STATE["neck.bias"])


def test_every_truncation_and_flip_is_an_error_or_harmless(tmp_path: Path) -> None:
    whole = tmp_path / "whole.pth"
    torch.save({"state_dict": STATE}, whole)
    content = whole.read_bytes()
    file = tmp_path / "broken.pth"
    for end in range(0, len(content), 97):
        file.write_bytes(content[:end])
        with pytest.raises(WeightsError, match=file.name):
            read(file)
    for place in range(0, len(content), 31):
        changed = bytearray(content)
        changed[place] ^= 0x10
        file.write_bytes(changed)
        try:
            state = read(file).state
        except WeightsError as error:
            assert "broken.pth" in str(error)  # noqa: PT017
        else:  # The flip is in what nobody reads, such as the padding between records.
            assert all(torch.equal(state[key], value) for key, value in STATE.items())


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({}, "no tensors"),
        ([1], "found list"),
        ({"state_dict": {"a": 1}}, "found int under 'a'"),
        ({1: torch.ones(1)}, "under 1"),
    ],
)
def test_other_contents_are_named(tmp_path: Path, content, said: str) -> None:
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=said):
        read(tmp_path / "a.pth")


@pytest.mark.parametrize("name", ["a.safetensors", "a.pth"])
def test_text_is_no_weights(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("<html>404</html>")
    with pytest.raises(WeightsError, match="not a readable"):
        read(tmp_path / name)
    with pytest.raises(WeightsError, match="no such file"):
        read(tmp_path / "absent")


def test_nobody_is_told_to_trust_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(b"\x80\x02\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.")
    with pytest.raises(WeightsError, match="Unsupported operand") as caught:
        read(tmp_path / "a.pth")
    assert "weights_only" not in str(caught.value)
