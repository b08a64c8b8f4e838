#!/usr/bin/env python3
"""Makes the seven files of IMDb's data sets, of any size, with nothing of IMDb in them.

    scripts/bench/imdb_data.py --out DIR [--principals N] [--seed N] [--dangling SHARE] [--duplicates N] [--plain]

Names, titles and who played what are drawn; how much of what there is, and everything odd about the files, is as in IMDb's:
the numbers of rows (2026-02), categories (2025-08) and genres (2025-01), lists joined by the byte 2, JSON with quotes and
backslashes, titles that begin with a quote sign, several scripts, ids of 7 and of 8 digits in the order of their text, ids
that no other file has, and keys that come twice. The same arguments give the same bytes, with the same Python and zlib.
Prints one line of JSON: {"seed":N,"files":[{"file":NAME,"rows":N,"bytes":N}]}; rows are without the header.
"""

import argparse
import array
import gzip
import itertools
import json
import multiprocessing
import os
import random
import sys

# Rows of each file on 2026-02-04, and the largest numbers in ids about then. title.crew has a row for each title.
ROWS = {
    "name.basics": 15_063_390, "title.basics": 12_265_715, "title.akas": 54_957_563, "title.episode": 9_462_887,
    "title.principals": 97_617_046, "title.ratings": 1_631_810,
}
LARGEST_TITLE = 40_000_000
LARGEST_PERSON = 17_500_000
# Ids have at most 8 digits.
PRINCIPALS_MAX = 500_000_000

# In the order in which a title lists them.
CATEGORIES = {
    "actor": 22_377_474, "actress": 16_903_926, "self": 13_924_466, "director": 8_115_248, "writer": 11_299_252,
    "producer": 7_080_733, "composer": 3_055_105, "cinematographer": 3_812_674, "editor": 4_985_971,
    "casting_director": 1_099_580, "production_designer": 1_121_794, "archive_footage": 593_651, "archive_sound": 11_675,
}
GENRES = {
    "Drama": 3_216_838, "Comedy": 2_228_311, "Talk-Show": 1_411_121, "Documentary": 1_089_506, "News": 1_073_869,
    "Romance": 1_064_419, "Family": 843_980, "Reality-TV": 637_962, "Animation": 568_493, "Action": 472_887,
    "Crime": 472_720, "Adventure": 435_285, "Game-Show": 432_265, "Music": 425_407, "Adult": 364_373, "Sport": 284_124,
    "Fantasy": 241_510, "Mystery": 232_211, "Horror": 217_486, "Thriller": 189_022, "History": 169_734,
    "Biography": 122_530, "Sci-Fi": 118_513, "Musical": 93_299, "War": 39_226, "Western": 31_127, "Film-Noir": 868,
}
# The share of episodes follows from the rows of their file, and "Short" comes with its type. The rest is estimated.
EPISODE_SHARE = ROWS["title.episode"] / ROWS["title.basics"]
OTHER_TYPES = {
    "short": 40, "movie": 26, "video": 11, "tvSeries": 10, "tvMovie": 5.3, "tvMiniSeries": 2.4, "tvSpecial": 1.9,
    "videoGame": 1.6, "tvShort": 0.4, "tvPilot": 0.1,
}
EPISODE = 0
TYPES = ["tvEpisode", *OTHER_TYPES]
SERIES = {"tvSeries", "tvMiniSeries"}

# How often each is among somebody's professions: counted in 219 real rows, with the rarer ones estimated.
PROFESSIONS = {
    "producer": 76, "actor": 73, "writer": 71, "actress": 59, "director": 55, "cinematographer": 30, "editor": 28,
    "camera_department": 26, "editorial_department": 15, "composer": 13, "miscellaneous": 11, "sound_department": 9,
    "production_designer": 9, "assistant_director": 9, "stunts": 7, "music_department": 7, "visual_effects": 6,
    "soundtrack": 6, "production_manager": 5, "art_department": 3, "script_department": 3, "make_up_department": 3,
    "art_director": 3, "transportation_department": 2, "special_effects": 2, "location_management": 2,
    "costume_department": 2, "casting_director": 1, "casting_department": 1, "archive_footage": 1, "talent_agent": 1,
    "legal": 1, "executive": 1, "publicist": 1, "manager": 1, "costume_designer": 1, "set_decorator": 1,
    "animation_department": 1, "podcaster": 1, "choreographer": 1, "music_artist": 1,
}
# Region, its language as IMDb has it (mostly not), and how often.
REGIONS = [
    ("US", r"\N", 14), ("GB", r"\N", 8), ("DE", "de", 10), ("JP", "ja", 10), ("FR", "fr", 10), ("IN", "hi", 10),
    ("ES", "es", 9), ("IT", "it", 9), ("PT", "pt", 9), ("BR", r"\N", 2), ("CA", "en", 1.5), ("CA", "fr", 0.5),
    ("RU", r"\N", 1.2), ("XWW", "en", 1.2), ("SE", r"\N", 0.8), ("MX", r"\N", 0.8), ("GT", "es", 0.1), ("GR", r"\N", 0.7),
    ("TR", "tr", 0.6), ("PL", r"\N", 0.6), ("HU", r"\N", 0.5), ("CN", "cmn", 0.4), ("HK", "yue", 0.3), ("EG", "ar", 0.3),
    ("IL", "he", 0.2), ("XWG", r"\N", 0.1), ("SUHH", "ru", 0.1), (r"\N", r"\N", 0.5),
]
TYPES_OF_ALIAS = {
    r"\N": 900, "imdbDisplay": 60, "alternative": 15, "working": 8, "dvd": 6, "video": 5, "tv": 4, "festival": 2,
    "imdbDisplay\x02tv": 1, "festival\x02working": 1, "imdbDisplay\x02dvd\x02video": 0.5,
}
ATTRIBUTES = {
    r"\N": 990, "literal title": 2, "new title": 1, "complete title": 1, "informal title": 1, "transliterated title": 1,
    "second part title": 0.5, "literal English title\x02new title": 0.5, 'X-rated "soft" version': 0.1,
}
JOBS = {
    "director": [(0.93, [r"\N"]), (0.07, ["co-director", "segment director", 'segment "{title}"'])],
    "writer": [(0.6, [r"\N"]), (0.4, ["written by", "screenplay", "story", "created by", 'novel "{title}"', "based on a play by"])],
    "producer": [(0.05, [r"\N"]), (0.95, ["producer", "executive producer", "co-producer", "line producer (Perú)"])],
    "editor": [(0.9, [r"\N"]), (0.1, ["editor", "supervising editor"])],
    "cinematographer": [(0.8, [r"\N"]), (0.2, ["director of photography", "cinematographer"])],
}

# The words of titles. The first ones lead by far, as in any language; thousands that are made of syllables follow.
SMALL_WORDS = "the of a and in to de la el for on with at from my".split()
WORDS = """
    love life man night world day house girl woman dead black time last story king blood death dark city boys home family
    heart lost summer dream island war road big little red blue white new good bad secret return game river star christmas
    fire devil train mother father brothers sister lady queen murder money mystery wild golden street high school dance
    music show live best great part two three one first second year winter party wedding journey moon sun sea sky stone
    shadow mirror window door garden forest mountain bridge tower castle doctor captain detective teacher stranger lover
    hunter soldier ghost angel monster dragon wolf tiger horse bird cat dog kiss fear hope truth lies silence storm rain
    corazón niño señor pasión año mañana canción ratón días última misión águila café déjà façade garçon été noël fräulein
    straße mädchen grüße über königin øst ærlig åre smörgås coração não irmão são città perché così žena vánoce kraków łódź
    don't it's i'm ain't vol. no. mr. & vs.
""".split()
SYLLABLES = "ka lo mi ren tas vo bel dor an esh qui ra mon tel u shi no ver gal ist pro ce lan fi zu har wen do ba sel nor ti".split()
# Non-Latin words are made of letters in a row of Unicode, which is how they look without being any.
SCRIPTS = [(0x0430, 0x044F), (0x03B1, 0x03C9), (0x4E00, 0x5E00), (0x3042, 0x3093), (0xAC00, 0xB000), (0x0905, 0x0939), (0x0627, 0x063A), (0x05D0, 0x05EA)]
FIRST_NAMES = """
    Ana José María Zoë Jürgen François Søren Łukasz Ángel Iñaki Renée Björn John Mary Peter Lucía Diego Emma Noah Olga
    Ivan Yuki Ken Li Wei Priya Arjun Fatima Omar Leila Hans Greta Paul Rosa Marco Giulia Pedro Inês Anders Siri
""".split()

BLOCK = 4096  # titles, or people, that are drawn together, from a seed of their own
POOL = 1 << 15  # how many of a kind are drawn in advance, where a file may repeat itself


def weighted(rng, weights, count):
    """`count` keys of a table of weights."""
    return rng.choices(list(weights), cum_weights=list(itertools.accumulate(weights.values())), k=count)


def distinct(rng, pool, sizes):
    """As many different members of a pool as one of `sizes` says, in the order in which they were drawn."""
    wanted, found = rng.choice(sizes), {}
    while len(found) < wanted:
        found[rng.choice(pool)] = True
    return list(found)


def words(rng):
    """Pools of words with Zipf's frequencies: Latin ones, and one for each other script."""
    made = ("".join(rng.choices(SYLLABLES, k=rng.randint(2, 5))).capitalize() for _ in range(30_000))
    latin = list(dict.fromkeys(SMALL_WORDS + [word.capitalize() for word in WORDS] + list(made)))
    others = [["".join(chr(rng.randint(*script)) for _ in range(rng.randint(2, 6))) for _ in range(2000)] for script in SCRIPTS]
    return [
        weighted(rng, {word: 1 / rank for rank, word in enumerate(vocabulary, 3)}, size)
        for vocabulary, size in [(latin, 1 << 17)] + [(other, 1 << 13) for other in others]
    ]


def text_order(number):
    """Sorts ids as their texts do, which have 7 digits or 8: tt1000000, tt10000000, tt1000001."""
    return number * 20 - 1 if number < 10_000_000 else number * 2


def draw_ids(rng, count, largest):
    """Different ids from 1 to `largest`, or to the least number that has room for them."""
    largest = max(largest, count + count // 5)
    starts = [index * largest // count for index in range(count + 1)]
    return [start + 1 + int(rng.random() * (end - start)) for start, end in zip(starts, starts[1:])]


class World:
    """What the files have in common. Titles and people stand in the order of their ids' texts."""

    def __init__(self, arguments):
        self.seed = arguments.seed
        self.rows = {file: max(1, round(rows * arguments.principals / ROWS["title.principals"])) for file, rows in ROWS.items()}
        self.rows["title.principals"] = arguments.principals
        rng = self.random("world")
        self.words = words(rng)
        titles, people = self.rows["title.basics"], self.rows["name.basics"]
        # Those that all files know but their own one.
        phantoms = [round(count * arguments.dangling + (0.5 if arguments.dangling else 0)) for count in (titles, people)]
        ids = draw_ids(rng, titles + phantoms[0], LARGEST_TITLE)
        ids.sort(key=text_order)
        self.titles = array.array("i", ids)
        self.people = array.array("i", draw_ids(rng, people + phantoms[1], LARGEST_PERSON))
        # The people with the lowest ids are in most titles, so none of these is missing.
        self.missing_titles = sorted(rng.sample(range(len(self.titles)), phantoms[0]))
        self.missing_people = sorted(rng.sample(range(len(self.people) // 4, len(self.people)), phantoms[1]))
        self.dangling = arguments.dangling
        shares = {"tvEpisode": EPISODE_SHARE * sum(OTHER_TYPES.values()) / (1 - EPISODE_SHARE), **OTHER_TYPES}
        self.types = weighted(rng, {TYPES.index(name): share for name, share in shares.items()}, len(self.titles))
        self.types = array.array("b", self.types)
        self.types[0] = TYPES.index("tvSeries")
        self.series = array.array("i", (title for title, kind in zip(self.titles, self.types) if TYPES[kind] in SERIES))

    def random(self, *purpose):
        return random.Random(f"{self.seed}/{'/'.join(map(str, purpose))}")

    def blocks(self, count):
        return (range(start, min(start + BLOCK, count)) for start in range(0, count, BLOCK))

    def title(self, rng):
        """A title in the Latin script, with few or no letters of another alphabet."""
        pool, bits = self.words[0], rng.getrandbits
        count = (1, 1, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 5, 5, 6, 8)[bits(4)]
        title = " ".join([pool[bits(17)] for _ in range(count)])
        odd = bits(9)
        if odd < 3:
            title = (f'"{title}" Show', f'"{title}', f'The "{title}" Tapes')[odd]
        elif odd == 3:
            title = f"{title} \\ {title}" if bits(2) else f"{title} " * 12 + "Part 1"
        return title[0].upper() + title[1:]

    def foreign_title(self, rng):
        pool = rng.choice(self.words[1:])
        return " ".join([pool[rng.getrandbits(13)] for _ in range(rng.randint(1, 4))])

    def both_titles(self, block):
        """Primary and original title of each title of a block, the same for every file that asks."""
        rng = self.random("titles", block.start)
        for index in block:
            draw = rng.random()
            if self.types[index] == EPISODE and draw < 0.5:
                episode = f"Episode #{rng.randint(1, 30)}.{rng.randint(1, 200)}"
                yield episode, episode
            elif self.types[index] == EPISODE and draw < 0.6:
                dated = f"Episode dated {rng.randint(1, 28)} {rng.choice(('March', 'May', 'October'))} {rng.randint(1960, 2026)}"
                yield dated, dated
            else:
                primary = self.title(rng)
                yield primary, primary if draw < 0.95 else self.foreign_title(rng) if draw < 0.99 else self.title(rng)

    def person(self, rng):
        """Somebody in a title: a few of them are in very many."""
        draw = rng.random()
        return self.people[int(draw * draw * len(self.people))]

    def any_title(self, rng):
        return self.titles[int(rng.random() * len(self.titles))]

    def full_names(self, rng, count):
        latin = self.words[0]
        names = []
        for _ in range(count):
            name = f"{rng.choice(FIRST_NAMES)} {latin[rng.getrandbits(17)].capitalize()}{rng.choice(SYLLABLES)}"
            odd = rng.getrandbits(10)
            if odd < 4:
                name = (f'{name} "Kid" de la O', f"{name} " * 5 + "III", f"D'{name}", f"{name}, Jr.")[odd]
            names.append(name)
        return names


def name_basics(world):
    rng = world.random("name.basics")
    # Last names are made anew for each person, or too many would have the same name.
    first = world.full_names(rng, 1 << 13)
    jobs = weighted(rng, PROFESSIONS, 1 << 14)
    professions = [",".join(distinct(rng, jobs, (1, 1, 1, 1, 1, 2, 2, 3))) if rng.random() < 0.8 else r"\N" for _ in range(1 << 13)]
    missing = set(world.missing_people)
    # The world has people by number and the file by text.
    order = sorted(range(len(world.people)), key=lambda index: text_order(world.people[index]))
    order = array.array("i", (index for index in order if index not in missing))
    for block in world.blocks(len(order)):
        rng = world.random("name.basics", block.start)
        bits, lines = rng.getrandbits, []
        for index in block:
            draw = rng.random()
            name = f"{first[bits(13)]}{SYLLABLES[bits(5)]}{SYLLABLES[bits(5)]}" if draw > 0.0001 else r"\N"
            born = died = r"\N"
            if draw > 0.956:
                born = 1860 + int(150 * rng.random())
                died = min(2026, born + 20 + int(75 * rng.random())) if draw > 0.983 else died
            known = [f"tt{world.any_title(rng):07d}" for _ in range((0, 1, 1, 1, 1, 2, 3, 4)[bits(3)])]
            titles = ",".join(dict.fromkeys(known)) or r"\N"
            lines.append(f"nm{world.people[order[index]]:07d}\t{name}\t{born}\t{died}\t{professions[bits(13)]}\t{titles}\n")
        yield lines


def title_basics(world):
    rng = world.random("title.basics")
    codes = weighted(rng, GENRES, 1 << 16)
    drawn = [distinct(rng, codes, (1, 1, 1, 1, 1, 2, 2, 3)) for _ in range(1 << 13)]
    genres = [",".join(sorted(found)) for found in drawn]
    short_genres = [",".join(sorted(["Short", *found[: rng.randint(0, 2)]])) for found in drawn]
    missing = set(world.missing_titles)
    short, tv_short = TYPES.index("short"), TYPES.index("tvShort")
    for block in world.blocks(len(world.titles)):
        rng = world.random("title.basics", block.start)
        lines = []
        for index, (primary, original) in zip(block, world.both_titles(block)):
            kind, draw, bits = world.types[index], rng.random(), rng.getrandbits(16)
            of_it = short_genres if kind in (short, tv_short) else genres
            listed = of_it[bits & 8191] if draw > 0.04 else r"\N"
            start = 2026 - int(rng.expovariate(0.06)) % 140 if draw < 0.89 else r"\N"
            ended = start + bits % 8 if TYPES[kind] in SERIES and draw < 0.4 else r"\N"
            minutes = 1 + int(rng.gammavariate(3, 15)) if bits % 100 < 32 else r"\N"
            if index not in missing:
                lines.append(
                    f"tt{world.titles[index]:07d}\t{TYPES[kind]}\t{primary}\t{original}\t{int('Adult' in listed)}"
                    f"\t{start}\t{ended}\t{minutes}\t{listed}\n"
                )
        yield lines


def title_akas(world):
    rng = world.random("title.akas")
    types, attributes = weighted(rng, TYPES_OF_ALIAS, POOL), weighted(rng, ATTRIBUTES, POOL)
    tails = []
    for kind, attribute in zip(types, attributes):
        region, language, _ = rng.choices(REGIONS, [weight for _, _, weight in REGIONS])[0]
        tails.append(f"\t{region}\t{language}\t{kind}\t{attribute}\t{0 if rng.random() < 0.9999 else chr(92) + 'N'}\n")
    counts = spread(world, "title.akas", [1] * 6 + [2, 2, 3, 8, 8, 8, 8, 9, 9, 10])
    for block in world.blocks(len(world.titles)):
        rng = world.random("title.akas", block.start)
        bits, lines = rng.getrandbits, []
        for index, (primary, original) in zip(block, world.both_titles(block)):
            if counts[index] == 0:
                continue
            head = f"tt{world.titles[index]:07d}\t"
            lines.append(f"{head}1\t{original}\t\\N\t\\N\toriginal\t\\N\t1\n")
            for ordering in range(2, counts[index] + 1):
                draw = bits(14)
                if draw == 0:
                    title = f"{primary}, " * 40 + "etc."
                elif draw < 7000:
                    title = primary
                elif draw < 14000:
                    title = world.title(rng)
                else:
                    title = world.foreign_title(rng)
                lines.append(f"{head}{ordering}\t{title}{tails[bits(15)]}")
        yield lines


def title_crew(world):
    for block in world.blocks(len(world.titles)):
        rng = world.random("title.crew", block.start)
        lines = []
        for index in block:
            both = []
            for sizes in ((0, 0, 0, 1, 1, 1, 1, 2), (0, 0, 0, 0, 1, 1, 2, 4)):
                people = [f"nm{world.person(rng):07d}" for _ in range(sizes[rng.getrandbits(3)])]
                both.append(",".join(dict.fromkeys(people)) or r"\N")
            lines.append(f"tt{world.titles[index]:07d}\t{both[0]}\t{both[1]}\n")
        yield lines


def title_episode(world):
    for block in world.blocks(len(world.titles)):
        rng = world.random("title.episode", block.start)
        lines = []
        for index in block:
            if world.types[index] != EPISODE:
                continue
            draw = rng.random()
            parent = world.series[int(draw * draw * len(world.series))]
            if rng.random() < world.dangling:
                parent = world.titles[rng.choice(world.missing_titles)]
            place = f"{1 + int(rng.expovariate(0.4))}\t{1 + int(rng.expovariate(0.02))}" if draw < 0.8 else r"\N" "\t" r"\N"
            lines.append(f"tt{world.titles[index]:07d}\ttt{parent:07d}\t{place}\n")
        yield lines


def title_principals(world):
    rng = world.random("title.principals")
    names = list(CATEGORIES)
    drawn = array.array("b", weighted(rng, {names.index(name): weight for name, weight in CATEGORIES.items()}, 1 << 18))
    tails = [[f"\t{name}\t{rest}\n" for rest in itertools.islice(parts(world, rng, name), 1 << 13)] for name in names]
    counts = spread(world, "title.principals", [0, 0, 1, 2, 4, 5, 6, 7, 8, 10, 10, 11, 12, 14, 16, 22])
    people, count_of_people = world.people, len(world.people)
    for block in world.blocks(len(world.titles)):
        rng = world.random("title.principals", block.start)
        bits, draw, lines = rng.getrandbits, rng.random, []
        for index in block:
            head, at = f"tt{world.titles[index]:07d}\t", bits(17)
            for ordering, category in enumerate(sorted(drawn[at : at + counts[index]]), 1):
                place = draw()
                person = people[int(place * place * count_of_people)]
                lines.append(f"{head}{ordering}\tnm{person:07d}{tails[category][bits(13)]}")
        yield lines


def parts(world, rng, category):
    """Endless jobs and characters of a category, as the two last columns."""
    names = world.full_names(rng, 1 << 12)
    while True:
        job = characters = r"\N"
        draw = rng.random()
        if category in ("actor", "actress", "archive_footage", "archive_sound") and draw < 0.9:
            odd = rng.getrandbits(6)
            listed = [rng.choice(names) if odd != 1 else world.foreign_title(rng)]
            if odd < 4:
                listed.append(rng.choice(names))
            elif odd == 4:
                listed = [f'{listed[0]} "The Kid" O\'Neil']
            elif odd == 5:
                listed = [f"{listed[0]} \\ The Other"]
            characters = json.dumps(listed, ensure_ascii=False, separators=(",", ":"))
        elif category == "self":
            role = "" if draw < 0.7 else " - Host" if draw < 0.9 else f" - {world.title(rng)}"
            characters = json.dumps([f"Self{role}"], ensure_ascii=False)
        for share, jobs in JOBS.get(category, ()):
            if draw < share:
                job = rng.choice(jobs).format(title=world.title(rng).strip())
                break
            draw -= share
        yield f"{job}\t{characters}"


def title_ratings(world):
    share = world.rows["title.ratings"] / len(world.titles)
    for block in world.blocks(len(world.titles)):
        rng = world.random("title.ratings", block.start)
        lines = []
        for index in block:
            if rng.random() < share:
                rating = min(10.0, max(1.0, rng.normalvariate(6.9, 1.4)))
                votes = min(3_200_000, int(5 * rng.paretovariate(0.75)))
                lines.append(f"tt{world.titles[index]:07d}\t{rating:.1f}\t{votes}\n")
        yield lines


def spread(world, file, counts):
    """How many rows of a file each title has: drawn from `counts`, and then changed here and there to the rows wanted."""
    rng = world.random("spread", file)
    wanted, titles = world.rows[file], len(world.titles)
    each = array.array("i", rng.choices(counts, k=titles))
    lacking = wanted - sum(each)
    while lacking:
        at, step = int(rng.random() * titles), 1 if lacking > 0 else -1
        if each[at] + step >= 0:
            each[at] += step
            lacking -= step
    return each


# The file, its header, what draws it, and about how its work compares with the others': the longest goes first.
FILES = [
    ("title.principals", "tconst ordering nconst category job characters", title_principals),
    ("title.akas", "titleId ordering title region language types attributes isOriginalTitle", title_akas),
    ("title.basics", "tconst titleType primaryTitle originalTitle isAdult startYear endYear runtimeMinutes genres", title_basics),
    ("name.basics", "nconst primaryName birthYear deathYear primaryProfession knownForTitles", name_basics),
    ("title.crew", "tconst directors writers", title_crew),
    ("title.episode", "tconst parentTconst seasonNumber episodeNumber", title_episode),
    ("title.ratings", "tconst averageRating numVotes", title_ratings),
]


def share_world(shared):
    """Gives a worker, which is forked, what was made before it."""
    global world
    world = shared


def write_file(arguments, name, header, draw):
    """Writes one file under another name and gives it its own when it is whole."""
    path = os.path.join(arguments.out, f"{name}.tsv" if arguments.plain else f"{name}.tsv.gz")
    rng = world.random("duplicates", name)
    rows, doubled = 0, arguments.duplicates
    with open(f"{path}.part", "wb") as raw:
        # Neither a name nor a time in the gzip header, or no two files would be the same.
        sink = raw if arguments.plain else gzip.GzipFile("", "wb", 6, raw, 0)
        sink.write(header.replace(" ", "\t").encode() + b"\n")
        for lines in draw(world):
            # Those that come twice do so at once, as far as is known, and in the first block that has any rows.
            while doubled and lines:
                at = rng.randrange(len(lines))
                lines.insert(at, lines[at])
                doubled -= 1
            rows += len(lines)
            sink.write("".join(lines).encode())
        if sink is not raw:
            sink.close()
    os.replace(f"{path}.part", path)
    return {"file": os.path.basename(path), "rows": rows, "bytes": os.path.getsize(path)}


def within(kind, least, most):
    def parse(text):
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not least <= value <= most:
            raise argparse.ArgumentTypeError(f"is {least} to {most} (got '{text}')")
        return value

    return parse


def parse_arguments():
    parser = argparse.ArgumentParser(description="Makes the seven files of IMDb's data sets, of any size, with nothing of IMDb in them.")
    parser.add_argument("--out", required=True, help="the folder of the files; it is made if it is missing")
    parser.add_argument("--principals", type=within(int, 1, PRINCIPALS_MAX), default=100_000, help="rows of title.principals; the others are in proportion (100000)")
    parser.add_argument("--seed", type=within(int, 0, 2**63), default=1, help="another one gives other files (1)")
    parser.add_argument("--dangling", type=within(float, 0, 0.1), default=0.0002, help="share of titles, and of people, that their own file lacks (0.0002)")
    parser.add_argument("--duplicates", type=within(int, 0, 1000), default=2, help="rows that come twice, in each file (2)")
    parser.add_argument("--plain", action="store_true", help="writes .tsv and not .tsv.gz")
    return parser.parse_args()


def main():
    arguments = parse_arguments()
    try:
        os.makedirs(arguments.out, exist_ok=True)
        forking = multiprocessing.get_context("fork")
        with forking.Pool(min(os.cpu_count(), len(FILES)), share_world, [World(arguments)]) as pool:
            files = pool.starmap(write_file, [(arguments, *file) for file in FILES], chunksize=1)
    except OSError as error:
        sys.exit(f"imdb_data: {error}")
    print(json.dumps({"seed": arguments.seed, "files": files}, separators=(",", ":")))


if __name__ == "__main__":
    main()
