"""Commands of others, run or asked: what they answer, and that they could not be asked."""

import dataclasses
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence

from ilm_jax.errors import UserError

TIMEOUT = 300.0  # seconds that a question may take
TRIES = 30  # of a question; with `pause` that is almost half an hour
_LONGEST_PAUSE = 60.0  # seconds
_SECRET = re.compile(r"(?i)((?:token|key|password|secret|credential)\w*=)\S+|\bya29\.[\w.-]+")
_ABSENT = re.compile(r"\bNOT_FOUND\b(?:: Resource '(?P<resource>[^']*)')?")
_REFUSED = re.compile(
    r"\b(PERMISSION_DENIED|INVALID_ARGUMENT|UNAUTHENTICATED|SERVICE_DISABLED)\b"
    r"|Reauthentication|active account|unrecognized arguments|[Ii]nvalid (choice|value)"
)


class CommandFailed(UserError):
    """A command ended with another code than 0."""


class Unanswered(UserError):
    """A question could not be answered, which is not the answer "no"."""


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a command said.

    Attributes:
      code: its exit code; negative where a signal killed it, None where it took too long.
      said: what it printed.
      complaint: its error output.
    """

    code: int | None
    said: str = ""
    complaint: str = ""

    def absent(self, name: str) -> bool:
        """Whether it says that there is nothing of this name: a failure alone does not say so.

        gcloud names what it has not found, which may be the project or the zone as well.
        """
        found = _ABSENT.search(self.complaint) if self.code else None
        resource = found and found["resource"]
        return found is not None and (not resource or resource.rpartition("/")[2] == name)

    @property
    def exists(self) -> bool:
        """Whether it says that there is such a thing already."""
        return bool(self.code) and "ALREADY_EXISTS" in self.complaint

    @property
    def refused(self) -> bool:
        """Whether asking again will not help, for something has to be mended first."""
        return bool(self.code) and _REFUSED.search(self.complaint) is not None

    @property
    def reason(self) -> str:
        """Why it failed, in a line."""
        if self.code is None:
            return f"no answer within {TIMEOUT:.0f} s"
        lines = [line.strip() for line in self.complaint.splitlines() if line.strip()]
        errors = [line for line in lines if "ERROR" in line] or lines[-1:]
        how = f"killed by signal {-self.code}" if self.code < 0 else f"code {self.code}"
        return masked(errors[0])[:300] if errors else (how if self.code else "an empty answer")


class Runner:
    """Runs commands, or prints them; what looks like a secret is not printed."""

    def __init__(self, dry_run: bool) -> None:
        """`dry_run`: print alone."""
        self.dry_run = dry_run

    def show(self, words: Sequence[str]) -> None:
        """Prints a command as a shell would take it."""
        print(f"$ {masked(shlex.join(words))}", flush=True)

    def run(self, words: Sequence[str], *, check: bool = True) -> int:
        """Runs one command in this terminal; returns its exit code.

        Raises:
          CommandFailed: if it fails and `check`.
          UserError: if it is not installed.
        """
        self.show(words)
        if self.dry_run:
            return 0
        try:
            code = subprocess.run(list(words), check=False).returncode
        except OSError as error:
            raise _not_installed(words[0], error) from error
        if code and check:
            raise CommandFailed(
                f"{masked(' '.join(words[:6]))} … failed (code {code}); its message is above"
            )
        return code

    def ask(self, words: Sequence[str], dry: str = "") -> Answer:
        """What a command prints, `dry` in a dry run.

        Raises:
          UserError: if it is not installed.
        """
        self.show(words)
        if self.dry_run:
            return Answer(0, dry)
        try:
            found = subprocess.run(
                list(words),
                check=False,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=TIMEOUT,
            )
        except subprocess.TimeoutExpired:
            return Answer(None)
        except OSError as error:
            raise _not_installed(words[0], error) from error
        return Answer(found.returncode, found.stdout.strip(), found.stderr.strip())


def patiently(
    ask: Callable[[], Answer],
    enough: Callable[[Answer], bool],
    what: str,
    wait: Callable[[float], None],
) -> Answer:
    """Asks until the answer is enough, longer and longer apart; the last answer after TRIES."""
    attempt = 0
    while True:
        answer = ask()
        attempt += 1
        if enough(answer) or attempt == TRIES:
            return answer
        seconds = pause(attempt)
        say(
            f"{what} failed ({answer.reason}); again in {seconds:.0f} s "
            f"(try {attempt + 1} of {TRIES})"
        )
        wait(seconds)


def pause(attempt: int) -> float:
    """Seconds before the next try."""
    return min(2.0**attempt, _LONGEST_PAUSE)


def say(text: str) -> None:
    """One line to the person who waits."""
    print(f"tpu_pod: {text}", file=sys.stderr, flush=True)


def masked(text: str) -> str:
    """A text without what looks like a secret."""
    return _SECRET.sub(lambda found: f"{found.group(1) or ''}***", text)


def _not_installed(command: str, error: OSError) -> UserError:
    if isinstance(error, FileNotFoundError):
        return UserError(f"{command} is not installed: see docs/pods.md")
    return UserError(f"{command} cannot be run ({error.strerror}): see docs/pods.md")
