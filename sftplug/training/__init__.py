"""Supervised fine-tuning: `train.train` reads from top to bottom as an explanation of it; start there.

`preflight` tries at the beginning what could fail at the end, `trainer` is TRL's trainer with a loss of our own,
`callbacks` watch over its loop, and the modules named ``*_state`` hold what a checkpoint needs to be resumed
exactly.
"""
