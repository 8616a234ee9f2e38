"""The line on stderr that says where a run is, what it is at, and how long it will take."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping

# Seconds after which a pause is mentioned where lines cannot be rewritten.
PATIENCE = 10.0


class LiveLine:
    """Step, loss, examples per second and time left; one line, rewritten on a terminal.

    What is no step (compiling, validation, saving) is a pause: the line names it while it lasts.
    The time left counts the pauses to come, each as long as the last of its name; of those that
    were not met yet, it says that they come on top.
    """

    def __init__(
        self,
        total_steps: int,
        start_step: int,
        to_come: Callable[[int], Mapping[str, int]] = lambda step: {},
        *,
        active: bool = True,
    ) -> None:
        """Starts the clock.

        Args:
          total_steps, start_step: of the run.
          to_come: pauses after a step until the end, by name.
          active: whether this process prints.
        """
        self._total, self._to_come, self._active = total_steps, to_come, active
        self._tty = sys.stderr.isatty()
        self._since, self._at, self._paused = time.monotonic(), start_step, 0.0
        self._lasted: dict[str, float] = {}
        self._shown = f"step {start_step}/{total_steps}"
        self._open = False

    def show(self, step: int, loss: float, examples: int) -> float:
        """Prints the line; `examples` since the last one. Returns examples per second."""
        now = time.monotonic()
        seconds, steps = max(now - self._since, 1e-9), step - self._at
        rate = examples / seconds
        working = max(seconds - self._paused, 1e-9) / max(steps, 1)
        self._shown = f"step {step}/{self._total}  loss {loss:.4f}  {_rate(rate)} examples/s"
        left = "" if step >= self._total else f"  ETA {self._left(step, working)}"
        self._print(self._shown + left)
        self._since, self._at, self._paused = now, step, 0.0
        return rate

    @contextlib.contextmanager
    def pause(self, what: str, *, long: bool = False) -> Iterator[Callable[[int, int], None]]:
        """Names what the block is at; yields what is told (parts done, of how many).

        Args:
          what: such as "validation".
          long: mention it from the start where lines cannot be rewritten, for no part of it says
            that it goes on.
        """
        start = said = time.monotonic()

        def tell(done: int, parts: int) -> None:
            """Shows how far it is; without a terminal at most every PATIENCE seconds."""
            nonlocal said
            now = time.monotonic()
            if self._tty or now - said > PATIENCE:
                said = now
                self._print(f"{self._shown}  {what} {done}/{parts}")

        if self._tty or long:
            self._print(f"{self._shown}  {what}")
        yield tell
        self._lasted[what] = time.monotonic() - start
        self._paused += self._lasted[what]

    def note(self, text: str) -> None:
        """Prints a line of its own."""
        self.close()
        if self._active:
            print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Ends the line."""
        if self._open:
            print(file=sys.stderr, flush=True)
        self._open = False

    def _left(self, step: int, seconds_per_step: float) -> str:
        seconds, unknown = (self._total - step) * seconds_per_step, []
        for name, times in self._to_come(step).items():
            if name in self._lasted:
                seconds += times * self._lasted[name]
            elif times:
                unknown.append(name)
        return _clock(seconds) + "".join(f" + {name}" for name in unknown)

    def _print(self, line: str) -> None:
        if not self._active:
            return
        self._open = self._tty
        end = "" if self._tty else "\n"
        print(f"\r{line}\x1b[K" if self._tty else line, end=end, file=sys.stderr, flush=True)


def _rate(rate: float) -> str:
    """Whole numbers, but for large models on small machines, which take minutes an example."""
    return f"{rate:.0f}" if rate >= 9.5 else f"{rate:.2g}"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
