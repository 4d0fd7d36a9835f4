"""What is shown: context, retrieval, blend, rules, preferences, explanation, answer.

The API and the command line live here. This package and ``training`` never import each other; the
one exception is :mod:`recsvc.cli`, the composition root of the command line.
"""
