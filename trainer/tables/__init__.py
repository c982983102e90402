"""Tables in minutes: rows of configurations, runs found by content or trained, statistics, and how they are printed.

definitions -> plan (which runs exist) -> runner (train the others) -> results (mean, deviation, tests) -> render
"""
