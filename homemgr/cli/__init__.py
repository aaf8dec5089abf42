"""The command line: verbs, options, prompts, tables, error wording."""
