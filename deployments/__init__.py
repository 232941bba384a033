"""When and where flows run: the local server, its pools, and the deployments of tenants."""
