"""Questions of a card that stand under every protection here: what the holders' policies, ledgers and rules do."""

from statfed.core.card import Question

EVERYWHERE = (
    Question(
        "roles",
        "Which organisation is data holder, coordinator and result party, and who acts for it?",
        "the list of parties, each with its role and a named contact",
        "the coordinator sends ids and public parameters, never code; a holder computes with its own installed package "
        "and refuses what its policy does not list",
    ),
    Question(
        "legal basis",
        "On what basis may each holder compute on its microdata for this purpose?",
        "the act, regulation, contract or consent, with the paragraph on further use and on confidentiality",
        "microdata are read on the holder's own machine; what leaves it is listed under who learns what",
    ),
    Question(
        "impact assessment",
        "Does the law of each party ask for an impact assessment here, and who carries it out with whose advice?",
        "the decision with its reasons, the assessment, the advice of the data protection officer",
        "a run's annex states what was done and who learned what; how likely and how severe a harm is, is for the "
        "parties to judge",
    ),
    Question(
        "impact assessment",
        "What could those who see the results infer about one person or enterprise, and who has weighed that?",
        "the run's disclosure record and privacy accounting, and an intruder test where one was done",
        "a protection hides contributions, not what follows from the result: for that there are rules of disclosure "
        "control or noise, each as far as the study and the policies switch it on",
    ),
    Question(
        "safe projects",
        "Which analyses, columns and purposes have the parties agreed to, and who decides on another one?",
        "the approval of the project, and each holder's policy.toml (allow.analyses, allow.scenarios, allow.columns)",
        "the software compares a study with the policy; it does not know its purpose",
    ),
    Question(
        "safe people",
        "Who may start a study, use a party's keys and read results before their release, and how were they trained?",
        "the list of persons, their training and their undertakings of confidentiality",
        "parties are told apart by keys of organisations and machines, not of persons: who may use a key is for its "
        "organisation to control",
    ),
    Question(
        "safe data",
        "Is each column that is read needed for the purpose, and what about its values points to persons or "
        "enterprises?",
        "the codebook, and the reason for each column",
        "columns that the codebook does not list do not exist for a query; each holder's data are checked against it "
        "before anything is computed",
    ),
    Question(
        "safe outputs",
        "Which rules of disclosure control or which epsilon apply to the release, who chose them and who signs it?",
        "the decision on thresholds or epsilon, and the run's disclosure record",
        "a holder's rules look at what leaves it exactly, the release's rules at an exact pooled result; a result with "
        "noise is not treated by the latter",
    ),
    Question(
        "auditability",
        "Who verifies the ledgers, how often, and where are their heads kept outside the holders?",
        "output of `statfed ledger verify --anchor HASH`, with the place where heads are kept",
        "a ledger is append-only and hash-chained; a cut-off tail shows only against a head kept elsewhere; each entry "
        "names the digest of its study, and packets, keys and shares are not logged",
    ),
    Question(
        "revocation",
        "What happens to results when a holder leaves or a person objects?",
        "a procedure, and the ledger entries of the runs that used the records",
        "a holder ends its part by a change of its policy; what was released, or is in a trained model, cannot be "
        "called back, and what was charged to a ledger stays charged",
    ),
)

DIFFERENCES = Question(
    "safe outputs",
    "Over which sets of holders may exact sums be formed, so that no two of them differ by one holder?",
    "minimum.holders of each policy, and the list of runs with the holders in each sum",
    "two exact sums of the same thing over sets that differ by one holder show its contribution, whatever hides each "
    "sum; nothing here counts such pairs, and noise bounds what any number of sums tells",
)
HONEST_VALUES = Question(
    "trust",
    "Are all holders trusted to send what their data say, and what would show that one did not?",
    "contracts, audits of the holders' software, plausibility checks of the totals",
    "what hides contributions hides wrong ones: of wrong values only a total outside the agreed range is noticed",
)
PINS = (
    Question(
        "key custody",
        "Who keeps each party's identity.key, how were the public keys compared, and what is done when one is stolen?",
        "a record of the comparison outside this system, pins in policy.toml and party.toml, a procedure of renewal",
        "one Ed25519 key a party, in a file of mode 0600; a thief can stand in for the party in later runs until the "
        "others replace the pin, and opens no earlier run; what masks, seals and encrypts is made anew for each run",
    ),
    Question(
        "revocation",
        "How, and by when, is the pin of a party that leaves removed at all the others?",
        "the procedure, with a date for each party",
        "each party keeps its own pins: there is no central list of revoked keys",
    ),
)
REVIEW = "no review by an outside party is on record here"
