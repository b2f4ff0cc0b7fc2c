"""Models, one a file. What a file defines:

    prepare(windows, form) -> inputs     the fixed front end: (records, channels, samples) to what the model acts on
    build(form, hidden, seed) -> Module  acts on prepared inputs, gives (records, form.outputs), unnormalised
    front_end(form) -> Module            `prepare` as a module without parameters
    check(form) -> None                  may be left out: raises UsageError on a form that the model is not made for

`form` is the public `WindowCodebook` of a study: channels, samples and, unless a number is predicted, classes. A
record's prepared inputs depend on that record and on public constants alone, to the last bit: sensitivity is proved
from it. Weights follow from `seed` alone, and layers are ones that per-record gradients exist for; none mixes records.
A model of one output predicts a number on a scale of -1 to 1. hidden 1 means no hidden layer, where the model has one.
"""
