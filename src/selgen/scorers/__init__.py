"""Scorers: text -> Score. Each module is one scorer; the registry loads it by its file name."""
