"""The work: commands record intent, a reconciler carries it out."""
