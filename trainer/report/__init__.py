"""One self-contained page about a dataset's runs: what it shows (content.py), the page (page.html.j2), the command."""
