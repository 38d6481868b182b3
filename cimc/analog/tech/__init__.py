"""One file per memory technology. Each lists ``TECHNOLOGIES``; nothing else needs to know of a new file."""
