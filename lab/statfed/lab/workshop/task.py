"""The words of a kit: the task for teams, and what the judge has to mind. Uses, methods and limits are the guide's."""

from typing import TYPE_CHECKING

from statfed.core.synthesis import load_synthesis
from statfed.core.synthetic.guide import Method, guide

if TYPE_CHECKING:
    from statfed.lab.workshop.contract import Kit
    from statfed.lab.workshop.folder import Manifest


LEVELS_ALONE = ("margins",)
"""Methods whose records have the columns with levels alone: no whole file of a kit."""


def first_commands(method: str, records: int, data: str = "original.parquet", book: str = "codebook.toml") -> list[str]:
    """Fit and sample, as they are typed."""
    private = load_synthesis(method).PRIVATE == "always"
    epsilon = " --epsilon 1" if private else ""
    return [
        f"statfed synth fit {data} --codebook {book} --method {method}{epsilon} -o {method}.json",
        f"statfed synth sample {method}.json -n {records} -o {method}.parquet",
    ]


def task_text(kit: "Kit", manifest: "Manifest", *, judge_inside: bool) -> str:
    """task.md: the story, the use, what is judged, limits, rules of conduct, first commands."""
    known = guide()
    use = known.use(manifest.use)
    methods = {one.id: one for one in known.methods}
    suited = [methods[name] for name in use.methods if methods[name].built]
    whole = [one.id for one in suited if one.id not in LEVELS_ALONE][:2]
    file = f"{whole[-1]}.parquet"
    lines = [
        f"# {kit.TITLE}",
        "",
        "**Nobody's records are in this folder.** The original is made by a generator of random numbers, so it can be "
        "given to anybody. Treat it as if it were real: that is what is practised.",
        "",
        "## The story",
        "",
        kit.STORY,
        "",
        "## The task",
        "",
        f"Make synthetic records of `original.parquet` ({manifest.records:,} records, `codebook.toml`) for one use: "
        f"**{use.title.lower()}**. {use.what}. It needs {use.needs}. Risk: {use.risk}.",
        "",
        f"Hand in one file, named after your team, .parquet or .csv: every column of the codebook, its codes, "
        f"{manifest.least:,} to {manifest.most:,} records.",
        "",
        "## What is judged",
        "",
        "1. *Validity.* Columns, codes, types and bounds have to be right, or the file is not judged. Records that "
        "break a rule of the codebook are counted, and take their share of the mark for utility.",
        "2. *Utility*, 0 to 100: 0 is columns that are right by themselves and have no relation, 100 is another sample "
        "of the same population. The mean over measures.",
        "3. *Risk*, 0 to 100: 0 is what the file tells of strangers too, 100 is the original itself handed in. The "
        "worst of all attacks counts.",
        "4. *Reasons.* Say what you did, for whom it is, and what can go wrong.",
        "",
        f"An attacker knows {_list(manifest.keys)} and would like to know {_list(manifest.secrets)}. A model is "
        f"trained for {manifest.target}. Among the original are rare records ({kit.RARE}); the judge knows which, and "
        "has others like them.",
        "",
        "Limits of this use are conventions, with reasons. A file that breaks one of risk stands below every file that "
        "breaks none. A mark is no clearance, and neither is a limit that is kept.",
        "",
        "| measure | limit | reason |",
        "| --- | --- | --- |",
        *(f"| {known.measure(one.measure).title} | {one} | {one.reason} |" for one in use.limits),
        "",
        "## Rules of conduct",
        "",
        "- The original stays on your machine. What you hand in was made, not copied: records of the original in it "
        "are counted, and a file that is mostly original is told by name.",
        "- Nobody looks for the judge's part, nor tries seeds to make it again. What would you do with real persons?",
        "- Try to attack each other's files, with what the rules of the workshop let you know. Tell the team first.",
        "- A differentially private file says its epsilon and its unit.",
        "",
        "## First commands",
        "",
        "```",
        f"statfed synth guide --use {use.id}",
        *(line for name in whole for line in first_commands(name, manifest.records)),
        f"statfed codebook check codebook.toml {file}",
        f"statfed synth evaluate {file} --original original.parquet --codebook codebook.toml --use {use.id} "
        f"--keys {','.join(manifest.keys)} --secrets {','.join(manifest.secrets)}",
        "```",
        "",
        "Without fresh records your own evaluation has no control: the judge has them. Keep some of the original apart "
        "before you fit, and give them as `--fresh`.",
        "",
        "Methods that the guide names for this use, the first one first (`margins` has columns with levels alone, and "
        "is no whole file by itself):",
        "",
        *(_method(one) for one in suited),
        "",
        known.challenge,
        "",
    ]
    if judge_inside:
        lines += ["For whoever runs the workshop: give teams this folder without `judge/`.", ""]
    return "\n".join(lines)


def judge_text(kit: "Kit", manifest: "Manifest") -> str:
    """README.md of the judge's part."""
    return f"""\
# The judge's part: not for teams

Give teams the kit without this folder. What is here:

- `fresh.parquet`: {2 * manifest.records:,} records of the same population, of which the original has none
- `members.parquet`: rare records that are in the original ({kit.RARE})
- `others.parquet`: rare records like them that are not
- `judge.toml`: the seed of the whole kit. Whoever has it can make all this again, and whoever can guess it too: for a
  contest take the seed that `workshop new` draws, not one like 1.

Score with your own copy of the kit, whose hashes are checked, and with each team's file under the team's name:

```
statfed workshop score FOLDER/team.parquet --kit FOLDER -o team.html
statfed workshop table FOLDER
```

`--judge FOLDER2` says where this part is, if it is not in the kit. A score is deterministic: the same file, kit and use
give the same marks. They are evidence by some measures, and no clearance.
"""


def _method(one: Method) -> str:
    return f"- `{one.id}`: {one.idea}. When: {one.when}. When not: {one.when_not}."


def _list(names: tuple[str, ...]) -> str:
    return ", ".join(names)
