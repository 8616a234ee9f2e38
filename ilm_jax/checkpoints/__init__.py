"""What lies on disk: saving, loading, what a run was made from, and published formats."""
