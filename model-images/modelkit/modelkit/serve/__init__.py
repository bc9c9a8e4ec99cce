"""The serve side, in three parts that know nothing of each other.

`opening` brings a model into memory (`artifacts`, `fetching`, `cache`), `lean` and `protocol` answer bodies
with it, and `app` is the HTTP around that. `__main__` puts them together.
"""
