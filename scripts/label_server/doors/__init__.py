"""Protection of the server: which requests are accepted, how large they may be, and what error messages may reveal."""
