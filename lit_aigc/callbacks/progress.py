"""Training progress: a live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import collections
import dataclasses
import math
import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from lit_aigc.media.console import duration, number


@dataclasses.dataclass(eq=False)
class Progress(Callback):
    """Shows the share of the budget, samples/s, elapsed time and time left, losses, and the latest metrics.

    During training the speed is that of the latest batches alone; at the end it is the one of ``summary.json``,
    validation and checkpoints included.

    On a terminal the display is updated at most four times per second; elsewhere (a SLURM log, CI) it is a line every
    `line_seconds` and one after each validation. Costs one look at the clock per batch. For a Trainer that has
    ``enable_progress_bar=False``.

    Args:
        refresh_seconds: Shortest time between two updates on a terminal.
        line_seconds: Shortest time between two lines elsewhere.
        metrics: Most metrics shown.
        console: The console to write to; stdout by default.
    """

    refresh_seconds: float = 0.25
    line_seconds: float = 10.0
    metrics: int = 4
    console: Console | None = None

    def __post_init__(self) -> None:
        self._live: Live | None = None
        self._next = math.inf  # when to show again; never on ranks other than 0
        self._state = ""
        self._last_speed = 0.0
        self._window: collections.deque[tuple[float, int]] = collections.deque(maxlen=40)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the display."""
        if not trainer.is_global_zero:
            return
        self.console = self.console or Console()
        self._state = "training"
        self._window.clear()
        if self.console.is_terminal:
            self._live = Live(console=self.console, auto_refresh=False, transient=False)
            self._live.start()
            self._show(trainer, pl_module)
        else:
            self._next = time.monotonic() + min(self.line_seconds, 2.0)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Update the display when it is due."""
        if not self._window:
            self._window.append((time.monotonic(), int(pl_module.samples_seen)))
        if time.monotonic() >= self._next:
            self._show(trainer, pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show that validation is running, so that a bar that stands still is understood."""
        self._state = "validating"
        if self._live:
            self._show(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show what was measured; the speed is measured anew from the next batch."""
        self._state = "training"
        if not trainer.is_global_zero or self._next == math.inf:
            return
        self._window.clear()  # the checkpoint is yet to be written
        if self._live:
            self._show(trainer, pl_module)
        elif metrics := self._metrics_text(trainer):
            self._line(f"validation at {pl_module.samples_seen:,} samples: {metrics}")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the final state on display."""
        if trainer.is_global_zero and self._next != math.inf:
            self._state = "done" if pl_module.progress >= 1 else "stopped"
            self._show(trainer, pl_module)
        self._stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Close the display, so that the message appears below it."""
        self._stop()

    def _stop(self) -> None:
        self._next = math.inf
        if self._live:
            self._live.stop()
            self._live = None

    def _show(self, trainer: Trainer, pl_module: LightningModule) -> None:
        now = time.monotonic()
        if self._state == "training" and self._window:
            self._window.append((now, int(pl_module.samples_seen)))
        if self._live:
            self._next = now + self.refresh_seconds
            self._live.update(self._picture(trainer, pl_module), refresh=True)
        else:
            self._next = now + self.line_seconds
            self._line(" | ".join([f"{pl_module.progress:4.0%}", *self._facts(pl_module), *self._losses(pl_module)]))

    def _line(self, text: str) -> None:
        self.console.print(text, soft_wrap=True, highlight=False, markup=False)

    def _picture(self, trainer: Trainer, pl_module: LightningModule) -> Group:
        bar = Table.grid(padding=(0, 1))
        style = {"validating": "yellow", "done": "green", "stopped": "red"}.get(self._state, "cyan")
        bar.add_row(
            Text(self._state.ljust(10), style=style),
            ProgressBar(
                total=1.0, completed=pl_module.progress, width=30, complete_style=style, finished_style="green"
            ),
            Text(f"{pl_module.progress:4.0%}", style="bold"),
            Text("  ".join(self._facts(pl_module))),
        )
        lines = [bar]
        for name, text in (("losses", "  ".join(self._losses(pl_module))), ("metrics", self._metrics_text(trainer))):
            if text:
                lines.append(Text(f"{name:<11}", style="dim").append(text, style="not dim"))
        return Group(*lines)

    def _facts(self, pl_module: LightningModule) -> list[str]:
        seconds, progress = pl_module.train_seconds, pl_module.progress
        left = seconds * (1 - progress) / progress if progress > 0 else math.nan
        facts = [f"{int(pl_module.samples_seen):,} samples"]
        if self._state in ("done", "stopped"):
            facts.append(f"{number(pl_module.samples_per_second)}/s overall")
        elif speed := self._speed():
            facts.append(f"{speed:,.0f}/s now")
        return [*facts, f"{duration(seconds)} elapsed", f"{duration(left)} left"]

    def _speed(self) -> float:
        """Return the samples per second over the last updates; right after a validation, the value before it."""
        if not self._window:
            return self._last_speed
        (t0, n0), (t1, n1) = self._window[0], self._window[-1]
        if n1 > n0 and t1 > t0:
            self._last_speed = (n1 - n0) / (t1 - t0)
        return self._last_speed

    def _losses(self, pl_module: LightningModule) -> list[str]:
        return [f"{name.removeprefix('train/')} {number(float(value))}" for name, value in pl_module.recent.items()]

    def _metrics_text(self, trainer: Trainer) -> str:
        metrics = {k: float(v) for k, v in trainer.callback_metrics.items() if not k.startswith("train/")}
        return ", ".join(f"{name} {number(value)}" for name, value in list(metrics.items())[: self.metrics])
