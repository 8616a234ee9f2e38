"""Recipes, runs and sweeps: everything is put together here."""
