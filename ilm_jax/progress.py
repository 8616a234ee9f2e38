"""A line on stderr that says how far a job is."""

import sys
import time
from collections.abc import Callable

WIDTH, PAUSE = 24, 0.5
# (what is done, of how many) to what hears how many more are done: a bar, say.
Watch = Callable[[str, int], Callable[[int], None]]


def note(what: str) -> None:
    """One line of what begins now and cannot say how far it is, such as "loading …"."""
    print(what, file=sys.stderr, flush=True)


def watch(what: str, total: int) -> Callable[[int], None]:
    """A bar that stands there from the start, of the first process; the others show nothing."""
    import jax

    if jax.process_index():
        return lambda new: None
    advance = bar(what, total)
    advance(0)
    return advance


def unseen(what: str, total: int) -> Callable[[int], None]:
    """A `Watch` that shows nothing."""
    del what, total
    return lambda new: None


def bar(what: str, total: int, done: int = 0, late: bool = False) -> Callable[[int], None]:
    """A progress bar with the time left; call the result with the number of new answers.

    On a terminal the line is rewritten, elsewhere there is a line every ten seconds.

    Args:
      what: is counted, such as "answers".
      total: of them.
      done: before this process began; the speed is that of the others.
      late: nothing is shown before ten seconds are over, nor at the end if it came sooner.
    """
    start, shown, before = time.monotonic(), 0.0, done
    live = sys.stderr.isatty()

    def advance(new: int) -> None:
        """Counts `new` more done, and redraws the line where it is time to."""
        nonlocal done, shown
        done += new
        now = time.monotonic()
        if late and not shown and now - start < 10.0:
            return
        if now - shown < (PAUSE if live else 10.0) and done < total:
            return
        shown, spent = now, now - start
        rate = (done - before) / max(spent, 1e-6)
        left = f"{clock((total - done) / rate)} left" if rate > 0 else "…"
        full = WIDTH * done // max(total, 1)
        line = f"{what} [{'#' * full}{'.' * (WIDTH - full)}] {done}/{total} {rate:,.1f}/s {left}"
        end = "\n" if done >= total or not live else ""
        print(f"\r{line:<90}" if live else line, end=end, file=sys.stderr, flush=True)

    return advance


def clock(seconds: float) -> str:
    """Such as "42 s", "3:05" or "2:00:09"."""
    whole = round(seconds)
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}:{minutes:02}:{rest:02}"
    return f"{minutes}:{rest:02}" if minutes else f"{rest} s"
