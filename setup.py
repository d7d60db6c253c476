"""The package list and the optional C++/CUDA extensions; everything else stands in pyproject.toml.

The reader of large JSON files (``datasets/csrc``) needs a compiler alone. The native ops are built where PyTorch is at
hand too, so install with ``--no-build-isolation`` after PyTorch. Without them the install still works, on Python's
reader and ``ops/reference.py``. Environment variables:

SDK_BUILD_OPS   1: a build that fails or cannot start fails the install. 0: do not build.
SDK_BUILD_CUDA  1: with the CUDA kernels. 0: without. Default: with them where there is a CUDA device and an nvcc that
                fits PyTorch's CUDA version.
SDK_SANITIZE    1: with AddressSanitizer and UBSan, for tests.
TORCH_CUDA_ARCH_LIST  as everywhere in PyTorch; default: the device at hand, else 8.0, 9.0 and PTX.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent
ROOMS = {
    "sdk": "sdk",
    "sdk.datasets": "datasets",
    "sdk.models": "models",
    "sdk.ops": "ops",
    "sdk.evaluators": "evaluators",
}
SOURCES = Path("ops/csrc")
# The oldest PyTorch that the build runs on (2.11), as torch/headeronly/version.h writes versions.
TARGET_VERSION = "0x020b000000000000"
REQUIRED = os.environ.get("SDK_BUILD_OPS") == "1"


def packages() -> list[str]:
    """Every folder with Python files in a room, named as it is imported (``models/zoo`` -> ``sdk.models.zoo``)."""
    found = set()
    for package, folder in ROOMS.items():
        for file in (ROOT / folder).rglob("*.py"):
            inner = file.parent.relative_to(ROOT / folder).parts
            found.add(".".join((package, *inner)))
    return sorted(found)


def give_up(reason: str) -> None:
    """Say that the install goes on without native ops, or fail it where they were asked for."""
    if REQUIRED:
        raise SystemExit(f"SDK_BUILD_OPS=1, but the native ops cannot be built: {reason}")
    print(f"The native ops are not built: {reason}. The pure-PyTorch versions will be used.", file=sys.stderr)


def cuda_fits() -> bool:
    """Whether to build the CUDA kernels."""
    import torch
    from torch.utils.cpp_extension import CUDA_HOME

    wanted = os.environ.get("SDK_BUILD_CUDA")
    if wanted is not None:
        return wanted == "1"
    nvcc = Path(CUDA_HOME or "") / "bin" / "nvcc"
    if torch.version.cuda is None or not torch.cuda.is_available() or not nvcc.is_file():
        return False
    said = subprocess.run([nvcc, "--version"], capture_output=True, text=True).stdout
    release = re.search(r"release (\d+)\.", said)
    return release is not None and release.group(1) == torch.version.cuda.split(".")[0]


def reader() -> Extension:
    """What reads large JSON files; without PyTorch, which opening a dataset does not import."""
    return Extension(
        "sdk.datasets._json_rows",
        ["datasets/csrc/json_rows.cpp"],
        extra_compile_args=["-std=c++17", "-O3", "-fvisibility=hidden"],
        language="c++",
        py_limited_api=True,
        # Without a compiler the Python readers do the same, slowly.
        optional=not REQUIRED,
    )


def extension() -> dict:
    """The arguments of ``setup`` that build the native parts; none where they are not to be built."""
    if os.environ.get("SDK_BUILD_OPS") == "0":
        return {}
    try:
        import torch
        from torch.utils.cpp_extension import BuildExtension, CppExtension, CUDAExtension
    except ImportError as error:
        give_up(f"PyTorch is not importable during the build ({error}); install it, then use --no-build-isolation")
        return {"ext_modules": [reader()], "cmdclass": {"build_ext": build_ext}}

    class BuildOps(BuildExtension):
        def run(self) -> None:
            try:
                super().run()
            except (Exception, SystemExit) as error:
                give_up(f"the compiler failed ({error})")

    cuda = cuda_fits()
    if cuda and not torch.cuda.is_available():
        os.environ.setdefault("TORCH_CUDA_ARCH_LIST", "8.0;9.0+PTX")
    # Fused multiply-add would make results differ between machines, and box overlaps from torchvision's.
    shared = ["-O3", f"-DTORCH_TARGET_VERSION={TARGET_VERSION}"]
    # Without traps and errno, which nobody reads, compilers turn branches in loops into selections.
    arithmetic = ["-ffp-contract=off", "-fno-trapping-math", "-fno-math-errno", "-fopenmp-simd"]
    cxx = [*shared, *arithmetic, "-fvisibility=hidden"]
    link = []
    if os.environ.get("SDK_SANITIZE") == "1":
        # Python's own flags make integers wrap around, which would hide their overflow.
        cxx += ["-DSDK_SANITIZE", "-O1", "-g", "-fno-wrapv"]
        cxx += ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
        link += ["-fsanitize=address,undefined"]
    sources = [SOURCES / "schema.cpp", *sorted((ROOT / SOURCES / "cpu").glob("*.cpp"))]
    if cuda:
        sources += sorted((ROOT / SOURCES / "cuda").glob("*.cu"))
    native = (CUDAExtension if cuda else CppExtension)(
        "sdk.ops._C",
        [os.path.relpath(source, ROOT) if source.is_absolute() else str(source) for source in sources],
        depends=[os.path.relpath(header, ROOT) for header in (ROOT / SOURCES).rglob("*.*h")],
        extra_compile_args={"cxx": cxx, "nvcc": [*shared, "-DUSE_CUDA", "--fmad=false"]},
        extra_link_args=link,
        py_limited_api=True,
    )
    return {"ext_modules": [reader(), native], "cmdclass": {"build_ext": BuildOps}}


setup(packages=packages(), **extension())
