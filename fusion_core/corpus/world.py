"""A small consistent world: what the *commonsense* texts take to be true in every split."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Animal:
    """A kind of animal; every field completes the sentence that its name suggests."""

    name: str
    eats: str
    home: str
    cry: str
    young: str
    coat: str
    moves: str


@dataclass(frozen=True)
class Material:
    """A material: where it comes from, how it feels, what water, fire and a fall do to it."""

    name: str
    origin: str
    feel: str
    water: str
    fire: str
    fall: str


@dataclass(frozen=True)
class Job:
    """A trade: its workplace, what it makes or does, and its main tool."""

    name: str
    place: str
    work: str
    tool: str


@dataclass(frozen=True)
class Cause:
    """An event, what follows from it, why, and what a sensible person does then."""

    event: str
    effect: str
    reason: str
    remedy: str


ANIMALS: tuple[Animal, ...] = tuple(
    Animal(*row.split(" | "))
    for row in """\
otter | fish | rivers | whistles | pup | thick fur | swims
cow | grass | meadows | moos | calf | short hair | walks
hen | grain | farmyards | clucks | chick | brown feathers | walks
sheep | grass | hills | bleats | lamb | soft wool | walks
owl | mice | hollow trees | hoots | owlet | quiet feathers | flies
frog | flies | ponds | croaks | tadpole | damp skin | hops
bear | berries and honey | forests | growls | cub | shaggy fur | walks
wolf | deer | forests | howls | cub | grey fur | runs
goose | grass | lakes | honks | gosling | white feathers | flies
duck | water plants | ponds | quacks | duckling | oily feathers | swims
horse | hay | stables | neighs | foal | short hair | runs
goat | leaves and twigs | mountains | bleats | kid | rough hair | climbs
pig | roots and scraps | sties | grunts | piglet | bristles | walks
rabbit | clover | burrows | thumps | kitten | soft fur | hops
squirrel | nuts | tall trees | chatters | kitten | red fur | climbs
bee | nectar | hives | buzzes | grub | fine hairs | flies
seal | fish | cold seas | barks | pup | sleek fur | swims
penguin | fish | icy shores | brays | chick | tight feathers | swims
camel | dry shrubs | deserts | groans | calf | sandy hair | walks
snake | mice | warm rocks | hisses | hatchling | dry scales | slides
eagle | rabbits | high cliffs | screams | eaglet | golden feathers | flies
bat | moths | caves | squeaks | pup | thin fur | flies
tortoise | lettuce | gardens | rarely calls | hatchling | a hard shell | crawls
cat | mice | warm houses | purrs | kitten | silky fur | climbs""".splitlines()
)

MATERIALS: tuple[Material, ...] = tuple(
    Material(*row.split(" | "))
    for row in """\
wood | trees | firm | floats | burns | bounces with a knock
cork | the bark of oaks | light | floats | burns | bounces softly
stone | quarries | heavy | sinks | stays as it is | lands with a thud
iron | ore from mines | cold and hard | sinks | glows red | rings like a bell
glass | melted sand | smooth | sinks | cracks | shatters
wax | beehives | greasy | floats | melts | dents
wool | sheep | soft and warm | soaks and sinks | singes | lands without a sound
paper | pulped wood | thin | goes limp | burns | flutters down
clay | river banks | sticky | turns to mud | hardens | squashes flat
rubber | the sap of trees | stretchy | floats | smokes and stinks | bounces high
ice | frozen water | freezing | floats | melts | splinters
gold | river sand | heavy and bright | sinks | melts slowly | dents
leather | the hides of cattle | tough | soaks and sinks | shrivels | slaps the floor
straw | ripe fields | dry and prickly | floats | burns | drifts down
salt | the sea | gritty | dissolves | crackles | scatters
chalk | white cliffs | dusty | crumbles | stays as it is | snaps in two""".splitlines()
)

_MADE_OF = (
    "spoon:wood stool:wood boat:wood stopper:cork mat:cork pebble:stone statue:stone nail:iron "
    "key:iron horseshoe:iron bottle:glass mirror:glass candle:wax seal:wax scarf:wool "
    "blanket:wool letter:paper map:paper pot:clay brick:clay ball:rubber boot:rubber "
    "icicle:ice ring:gold coin:gold belt:leather saddle:leather hat:straw basket:straw "
    "crystal:salt stick:chalk"
)
OBJECTS: dict[str, str] = dict(pair.split(":") for pair in _MADE_OF.split())

JOBS: tuple[Job, ...] = tuple(
    Job(*row.split(" | "))
    for row in """\
baker | the bakery | bakes bread before sunrise | an oven
smith | the forge | shapes horseshoes | a hammer
farmer | the fields | ploughs and sows | a plough
fisher | the harbour | brings in the catch | a net
tailor | the workshop | sews coats | a needle
carpenter | the timber yard | builds tables | a saw
doctor | the clinic | heals the sick | a stethoscope
teacher | the school | explains lessons | a blackboard
miller | the mill | grinds grain into flour | a millstone
gardener | the orchard | prunes the trees | a pair of shears
shepherd | the pasture | guards the flock | a crook
potter | the kiln house | turns bowls | a wheel
barber | the barber shop | cuts hair | a pair of scissors
mason | the building site | lays stones | a trowel
beekeeper | the hives | gathers honey | a smoker
sailor | the deck | hoists the sails | a rope
librarian | the library | lends books | a catalogue
cook | the kitchen | stirs the soup | a ladle""".splitlines()
)

CAUSES: tuple[Cause, ...] = tuple(
    Cause(*row.split(" | "))
    for row in """\
it rained all night | the paths were muddy | rain softens earth | put on high boots
the sun shone for weeks | the well ran dry | heat dries up water | saved every drop
frost came overnight | the pond froze over | cold turns water to ice | walked with care
the wind blew hard | the washing flew away | wind carries light things | pegged it down firmly
the milk stood in the heat | it turned sour | warmth spoils milk | made cheese of it
the fire went out | the room grew cold | only a fire keeps it warm | fetched dry logs
nobody watered the beans | they withered | plants need water | filled the watering can
the cup fell off the shelf | it broke to pieces | cups are brittle | swept up the shards
the gate was left open | the goats ran away | goats wander off | followed their tracks
the bread baked too long | it came out black | too much heat burns bread | watched the next loaf
the lamp ran out of oil | the hall went dark | lamps need oil to burn | lit a candle
snow fell for three days | the road was blocked | deep snow stops wheels | took the sledge
the roof had a hole | the bed got wet | rain finds every gap | nailed on a new board
the iron gate stood in the rain | it rusted | water makes iron rust | painted it with care
the child ate green apples | her belly ached | unripe fruit is hard to bear | brewed mint tea
the rope was worn | the bucket dropped | thin ropes snap | tied a stronger one
the baby missed its nap | it cried till dusk | tired babies cry | rocked the cradle
fog covered the bay | the boats stayed in | sailors cannot see in fog | waited for clear air
the soup boiled over | the stove was a mess | boiling soup rises | took off the lid
the river rose in spring | the bridge was closed | melting snow fills rivers | went by the hill
""".splitlines()
)

FEELINGS: tuple[tuple[str, str, str], ...] = tuple(
    tuple(row.split(" | "))  # type: ignore[misc]
    for row in """\
lost a favourite scarf | sad | sighed and looked at the floor
won the pumpkin contest | proud | told everyone twice
heard a noise in the attic | afraid | pulled the blanket up
found the cake eaten | angry | stamped both feet
met an old friend | happy | laughed out loud
waited an hour for the ferry | bored | yawned again and again
broke a neighbour's window | ashamed | blushed and said sorry
smelled the old milk | disgusted | held the nose shut
opened an empty parcel | puzzled | frowned and shook it
carried hay all day | tired | fell asleep at the table
missed the last cart home | worried | paced up and down
got a letter from far away | curious | tore it open at once""".splitlines()
)

SEASONS: tuple[tuple[str, str, str, str], ...] = (
    ("spring", "the lambs are born", "a light jacket", "blossom"),
    ("summer", "the hay is cut", "a straw hat", "ripe cherries"),
    ("autumn", "the apples are picked", "a warm scarf", "golden leaves"),
    ("winter", "the pond is frozen", "a heavy coat", "snow"),
)

FOODS: tuple[tuple[str, str, str], ...] = (
    ("bread", "flour, water and yeast", "the baker"),
    ("butter", "cream", "the dairymaid"),
    ("cheese", "milk", "the dairymaid"),
    ("jam", "fruit and sugar", "the cook"),
    ("cider", "pressed apples", "the gardener"),
    ("an omelette", "eggs", "the cook"),
    ("pancakes", "flour, eggs and milk", "the cook"),
    ("raisin cake", "flour and dried grapes", "the baker"),
)
