#!/bin/sh
# The tests of the CPU kernels under AddressSanitizer and UBSan (GCC): sh tests/ops/sanitize.sh [pytest arguments]
set -e
cd "$(dirname "$0")/../.."
python=${PYTHON:-python}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
SDK_SANITIZE=1 SDK_BUILD_OPS=1 SDK_BUILD_CUDA=0 "$python" setup.py -q build_ext --build-temp "$work/objects" \
    --build-lib "$work"
cp ops/*.py "$work/sdk/ops/"
touch "$work/sdk/__init__.py"
# Leaks are not looked for: Python and PyTorch keep much until the end.
LD_PRELOAD="$(g++ -print-file-name=libasan.so):$(g++ -print-file-name=libubsan.so)" \
    ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1 OMP_NUM_THREADS=2 \
    PYTHONPATH="$work" "$python" -P -m pytest tests/ops/test_ops_kernels.py -p no:cacheprovider \
    -m "not long" -k "not opcheck" "$@"
