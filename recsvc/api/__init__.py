"""The HTTP door: thin routes, one file for each resource."""
