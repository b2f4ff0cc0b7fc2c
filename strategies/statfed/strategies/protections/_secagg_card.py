"""What `secure-aggregation` asks of an organisation: no third party, but keys to compare and holders to count."""

from statfed.core.card import Question, by_topic
from statfed.strategies.protections._cards import DIFFERENCES, EVERYWHERE, HONEST_VALUES, PINS, REVIEW

CARD = by_topic(
    *EVERYWHERE,
    *PINS,
    HONEST_VALUES,
    DIFFERENCES,
    Question(
        "trust",
        "How many holders might collude with the coordinator, and is that within what the run withstands?",
        "ownership and administration of each holder, and the rows 'coordinator with ...' of who learns what",
        "where every holder is needed, all but two may collude; where dropouts are survived, at least any number below "
        "a third, unless option colluders says another; the coordinator itself may do anything",
    ),
    Question(
        "impact assessment",
        "How do the parties class a masked contribution in the hands of the coordinator?",
        "the assessment of each party, with docs/secure-aggregation.md (what it holds and does not hold against)",
        "each mask is a keystream that occurs in one sum; the coordinator gets the sum over the agreed number of "
        "holders and nothing of any one, within the assumptions on collusion",
    ),
    Question(
        "joint control",
        "Who sets the fewest holders of a sum and the number of colluders, and who answers for that choice?",
        "the study file, and minimum.holders of each policy",
        "the coordinator writes the study; a holder refuses a study that sets colluders unless its policy lists "
        "secure-aggregation:colluders, and answers no sum over fewer holders than its policy says",
    ),
    Question(
        "transfers",
        "Do masked contributions cross a border, and how do the authorities concerned class them?",
        "the places of holders, coordinator and its hosting, and the opinions obtained",
        "masked words, public keys and sealed shares travel through the coordinator; recorded uploads rest on X25519, "
        "which a large quantum computer would open",
    ),
    Question(
        "safe settings",
        "On which machines do holders' secrets lie while a run lasts, and who can read their memory?",
        "a description of each holder's environment",
        "secrets of a run are held in memory, deleted when their sum is over and not overwritten; a holder that "
        "restarts has no keys and drops out",
    ),
    Question(
        "skills",
        "Who can compare and pin keys, read who learns what, and act when a sum fails for want of holders?",
        "names, and a rehearsal in which one holder is stopped",
        "nobody needs to choose cryptographic parameters: they follow from the number of holders",
    ),
    Question(
        "maturity",
        "What evidence do the parties want that the protocol and its code hold?",
        "the specification, its vectors, the tests of attacks, a review by cryptographers",
        "own implementation after Bonawitz et al. 2017 and Bell et al. 2020, with signed keys and survivors, specified "
        f"in docs/secure-aggregation.md; {REVIEW}",
    ),
    Question(
        "recurring cost",
        "What does each repetition take in staff and machine time, and who pays?",
        "times and bytes of this run, and an estimate of staff days",
        "tens of times the processor time of a plain sum; one exchange a sum where every holder is needed, three where "
        "dropouts are survived; there is no third party to run or pay",
    ),
    Question(
        "auditability",
        "How can an auditor see that each sum was over enough holders?",
        "the study's digest in every ledger, and minimum.holders of the policies at that time",
        "each holder checks it before it masks or reveals anything; the signed lists themselves are not kept",
    ),
)
