"""The embedded stack: PostgreSQL, Redis, an S3 endpoint and Carina's processes on one machine, in one data folder."""
