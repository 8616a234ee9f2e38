"""From cached examples to batches: mixtures, packing, converters, schedules."""
