"""Where everything is put together: recipes, runs, sweeps over them."""
