"""Pure rules and words of the house: no I/O, no clock, no client library."""
