"""What Slurm gives to a job, for the tests of its scripts."""

SCONTROL = '#!/bin/bash\nif [ "$1" = show ]; then echo first; echo second; else echo "$@"; fi\n'
SLURM = {
    "SLURM_JOB_NODELIST": "n[1-2]",
    "SLURM_JOB_ID": "20017",
    "SLURM_JOB_NUM_NODES": "2",
    "SLURM_GPUS_PER_NODE": "h100:4",
    "SLURM_CPUS_PER_TASK": "32",
}
