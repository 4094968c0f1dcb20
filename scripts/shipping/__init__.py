"""Small trained heads that lie in the repository, each with its model card."""
