"""Configuration files are read as data: what is understood, what is refused, and that nothing runs."""

from __future__ import annotations

import time

import pytest

from sdk.models.mmdetection.reading import parse_config, read_config
from sdk.models.mmdetection.settings import ConfigError, to_plain


def parsed(text: str) -> dict:
    return to_plain(parse_config(text, "own.py"))


def test_literals_names_and_arithmetic():
    text = """
'''A text that explains.'''
root: str = 'data/'
width = 4 * 16
sizes = [(1333, 640 + 32 * i) if False else (1333, 800)] if False else [(1333, 800)]
"""
    with pytest.raises(ConfigError, match=r"line 5: .*this is code"):
        parsed(text)
    text = """
root = 'data/'
width = 4 * 16
norm = dict(type='BN', eps=1e-3)
model = dict(type='X', channels=[width] * 3, norm={'type': 'GN', **norm}, off=-1, on=not False, name=root + 'x')
first = model['channels'][0]
"""
    found = parsed(text)
    assert found["model"] == {
        "type": "X", "channels": [64, 64, 64], "norm": {"type": "BN", "eps": 1e-3}, "off": -1, "on": True,
        "name": "data/x",
    }  # fmt: skip
    assert found["first"] == 64


def test_bases_are_merged_and_deleted(tmp_path):
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "model.py").write_text(
        "model = dict(type='A', backbone=dict(type='R', depth=50, dcn=None), neck=dict(type='FPN', num_outs=5))\n"
        "lr = 1\n"
    )
    (tmp_path / "base" / "data.json").write_text('{"data": {"samples_per_gpu": 2}}')
    (tmp_path / "base" / "run.yaml").write_text("epochs: 12\n")
    (tmp_path / "own.py").write_text(
        "_base_ = ['base/model.py', './base/data.json', 'base/run.yaml']\n"
        "model = dict(backbone=dict(depth=101), neck=dict(_delete_=True, type='PAFPN'))\n"
        "work = '{{ fileDirname }}/{{ fileBasenameNoExtension }}'\n"
        "lr2 = _base_.lr\ndepth = {{_base_.model.backbone.depth}}\n"
    )
    found = read_config(tmp_path / "own.py")
    assert to_plain(found) == {
        "model": {"type": "A", "backbone": {"type": "R", "depth": 101, "dcn": None}, "neck": {"type": "PAFPN"}},
        "lr": 1,
        "data": {"samples_per_gpu": 2},
        "epochs": 12,
        "work": f"{tmp_path}/own",
        "lr2": 1,
        "depth": 50,
    }
    assert found["model"]["backbone"].place("depth").startswith(f"{tmp_path}/own.py, line 2")


def test_pure_python_configurations(tmp_path):
    (tmp_path / "base.py").write_text("from mmdet.models import ResNet\nbackbone = dict(type=ResNet, depth=50)\n")
    (tmp_path / "own.py").write_text(
        "from mmengine.config import read_base\nwith read_base():\n    from .base import *\n"
        "model = dict(backbone=backbone)\nbackbone = dict(depth=101)\n"
    )
    assert to_plain(read_config(tmp_path / "own.py")) == {
        "backbone": {"type": "ResNet", "depth": 101},
        "model": {"backbone": {"type": "ResNet", "depth": 50}},
    }


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"own.py": "_base_ = 'gone.py'\n"}, "gone.py: no such file; .*own.py asks for it"),
        ({"own.py": "_base_ = 'own.py'\n"}, "lead back to itself"),
        ({"own.py": "_base_ = 'mmdet::retinanet/x.py'\n"}, "does not lie here"),
        ({"own.py": "_base_ = ['a.py', 'b.py']\n", "a.py": "x = 1\n", "b.py": "x = 2\n"}, "two of its bases set x"),
        ({"own.py": "x = y\n"}, "line 1: y is a name that nothing above assigns"),
        ({"own.py": "x = dict(a=1)['b']\n"}, "there is no 'b'"),
        ({"own.py": "x = '{{ fileNothing }}'\n"}, "is no variable"),
        ({"own.py": "x = (\n"}, "not readable as Python"),
        ({"own.json": "[1]"}, "expected a mapping"),
        ({"own.json": "{"}, "not readable as JSON"),
        ({"own.yaml": "a: &x [1]\nb: *x\n"}, "anchors and aliases"),
        ({"own.txt": "a"}, "expected a file that ends in"),
    ],
)
def test_faults_are_named(tmp_path, files, message):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_config(tmp_path / next(iter(files)))


HOSTILE = (
    "import os\nos.system('touch {mark}')",
    "__import__('os').system('touch {mark}')",
    "x = open('{mark}', 'w')",
    "x = eval('1')",
    "x = (lambda: 1)()",
    "x = [i for i in range(10**9)]",
    "x = {{i: i for i in range(10**9)}}",
    "x = 2 ** 10 ** 9",
    "x = 10**9 * 10**9 * 10**9 * 10**9 * 10**9",
    "x = 'a' * 10**12",
    "x = [0] * 10**9",
    "x = [[0] * 10**6] * 10**6",
    "x = ().__class__.__bases__[0].__subclasses__()",
    "x = dict.__init__.__globals__",
    'x = f\'{{open("{mark}", "w")}}\'',
    "def f(): pass",
    "class A: pass",
    "exec('1')",
    "x = 1 if open('{mark}', 'w') else 2",
    "while True: pass",
    "x = " + "(" * 5000 + "1" + ")" * 5000,
    "x = " + "[" * 200 + "]" * 200,
    "x = '%1000000000d' % 1",
    "with open('{mark}', 'w'): pass",
    "x = dict(**open('{mark}', 'w'))",
    "del x",
    "x.y = 1",
    "x = yield",
    "x = 1e400 // 0",
)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_files_are_refused_and_nothing_runs(tmp_path, text):
    mark = tmp_path / "mark"
    began = time.perf_counter()
    with pytest.raises(ConfigError):
        parsed(text.replace("{mark}", str(mark)).replace("{{", "{").replace("}}", "}"))
    assert time.perf_counter() - began < 1
    assert not mark.exists()
