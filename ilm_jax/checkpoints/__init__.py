"""Files of models and runs: saving, loading, a run's record, and published formats."""
