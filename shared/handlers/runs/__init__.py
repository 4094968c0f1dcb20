"""What MLflow's runs are told: by whom, of which code and data, with which values, and how they end."""
