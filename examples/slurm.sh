#!/usr/bin/env bash
# A folder of videos on the GPUs of a SLURM cluster: one task of the array for each GPU.
#   sbatch examples/slurm.sh /project/clips /project/painted
# Each task takes its part of the videos. Submit the same again to continue: what is finished is skipped.
#SBATCH --job-name=cgconvert
#SBATCH --array=1-8
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=8
#SBATCH --mem=24G
#SBATCH --time=12:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --output=cgconvert-%A-%a.log
set -euo pipefail

clips=$1
painted=$2
reports="$painted.reports"
mkdir -p "$reports"

# exec: two minutes before the time is up SLURM signals this process, which then is cgconvert. It keeps its
# finished segments and ends.
exec cgconvert video "$clips" -o "$painted" --shard auto \
    --results "$reports/results-$SLURM_ARRAY_TASK_ID.jsonl" \
    --report "$reports/report-$SLURM_ARRAY_TASK_ID.json" --log json
