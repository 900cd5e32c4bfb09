"""Judges: a prompt that asks for a number from 0 to 100 -> Judgement. The registry loads one by its file name."""
