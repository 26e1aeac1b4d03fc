"""The data types of the API: only pydantic models, shared by server, client and command line."""
