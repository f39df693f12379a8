"""How quickly the transformer of `gpt_tinyshakespeare` reaches the plain loop's loss, in one run on one machine.

The plain loop (`char_baseline.py`, nanoGPT's published setting for a CPU) takes T seconds, including its evaluations;
then ours trains for T / 5, for T, and for three minutes. Both score the last 10 % of the text in windows of their own
context.

    LIT_AIGC_DATA=/where/tinyshakespeare/is python benchmarks/char_speed.py [--json OUT] [--minutes 3 60]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from lit_aigc.machine.precision import machine_class

HERE = Path(__file__).parent
VALIDATION = 4.0  # seconds that are left for the validation at the end, which train_seconds include


def plain(folder: Path) -> dict[str, float]:
    out = folder / "plain.json"
    subprocess.run([sys.executable, str(HERE / "char_baseline.py"), "--json", str(out)], check=True)
    return json.loads(out.read_text())


def ours(folder: Path, seconds: float, seed: int) -> dict[str, float]:
    run = folder / f"{seconds:.0f}"
    arguments = [f"budget.minutes={(seconds - VALIDATION) / 60}", f"run_dir={run}", "validations=1", f"seed={seed}"]
    command = [sys.executable, "-m", "lit_aigc.train", "experiment=gpt_tinyshakespeare", *arguments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return json.loads((run / "summary.json").read_text())


def main() -> None:
    print(machine_class())
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", type=Path)
    parser.add_argument("--minutes", type=float, nargs="*", default=[3.0], help="trainings in addition to T / 5 and T")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        baseline = plain(Path(folder))
        seconds = baseline["train_seconds"]
        rows = [("plain loop", seconds, baseline["nats_per_char"])]
        for budget in (seconds / 5, seconds, *(60 * minutes for minutes in options.minutes)):
            summary = ours(Path(folder), budget, options.seed)
            rows.append(("lit_aigc", summary["train_seconds"], summary["nats_per_char"]))
            print(f"{'':12} {rows[-1][1]:8.1f} s  {rows[-1][2]:.4f} nats per character", flush=True)
    print(f"\n{'':12} {'seconds':>10}  nats per character")
    for name, taken, nats in rows:
        print(f"{name:12} {taken:10.1f}  {nats:.4f}")
    if options.json:
        facts = [{"name": name, "train_seconds": taken, "nats_per_char": nats} for name, taken, nats in rows]
        options.json.write_text(json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    main()
