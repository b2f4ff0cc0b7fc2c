"""Generated answers to the question "What is your main job?", with the occupation that a trained coder gave them.

Codes and titles are those of the International Standard Classification of Occupations (ISCO-08, ILO 2012), 20 of its
436 unit groups. The words are this file's own: what people answer for each group, the words that several groups share,
where people work and what they do there. An answer is built as a survey gets it: a title, with or without a place or a
task; a task alone; or a word so vague that several groups fit. Then it is abbreviated and mistyped.

Offices differ in which of several words for the same job their respondents use (each has a favourite or two), in how
carefully answers were typed, and in the mix of occupations.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SAMPLES = 64
"""Characters that are kept of an answer."""


@dataclass(frozen=True)
class Group:
    """A unit group. share: of employed persons, in relative terms; rare groups are those below 1."""

    code: str
    title: str
    share: float
    jobs: tuple[str, ...]
    places: tuple[str, ...]
    tasks: tuple[str, ...]
    vague: tuple[str, ...]


def _group(code: str, title: str, share: float, jobs: str, places: str, tasks: str, vague: str) -> Group:
    lists = (tuple(part.strip() for part in text.split(",")) for text in (jobs, places, tasks, vague))
    return Group(code, title, share, *lists)


GROUPS = (
    _group(
        "1420", "Retail and wholesale trade managers", 6,
        "shop manager, store manager, retail manager, branch manager, supermarket manager, shopkeeper manager",
        "clothing shop, supermarket, retail chain, wholesale depot, furniture store",
        "run a shop, manage store staff and stock, in charge of a supermarket, responsible for sales targets of the "
        "shop",
        "manager, retail, shop, sales",
    ),
    _group(
        "2165", "Cartographers and surveyors", 0.7,
        "land surveyor, cartographer, hydrographic surveyor, geomatics surveyor, map maker, mine surveyor",
        "cadastral office, survey firm, mapping agency, construction site",
        "measuring land boundaries, making maps from aerial photos, survey of building plots",
        "surveyor, technician",
    ),
    _group(
        "2221", "Nursing professionals", 9,
        "registered nurse, staff nurse, nurse specialist, theatre nurse, sister in charge, clinical nurse, charge "
        "nurse",
        "hospital, intensive care, surgical ward, clinic, district health centre",
        "plan nursing care of patients, nursing in intensive care, lead the nurses of a ward",
        "nurse, nursing, hospital, care",
    ),
    _group(
        "2250", "Veterinarians", 0.6,
        "veterinarian, veterinary surgeon, vet, animal surgeon, livestock veterinarian",
        "animal clinic, farm practice, zoo, meat inspection",
        "treating sick animals, operating on dogs and cats, examining cattle",
        "animals, doctor",
    ),
    _group(
        "2330", "Secondary education teachers", 7,
        "secondary school teacher, high school teacher, maths teacher, science teacher, history teacher, grammar "
        "school master, english teacher",
        "secondary school, high school, comprehensive, lyceum",
        "teach physics to teenagers, teaching languages to final year pupils, prepare pupils for leaving exams",
        "teacher, teaching, school, education",
    ),
    _group(
        "2341", "Primary school teachers", 8,
        "primary school teacher, elementary teacher, class teacher, infant school teacher, first grade teacher",
        "primary school, elementary school, village school",
        "teach children to read and write, teaching all subjects in second grade, class of eight year olds",
        "teacher, teaching, school, education",
    ),
    _group(
        "2411", "Accountants", 6,
        "accountant, chartered accountant, auditor, tax accountant, certified public accountant, management accountant",
        "audit firm, accountancy practice, finance department, tax office",
        "audit company accounts, prepare annual financial statements, advise on tax",
        "accounts, accounting, finance, office",
    ),
    _group(
        "2512", "Software developers", 6,
        "software developer, software engineer, programmer, systems developer, software designer, backend developer",
        "software company, bank, it department, start up",
        "develop software, design and write computer systems, specify and build new applications",
        "it, computers, developer, engineer",
    ),
    _group(
        "3221", "Nursing associate professionals", 5,
        "enrolled nurse, practical nurse, assistant nurse, nursing associate, licensed practical nurse, second level "
        "nurse",
        "hospital, ward, clinic, nursing home",
        "nursing under supervision, give medication as the registered nurse says, dress wounds on the ward",
        "nurse, nursing, hospital, care",
    ),
    _group(
        "3240", "Veterinary technicians and assistants", 0.8,
        "veterinary nurse, veterinary assistant, vet technician, animal nurse, artificial inseminator",
        "animal clinic, veterinary practice, pet hospital, farm practice",
        "help the vet at operations, caring for sick animals, prepare animals for surgery",
        "animals, assistant, nurse, technician",
    ),
    _group(
        "4120", "Secretaries (general)", 6,
        "secretary, typist, office secretary, clerical secretary, word processing secretary, department secretary",
        "law firm, office, university department, doctors surgery, town hall",
        "type letters and keep the diary, answer telephone and file papers, minutes and correspondence",
        "office, clerk, administration, assistant",
    ),
    _group(
        "4311", "Accounting and bookkeeping clerks", 6,
        "bookkeeper, accounts clerk, bookkeeping clerk, invoice clerk, ledger clerk, accounts payable clerk",
        "finance department, accounts office, trading company, accountancy practice",
        "enter invoices, keep the books, reconcile ledger and payments, post invoices to accounts",
        "accounts, accounting, finance, office, clerk",
    ),
    _group(
        "5120", "Cooks", 7,
        "cook, line cook, restaurant cook, canteen cook, kitchen cook, head cook, ship cook",
        "restaurant, hotel, school canteen, hospital, pub",
        "cook meals, prepare and season dishes, plan menus and cook",
        "kitchen, restaurant, catering, hotel",
    ),
    _group(
        "5223", "Shop sales assistants", 14,
        "shop assistant, sales assistant, salesperson, sales clerk, counter assistant, shop worker, retail assistant",
        "clothing shop, supermarket, bakery, department store, shoe shop, furniture store",
        "serve customers, sell shoes, advise customers and stack shelves, selling in a bakery",
        "sales, shop, retail, assistant, supermarket",
    ),
    _group(
        "5230", "Cashiers and ticket clerks", 6,
        "cashier, checkout operator, till operator, ticket clerk, box office clerk, checkout assistant, teller in shop",
        "supermarket, petrol station, cinema, railway station, department store",
        "take payments at the till, sell tickets, work at the checkout",
        "supermarket, shop, clerk, retail, assistant",
    ),
    _group(
        "5312", "Teachers' aides", 5,
        "teaching assistant, teachers aide, classroom assistant, school aide, learning support assistant, preschool "
        "aide",
        "primary school, kindergarten, special school, village school",
        "help the teacher in class, support children with special needs, look after children at school",
        "school, assistant, education, teaching",
    ),
    _group(
        "5321", "Health care assistants", 9,
        "health care assistant, nursing aide, nursing assistant, hospital orderly, care assistant, ward helper",
        "nursing home, hospital, ward, residential home, hospice",
        "wash and feed residents, help patients to move, change beds on the ward",
        "care, hospital, assistant, nursing",
    ),
    _group(
        "7411", "Building and related electricians", 7,
        "electrician, building electrician, electrical fitter, wireman, electrical repairer, installation electrician",
        "building site, construction firm, electrical contractor, housing company",
        "wire new houses, install lighting and sockets, repair electrical wiring in buildings",
        "electrical, construction, fitter, technician",
    ),
    _group(
        "8311", "Locomotive engine drivers", 0.6,
        "train driver, locomotive driver, engine driver, railway driver, underground driver, motorman",
        "railway, freight trains, metro, mine railway",
        "drive passenger trains, driving freight trains, operate a shunting locomotive",
        "driver, transport, railway",
    ),
    _group(
        "8332", "Heavy truck and lorry drivers", 10,
        "lorry driver, truck driver, hgv driver, tanker driver, articulated lorry driver, cement mixer driver, trucker",
        "haulage firm, freight company, building materials, long distance, dairy",
        "drive a lorry abroad, deliver goods by truck, transport containers",
        "driver, transport, delivery, driving",
    ),
)  # fmt: skip
CLASSES = tuple(f"{group.code} {group.title}" for group in GROUPS)
SHARES = np.array([group.share for group in GROUPS]) / sum(group.share for group in GROUPS)
"""Of each group among employed persons, of all offices together."""
RARE = tuple(index for index, group in enumerate(GROUPS) if group.share < 1)
"""Groups that too few records are of to learn them well at one office."""

FORMS = (0.36, 0.27, 0.12, 0.25)
"""How often an answer is a title, a title with a place, a task, and a vague word with or without a place."""
MISCODED = 0.05
"""Share of records whose code is another group's that shares a vague word: coders disagree."""
_SHORT = {
    "assistant": ("asst", "assist", "ass."),
    "manager": ("mgr", "man."),
    "teacher": ("tchr", "teach."),
    "registered": ("reg.",),
    "veterinary": ("vet.",),
    "secondary": ("sec.",),
    "primary": ("prim",),
    "school": ("sch", "schl"),
    "hospital": ("hosp", "hosp."),
    "accountant": ("acct", "acc"),
    "accounts": ("accts", "a/c"),
    "department": ("dept",),
    "electrical": ("elec", "elect."),
    "electrician": ("elec", "sparky"),
    "software": ("sw", "s/w"),
    "developer": ("dev",),
    "engineer": ("eng", "engr"),
    "supermarket": ("supermkt", "smkt"),
    "driver": ("drvr", "dr"),
    "nurse": ("rn", "nrs"),
    "secretary": ("secy", "sec"),
    "practical": ("pract",),
}
_BESIDE = {
    "q": "wa", "w": "es", "e": "wrd", "r": "etf", "t": "ryg", "y": "tuh", "u": "yij", "i": "uok", "o": "ipl", "p": "ol",
    "a": "qs", "s": "adw", "d": "sfe", "f": "dgr", "g": "fht", "h": "gjy", "j": "hku", "k": "jli", "l": "ko",
    "z": "xs", "x": "zcs", "c": "xvd", "v": "cbf", "b": "vng", "n": "bhm", "m": "nj",
}  # fmt: skip
"""The letters beside each on a keyboard."""


@dataclass(frozen=True)
class Speech:
    """How one office's respondents answer. favourites: probability of each of a group's titles; typos: a letter;
    short: share of words with an abbreviation that are abbreviated; shouted: share of answers in capitals."""

    favourites: tuple[NDArray[np.float64], ...]
    typos: float
    short: float
    shouted: float


def speech(random: np.random.Generator) -> Speech:
    """Draw one office's way of answering."""
    favourites = tuple(random.dirichlet(np.full(len(group.jobs), 0.6)) for group in GROUPS)
    return Speech(favourites, random.uniform(0.01, 0.06), random.uniform(0.05, 0.35), random.uniform(0.0, 0.5))


def answers(labels: Sequence[int] | NDArray[np.int64], spoken: Speech, random: np.random.Generator) -> list[str]:
    """An answer for each true group."""
    return [_worn(_said(GROUPS[label], spoken.favourites[label], random), spoken, random) for label in labels]


def coded(labels: NDArray[np.int64], random: np.random.Generator, rate: float = MISCODED) -> NDArray[np.int64]:
    """What coders made of the true groups: a share `rate` is moved to a group that shares most of its vague words.

    A group that shares none is never mistaken.
    """
    out = labels.copy()
    for row in np.flatnonzero(random.random(len(labels)) < rate):
        out[row] = random.choice(_MISTAKEN[int(labels[row])])
    return out


def _near(group: Group) -> list[int]:
    shared = [len(set(group.vague) & set(other.vague)) if other is not group else 0 for other in GROUPS]
    most = max(shared)
    return [index for index, count in enumerate(shared) if (count == most if most else GROUPS[index] is group)]


_MISTAKEN = [_near(group) for group in GROUPS]


def _said(group: Group, favourites: NDArray[np.float64], random: np.random.Generator) -> str:
    def one(words: Sequence[str]) -> str:
        return words[int(random.integers(len(words)))]

    form = random.choice(4, p=FORMS)
    if form == 2:
        return one(group.tasks)
    if form == 3:
        parts = [one(group.vague), one(group.places) if random.random() < 0.5 else ""]
    else:
        parts = [group.jobs[random.choice(len(group.jobs), p=favourites)], one(group.places) if form == 1 else ""]
    return one((" ", " ", ", ", " in ")).join(part for part in parts if part)


def _worn(text: str, spoken: Speech, random: np.random.Generator) -> str:
    """Abbreviated, mistyped, cut to SAMPLES characters."""
    words = text.split(" ")
    for place, word in enumerate(words):
        if word in _SHORT and random.random() < spoken.short:
            words[place] = str(random.choice(_SHORT[word]))
    letters = list(" ".join(words))
    wrong = np.flatnonzero(random.random(len(letters)) < spoken.typos)
    for place in sorted(wrong.tolist(), reverse=True):
        kind = random.integers(4)
        if kind == 0:
            del letters[place]
        elif kind == 1:
            letters.insert(place, letters[place])
        elif kind == 2:
            letters[place : place + 2] = letters[place : place + 2][::-1]
        else:
            letters[place] = str(random.choice(list(_BESIDE.get(letters[place], " "))))
    worn = "".join(letters)[:SAMPLES]
    return worn.upper() if random.random() < spoken.shouted else worn


def codes(texts: Sequence[str]) -> NDArray[np.float32]:
    """Texts as Latin-1 codes with blanks at the end, (texts, 1, SAMPLES); longer ones are cut.

    Raises ValueError on a character that Latin-1 has not.
    """
    raw = b"".join(text[:SAMPLES].ljust(SAMPLES).encode("latin-1") for text in texts)
    return np.frombuffer(raw, np.uint8).astype(np.float32).reshape(len(texts), 1, SAMPLES)


def texts(windows: NDArray[np.float32]) -> list[str]:
    """What `codes` was made of."""
    raw = windows.astype(np.uint8)
    return [bytes(row.ravel()).decode("latin-1").rstrip() for row in raw]
