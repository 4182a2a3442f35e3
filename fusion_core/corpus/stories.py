"""Short stories and facts of the small world: the *commonsense* domain.

No digits, no equations, no labels: whole sentences in the past tense about who did what where, and
in the present tense about what is so.
"""

from collections.abc import Callable

from fusion_core.corpus.names import Draw
from fusion_core.corpus.world import (
    ANIMALS,
    CAUSES,
    FEELINGS,
    FOODS,
    JOBS,
    MATERIALS,
    OBJECTS,
    SEASONS,
    Animal,
    Job,
    Material,
)

Fact = tuple[str, str, tuple[str, ...]]


def a(noun: str) -> str:
    """Puts the indefinite article before a noun."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def plural(noun: str) -> str:
    """Forms the plural of an animal's or a trade's name."""
    special = {"sheep": "sheep", "goose": "geese", "wolf": "wolves"}
    return special.get(noun, noun + "s")


def upper(sentence: str) -> str:
    """Starts a sentence with a capital letter."""
    return sentence[0].upper() + sentence[1:]


def animal_facts(animal: Animal) -> list[Fact]:
    """Lists what is so of an animal: beginning of the sentence, its end, ends true of others."""
    one, many = upper(a(animal.name)), upper(plural(animal.name))
    return [
        (f"{many} eat", animal.eats, tuple(x.eats for x in ANIMALS)),
        (f"{many} live in", animal.home, tuple(x.home for x in ANIMALS)),
        (
            f"The young of {a(animal.name)} is called a",
            animal.young,
            tuple(x.young for x in ANIMALS),
        ),
        (f"{one} is covered by", animal.coat, tuple(x.coat for x in ANIMALS)),
        (f"{one} that calls out", animal.cry, tuple(x.cry for x in ANIMALS)),
        (f"To get about, {a(animal.name)}", animal.moves, tuple(x.moves for x in ANIMALS)),
    ]


def material_facts(material: Material) -> list[Fact]:
    """Lists what is so of a material, in the form of `animal_facts`."""
    name = material.name
    return [
        (f"{upper(name)} comes from", material.origin, tuple(x.origin for x in MATERIALS)),
        (f"To the hand, {name} is", material.feel, tuple(x.feel for x in MATERIALS)),
        (f"In water, {name}", material.water, tuple(x.water for x in MATERIALS)),
        (f"Held to a flame, {name}", material.fire, tuple(x.fire for x in MATERIALS)),
        (f"Dropped on the floor, {name}", material.fall, tuple(x.fall for x in MATERIALS)),
    ]


def job_facts(job: Job) -> list[Fact]:
    """Lists what is so of a trade, in the form of `animal_facts`."""
    return [
        (f"You will find {a(job.name)} at", job.place, tuple(x.place for x in JOBS)),
        (f"Every day {a(job.name)}", job.work, tuple(x.work for x in JOBS)),
        (f"{upper(a(job.name))} cannot work without", job.tool, tuple(x.tool for x in JOBS)),
    ]


def sentences(facts: list[Fact]) -> str:
    """Writes facts out."""
    return " ".join(f"{begin} {end}." for begin, end, _ in facts)


def _pet(draw: Draw) -> str:
    animal, who, town = draw.one(ANIMALS), draw.name("villager"), draw.name("town")
    pet = draw.name("pet")
    told = sentences(draw.some(animal_facts(animal), 3))
    opening = draw.one(
        [
            f"{who} of {town} once kept {a(animal.name)} whose name was {pet}.",
            f"In {town}, {who} looked after {a(animal.name)} named {pet}.",
        ]
    )
    return (
        f"{opening} {told} So {who} gave {pet} {animal.eats} every morning, and whenever "
        f"{pet} was pleased, it {animal.cry}.".replace("rarely calls", "sits still")
    )


def _drop(draw: Draw) -> str:
    thing = draw.one(tuple(OBJECTS))
    material = next(x for x in MATERIALS if x.name == OBJECTS[thing])
    who, other = draw.names("villager", 2)
    spot = draw.one([f"the pond at {draw.name('town')}", f"the river near {draw.name('town')}"])
    return (
        f'While crossing {spot}, {who} dropped {a(thing)} into the water. "What happens to it '
        f'now?" asked {other}. "{upper(a(thing))} is made of {material.name}," said {who}. '
        f'"In water, {material.name} {material.water}." And that is what {other} saw. '
        f"Later they spoke of where {material.name} comes from, which is {material.origin}."
    )


def _hearth(draw: Draw) -> str:
    thing = draw.one(tuple(OBJECTS))
    material = next(x for x in MATERIALS if x.name == OBJECTS[thing])
    who, other = draw.names("villager", 2)
    return (
        f'"Do not leave the {thing} so near the fire," {who} warned. {other} did not listen. '
        f"The {thing} was made of {material.name}, and held to a flame, {material.name} "
        f"{material.fire}. Next time {other} took it to the window of the house in "
        f"{draw.name('town')}, where it fell. Dropped on the floor, {material.name} "
        f"{material.fall}."
    )


def _workday(draw: Draw) -> str:
    job, who, town = draw.one(JOBS), draw.name("villager"), draw.name("town")
    other = draw.one([x for x in JOBS if x is not job])
    friend = draw.name("villager")
    return (
        f"{who} is the {job.name} of {town}. Every morning {who} goes to {job.place} and "
        f"{job.work}. "
        f"For that {a(job.name)} needs {job.tool}. {friend}, who is {a(other.name)}, needs "
        f"{other.tool} instead and {other.work}; look for {friend} at {other.place}."
    )


def _cause(draw: Draw) -> str:
    first, second = draw.some(CAUSES, 2)
    who, town = draw.name("villager"), draw.name("town")
    link = draw.one(["That is no wonder, for", "Everyone knows why:"])
    return (
        f"In {town} {first.event}, and so {first.effect}. {link} {first.reason}. {who} "
        f"{first.remedy}. The week after, {second.event}. As {second.reason}, {second.effect}, "
        f"and this time {who} {second.remedy}."
    )


def _feeling(draw: Draw) -> str:
    who, other = draw.names("villager", 2)
    (event, mood, sign), (event2, mood2, sign2) = draw.some(FEELINGS, 2)
    return (
        f"Last week {who} {event} and {sign}. Anyone in {draw.name('town')} could tell that {who} "
        f"was {mood}. {other}, who {event2}, was not {mood} but {mood2}: {other} {sign2}."
    )


def _season(draw: Draw) -> str:
    name, event, wear, sight = draw.one(SEASONS)
    who, other = draw.names("villager", 2)
    animal = draw.one(ANIMALS)
    return (
        f"It was {name} when {who} walked from {draw.name('town')} to {draw.name('town')}, for in "
        f"{name} {event}. {who} wore {wear} and saw {sight} everywhere. On the way home {who} met "
        f'{other} with {a(animal.name)}. "It only wants {animal.eats}," said {other}. '
        f'"{upper(plural(animal.name))} live in {animal.home}, you know."'
    )


def _riddle(draw: Draw) -> str:
    animal, (who, other) = draw.one(ANIMALS), draw.names("villager", 2)
    others = [x.name for x in draw.some([x for x in ANIMALS if x is not animal], 2)]
    return (
        f'At the fair of {draw.name("town")}, {who} asked a riddle: "My home is in {animal.home}, '
        f'I eat {animal.eats}, and I wear {animal.coat}. What am I?" {other} thought of '
        f'{a(others[0])} and of {a(others[1])}, but then cried: "You are {a(animal.name)}! '
        f'And your young one is a {animal.young}."'
    )


def _meal(draw: Draw) -> str:
    food, parts, maker = draw.one(FOODS)
    who, other = draw.names("villager", 2)
    return (
        f'{who} wished for {food}, but there was none left in {draw.name("town")}. "You make it '
        f'from {parts}," said {other}, "or you ask {maker}." So {who} brought {parts} to {maker}, '
        f"and in the evening {who} and {other} sat down and shared {food}."
    )


def _almanac(draw: Draw) -> str:
    begin, facts = draw.one(_TOPICS)(draw)
    return f"{begin} {sentences(draw.some(facts, 3))}"


def _two_animals(draw: Draw) -> str:
    first, second = draw.some(ANIMALS, 2)
    names = draw.names("pet", 2)
    who = draw.name("villager")
    return (
        f"{who} had two guests: {names[0]} was {a(first.name)} and {names[1]} was "
        f"{a(second.name)}. "
        f"{names[0]} wanted {first.eats}; {names[1]} wanted {second.eats}. {names[0]} "
        f"longed for {first.home}, {names[1]} for {second.home}. At dusk, {who} watched how "
        f"{a(first.name)} {first.moves} and how {a(second.name)} {second.moves}."
    )


def _lesson(draw: Draw) -> str:
    material, who = draw.one(MATERIALS), draw.name("villager")
    things = [thing for thing, made in OBJECTS.items() if made == material.name]
    told = sentences(draw.some(material_facts(material), 3))
    return (
        f"The old teacher of {draw.name('town')} held up {a(draw.one(things))} and asked {who} "
        f"about "
        f'{material.name}. {who} knew the answer. {told} "Well said, {who}," nodded the teacher.'
    )


def _about_animal(draw: Draw) -> tuple[str, list[Fact]]:
    animal = draw.one(ANIMALS)
    begin = f"The people of {draw.name('town')} know a lot about {plural(animal.name)}."
    return begin, animal_facts(animal)


def _about_material(draw: Draw) -> tuple[str, list[Fact]]:
    material = draw.one(MATERIALS)
    begin = f"{draw.name('villager')} of {draw.name('town')} wrote about {material.name}."
    return begin, material_facts(material)


def _about_job(draw: Draw) -> tuple[str, list[Fact]]:
    job = draw.one(JOBS)
    who, town = draw.name("villager"), draw.name("town")
    return f"When {who} grew up in {town}, {plural(job.name)} were needed.", job_facts(job)


_TOPICS = (_about_animal, _about_material, _about_job)

FORMS: tuple[Callable[[Draw], str], ...] = (
    _pet,
    _drop,
    _hearth,
    _workday,
    _cause,
    _feeling,
    _season,
    _riddle,
    _meal,
    _almanac,
    _two_animals,
    _lesson,
)


def story(draw: Draw) -> str:
    """Writes one short story or a few facts."""
    return draw.one(FORMS)(draw)


def document(draw: Draw) -> str:
    """Writes one story, and a second paragraph where it is short."""
    parts = [story(draw)]
    while sum(map(len, parts)) < 240:
        parts.append(story(draw))
    return "\n\n".join(parts)


def question(draw: Draw) -> tuple[str, str, list[str]]:
    """Draws a few facts and stops before the end of the last.

    Returns:
        The prompt, the right continuation and the wrong ones.
    """
    begin, facts = draw.one(_TOPICS)(draw)
    *told, (ask, right, pool) = draw.some(facts, 3)
    wrong = draw.some([end for end in dict.fromkeys(pool) if end != right], 3)
    return f"{begin} {sentences(told)} {ask}", f" {right}.", [f" {end}." for end in wrong]
