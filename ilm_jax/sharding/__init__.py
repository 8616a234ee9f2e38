"""The mesh and its rules, the processes of a run, and the state that is laid out on them."""
