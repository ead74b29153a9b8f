"""What comes after a run: merge its adapter, try the model, measure it, publish it; ``docs/ship.md`` tells how."""
