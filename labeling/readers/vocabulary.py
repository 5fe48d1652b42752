"""Words of pictures, as the built-in reader knows them: what things are called and how they look.

The lists are long and shallow on purpose. Words that are more often something else ("watch",
"can", "plane") are left out: a thing that is missed costs less than one that is not there.
"""

from __future__ import annotations

import re


def words(text: str) -> list[str]:
    """A list as people write it."""
    return text.split()


COLORS = words(
    "black white grey gray red green blue yellow orange purple pink brown cyan magenta violet dark"
    " light"
)
SIZES = words("small medium large big tiny little tall short long wide narrow")
LOOKS = words(
    "shaded dashed dotted striped solid filled empty isosceles equilateral right-angled horizontal"
    " vertical curved wooden round"
)
ADJECTIVES = [*COLORS, *SIZES, *LOOKS]
NUMBERS = words("one two three four five six seven eight nine ten eleven twelve several")

_DIAGRAMS = (
    "arrow axis bar block box chart circle cone cross cube cuboid curve cylinder diagram diamond"
    " dot ellipse figure graph grid heart hexagon histogram label legend letter line number octagon"
    " oval parallelogram path pentagon point polygon prism pyramid ray rectangle rhombus ring"
    " sector segment semicircle shape sphere spiral square star strip table tile trapezium"
    " trapezoid triangle"
)
_LIVING = (
    "ant baby bear bee beetle bird boy bull butterfly camel cat chicken child cow crab crocodile"
    " deer dog dolphin donkey dragon duck eagle elephant fish flower fox frog giraffe girl goat"
    " goose grass hen horse insect kangaroo kitten ladybird ladybug lamb leaf lion lizard man"
    " monkey mouse mushroom octopus owl parrot penguin person pig pigeon plant player puppy"
    " rabbit rider rooster shark sheep snail snake spider squirrel swan teacher tiger tree"
    " tulip turtle whale wolf woman worm zebra"
)
_HOUSEHOLD = (
    "armchair bag balloon basin basket bathtub bed bell bench blanket blender book bookcase bottle"
    " bowl broom brush bucket button camera candle card carpet chair clock coin comb computer"
    " container cooker couch counter cup cupboard curtain cushion desk dice door drawer"
    " envelope faucet flag fork freezer fridge glass hammer jar jug kettle key keyboard kite knife"
    " ladder lamp laptop lid lollipop map marble microwave mirror monitor mug napkin needle"
    " newspaper oven pan paperclip pen pencil phone photo piano picture pillow pitcher plate pot"
    " radio refrigerator remote ribbon rope ruler rug saucer scale scissors screw screwdriver"
    " shelf sheet sink sofa spatula spinner spoon stapler stick stool stove suitcase teapot"
    " telephone television thermometer toaster toilet towel toy tray umbrella vase violin wallet"
    " washbasin window"
)
_CLOTHES = (
    "backpack belt boot bracelet cap coat dress glove handbag hat helmet jacket mask necklace"
    " scarf shirt shoe skirt sock suit sweater tie trousers uniform"
)
_FOOD = (
    "apple banana bread bun burger cake candy carrot cheese cherry cookie cucumber egg fruit"
    " grape hotdog lemon melon onion pancake pear pepper pie pineapple pizza potato pumpkin"
    " sandwich sausage strawberry tomato watermelon"
)
_OUTDOORS = (
    "aeroplane airplane ambulance ball barrel bicycle bike boat bridge brick building bus bush car"
    " castle church cloud crane engine face fence fountain garage gate globe helicopter hill house"
    " hydrant kennel lake motorbike motorcycle mountain pavement pole puddle pyramid raft"
    " railing river road rock rocket roof sailboat sandbox scooter ship sidewalk sign skateboard"
    " ski sled staircase statue street surfboard swing tent tower tractor traffic-light train"
    " tram truck tunnel van wagon wall waterfall wheel wheelbarrow windmill yacht"
)
NOUNS = frozenset(" ".join((_DIAGRAMS, _LIVING, _HOUSEHOLD, _CLOTHES, _FOOD, _OUTDOORS)).split())
# Words behind an adjective that are no noun: "red and blue stars", "the one that is red in here".
NO_NOUNS = frozenset(
    words(
        "and or nor than but is are was were be has have does do did in on at of to from by for"
        " with as that which there here"
    )
)
_IRREGULAR = {
    "axes": "axis", "axises": "axis", "people": "person", "men": "man", "women": "woman",
    "children": "child", "leaves": "leaf", "knives": "knife", "shelves": "shelf", "wolves": "wolf",
    "mice": "mouse", "geese": "goose", "babies": "baby", "puppies": "puppy", "cherries": "cherry",
    "strawberries": "strawberry", "butterflies": "butterfly", "ladies": "lady", "pies": "pie",
    "candies": "candy", "scarves": "scarf", "loaves": "loaf",
    "branches": "branch", "dishes": "dish", "branch": "branch", "dish": "dish",
}  # fmt: skip
# Nouns of which one may be called by the other.
SAME_THING = tuple(
    frozenset(words(line))
    for line in (
        "block square cube brick tile",
        "circle disc disk dot ball sphere",
        "sofa couch settee",
        "bike bicycle",
        "motorbike motorcycle",
        "airplane aeroplane plane",
        "cup mug",
        "fridge refrigerator",
        "television tv",
        "ladybird ladybug",
        "trapezium trapezoid",
        "photo picture image",
        "jacket coat",
        "hat cap",
    )
)
# What a noun takes in: a square is a polygon.
KINDS = {
    kind: frozenset(words(nouns))
    for kind, nouns in {
        "polygon": "square rectangle triangle pentagon hexagon octagon parallelogram rhombus kite"
        " trapezium trapezoid diamond quadrilateral",
        "quadrilateral": "square rectangle parallelogram rhombus kite trapezium trapezoid diamond",
        "person": "man woman boy girl child baby player rider teacher",
        "child": "boy girl",
        "animal": "ant bear bee beetle bird bull butterfly camel cat chicken cow crab crocodile"
        " deer dog dolphin donkey dragon duck eagle elephant fish fox frog giraffe goat goose hen"
        " horse insect kangaroo kitten ladybird ladybug lamb lion lizard monkey mouse octopus owl"
        " parrot penguin pig pigeon puppy rabbit rooster shark sheep snail snake spider squirrel"
        " swan tiger turtle whale wolf worm zebra",
        "vehicle": "car bus truck van train tram bicycle bike motorbike motorcycle tractor wagon"
        " ambulance scooter",
        "fruit": "apple banana cherry grape lemon melon pear pineapple strawberry tomato",
    }.items()
}
# Places and whole pictures: no evidence unless their colour tells them from others.
CONTAINERS = frozenset(words("box picture photo figure image scale number shape diagram label"))

# Figures that are named by the letters of their corners.
FIGURES = words(
    "angle triangle quadrilateral rectangle square parallelogram trapezoid trapezium rhombus kite"
    " pentagon hexagon heptagon octagon polygon line segment side edge chord diagonal ray arc base"
    " diameter radius hypotenuse leg altitude median bisector height path"
)
# Capitals that are words, and no corners.
CAPITALS = frozenset(
    words(
        "AA AAA SAS SSS ASA AAS SSA HL RHS CPCTC PIE OK NOT AND OR IS THE OF AM PM TV US USA UK AI"
        " CM MM KG LHS QED GCD LCM HCF GCF AP GP NE NW SE SW YES NO ALL BY TO IN ON AS AT"
        " SO IT EU DVD RGB CO2 H2O GPS PDF FAQ NASA"
        " NOTE FINAL STEP FIND GIVEN THUS HENCE WAIT ALSO BUT FOR WITH FROM THAT THIS HAS CAN MUST"
        " ONLY TRUE FALSE SUM AREA BOTH ONE TWO THREE FOUR FIVE MAX MIN EACH ARE WAS THEN THEY"
        " LEFT RIGHT TOP ABOVE BELOW RED BLUE GREEN HERE WHAT HOW WHY WHO KEY SAME"
    )
)
UNITS = words(
    "cm mm km dm m kg mg g lb oz ml l inches inch ft feet foot yd yards yard mi miles mile mph"
    " degrees degree percent °C °F ° % € £ min minutes minute sec seconds second hours hour hrs"
    " hr h s meters meter metres metre centimeters centimeter centimetres centimetre kilometers"
    " kilometer kilometres kilometre millimeters millimeter millimetres millimetre grams gram"
    " kilograms kilogram kgs litres litre liters liter milliliters milliliter millilitres"
    " millilitre pounds pound lbs ounces ounce secs mins dollars dollar cents cent euros euro"
)
# How they are written.
NAME = r"[A-Z](?:\d{1,2}|['′]{1,2})?"  # of a corner
NUMBER = r"\d+(?:[.,:/]\d+){0,4}"
UNIT = (
    rf"(?:{'|'.join(sorted(map(re.escape, UNITS), key=len, reverse=True))}|in(?=\s*[.,;)]|\s*$))"
    r"(?:[²³](?!\w)|(?!\w))"
)

# What stands right before or right behind a noun and makes it something that nobody can see:
# the square of "square root", the point of "decimal point".
_LENGTHS = (
    r"(?:centi|milli|kilo|deci)?met(?:re|er)s?|inch(?:es)?|foot|feet|yards?|miles?|[ckmd]?m|ft"
)
_AMOUNTS = (
    r"of\s+(?:(?:the|its|their|an?)\s+(?:number|ratio|side|length|radius|hypotenuse|sum|difference)"
    r"|[a-z]\b|\d)"
)
_BEHIND = {
    "square": rf"roots?|units?|numbers?|both|in\b(?!\s+the)|{_LENGTHS}|{_AMOUNTS}",
    "cube": rf"roots?|numbers?|{_AMOUNTS}",
    "dot": r"products?",
    "point": r"scored|of\s+(?:view|reference|departure|interest)|out|is\s+that",
    "axis": r"of\s+symmetry",
    "line": r"of\s+(?:symmetry|reasoning|thought|thinking|argument|attack|code|text)",
    "face": r"values?|the\s+(?:problem|fact)",
    "key": r"(?:idea|point|step|insight|observation|fact|thing|concept|feature|role)s?|to|is",
    "sign": r"of\s+(?:the\s+)?(?:expression|number|coefficient|sum|product|difference)|chart",
    "graph": r"theory",
    "heart": r"of\s+(?:the\s+)?(?:problem|matter|question)",
    "number": r"of",
    "circle": r"back",
    "star": r"and\s+bars|players?|students?",
    "leaf": r"\d|us\b|only|one|two|three|a\b|the\b",
    "table": r"of\s+contents",
    "tie": r"with|for|breaker",
    "bridge": r"the\s+gap",
    "cross": r"out|multipl\w+",
}
_BEFORE = {
    "square": r"perfect|complet\w+\s+the|least",
    "cube": r"perfect",
    "point": r"decimal|view|selling|main|key|whole|good|percentage|in|to\s+the"
    r"|at\s+(?:this|that|which)",
    "line": r"bottom|in|on|down\s+the|along\s+the",
    "clock": r"o'",
    "cross": r"to|can|must|will|cannot|we|you",
    "bell": r"rings?\s+an?",
    "leaf": r"this|that|which|it|he|she",
    "table": r"times|multiplication|truth",
    "bar": r"(?:and|stars?\s+and)",
    "sign": r"plus|minus|equals?|multiplication|same|opposite",
    "face": r"(?:we|you|they|to|must)",
    "book": r"(?:we|you|they|to)",
}
_BEHIND_IT = {noun: re.compile(rf"[\s-]+(?:{words})\b", re.I) for noun, words in _BEHIND.items()}
_BEFORE_IT = {noun: re.compile(rf"\b(?:{words})[\s-]*$", re.I) for noun, words in _BEFORE.items()}


def singular(noun: str) -> str | None:
    """The noun that a word is a form of, or None for a word that names nothing to be seen."""
    word = noun.lower()
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    forms = (
        word,
        word[:-1] if word.endswith("s") else "",
        word[:-2] if word.endswith("es") else "",
    )
    return next((form for form in forms if form in NOUNS), None)


def is_thing(noun: str, before: str, behind: str) -> bool:
    """Whether a noun between these words is a thing that a picture can show."""
    abstract = _BEHIND_IT.get(noun)
    idiom = _BEFORE_IT.get(noun)
    if abstract and abstract.match(behind):
        return False
    return not (idiom and idiom.search(before[-40:]))
