"""Runs, versions and aliases."""
