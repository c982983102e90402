"""`pgm doctor`: is this machine ready, and if not, what to do. `report.examine` gives the checks; it loads torch."""

from .check import Check as Check
