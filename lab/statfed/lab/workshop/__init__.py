"""A workshop on synthetic data, after the challenge of the HLG-MOS: a folder with a task, files by teams, and marks.

    write("labour-survey", Path("workshop"), seed=1)
    score(Path("workshop/team.parquet"), read(Path("workshop"))).document()

The original is made by a generator too: so it can be given to anybody, and nobody's records are in it.
"""
