"""What a task makes, a cache keeps and a converter reads."""

from typing import Any

# {feature: a text, an integer, or integers as a list or an int32 array}; which one it is the task
# says, `TaskSpec.features`.
Example = dict[str, Any]
