"""What is logged to MLflow's runs: by whom, of which code and data, with which values, and how they end."""
