"""SLURM itself on this machine: its daemons and two nodes in a temporary folder, for root.

As a script: ``python tests/cluster/node.py`` starts it, says how to reach it, and stops it when its input ends.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")
NODES = ("first", "second")
_PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin"))


def missing() -> str | None:
    """Why SLURM can't be started here; None if it can."""
    absent = [name for name in PROGRAMS if shutil.which(name, path=_PATH) is None]
    if absent:
        return f"needs SLURM: {', '.join(absent)} not found (apt-get install slurm-wlm munge)"
    return None if os.geteuid() == 0 else "needs root, to start SLURM's daemons"


class Slurm:
    """A SLURM that is up.

    Args:
        folder: Of its settings and logs.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {"PATH": _PATH, "SLURM_CONF": str(folder / "slurm.conf")}

    def run(self, *command: str, environment: Mapping[str, str] = os.environ, timeout: float = 60) -> str:
        """Run one of SLURM's programs, and return what it prints.

        Raises:
            RuntimeError: With what it says, if it fails.
        """
        path = os.pathsep.join((str(Path(sys.executable).parent), _PATH))
        variables = {**environment, **self.environment, "PATH": path}
        done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=timeout)
        if done.returncode:
            raise RuntimeError(f"{' '.join(map(str, command))}: {done.stdout}{done.stderr}")
        return done.stdout.strip()

    def hurry(self, job: str) -> None:
        """Start a job now that SLURM holds back for a while; a node refuses one that it ended in the same second."""
        time.sleep(2)
        with contextlib.suppress(RuntimeError):  # it may have started
            self.run("scontrol", "update", f"JobId={job}", "StartTime=now")

    def state(self, job: str) -> dict[str, str]:
        """What ``scontrol show job`` says, by key."""
        words = self.run("scontrol", "show", "job", "--oneliner", job).split()
        return dict(word.split("=", 1) for word in words if "=" in word)


@contextlib.contextmanager
def started(folder: Path) -> Iterator[Slurm]:
    """SLURM with two nodes of this machine; inside, jobs run."""
    slurm = Slurm(folder)
    _write_settings(folder)
    socket_path = folder / "munge.socket"
    daemons = [
        ["munged", "--foreground", "--force", f"--key-file={folder}/munge.key", f"--socket={socket_path}",
         f"--pid-file={folder}/munged.pid", f"--log-file={folder}/munged.log", f"--seed-file={folder}/munge.seed"],
        ["slurmctld", "-D", "-i"],
        *(["slurmd", "-D", "-N", name] for name in NODES),
    ]  # fmt: skip
    processes = []
    try:
        for command in daemons:
            with (folder / f"{command[0]}{command[-1] if command[0] == 'slurmd' else ''}.out").open("w") as out:
                environment = os.environ | slurm.environment
                processes.append(subprocess.Popen(command, env=environment, stdout=out, stderr=subprocess.STDOUT))
            if command[0] == "munged":
                wait_until(socket_path.exists, "munged")
        wait_until(lambda: _idle(slurm) == len(NODES), "two idle nodes")
        yield slurm
    finally:
        with contextlib.suppress(RuntimeError, subprocess.TimeoutExpired):
            slurm.run("scancel", "--user=root")
        for process in reversed(processes):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()


def wait_until(happened: Callable[[], object], what: str, seconds: float = 60) -> None:
    """Until something is so.

    Raises:
        TimeoutError: If it isn't after so many seconds.
    """
    end = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds} s in vain for {what}")
        time.sleep(0.1)


def _idle(slurm: Slurm) -> int:
    with contextlib.suppress(RuntimeError):
        return slurm.run("sinfo", "--Node", "--noheader", "--format=%T").split().count("idle")
    return 0


def _write_settings(folder: Path) -> None:
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(64))
    key.chmod(0o600)
    for name in ("state", *(f"spool-{name}" for name in NODES)):
        (folder / name).mkdir()
    host = socket.gethostname().split(".")[0]
    ports = free_ports(1 + len(NODES))
    (folder / "cgroup.conf").write_text("CgroupAutomount=no\n")
    (folder / "slurm.conf").write_text(
        f"""ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=1,sched_interval=1
MpiDefault=none
ReturnToService=2
KillWait=120
NodeName={NODES[0]} NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2 RealMemory=1000
NodeName={NODES[1]} NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=2 RealMemory=1000
PartitionName=test Nodes={",".join(NODES)} Default=YES MaxTime=INFINITE
"""
    )


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens at."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


if __name__ == "__main__":
    if reason := missing():
        sys.exit(reason)
    with tempfile.TemporaryDirectory(prefix="slurm-") as name:
        Path(name).chmod(0o755)
        with started(Path(name)) as slurm:
            print(f"export SLURM_CONF={slurm.environment['SLURM_CONF']}", flush=True)
            sys.stdin.read()
