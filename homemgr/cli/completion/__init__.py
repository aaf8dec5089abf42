"""Completion of the command line in shells, generated from the tables of verbs and options.

`kinds` knows what may stand where; one module for each shell writes a script of it.
"""
