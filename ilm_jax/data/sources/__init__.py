"""Datasets: from what somebody downloaded, or a generated world, to a catalogue."""
