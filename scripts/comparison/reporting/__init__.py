"""What a comparison writes for readers and programs: the page, the tables and their parts."""
