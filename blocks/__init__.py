"""What Prefect stores of a tenant: settings, endpoint credentials, and where keys are."""
