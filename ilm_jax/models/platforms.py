"""Which kind of device a program is traced for: what is for one kind alone asks here."""

import jax


def platform() -> str:
    """Of the current mesh's devices ("tpu", "cpu", …), or of the default ones without a mesh."""
    device = getattr(jax.sharding.get_abstract_mesh(), "abstract_device", None)
    return jax.default_backend() if device is None else device.platform
