"""Finished maps compared with truth and tissue: one scorer that counts pixels, and what is reported of the counts."""
