#!/bin/bash
# A posterior by the jobs of an array, which need not know of each other, into one archive:
#
#   sbatch --array=0-7 job_array.sh 64 observations.nc --prior kolmogorov --store posterior.zarr --seed 1
#
# Job 3 of 8 draws members 24 to 31 of 64. The jobs may start at any time and in any order. One that was killed goes on
# where it was when it is submitted again. The last one finishes the archive.
#
#SBATCH --job-name=posterior
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=4
#SBATCH --mem=8G
#SBATCH --time=02:00:00
#SBATCH --requeue

set -euo pipefail

members=$1
shift
jobs=${SLURM_ARRAY_TASK_COUNT:?submit this file with sbatch --array=0-7}
number=$((SLURM_ARRAY_TASK_ID - ${SLURM_ARRAY_TASK_MIN:-0}))
first=$((members * number / jobs))
stop=$((members * (number + 1) / jobs))

export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}
exec sdaxr assimilate "$@" --members "$first:$stop/$members" --quiet
