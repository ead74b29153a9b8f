"""Plain data that the stages of a run hand to each other, and hooks to plugins; nothing here does any work."""
