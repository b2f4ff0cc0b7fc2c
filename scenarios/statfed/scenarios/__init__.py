"""Reference scenarios, one a module, and the public data that they can use."""

from statfed.scenarios._data import datasets as datasets
