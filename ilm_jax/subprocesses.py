"""Work in processes of its own: TensorFlow's, which training must not import, and its workers."""

import os
import subprocess
import sys
from collections.abc import Sequence

from ilm_jax import user_modules
from ilm_jax.errors import UserError

# How a process of ours says in one line what a person can mend.
ERROR = "ilm: error: "
# Preparing data needs no accelerator, and the caller may hold it.
_QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}


def run(words: Sequence[str], shown: Sequence[str] = ()) -> None:
    """Runs `python -m WORDS` to its end; it imports the user's modules that this process has.

    Args:
      words: module and arguments.
      shown: what lines of its stderr begin with that are passed on as they come.

    Raises:
      UserError: what it says is wrong.
      RuntimeError: if it fails otherwise, with the end of its stderr.
    """
    command = [sys.executable, "-m", *words, *user_modules.words()]
    said: list[str] = []
    with subprocess.Popen(
        command,
        env=os.environ | _QUIET | user_modules.environment(),
        text=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            said.append(line)
            if line.startswith(tuple(shown)):
                print(line, end="", file=sys.stderr, flush=True)
    if not process.returncode:
        return
    errors = [line for line in said if line.startswith(ERROR)]
    if process.returncode == 2 and errors:
        raise UserError(errors[-1].removeprefix(ERROR).strip())
    tail = "".join(said)[-4000:]
    raise RuntimeError(f"{' '.join(command)} exited {process.returncode}:\n{tail}")
