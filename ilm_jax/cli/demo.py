"""`ilm demo`: a page to talk to a trained run, on this machine alone."""

import importlib.util
import socket
from collections.abc import Sequence

from absl import flags


def _flags() -> flags.FlagValues:
    from ilm_jax.cli import opening

    values = flags.FlagValues()
    opening.define_run(values)
    opening.define_decoding(values, 48)
    flags.DEFINE_integer("items", 5, "Items of a list.", lower_bound=1, flag_values=values)
    flags.DEFINE_integer(
        "port",
        7860,
        "Of the page; 0: a free one.",
        lower_bound=0,
        upper_bound=65535,
        flag_values=values,
    )
    flags.DEFINE_string(
        "host",
        "127.0.0.1",
        "127.0.0.1 or localhost: the page has no password, and others reach it through a tunnel "
        "(ssh -L 7860:localhost:7860).",
        flag_values=values,
    )
    return values


def main(argv: Sequence[str]) -> int:
    """Runs the verb with the words after it until an interrupt; returns the exit code.

    Raises:
      UserError: for wrong flags, a port in use, or where Gradio is not installed.
    """
    from ilm_jax.cli import opening, words

    bindings, rest = words.split_bindings(argv)
    values = _flags()
    words.parse_flags(values, "demo", rest)
    opening.check_decoding(values)
    port = _port(values)
    run = opening.open_run(values.model_dir, bindings, "demo")

    from ilm_jax.serving import demo_page
    from ilm_jax.serving.answering import Answerer
    from ilm_jax.serving.demo import Demo

    trained = opening.load(run, values.step)
    config = opening.decoding(values, run.stop_ids, run.tokenizer.pad_id)
    demo = Demo(
        Answerer.of_trained(trained),
        run.splits,
        count=values.items,
        config=config,
        explains=trained.objective.predicts_text,
    )
    page = demo_page.build(demo, opening.name_of(str(run.model_dir)))
    address = demo_page.launch(page, values.host, port)
    print(f"{address} shows {run.model_dir}, on this machine alone; Ctrl-C ends it", flush=True)
    page.block_thread()
    return 0


def _port(values: flags.FlagValues) -> int:
    """The port, which is free, before any model is loaded."""
    from ilm_jax.errors import UserError
    from ilm_jax.serving.demo_page import HOSTS

    if values.host not in HOSTS:
        raise UserError(
            f"--host={values.host}: the page has no password and stays on this machine, "
            f"{' or '.join(HOSTS)}; from elsewhere, ssh -L {values.port}:localhost:{values.port}"
        )
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((values.host, values.port))
        except OSError as error:
            raise UserError(
                f"--port={values.port}: {error.strerror}; give another, or 0 for a free one"
            ) from error
        port = int(probe.getsockname()[1])
    if importlib.util.find_spec("gradio") is None:
        raise UserError("ilm demo needs Gradio: pip install 'ilm_jax[demo]'")
    return port
