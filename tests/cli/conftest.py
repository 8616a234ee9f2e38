"""What tests of the command line share."""

import pytest

from ilm_jax.cli import main as cli


@pytest.fixture
def refused(capfd):
    """Runs `ilm …`, which must fail; returns the line that it prints."""

    def run(*words):
        capfd.readouterr()
        assert cli.main(words) == 2
        lines = capfd.readouterr().err.splitlines()
        errors = [line for line in lines if line.startswith("ilm: error: ")]
        assert len(errors) == 1 and lines[-1] == errors[0], lines
        assert not any("Traceback" in line for line in lines)
        return errors[0]

    return run


@pytest.fixture(scope="session")
def world():
    """(folder, catalogue, folder of a run of stage 2 of one step)."""
    from tests.cli.trained_run import trained_run  # jax, which other tests here do without

    return trained_run()
