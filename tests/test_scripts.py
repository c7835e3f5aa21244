"""The Slurm scripts: they parse, and pretraining's gives every process its place and requeues itself when stopped."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

SCRIPTS = sorted((Path(__file__).resolve().parent.parent / "scripts").glob("*.sbatch"))
NODES, EACH = 2, 3

COMMANDS = {
    # As Slurm does it: the command once for every task, and the highest exit code.
    "srun": f"""
while [[ $1 == --* ]]; do shift; done
export SLURM_NTASKS={NODES * EACH} SLURM_NTASKS_PER_NODE={EACH}
status=0
for ((task = 0; task < {NODES * EACH}; task++)); do
    code=0
    SLURM_PROCID=$task SLURM_LOCALID=$((task % {EACH})) "$@" || code=$?
    status=$((code > status ? code : status))
done
exit $status""",
    "scontrol": '[[ $1 == show ]] && printf "node7\\nnode8\\n" || echo "scontrol $*"',
    "python": 'echo "$RANK/$WORLD_SIZE $LOCAL_RANK/$LOCAL_WORLD_SIZE $MASTER_ADDR $*"; exit $CODE',
}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_they_parse(script: Path) -> None:
    parsed = subprocess.run(["bash", "-n", script], capture_output=True, text=True)
    assert (parsed.returncode, parsed.stderr) == (0, "")


@pytest.mark.parametrize("code", [0, 2, 143])
def test_pretraining_is_requeued_when_it_was_stopped_and_only_then(tmp_path: Path, code: int) -> None:
    for name, body in COMMANDS.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    slurm = {"SLURM_JOB_ID": "77", "SLURM_JOB_NODELIST": "node[7-8]", "SLURM_CPUS_PER_TASK": "4"}
    environment = os.environ | slurm | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "CODE": str(code), "DATA": "/a b"}
    (script,) = (path for path in SCRIPTS if path.name == "pretrain.sbatch")
    done = subprocess.run(["bash", script, "model=70M"], env=environment, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    arguments = "-m jowa.pretrain +exp=atari15 data.path=/a b out=runs/atari15 resume=auto model=70M"
    assert lines[: NODES * EACH] == [
        f"{task}/{NODES * EACH} {task % EACH}/{EACH} node7 {arguments}" for task in range(NODES * EACH)
    ]
    assert ("scontrol requeue 77" in lines) == (code == 143)
    assert (done.returncode, done.stderr) == (code, "")
