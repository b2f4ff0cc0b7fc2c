"""Where the noise of a private query is added, what that needs of the protection, and against whom it then holds.

- *local*: each holder adds the full noise to its own contribution. Holds against everybody, the coordinator included,
  under every protection; the variance of a total is as many times that of one holder as there are holders.
- *central*: holders contribute exactly, the coordinator adds the noise to the total before anything else is done with
  it. Holds against everybody but the coordinator, which is trusted with what the protection shows it: the exact total,
  or under a protection that reveals contributions each of them.
- *shared*: each holder adds a share of the noise, and a protection that shows sums only hides the shares. With shares
  of variance sigma^2 / m, m = fewest holders of a sum - colluders, the holders that do not collude add at least sigma
  among them, whoever drops out: a sum over fewer holders is never formed (`Agreement.minimum_holders`), and what
  further holders add on top is post-processing. Holds against everybody who knows at most `colluders` holders' noise,
  the coordinator among them; so that the protection still hides the shares from those (`withstood`).

The event that every holder is charged is the same in all three: see `statfed.core.privacy.noise`. Rules that look at
exact contributions (central noise) tell by a refusal that they failed; the guarantee is among data that pass them.
"""

from statfed.core.errors import UsageError
from statfed.core.protection import minimum_holders, read_protection
from statfed.core.terms import Privacy, Terms


def hindrances(terms: Terms) -> list[tuple[str, str]]:
    """What stands against the placement of a query's noise, each with the nearest choice that is allowed."""
    privacy = terms.privacy
    if privacy is None or privacy.noise != "shared":
        return []
    module, _ = read_protection(terms)
    name, requires = terms.protection.name, module.REQUIRES
    found = []
    if requires.reveals_updates or not requires.fixed_point:
        shows = "shows each holder's contribution" if requires.reveals_updates else "does not add whole numbers exactly"
        found.append(
            (
                f"privacy.noise: got shared under {name}, which {shows}: with its share of the noise alone none is "
                "protected",
                "a protection that shows exact sums only, such as secure-aggregation, or local noise, or central noise "
                "where the coordinator is trusted",
            )
        )
    fewest, most = minimum_holders(terms, requires), withstood(terms)
    if fewest > privacy.colluders > most:
        found.append(
            (
                f"privacy.colluders: got {privacy.colluders}; with so many of {len(terms.holders)} holders a "
                f"coordinator that needs {fewest} for a sum could see through {name} to a single share",
                f"at most {most}, or a sum over every holder",
            )
        )
    if privacy.colluders >= fewest:
        found.append(
            (
                f"privacy.colluders: got {privacy.colluders} where a sum is formed over {fewest} holders or more: "
                "nobody would be left to add noise",
                f"at most {fewest - 1}" if fewest > 1 else "more holders, or local noise",
            )
        )
    return found


def withstood(terms: Terms) -> int:
    """Most holders that may collude with the coordinator before a protection that hides contributions shows one.

    Where every holder is in every sum, all others: what is left is one contribution, with its noise. Where some may be
    missing, those that cannot help to form two different totals (two sets of `minimum_holders` have more holders than
    that in common), and no more than the protection is set up for: its option `colluders`, else under a third. Never
    more than it says of itself in `Requirements.colluders`.
    """
    module, options = read_protection(terms)
    count, fewest = len(terms.holders), minimum_holders(terms, module.REQUIRES)
    limit = count - 1 if module.REQUIRES.colluders is None else min(count - 1, module.REQUIRES.colluders)
    if fewest == count:
        return limit
    sized: int | None = getattr(options, "colluders", None)
    return max(0, min(limit, (count - 1) // 3 if sized is None else sized, 2 * fewest - count - 1))


def shares(terms: Terms) -> int:
    """How many holders' noise the privacy of one sum rests on: m of shared noise, else 1.

    Raises UsageError with everything that stands against shared noise: both ends ask here before they plan any.
    """
    found = hindrances(terms)
    if found:
        raise UsageError("\n".join("; want ".join(each) for each in found))
    if terms.privacy is None or terms.privacy.noise != "shared":
        return 1
    return minimum_holders(terms, read_protection(terms)[0].REQUIRES) - terms.privacy.colluders


def note(privacy: Privacy) -> str | None:
    """What a result has to say of its own epsilon: against whom it does not hold; None where it holds against all."""
    match privacy.noise:
        case "central":
            return (
                "the coordinator added the noise: epsilon holds against everybody but the coordinator, and among data "
                "that pass the holders' disclosure rules"
            )
        case "shared":
            most = f"the noise of at most {privacy.colluders} of them" if privacy.colluders else "no holder's noise"
            return f"the holders shared the noise: epsilon holds against all who together know {most}"
    return None


def in_words(privacy: Privacy, *, to_coordinator: bool = False) -> str:
    """What protects a sum, for *who learns what*. to_coordinator: for what the coordinator itself gets to see.

    >>> in_words(Privacy(epsilon=1))
    'noise at the holder: epsilon 1 per record over all sums'
    """
    cost = f"epsilon {privacy.epsilon:g} per {privacy.unit} over all sums"
    match privacy.noise:
        case "local":
            return f"noise at the holder: {cost}"
        case "central" if to_coordinator:
            return "trust alone: it adds the noise; before that each holder's disclosure rules, as far as set"
        case "central":
            return f"noise added by the coordinator: {cost}"
        case "shared":
            known = f"the noise of at most {privacy.colluders}" if privacy.colluders else "the noise of none"
            return f"noise shared by the holders: {cost}, against whoever knows {known} of them"
