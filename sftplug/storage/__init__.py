"""Files and folders that are whole or not there: written in one step, locked while they are, and why they cannot be."""
