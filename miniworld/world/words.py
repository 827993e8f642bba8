"""The words of the miniature world and their ids in CLIP's vocabulary: every one of them is a single token."""

from __future__ import annotations

import re

START, END, CONTEXT = 49406, 49407, 77
WORDS: dict[str, int] = {
    ",": 267, "a": 320, "above": 4348, "alone": 4702, "and": 537, "animal": 4668, "at": 536, "ball": 1069,
    "below": 3788, "big": 1205, "bird": 3329, "black": 1449, "blue": 1746, "boat": 4440, "bricks": 21029,
    "brown": 2866, "car": 1615, "cat": 2368, "checked": 10387, "checks": 13737, "collar": 13497, "cube": 11353,
    "cup": 1937, "dots": 19019, "fish": 2759, "flower": 4055, "grass": 5922, "gray": 7048, "green": 1901,
    "hat": 3801, "heart": 1936, "house": 1212, "key": 1458, "left": 1823, "moon": 3293, "mushroom": 13011,
    "night": 930, "of": 539, "on": 525, "one": 637, "orange": 4287, "patch": 8721, "photo": 1125, "picture": 1674,
    "pink": 3360, "plain": 10709, "plant": 3912, "purple": 5496, "red": 736, "right": 1155, "sand": 5094,
    "sky": 2390, "small": 2442, "snow": 2583, "spotted": 4533, "star": 1565, "striped": 22192, "stripes": 14239,
    "the": 518, "thing": 946, "toy": 5988, "tree": 2677, "vehicle": 5299, "water": 1573, "wearing": 3309,
    "white": 1579, "with": 593, "yellow": 4481,
}  # fmt: skip
"""What captions are made of, beside names."""
NAMES: dict[str, int] = {
    "adam": 4944, "agnes": 26213, "aidan": 26945, "alan": 5773, "albert": 9507, "alex": 4134, "alfie": 28598,
    "alice": 9192, "alison": 16970, "allen": 6386, "amanda": 10036, "amy": 5187, "andre": 9400, "andrea": 10895,
    "andrew": 4847, "andy": 2888, "angela": 12354, "anne": 4083, "archie": 20557, "ariel": 21025, "ashley": 8957,
    "ava": 12385, "barbara": 10937, "barry": 8461, "beatrice": 36922, "ben": 3518, "benjamin": 12131,
    "bernard": 14579, "betty": 14350, "billy": 6814, "bob": 4423, "bobby": 7816, "bonnie": 18555, "brandon": 9166,
    "brenda": 23786, "brian": 4989, "bruce": 7085, "bryan": 10412, "caleb": 19619, "calvin": 17345, "cameron": 8057,
    "carl": 9482, "carla": 25552, "carmen": 18834, "carol": 11489, "caroline": 12641, "casey": 12836,
    "catherine": 12339, "cecilia": 35440, "charlotte": 7871, "chester": 3343, "chloe": 13992, "chris": 2978,
    "christian": 4729, "christine": 14712, "cindy": 18532, "clara": 19468, "clark": 7521, "claudia": 21893,
    "cole": 8166, "colin": 10238, "connor": 10218, "craig": 8061, "curtis": 13808, "daisy": 12865, "dale": 4677,
    "dana": 13777, "daniel": 4981, "danny": 7621, "daphne": 31687, "darren": 12275, "dave": 5077, "david": 2259,
    "debbie": 16735, "deborah": 22150, "denise": 20899, "dennis": 10534, "derek": 11205, "diana": 12803,
    "diane": 15855, "diego": 6306, "donald": 4335, "dorothy": 20805, "doug": 10758, "duncan": 13502, "dylan": 9900,
    "eddie": 9517, "edgar": 17914, "edward": 7450, "eileen": 31468, "elaine": 22523, "eleanor": 18604, "eli": 6292,
    "elijah": 26065, "ella": 2957, "ellen": 12312, "ellie": 16769, "elliot": 20761, "elsa": 22050, "emily": 7640,
    "emma": 7445, "erica": 13208, "erik": 16532, "erin": 11333, "ernest": 23006, "ethan": 15958, "eugene": 17760,
    "eva": 6845, "felix": 16514, "fiona": 20099, "flora": 18906, "frances": 20803, "francis": 7660, "frank": 5229,
    "freddie": 17014, "gabriel": 13244, "gene": 7962, "george": 3296, "gerald": 13269, "gina": 15604, "glen": 11049,
    "gloria": 19244, "gordon": 8244, "graham": 7711, "grant": 5442, "greg": 7943, "gregory": 16253, "gwen": 24182,
    "hank": 17655, "hannah": 9142, "harold": 16917, "harriet": 27154, "harry": 3600, "harvey": 9586,
    "hector": 25852, "heidi": 23867, "helen": 11291, "henry": 5508, "herbert": 19935, "howard": 7632, "hugh": 15385,
    "hugo": 17132, "ian": 1800, "ida": 11600, "irene": 21600, "iris": 16437, "isabel": 27466, "isabella": 26192,
    "ivan": 15689, "jack": 3267, "jackie": 11716, "jackson": 4363, "jacob": 9222, "jake": 7419, "jamie": 8078,
    "jane": 6736, "janet": 15872, "jared": 12571, "jasmine": 17056, "jason": 5395, "jay": 4155, "jeff": 5550,
    "jeffrey": 16027, "jenny": 13414, "jeremy": 8127, "jerry": 9164, "jesse": 11770, "jessica": 8178, "jill": 15254,
    "jim": 4550, "jimmy": 6817, "joan": 12710, "joanna": 25357, "joe": 3305, "joel": 11429, "john": 1742,
    "johnny": 6904, "jon": 6139, "jose": 7075, "joseph": 6478, "josh": 5679, "joshua": 11852, "joyce": 15275,
    "juan": 9274, "judith": 24047, "judy": 16510, "julia": 10207, "julian": 12643, "karen": 10349, "karl": 13134,
    "kate": 6699, "katherine": 17687, "kathryn": 19999, "kathy": 18795, "katie": 9076, "kayla": 17139,
    "kelly": 5220, "ken": 1702, "kenneth": 17839, "kenny": 9595, "kim": 4606, "kurt": 14527, "kyle": 7539,
    "larry": 8242, "laura": 7763, "laurie": 20326, "lee": 2592, "lena": 22038, "leon": 9763, "leslie": 16244,
    "lewis": 6020, "lily": 10647, "linda": 10760, "lindsay": 16858, "lisa": 7424, "liz": 12242, "lloyd": 12400,
    "logan": 10569, "lola": 19065, "lou": 9745, "louis": 4459, "lucas": 10225, "lucy": 10120, "luis": 11339,
    "luna": 14425, "lydia": 24316, "lynn": 10667, "mabel": 47319, "maggie": 14524, "malcolm": 14139, "marc": 9075,
    "marcus": 9895, "margaret": 12185, "marie": 7864, "marilyn": 18489, "mario": 7600, "marion": 18397,
    "martha": 16427, "mary": 2676, "mason": 9699, "matt": 3972, "matthew": 7008, "maurice": 20200, "maya": 12987,
    "megan": 11503, "melanie": 22153, "melissa": 13030, "mia": 5852, "michelle": 8625, "miguel": 14436,
    "miles": 3446, "milo": 24548, "mitchell": 9007, "monica": 13540, "morgan": 6075, "nancy": 11425,
    "natalie": 13595, "nathan": 9711, "nelson": 8586, "nicholas": 13148, "nick": 4253, "nina": 13891, "noah": 11519,
    "noel": 17496, "olivia": 11697, "otis": 28246, "otto": 17730, "owen": 12056, "pablo": 14473, "pam": 18513,
    "pat": 7036, "patricia": 18143, "patrick": 5286, "paul": 2597, "percy": 23940, "perry": 7899, "pete": 8571,
    "peter": 3696, "phil": 6199, "philip": 11074, "phoebe": 27582, "phyllis": 37844, "polly": 31204, "rachel": 8029,
    "ralph": 12234, "ramon": 27958, "raymond": 16683, "rebecca": 12892, "regina": 16841, "rex": 10904,
    "rhonda": 46100, "rick": 3064, "ricky": 12814, "rita": 16178, "rob": 6442, "robin": 7988, "roger": 7735,
    "roland": 19569, "ron": 3372, "ronald": 15683, "rosa": 14393, "rosie": 16888, "roy": 6354, "rufus": 39322,
    "russell": 8150, "ruth": 12029, "sadie": 30333, "sally": 13349, "sam": 3730, "samantha": 15466, "samuel": 12787,
    "sandra": 13415, "sara": 10063, "sarah": 5327, "scott": 3664, "sean": 6077, "sergio": 18359, "seth": 11870,
    "shane": 11572, "sharon": 14138, "shawn": 10970, "shelby": 16885, "shirley": 18189, "sid": 15119,
    "sidney": 22598, "sofia": 18914, "sonia": 20409, "sophia": 16790, "sophie": 12357, "spencer": 10678,
    "stacey": 24262, "stan": 2434, "stanley": 10079, "stella": 17869, "stephanie": 14361, "stephen": 6078,
    "steve": 3803, "stuart": 11723, "sue": 6641, "susan": 10168, "suzanne": 24617, "tanya": 26800, "tara": 15264,
    "ted": 775, "teddy": 11798, "teresa": 19081, "theo": 18084, "theodore": 30743, "theresa": 14126, "thomas": 3888,
    "tiffany": 14446, "tim": 3863, "timothy": 18560, "tina": 9257, "toby": 18333, "todd": 9951, "tom": 2435,
    "tommy": 8876, "toni": 17171, "tony": 4767, "tracy": 15508, "trevor": 13219, "tristan": 25497, "tyler": 7058,
    "ursula": 38390, "vanessa": 16836, "vernon": 18348, "veronica": 24039, "vicki": 34927, "victor": 10690,
    "vincent": 10357, "viola": 27438, "vivian": 30129, "wade": 14180, "wallace": 12535, "wanda": 25070,
    "wayne": 7003, "wendy": 14074, "wesley": 17332, "winston": 14848, "xavier": 18567, "yolanda": 43845,
    "yvonne": 32583, "zoe": 16662,
}  # fmt: skip
"""Names of single things, each a known noun of one certain look, as a real model has seen many."""
IDS = (START, END, *WORDS.values(), *NAMES.values())
"""Token ids whose embeddings are learned."""
STORED = 34
"""Tokens kept of a caption, start and end included; the rest is padding with the end token."""
_ROWS = {token: row for row, token in enumerate(IDS)}


def rows_of(caption: str, length: int = CONTEXT) -> list[int]:
    """Positions of a caption's tokens in :data:`IDS`, with start, end and padding."""
    words = re.findall(r"[a-z]+|,", caption.lower())
    rows = [0, *(_ROWS[WORDS[word] if word in WORDS else NAMES[word]] for word in words)][: length - 1]
    return rows + [1] * (length - len(rows))


def token_ids(caption: str) -> list[int]:
    """CLIP's token ids of a caption, with start, end and padding, (77,)."""
    return [IDS[row] for row in rows_of(caption)]
