"""Options that several commands take, each with one name and one meaning."""
