"""The serve side, in three parts that know nothing of each other.

`loading` brings a model into memory, `protocol` turns a request's bytes into an answer's bytes with it, and
`app` is the HTTP around that. `__main__` puts them together.
"""
