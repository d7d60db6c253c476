#!/usr/bin/env bash
# Trains on all GPUs of NODES machines; run it on each of them, with HEAD the name of one. Started again, or restarted by
# torchrun after a process was lost, it goes on from the last state.
#   NODES=2 HEAD=node0 examples/torchrun.sh data/coco faster_rcnn_r50_fpn_1x_coco runs/frcnn
set -euo pipefail
exec torchrun --nnodes "${NODES:-1}" --nproc-per-node "${GPUS:-gpu}" --max-restarts 3 \
  --rdzv-backend c10d --rdzv-endpoint "${HEAD:-localhost}:29400" \
  -m sdk.cli fit "$1" "$2" --out "$3" --resume
