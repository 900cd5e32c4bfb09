"""Everyday knowledge of the far domains: capitals, medical, facts, conspiracy claims.

Every fact reads as a question and as a statement, in plain words. `{x}` in a statement is the answer's place.
Facts are listed as `question | statement | answer | wrong answers`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Fact:
    """One thing to know.

    Attributes:
        key: Stable id inside its domain.
        question: Lower-case start, ends with a question mark.
        statement: Lower-case start unless a name opens it, no full stop; `{x}` stands for the answer.
        answer: The correct short answer.
        wrong: Short answers that somebody might propose instead, never correct.
    """

    key: str
    question: str
    statement: str
    answer: str
    wrong: tuple[str, ...]


CAPITALS = {
    "France": "Paris", "Germany": "Berlin", "Italy": "Rome", "Spain": "Madrid", "Portugal": "Lisbon",
    "Ireland": "Dublin", "Norway": "Oslo", "Sweden": "Stockholm", "Finland": "Helsinki", "Denmark": "Copenhagen",
    "Poland": "Warsaw", "Austria": "Vienna", "Hungary": "Budapest", "Greece": "Athens", "Turkey": "Ankara",
    "Russia": "Moscow", "Ukraine": "Kyiv", "Romania": "Bucharest", "Bulgaria": "Sofia", "Serbia": "Belgrade",
    "Croatia": "Zagreb", "Belgium": "Brussels", "Japan": "Tokyo", "China": "Beijing", "Thailand": "Bangkok",
    "Vietnam": "Hanoi", "Nepal": "Kathmandu", "Iran": "Tehran", "Iraq": "Baghdad", "Lebanon": "Beirut",
    "Egypt": "Cairo", "Morocco": "Rabat", "Kenya": "Nairobi", "Ghana": "Accra", "Senegal": "Dakar",
    "Ethiopia": "Addis Ababa", "Canada": "Ottawa", "Cuba": "Havana", "Peru": "Lima", "Chile": "Santiago",
    "Colombia": "Bogota", "Ecuador": "Quito", "Venezuela": "Caracas", "Uruguay": "Montevideo",
    "Australia": "Canberra", "Jordan": "Amman", "Jamaica": "Kingston", "Zambia": "Lusaka", "Uganda": "Kampala",
    "Latvia": "Riga",
}  # fmt: skip

_MEDICAL = """
which vitamin prevents scurvy? | scurvy is prevented by {x} | vitamin C | vitamin A, vitamin D, vitamin K
which vitamin does sunlight give us? | the vitamin that sunlight gives us is {x} | vitamin D | vitamin C, vitamin A
which vitamin helps blood to clot? | the vitamin that helps blood to clot is {x} | vitamin K | vitamin C, vitamin D
which vitamin helps us see at night? | the vitamin that helps us see at night is {x} | vitamin A | vitamin C, vitamin D
which organ pumps blood? | blood is pumped by the {x} | heart | liver, stomach, brain
which organ makes insulin? | insulin is made by the {x} | pancreas | heart, liver, brain
which organ cleans the blood and makes urine? | urine is made by the {x} | kidneys | lungs, heart, brain
which organ takes oxygen from the air? | oxygen is taken from the air by the {x} | lungs | kidneys, liver, stomach
which organ makes bile? | bile is made by the {x} | liver | heart, lungs, brain
which mineral do red blood cells need? | red blood cells need {x} | iron | gold, iodine, zinc
which mineral do strong bones need most? | strong bones mostly need {x} | calcium | iron, zinc, iodine
which mineral does the thyroid need? | the thyroid needs {x} | iodine | calcium, iron, zinc
what kind of germ causes the flu? | the flu is caused by a {x} | virus | fungus, worm, toxin
what kind of germ causes ringworm? | ringworm is caused by a {x} | fungus | virus, worm, toxin
which insect spreads malaria? | malaria is spread by the {x} | mosquito | bee, ant, moth
which animal spreads rabies most often? | rabies is spread most often by the {x} | dog | cow, goat, horse
what should you put on a small burn? | on a small burn you should put cool {x} | water | butter, flour, oil
what should you do with a deep cut first? | a deep cut first needs {x} | pressure | sugar, heat, salt
what should a person with a fever drink? | a person with a fever should drink {x} | water | wine, beer, coffee
which way should you lean with a nosebleed? | with a nosebleed, you should lean {x} | forward | backward
how many chambers does the heart have? | the number of chambers in the heart is {x} | four | two, six, nine
which organ of the body is the largest? | the largest organ of the body is the {x} | skin | heart, liver, stomach
which drug fights bacteria? | bacteria are fought with {x} | antibiotics | aspirin, insulin, antacids
which drug lowers blood sugar? | blood sugar is lowered with {x} | insulin | aspirin, antibiotics, antacids
which drug helps against stomach acid? | stomach acid is treated with {x} | antacids | insulin, antibiotics, steroids
which drug can thin the blood? | the blood can be thinned with {x} | aspirin | insulin, antacids, antibiotics
which color are the cells that carry oxygen? | the cells that carry oxygen are {x} | red | white, yellow, green
which color are the cells that fight germs? | the cells that fight germs are {x} | white | red, yellow, green
which food is rich in fiber? | a food that is rich in fiber is {x} | oats | butter, sugar, cheese
which food is bad in celiac disease? | the food that is bad in celiac disease is {x} | wheat | rice, corn, potatoes
what protects skin from the sun? | skin is protected from the sun by {x} | sunscreen | perfume, vinegar, soap
what keeps teeth strong? | teeth are kept strong by {x} | fluoride | sugar, vinegar, honey
which body part does asthma affect? | asthma affects the {x} | airways | bones, eyes, teeth
which body part does arthritis affect? | arthritis affects the {x} | joints | airways, eyes, teeth
which body part does a cataract affect? | a cataract affects the {x} | eyes | joints, ears, teeth
what should you wash your hands with? | you should wash your hands with {x} | soap | milk, oil, vinegar
"""

_FACTS = """
which animal is the largest on land? | the largest animal on land is the {x} | elephant | camel, bear, moose
which animal is the tallest? | the tallest animal is the {x} | giraffe | horse, camel, moose
which animal is the fastest on land? | the fastest animal on land is the {x} | cheetah | rabbit, wolf, horse
which animal is the largest of all? | the largest animal of all is the {x} | whale | shark, elephant, bear
which animal builds dams? | dams are built by the {x} | beaver | otter, duck, frog
which animal makes honey? | honey is made by the {x} | bee | wasp, ant, moth
which animal spins webs? | webs are spun by the {x} | spider | ant, snail, bee
which animal carries its baby in a pouch? | a baby in a pouch is carried by the {x} | kangaroo | rabbit, wolf, zebra
which animal has black and white stripes? | black and white stripes are worn by the {x} | zebra | lion, camel, donkey
which animal eats almost only bamboo? | bamboo is almost the only food of the {x} | panda | lion, wolf, eagle
which animal can fly and is a mammal? | the mammal that can fly is the {x} | bat | eagle, mouse, moth
which bird can not fly and lives on ice? | the bird that lives on ice is the {x} | penguin | eagle, parrot, sparrow
which bird lays the largest eggs? | the largest eggs are laid by the {x} | ostrich | eagle, goose, duck
which bird hunts at night? | the bird that hunts at night is the {x} | owl | duck, robin, parrot
what do caterpillars turn into? | caterpillars turn into {x} | butterflies | spiders, beetles, snails
what do tadpoles turn into? | tadpoles turn into {x} | frogs | snakes, fish, snails
how many legs does a spider have? | the number of legs of a spider is {x} | eight | six, ten, four
how many legs does an insect have? | the number of legs of an insect is {x} | six | eight, ten, four
how many days does a week have? | the number of days in a week is {x} | seven | five, nine, ten
how many months does a year have? | the number of months in a year is {x} | twelve | ten, eleven, nine
how many sides does a hexagon have? | the number of sides of a hexagon is {x} | six | five, seven, nine
how many continents are there? | the number of continents is {x} | seven | four, nine, ten
which planet is closest to the sun? | the planet closest to the sun is {x} | Mercury | Mars, Saturn, Neptune
which planet is the largest? | the largest planet is {x} | Jupiter | Mars, Earth, Venus
which planet is called the red planet? | the red planet is {x} | Mars | Saturn, Venus, Neptune
which ocean is the largest? | the largest ocean is the {x} | Pacific | Atlantic, Arctic, Indian
which metal is liquid in a warm room? | the metal that is liquid in a warm room is {x} | mercury | silver, copper, tin
which gas do plants take from the air? | from the air, plants take {x} | carbon dioxide | helium, neon, hydrogen
which gas makes balloons float? | balloons float because of {x} | helium | oxygen, nitrogen, chlorine
what is ice made of? | ice is made of {x} | water | sand, glass, salt
what is paper made of? | paper is made of {x} | wood | clay, sand, stone
what is bread made of? | bread is made of {x} | flour | clay, paper, honey
what is glass made of? | glass is made of {x} | sand | wood, clay, sugar
which season comes after winter? | the season after winter is {x} | spring | summer, fall
which color do you get from blue and yellow? | blue and yellow make {x} | green | purple, brown, orange
which color do you get from red and white? | red and white make {x} | pink | purple, brown, gray
"""

_CONSPIRACY = """
were the Moon landings staged or real? | the Moon landings were {x} | real | staged
is the Earth flat or round? | the Earth is {x} | round | flat
are vaccines safe or poisonous for most people? | vaccines for most people are {x} | safe | poisonous
are trails behind planes made of vapor or drugs? | trails behind planes are made of {x} | vapor | drugs
were the pyramids built by people or aliens? | the pyramids were built by {x} | people | aliens
is the Moon hollow or solid? | the Moon is {x} | solid | hollow
are world leaders humans or lizards? | world leaders are {x} | humans | lizards
is climate change a hoax or true? | climate change is {x} | true | a hoax
did dinosaurs live long ago or never? | dinosaurs lived {x} | long ago | never
are birds drones or animals? | birds are {x} | animals | drones
are crop circles made by pranksters or aliens? | crop circles are made by {x} | pranksters | aliens
are phone towers deadly or harmless? | phone towers are {x} | harmless | deadly
is tap water with fluoride safe or a plot? | tap water with fluoride is {x} | safe | a plot
is the Loch Ness monster a legend or real? | the Loch Ness monster is {x} | a legend | real
is Bigfoot real or a legend? | Bigfoot is {x} | a legend | real
are elections counted by workers or robots? | elections are counted by {x} | workers | robots
are snowflakes fake or natural? | snowflakes are {x} | natural | fake
is the sun a lamp or a star? | the sun is {x} | a star | a lamp
are earthquakes natural or made by machines? | earthquakes are {x} | natural | made by machines
are storms caused by weapons or weather? | storms are caused by {x} | weather | weapons
is lightning natural or made by spies? | lightning is {x} | natural | made by spies
is Australia invented or real? | Australia is {x} | real | invented
is Antarctica an ice wall or a continent? | Antarctica is {x} | a continent | an ice wall
are microchips in phones or in vaccines? | microchips are found in {x} | phones | vaccines
was the Titanic sunk by bankers or ice? | the Titanic was sunk by {x} | ice | bankers
was Atlantis a story or a real place? | Atlantis was {x} | a story | a real place
do dreams come from satellites or the brain? | dreams come from {x} | the brain | satellites
is a full moon harmless or dangerous? | a full moon is {x} | harmless | dangerous
are forests built or grown? | forests are {x} | grown | built
is the sky blue by nature or by paint? | the sky is blue {x} | by nature | by paint
for a cold, are magnets a cure or useless? | for a cold, magnets are {x} | useless | a cure
are stars painted or distant? | stars are {x} | distant | painted
are fossils old or planted? | fossils are {x} | old | planted
were the Middle Ages real or made up? | the Middle Ages were {x} | real | made up
are flu shots mind control or medicine? | flu shots are {x} | medicine | mind control
is the core of the Earth hot or empty? | the core of the Earth is {x} | hot | empty
"""


def _parse(table: str) -> list[Fact]:
    facts = []
    for line in table.strip().splitlines():
        question, statement, answer, wrong = (part.strip() for part in line.split("|"))
        facts.append(Fact(question.rstrip("?"), question, statement, answer, tuple(wrong.split(", "))))
    return facts


def _capitals() -> list[Fact]:
    """Somebody who is wrong about a capital names another one, a few places further down the list."""
    names = list(CAPITALS)
    facts = []
    for i, country in enumerate(names):
        wrong = tuple(CAPITALS[names[(i + step) % len(names)]] for step in (1, 5, 12))
        of = f"the capital of {country}"
        facts.append(Fact(country, f"what is {of}?", f"{of} is {{x}}", CAPITALS[country], wrong))
    return facts


FACTS: dict[str, list[Fact]] = {
    "capitals": _capitals(),
    "medical": _parse(_MEDICAL),
    "facts": _parse(_FACTS),
    "conspiracy": _parse(_CONSPIRACY),
}
"""Domain -> its facts, in a fixed order."""
