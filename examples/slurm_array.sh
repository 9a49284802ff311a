#!/usr/bin/env bash
#SBATCH --job-name=peergrid
#SBATCH --cpus-per-task=1
#SBATCH --mem=4G
#SBATCH --time=04:00:00
#SBATCH --output=slurm-%A_%a.out
# A sweep as a plain array, a line of overrides for each job:
#
#     for seed in 0 1 2 3 4; do for algo in ppo sac; do echo "scenario=ieee33 algo=$algo seed=$seed"; done; done > jobs.txt
#     sbatch --array=1-$(wc -l < jobs.txt) examples/slurm_array.sh jobs.txt
#
# Submitted again it does what is not done. `python -m peergrid.baselines.collect outputs/train` makes a table of it.
set -euo pipefail
read -r -a overrides < <(sed -n "${SLURM_ARRAY_TASK_ID}p" "$1")
exec python -m peergrid.baselines.train "${overrides[@]}"
