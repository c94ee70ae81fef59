"""The dashboard: shows and does what the commands do, through the same functions, on pages for a browser."""
