#!/usr/bin/env bash
#SBATCH --job-name=sdk-fit
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --signal=USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
# One task for each GPU. SLURM sends SIGUSR1 two minutes before it takes the job off: the state is saved, the processes
# leave with status 138, and the job is queued again.
#   sbatch examples/slurm.sh data/coco faster_rcnn_r50_fpn_1x_coco runs/frcnn
status=0
srun --kill-on-bad-exit=1 sdk fit "$1" "$2" --out "$3" --resume \
  --devices "$SLURM_NTASKS_PER_NODE" --nodes "$SLURM_NNODES" --strategy ddp || status=$?
[ "$status" -ne 138 ] || exec scontrol requeue "$SLURM_JOB_ID"
exit "$status"
