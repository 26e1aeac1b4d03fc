"""The wire types of the API: pydantic models and nothing else, shared by server, client and command line."""
