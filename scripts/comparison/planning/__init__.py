"""How each method is trained on the data: its bundle's settings, and the labels it learns from and chooses by."""
