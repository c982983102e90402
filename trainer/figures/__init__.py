"""Figures from finished runs: what is drawn (values.py), how (draw.py), and the command."""
