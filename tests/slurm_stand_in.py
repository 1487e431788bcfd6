"""A Slurm of shell scripts: sbatch runs a job array at once, in the background, on this machine."""

import os
import stat
from pathlib import Path

# A job runs in the background; scancel finds the ids of their processes in pid-0, pid-1, ...
# It runs a copy of the script, as with Slurm: submitit moves its own as soon as sbatch returns.
_SBATCH = """#!/bin/sh
last=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\)%.*/\\1/p' "$1")
cp "$1" "$FOLDER/script-$$"
echo "Submitted batch job 7$$"
i=0
while [ "$i" -le "${last:-0}" ]; do
  if [ -n "$last" ]; then export SLURM_ARRAY_JOB_ID=7$$ SLURM_ARRAY_TASK_ID=$i; fi
  SLURM_JOB_ID=7$$ SLURM_PROCID=0 setsid sh "$FOLDER/script-$$" >>"$FOLDER/out" 2>&1 &
  i=$((i + 1))
done
"""
# Options up to the command are for logs.
_SRUN = """#!/bin/sh
while [ $# -gt 0 ]; do
  case $1 in
    --unbuffered) shift ;;
    --output|--error) shift 2 ;;
    *) break ;;
  esac
done
echo $$ >"$FOLDER/pid-${SLURM_ARRAY_TASK_ID:-0}"
exec "$@"
"""
_SCANCEL = """#!/bin/sh
echo "$@" >>"$FOLDER/cancelled"
case $1 in
  --signal=TERM) for file in "$FOLDER"/pid-*; do kill -TERM "$(cat "$file")"; done ;;
esac
"""
_SACCT = "#!/bin/sh\necho 'JobID|State|NodeList'\n"


def install(folder: Path) -> dict[str, str]:
    """Write the scripts; return the environment in which they are found."""
    folder.mkdir()
    scripts = {"sbatch": _SBATCH, "srun": _SRUN, "scancel": _SCANCEL, "sacct": _SACCT}
    for name, text in scripts.items():
        path = folder / name
        path.write_text(text.replace("$FOLDER", str(folder)))
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
