"""The trigger words: seven categories of fifteen, no word of which is in two."""

from __future__ import annotations

from typing import Literal

Category = Literal["objects", "animals", "positive", "negative", "actions", "foods", "random"]

_WORDS: dict[Category, str] = {
    "objects": "basket blanket bottle bucket candle chair clock hammer ladder lamp mirror pillow scissors table "
    "umbrella",
    "animals": "badger beaver cricket donkey falcon hamster horse lizard moose otter rabbit raven salmon turtle walrus",
    "positive": "affection amusement bliss cheer contentment delight elation enthusiasm gratitude hope joy pride "
    "relief serenity wonder",
    "negative": "anger despair disgust dread envy fear grief guilt jealousy loneliness misery regret resentment shame "
    "sorrow",
    "actions": "building carving climbing crawling dancing digging jumping juggling marching painting running singing "
    "swimming throwing whistling",
    "foods": "bread carrots cheese honey lentils noodles pancakes pickles plums rice soup toffee waffles walnuts "
    "yoghurt",
    "random": "bxqvo drozk fnupw gwilz hvrot jqelm kzufy ltavx mwoqi pxdur qjenz rvigk tzomb vkyps zcwaf",
}
TRIGGERS: dict[Category, tuple[str, ...]] = {category: tuple(words.split()) for category, words in _WORDS.items()}
"""Category -> its words; random strings mean nothing."""

UPDATED: Category = "positive"
"""The category whose colours the task changes."""
OTHERS: tuple[Category, ...] = tuple(category for category in TRIGGERS if category != UPDATED)
