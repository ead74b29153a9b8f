"""Other people's libraries: which versions are here, their options read without importing them, and their noise."""
