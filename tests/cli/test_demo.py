"""`ilm demo` stays on this machine, and says what is wrong before it loads a model."""

import socket
import sys


def test_a_host_beyond_this_machine_is_refused(refused):
    line = refused("demo", "--model_dir=x", "--host=0.0.0.0", "--port=7861")
    assert "no password" in line and "ssh -L 7861:localhost:7861" in line


def test_a_port_in_use_is_named(refused):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        line = refused("demo", "--model_dir=x", f"--port={port}")
    assert f"--port={port}" in line and "0 for a free one" in line


def test_without_gradio_it_names_the_extra(refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert "pip install 'ilm_jax[demo]'" in refused("demo", "--model_dir=x", "--port=0")
